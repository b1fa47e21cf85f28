"""The options of a command: one for each field of its config, and how words that somebody types become them.

Its one rule: a name means the same in every command. `--out` and `--device` may stand for the dotted names.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from motionmae.errors import MotionMAEError

PLACES = ("run", "compute")
"""Sections whose options may be typed without the section: --out is --run.out where a command has that."""


@dataclass(frozen=True)
class Option:
    """One option: its name without dashes (data.path; a positional's is in capitals), what it takes, its default, what
    it is for, and the section that it belongs to."""

    name: str
    takes: str
    default: Any
    about: str
    section: str
    what: str

    @property
    def positional(self) -> bool:
        return self.name.isupper()

    @property
    def typed(self) -> str:
        """As it is typed, by its short name where it has one: --out, MODEL."""
        section, _, last = self.name.rpartition(".")
        return self.name if self.positional else f"--{last if section in PLACES else self.name}"


def options(config: Any, section: str = "") -> Iterator[Option]:
    """The options of a config, section by section, those of no section first."""
    hints, told = get_type_hints(type(config), include_extras=True), field_docs(type(config))
    inner: list[tuple[Any, str]] = []
    for field in fields(config):
        hint, marks, value = hints[field.name], (), getattr(config, field.name)
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        name, words = field.name.replace("_", "-"), {str(mark) for mark in marks}
        if "Suppress" in words:
            continue
        if is_dataclass(value):
            inner.append((value, section if any(getattr(mark, "name", None) == "" for mark in marks) else name))
            continue
        path = name.upper() if "Positional" in words else f"{section}.{name}" if section else name
        what = (inspect.getdoc(type(config)) or "").split("\n\n")[0]
        yield Option(path, takes(hint), value, told.get(field.name, ""), section, what)
    for value, name in inner:
        below = name if not section or name == section else f"{section}.{name}"
        yield from options(value, below)


@cache
def field_docs(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass, its bases' included, in one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                found[line.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def takes(hint: Any) -> str:
    """What an option takes, in words: a|b|c, N, X, TEXT; nothing for a switch."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return "|".join(takes(part) for part in parts if part is not type(None))
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        return f"{takes(parts[0])} ..." if parts[-1] is Ellipsis else " ".join(map(takes, parts))
    return {int: "N", float: "X", bool: ""}.get(hint, "TEXT")


def switches(config: Any) -> Iterator[str]:
    """The options of a config's booleans, without their dashes: data.flip."""
    return (option.name for option in options(config) if isinstance(option.default, bool))


def negative(name: str) -> str:
    """The option that turns a boolean off: --data.no-flip."""
    *parts, last = name.split(".")
    return "--" + ".".join((*parts, f"no-{last}"))


def spelled(args: list[str], config: Any, prog: str) -> list[str]:
    """The arguments with every option by its own name: --run.out for --out, and --data.no-flip for --data.flip False.

    Raises MotionMAEError for an option that there is none of, with what may have been meant.
    """
    known = {option.name: option for option in options(config)}
    flags = {name for name, option in known.items() if isinstance(option.default, bool)}
    names = {*known, *(negative(name)[2:] for name in flags)}
    made: list[str] = []
    for arg in args:
        if not arg.startswith("--") or arg == "--" or arg.startswith(("--tyro", "--help")):
            held = made[-1][2:] if made and made[-1].startswith("--") else ""
            if held in flags and arg.lower() in ("true", "false"):
                made[-1] = f"--{held}" if arg.lower() == "true" else negative(held)
            else:
                made.append(arg)
            continue
        word, equals, value = arg[2:].partition("=")
        name = own(word.replace("_", "-"), names)
        if name is None:
            there = [option.typed[2:] for option in known.values() if not option.positional]
            raise MotionMAEError(f"{prog[10:]}: there is no option --{word}; {advice(word, there, prog)}")
        if name in flags and value.lower() in ("true", "false"):
            made.append(f"--{name}" if value.lower() == "true" else negative(name))
        else:
            made.append(f"--{name}{equals}{value}")
    return made


def own(word: str, names: Iterable[str]) -> str | None:
    """The command's own name of an option: `run.device` and `compute.device` are `device` where it has that, and the
    other way round. None where it has neither."""
    if word in names:
        return word
    section, _, last = word.rpartition(".")
    others = [last] if section in PLACES else [f"{place}.{word}" for place in PLACES] if not section else []
    return next((name for name in others if name in names), None)


def advice(word: str, names: Iterable[str], prog: str) -> str:
    """What a mistyped option may have been, by its whole name or by its last part."""
    last = {name.rpartition(".")[2]: name for name in names}
    near = [last[word]] if word in last else get_close_matches(word, list(names), n=2)
    near = near or [last[it] for it in get_close_matches(word, last, n=2)]
    meant = f"did you mean {' or '.join(f'--{name}' for name in near)}? " if near else ""
    return f"{meant}{prog} --help-all lists them"


def meant(word: str, known: Iterable[str], what: str) -> str:
    """The known words that a mistyped one was meant to be, or all of them."""
    near = get_close_matches(word, list(known), n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"the {what} are {', '.join(known)}"
