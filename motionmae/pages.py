"""Help pages: the commands, the choices of one with what each is, the options that people change, and all of them.

Its one rule: 80 columns are enough, and what must be given says so.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from motionmae import config as c
from motionmae.options import Option, negative, options
from motionmae.presets import ABOUT, COMMANDS

NEEDED: dict[type, tuple[str, ...]] = {
    c.Pretrain: ("data.path",),
    c.Planned: (),
    c.BenchPretrain: (),
    c.BenchRun: (),
    c.BenchData: ("data.path",),
    c.Finetune: ("data.path", "init"),
    c.Probe: ("MODEL", "data.path"),
    c.Evaluate: ("MODEL", "data.path"),
    c.Predict: ("MODEL", "VIDEOS"),
    c.Embed: ("MODEL", "VIDEOS", "out"),
    c.BenchEmbed: ("MODEL", "VIDEOS"),
    c.Search: ("FEATURES",),
    c.Map: ("FEATURES",),
    c.Scan: ("FOLDER",),
    c.Prepare: ("SOURCE",),
    c.Motions: ("SOURCES",),
    c.Reconstruct: ("MODEL", "VIDEO", "out"),
    c.Report: ("RUNS",),
    c.Export: ("MODEL", "out"),
    c.SegmentDavis: ("MODEL", "data.path"),
    c.SegmentVideo: ("VIDEO",),
    c.SegmentScore: ("PREDICTIONS", "data.path"),
}
"""What a command cannot do without; a class that is not here takes its base's."""

TRAINING = {
    "learning": ("optim.steps", "optim.batch", "optim.lr"),
    "the run": ("run.out", "run.device", "data.workers"),
}
SHORT: dict[type, dict[str, tuple[str, ...]]] = {
    c.Pretrain: {
        "videos": ("data.path", "data.stride", "init"),
        "what is learnt": ("mask.ratio", "loss.motion"),
        **TRAINING,
    },
    c.Planned: {"what is planned": ("gpus", "videos", "epochs", "rate", "optim.batch", "run.device", "run.precision")},
    c.BenchPretrain: {"what is measured": ("turns", "reference", "optim.batch", "run.device", "run.precision")},
    c.BenchRun: {"what is measured": ("turns", "data.path", "data.workers", "optim.batch", "run.device")},
    c.Finetune: {"videos": ("data.path", "data.test", "data.leave-out", "init"), **TRAINING},
    c.Probe: {
        "the encoder and the videos": ("MODEL", "data.path", "data.test", "data.leave", "views.clips"),
        "the probes": ("kinds", "pool"),
        "the run": ("out", "device", "batch"),
    },
    c.Evaluate: {
        "the model and the videos": ("MODEL", "data.path", "data.split", "views.clips", "views.crops"),
        "the test": ("orders", "out", "device", "batch"),
    },
    c.Predict: {
        "the model and the videos": ("MODEL", "VIDEOS", "every", "window"),
        "what is written": ("top", "json", "render"),
        "the run": ("device", "batch"),
    },
    c.Embed: {
        "the encoder and the videos": ("MODEL", "VIDEOS", "every", "window"),
        "the vectors": ("out", "pool", "layers", "stored"),
        "the run": ("device", "batch"),
    },
    c.SegmentDavis: {
        "the encoder and the videos": ("MODEL", "data.path", "data.split"),
        "how frames are compared": ("features.layer", "features.stride", "short"),
        "the run": ("out", "overlays", "device"),
    },
    c.SegmentVideo: {
        "the video and the encoder": ("VIDEO", "model"),
        "what is followed": ("pick", "box", "mask", "points", "at"),
        "the run": ("short", "out", "device"),
    },
    c.Study: {
        "the videos": ("base.data.path", "probe.data.path", "probe.data.leave"),
        "the runs": ("arms", "seeds", "base.optim.steps", "measures", "processes"),
        "the results": ("out", "results", "page"),
    },
}
"""The options that people change, in groups; commands that are not here have few enough to show them all."""


def overview() -> str:
    """The page of the program itself."""
    return "\n".join(
        (
            "usage: motionmae COMMAND [CHOICE] [options]\n",
            *table([(name, entry.summary) for name, entry in COMMANDS.items()]),
            "\nmotionmae COMMAND --help says more; motionmae --install-completion completes",
            "commands and options with the tab key.",
        )
    )


def choices(prog: str, summary: str, known: dict[str, Any]) -> str:
    """The page of a command that wants a choice: what each choice is."""
    rows = [(name, about(prog, name, value)) for name, value in known.items()]
    return "\n".join(
        (
            f"usage: {prog} CHOICE [options]\n",
            *lines(summary),
            "\nchoices:",
            *table(rows),
            f"\n{prog} CHOICE --help says more.",
        )
    )


