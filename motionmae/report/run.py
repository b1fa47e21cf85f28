"""A run folder as parts of a page: what made it, its loss curves beside their trivial baselines, and its pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from motionmae import provenance
from motionmae.config import flat
from motionmae.errors import MotionMAEError
from motionmae.files import parsed, read_json, read_text
from motionmae.report import page
from motionmae.report.page import Finding
from motionmae.report.pictures import CAPTIONS, MOTIONS, PAINTED
from motionmae.report.verdict import findings
from motionmae.words import many

# What a part of the loss has to beat, in words.
TRIVIAL = {"appearance": "trivial: predict the mean patch", "motion": "trivial: predict zero motion"}
OWN = ("run.", "data.path", "data.root", "data.test", "data.workers", "data.prefetch", "data.cache", "seed")
"""Options that every run has of its own: no difference from a preset."""
MOST_NAMES = 1000
"""Quantities that a run may have readings of."""
PICTURES = 1_200_000
"""Bytes of pictures, at most, in a page."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; a line that is no reading (a killed run leaves one) is passed over."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise MotionMAEError(f"{folder}: is not a run folder: it has no metrics.jsonl")
    found, names = [], set[str]()
    for line in read_text(file, "replace").splitlines():
        try:
            reading = parsed(line, str(file))
        except MotionMAEError:
            continue
        if isinstance(reading, dict) and _is_number(reading.get("step")) and isinstance(reading["step"], int):
            found.append({name: value for name, value in reading.items() if _is_number(value)})
            names |= found[-1].keys()
            if len(names) > MOST_NAMES:
                raise MotionMAEError(f"{file}: has readings of more than {MOST_NAMES} quantities")
    return found


def _is_number(value: Any) -> bool:
    """Whether a reading is one: what a float holds, also where it is not finite."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def read_config(folder: Path) -> dict[str, Any]:
    """The run's config, empty where there is none."""
    file = folder / "config.json"
    return sections(read_json(file), str(file)) if file.is_file() else {}


def sections(found: Any, where: str) -> dict[str, Any]:
    """A run's config as somebody else wrote it. Raises MotionMAEError, naming `where`, where it is none: a section of
    it is not a section, or a length of the run is not a number."""
    try:
        flat(found)
    except RecursionError as error:
        raise MotionMAEError(f"{where}: is nested too deep for a config") from error
    if not isinstance(found, dict):
        return {}
    for name in ("optim", "data", "loss"):
        if not isinstance(found.get(name) or {}, dict):
            raise MotionMAEError(f"{where}: its {name} is {found[name]!r:.80}, not a section of options")
    for name in ("batch", "steps"):
        if not _is_number((found.get("optim") or {}).get(name) or 0):
            raise MotionMAEError(f"{where}: its optim.{name} is {found['optim'][name]!r:.80}, not a number")
    return found


def read_log(folder: Path) -> str:
    """The words of a run's log, empty where there is none."""
    file = folder / "log.txt"
    return read_text(file, "replace") if file.is_file() else ""


def verdict(folder: Path) -> list[Finding]:
    """The sentences at the top of a run's page."""
    return findings(read_metrics(folder), read_config(folder), read_log(folder))


def about(folder: Path, presets: Mapping[str, Any]) -> dict[str, str]:
    """What made a run: its command, machine, data, checkpoint, and how its config differs from the nearest preset."""
    config, metrics, log = read_config(folder), read_metrics(folder), read_log(folder)
    file = folder / "provenance.json"
    own = read_json(file) if file.is_file() else {}
    own = own if isinstance(own, dict) else {}
    told = {name: str(own.get(name, "not recorded")) for name in ("command", "version", "hardware")} | {"after": ""}
    if made := re.search(r"^(\S+ \S+):\d\d  ", log):
        told["made"] = made[1]
    told["run"] = str(folder)
    data = config.get("data") or {}
    counted = re.findall(r"^\S+ \S+  (\d+ videos.*)$", log, re.MULTILINE)
    told["data"] = ", ".join(filter(None, (str(data.get("path", "")), counted[-1] if counted else "")))
    if seconds := trained(metrics, config):
        told["trained for"] = f"{provenance.lasted(seconds)}, {many(metrics[-1]['step'], 'step')}"
    kept = max(folder.glob("checkpoints/step-*"), default=None)
    told["checkpoint"] = str(kept) if kept else "none is saved"
    if config and presets:
        name, differing = nearest_preset(config, presets)
        told["config"] = f"preset {name}" + (f" with {', '.join(differing)}" if differing else ", unchanged")
    return told


