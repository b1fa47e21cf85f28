"""Run folders side by side, as parts of a page: where each stands, every curve with one line a run, what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.files import read_json
from motionmae.report import page
from motionmae.report.run import curve, last_picture, read_metrics

MOST = 800  # points of a drawn curve: more cannot be seen
LAST = ("loss", "gradient_norm", "lr", "skipped", "clips_per_second", "data_wait")


def names_of(folders: Sequence[Path]) -> list[str]:
    """Each run's shortest name that tells it from the others: its folder's, or its whole path."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def compare(folders: Sequence[Path]) -> list[str]:
    """The sections: standing, loss over its trivial baseline, all other curves, pictures, and the configs.

    Raises MotionMAEError for what is not a run folder, or has not logged anything yet.
    """
    names = names_of(folders)
    metrics = dict(zip(names, map(read_metrics, folders), strict=True))
    for folder, lines in zip(folders, metrics.values(), strict=True):
        if not any("loss" in line for line in lines):
            raise MotionMAEError(f"{folder}: has not logged a loss yet")
    quantities = list(dict.fromkeys(name for lines in metrics.values() for line in lines for name in line))
    ratios = [name for name in quantities if name.endswith("_ratio")]
    others = [name for name in quantities if name not in ("step", *ratios)]
    sections = [page.section("Where the runs stand", _standing(metrics, [*ratios, *LAST]))]
    if ratios:
        words = (
            "Each part of the loss over that of a trivial prediction: below the dashed line it has learnt something."
        )
        drawn = [_chart(name, metrics, trivial=True) for name in ratios]
        sections.append(page.section("Is the loss normal?", page.text(words), page.charts(*drawn)))
    sections.append(page.section("All curves", page.charts(*(_chart(name, metrics) for name in others))))
    shown = [
        page.picture(picture, f"{name}, {picture.stem}")
        for name, folder in zip(names, folders, strict=True)
        if (picture := last_picture(folder))
    ]
    if shown:
        sections.append(page.section("Pictures", *shown))
    return [*sections, page.section("Configs" if len(folders) == 1 else "What differs", _configs(names, folders))]


def thin(points: page.Points) -> page.Points:
    """At most 800 points, evenly taken, the last among them."""
    every = -(-len(points) // MOST)
    return list(points)[::-1][::every][::-1]


def _chart(name: str, metrics: dict[str, list[dict[str, Any]]], trivial: bool = False) -> str:
    lines = {run: thin(curve(found, name)) for run, found in metrics.items()}
    lines = {run: points for run, points in lines.items() if points}
    if trivial:
        ends = [points[0][0] for points in lines.values()], [points[-1][0] for points in lines.values()]
        lines["trivial: 1"] = [(min(ends[0]), 1.0), (max(ends[1]), 1.0)]
    return page.chart(name.replace("_", " "), lines)


def _standing(metrics: dict[str, list[dict[str, Any]]], names: Sequence[str]) -> str:
    """The last value of each quantity of each run."""
    seen = [name for name in names if any(name in line for lines in metrics.values() for line in lines)]
    rows = []
    for run, lines in metrics.items():
        last = {name: value for line in lines for name, value in line.items()}
        rows.append([run, str(last["step"]), *(f"{last[name]:.4g}" if name in last else "" for name in seen)])
    return page.table(("run", "step", *(name.replace("_", " ") for name in seen)), rows)


def _configs(names: Sequence[str], folders: Sequence[Path]) -> str:
    """The options that differ between the runs; of a single run, all."""
    flat = [_flat(read_json(folder / "config.json")) for folder in folders]
    keys = sorted({key for config in flat for key in config})
    if len(flat) > 1:
        keys = [key for key in keys if len({config.get(key, "") for config in flat}) > 1]
    if not keys:
        return page.text("Nothing: the configs are equal.")
    return page.table(("option", *names), [[key, *(config.get(key, "") for config in flat)] for key in keys])


def _flat(settings: Any, name: str = "") -> dict[str, str]:
    if isinstance(settings, dict):
        return {k: v for key in settings for k, v in _flat(settings[key], f"{name}.{key}").items()}
    return {name[1:]: json.dumps(settings)}
