"""Run folders side by side, as parts of a page: where each stands, every curve with one line a run, what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.report import page
from motionmae.report.page import Finding
from motionmae.report.run import PICTURES, about, curve, growth, options, read_config, read_log, read_metrics
from motionmae.report.verdict import end, findings

MOST = 800  # points of a drawn curve: more cannot be seen
POINTS = 40_000  # points of a page: half a megabyte
LAST = ("loss", "gradient_norm", "lr", "skipped", "clips_per_second", "data_wait")
BESIDE = 8  # options that differ and stand in the table of the runs too

Runs = dict[str, list[dict[str, Any]]]
"""Of each run by its name: its readings."""


def names_of(folders: Sequence[Path]) -> list[str]:
    """Each run's shortest name that tells it from the others: its folder's, or its whole path."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def report(folders: Sequence[Path], presets: Mapping[str, Any]) -> str:
    """The page of one run, or of several side by side; `presets` are the configs with which theirs are compared."""
    names = names_of(folders)
    runs = {name: _readings(folder) for name, folder in zip(names, folders, strict=True)}
    if not any("loss" in line for lines in runs.values() for line in lines):
        raise MotionMAEError(f"{', '.join(map(str, folders))}: has not logged a loss yet")
    if len(folders) == 1:
        (metrics,), (folder,) = runs.values(), folders
        found, told = findings(metrics, read_config(folder), read_log(folder)), about(folder, presets)
        lead = "One run of MotionMAE."
    else:
        found, told = _verdict(runs, folders), {}
        lead = "Runs of MotionMAE side by side, one line a run."
    found += _missing(runs, folders)
    title = " and ".join(names) if len(names) <= 3 else f"{len(names)} runs"
    return page.page(title, lead, compare(folders), found, told)


def compare(folders: Sequence[Path]) -> list[str]:
    """The sections: standing, loss over its trivial baseline, pictures, all other curves, and the configs."""
    names = names_of(folders)
    runs = {name: _readings(folder) for name, folder in zip(names, folders, strict=True)}
    quantities = list(dict.fromkeys(name for lines in runs.values() for line in lines for name in line))
    ratios = [name for name in quantities if name.endswith("_ratio")]
    others = [name for name in quantities if name not in ("step", *ratios)]
    most = max(50, min(MOST, POINTS // max(1, len(folders) * len(quantities))))
    options = _differing(names, folders)
    standing = _standing(runs, [*ratios, *LAST], options if len(folders) > 1 and len(options) <= BESIDE else {})
    sections = [page.section("Where the runs stand" if len(folders) > 1 else "Where the run stands", standing)]
    if ratios:
        words = (
            "Each part of the loss over that of a trivial prediction: below the dashed line it has learnt something."
        )
        drawn = page.charts(*(_chart(name, runs, most, trivial=True) for name in ratios))
        sections.append(page.section("Is the loss normal?", page.text(words), drawn))
    shown = [
        part
        for name, folder in zip(names, folders, strict=True)
        if (grown := growth(folder, PICTURES // len(folders)))
        for part in (*([page.text(name)] if len(folders) > 1 else []), grown)
    ]
    if shown:
        sections.append(page.section("What the model predicts", *shown))
    sections.append(page.section("All curves", page.charts(*(_chart(name, runs, most) for name in others))))
    table = page.table(("option", *names), [[key, *values] for key, values in options.items()])
    told = table if options else page.text("Nothing: the configs are equal.")
    return [*sections, page.section("Config" if len(folders) == 1 else "What differs", told)]


def at_most(points: page.Points, most: int = MOST) -> page.Points:
    """At most so many points, evenly taken, the last among them."""
    every = max(1, -(-len(points) // most))
    return list(points)[::-1][::every][::-1]


def _readings(folder: Path) -> list[dict[str, Any]]:
    """A run's readings; none where it lost them, but it has a config."""
    return [] if _lost(folder) else read_metrics(folder)


def _lost(folder: Path) -> bool:
    return not (folder / "metrics.jsonl").is_file() and (folder / "config.json").is_file()


def _missing(runs: Runs, folders: Sequence[Path]) -> list[Finding]:
    """What a run has not that the page would show of it."""
    found: dict[str, list[str]] = {}
    seen = {name for lines in runs.values() for line in lines for name in line}
    for (name, lines), folder in zip(runs.items(), folders, strict=True):
        lacks = [file for file in ("config.json", "metrics.jsonl") if not (folder / file).is_file()]
        if lines:
            own = {quantity for line in lines for quantity in line}
            lacks += [quantity.replace("_", " ") for quantity in sorted(seen - own)]
        elif not lacks:
            lacks = ["any reading"]
        if lacks:
            found.setdefault(", ".join(lacks), []).append(name)
    return [
        Finding("plain", f"{', '.join(names)} {'lack' if len(names) > 1 else 'lacks'} {lacks}")
        for lacks, names in found.items()
    ]


def _verdict(runs: Runs, folders: Sequence[Path]) -> list[Finding]:
    """The best run of each part, by the mean of its last tenth, and what is wrong with any."""
    found = []
    quantities = dict.fromkeys(name for lines in runs.values() for line in lines for name in line)
    for name in (name for name in quantities if name.endswith("_ratio") or name == "test_top1"):
        ends = {run: end([y for _, y in curve(lines, name)]) for run, lines in runs.items() if curve(lines, name)}
        best = (max if name == "test_top1" else min)(ends, key=lambda run: ends[run])
        words = name.removesuffix("_ratio").replace("_", " ")
        of = "" if name == "test_top1" else " of the trivial loss"
        found.append(Finding("plain", f"{words}: {best} is best, {ends[best]:.3f}{of}"))
    for (name, lines), folder in zip(runs.items(), folders, strict=True):
        if lines:
            own = findings(lines, read_config(folder), read_log(folder))
            found += [Finding("bad", f"{name}: {words}") for kind, words in own if kind == "bad"]
    return found


def _chart(name: str, runs: Runs, most: int, trivial: bool = False) -> str:
    lines = {run: at_most(curve(found, name), most) for run, found in runs.items()}
    lines = {run: points for run, points in lines.items() if points}
    if trivial and lines:
        ends = [points[0][0] for points in lines.values()], [points[-1][0] for points in lines.values()]
        lines["trivial: 1"] = [(min(ends[0]), 1.0), (max(ends[1]), 1.0)]
    return page.chart(name.replace("_", " "), lines)


def _standing(runs: Runs, names: Sequence[str], options: Mapping[str, Sequence[str]]) -> str:
    """The last value of each quantity of each run, and the options in which they differ."""
    seen = [name for name in names if any(name in line for lines in runs.values() for line in lines)]
    rows = []
    for at, (run, lines) in enumerate(runs.items()):
        last = {name: value for line in lines for name, value in line.items()}
        values = [f"{last[name]:.4g}" if name in last else "" for name in seen]
        rows.append([run, str(last.get("step", "")), *values, *(option[at] for option in options.values())])
    return page.table(("run", "step", *(name.replace("_", " ") for name in seen), *options), rows)


def _differing(names: Sequence[str], folders: Sequence[Path]) -> dict[str, list[str]]:
    """The options that differ between the runs, each with its value in every run; of a single run, all."""
    configs = [options(config) if (config := read_config(folder)) else {} for folder in folders]
    keys = sorted({key for config in configs for key in config})
    found = {key: [config.get(key, "") for config in configs] for key in keys}
    return found if len(names) == 1 else {key: values for key, values in found.items() if len(set(values)) > 1}