def trained(metrics: list[dict[str, Any]], config: Mapping[str, Any]) -> float:
    """Seconds of training, without inspections and saves: the readings' clips over their rates; 0 if not known."""
    batch, seconds, before = (config.get("optim") or {}).get("batch", 0), 0.0, 0
    for line in metrics:
        if line.get("clips_per_second", 0) > 0:
            seconds += (line["step"] - before) * batch / line["clips_per_second"]
            before = line["step"]
    return seconds if math.isfinite(seconds) else 0.0


def options(config: Any) -> dict[str, str]:
    """A config as option -> value, as JSON."""
    return {name: json.dumps(value) for name, value in flat(config).items()}


def nearest_preset(config: Mapping[str, Any], presets: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The preset with the fewest differences from a config, and those, as option value."""
    ours = options(config)

    def differing(name: str) -> list[str]:
        theirs = options(presets[name])
        return [
            f"{key} {ours[key]}"
            for key in sorted(ours.keys() & theirs.keys())
            if ours[key] != theirs[key] and not key.startswith(OWN)
        ]

    best = min(presets, key=lambda name: len(differing(name)))
    return best, differing(best)


def curve(metrics: list[dict[str, Any]], name: str) -> page.Points:
    """The points (step, value) at which a quantity was logged."""
    return [(float(line["step"]), float(line[name])) for line in metrics if isinstance(line.get(name), (int, float))]


def loss_charts(folder: Path) -> Markup:
    """For each part of the loss that has one, the loss and its trivial baseline."""
    metrics, drawn = read_metrics(folder), []
    for name, words in TRIVIAL.items():
        both = [line for line in metrics if line.get(f"{name}_ratio")]
        if both:
            baseline = [(float(line["step"]), line[name] / line[f"{name}_ratio"]) for line in both]
            drawn.append(page.chart(f"{name} loss", {name: curve(metrics, name), words: baseline}))
    return page.charts(*drawn)


def last_picture(folder: Path) -> Path | None:
    """The newest reconstruction picture, if there is one."""
    return max(folder.glob("pictures/step-*.webp"), default=None)


def growth(folder: Path, most: int = PICTURES) -> Markup:
    """The pictures of a run's inspections, one at a time; the last and as many before it, evenly taken, as fit.

    Empty where there is none. `most` is their size in bytes, a third of which is what text makes larger.
    """
    files = sorted(file for file in folder.glob("pictures/step-*.webp") if file.stem[5:].isdecimal())
    if not files:
        return Markup()
    total = sum(file.stat().st_size for file in files) * 4 // 3
    every = max(1, -(-total // most))
    taken = files[::-1][::every][::-1]
    shown = [(file, f"after step {int(file.stem.removeprefix('step-'))}") for file in taken]
    return page.slider(shown, columns(folder)) if len(shown) > 1 else page.picture(*shown[0], columns(folder))


def columns(folder: Path) -> list[str]:
    """The names of the columns of a run's pictures, as its config tells them."""
    config = read_config(folder)
    loss, target = config.get("loss") or {}, config.get("target") or {}
    told = [CAPTIONS["input"], CAPTIONS["masked"]] + [CAPTIONS["predicted_appearance"]] * bool(loss.get("appearance"))
    for name in MOTIONS:
        kind = target.get(name, "none" if name == "second" else "absolute")
        if loss.get(name) and kind != "none":
            told += [f"{of} {PAINTED.get(kind, kind)}" for of in ("true", "predicted")]
    return told