def about(prog: str, name: str, value: Any) -> str:
    """A choice in one line."""
    for group in prog.split()[::-1]:
        if name in ABOUT.get(group, {}):
            return ABOUT[group][name]
    kind = value if not isinstance(value, dict) else next(iter(value.values()))
    return first_sentence(inspect.getdoc(type(kind)) or "")


def page(prog: str, summary: str, config: Any, whole: bool) -> str:
    """The options of a command with its choice: those that people change, or the whole."""
    found = list(options(config))
    needed = of_class(NEEDED, config) or ()
    groups, fitting = grouped(config, found, whole), getattr(config, "open", ())
    shown = sum(map(len, groups.values()))
    words = [it if it.isupper() else f"{named(it, found).typed} {named(it, found).takes}" for it in needed]
    rest = [option.name for option in found if option.positional and option.name not in needed]
    usage = " ".join(("usage:", prog, *words, *(f"[{name}]" for name in rest), "[options]"))
    made = [usage, "", *lines(summary), ""]
    for title, some in groups.items():
        rows = [(left(option), right(option, option.name in needed, whole, fitting)) for option in some]
        made += [f"{title}:", *table(rows, 30), ""]
    if whole:
        made += ["A list takes its values one after another: --data.scales 1 0.875.", f"{prog} --help shows less."]
    elif shown < len(found):
        made += [f"All {len(found)} options: {prog} --help-all"]
    return "\n".join(made).rstrip()


def grouped(config: Any, found: Sequence[Option], whole: bool) -> dict[str, list[Option]]:
    """The options that are shown, under their titles."""
    short = of_class(SHORT, config)
    if short and not whole:
        return {title: [named(name, found) for name in names] for title, names in short.items()}
    groups: dict[str, list[Option]] = {}
    for option in found:
        groups.setdefault(f"{option.section} options" if option.section else "options", []).append(option)
    return groups


def missing(config: Any, prog: str) -> str:
    """What a command cannot do without and was not given, in a sentence; empty where nothing is."""
    found = list(options(config))
    for name in of_class(NEEDED, config) or ():
        option = named(name, found)
        if option.default in ("", ()):
            return f"{prog} needs {option.typed}: {lowered(first_sentence(option.about)).rstrip('.')}"
    return ""


def left(option: Option) -> str:
    """The option as it is typed, with what it takes."""
    if option.positional:
        return option.name
    if isinstance(option.default, bool):
        return f"{option.typed} | {negative(option.typed[2:])}"
    return f"{option.typed} {option.takes}"


def right(option: Option, needed: bool, whole: bool, fitting: Sequence[str]) -> str:
    """What the option is for, and its default; those that are `fitting` suit themselves to videos and machine."""
    told = option.about if whole else short(option.about)
    if needed:
        return f"{told} (required)"
    if isinstance(option.default, bool):
        return f"{told} (default: {'on' if option.default else 'off'})"
    if option.name.replace("-", "_") in fitting:
        return f"{told} (fits the videos and the machine)"
    if option.default is None or option.default in ("", ()):
        return told
    shown = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)
    return f"{told} (default: {shown})"


def of_class(known: dict[type, Any], config: Any) -> Any:
    """What is said of the nearest class of a config."""
    return next((known[kind] for kind in type(config).__mro__ if kind in known), None)


def named(name: str, found: Sequence[Option]) -> Option:
    return next(option for option in found if option.name == name)


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."


def short(text: str) -> str:
    """The first sentence, or the first part of a long one."""
    first = first_sentence(text)
    return first if len(first) < 120 else f"{first.split('; ')[0].rstrip('.')}."


def lines(text: str, wide: int = 0, first: str = "", then: str = "") -> list[str]:
    """A text in lines as wide as the terminal; names are never cut in two."""
    made = textwrap.wrap(
        text, wide or width(), initial_indent=first, subsequent_indent=then, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
    return made or [""]


def lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def width() -> int:
    return max(40, min(100, shutil.get_terminal_size((80, 24)).columns))


def table(rows: Sequence[tuple[str, str]], most: int = 20) -> Iterator[str]:
    """Two columns; a name that is wider than the first one has a line of its own."""
    wide = min(most, max((len(name) for name, _ in rows), default=0))
    for name, text in rows:
        told = lines(text, width() - wide - 4)
        if len(name) > wide:
            yield from lines(name.replace("|", " | "), width(), "  ", "      ") if len(name) > 70 else [f"  {name}"]
            name = ""
        yield f"  {name:{wide}}  {told[0]}".rstrip()
        yield from (" " * (wide + 4) + line for line in told[1:])
