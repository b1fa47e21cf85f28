"""A run folder as parts of a page: its loss curves beside their trivial baselines, and its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.files import read_json, read_text
from motionmae.report import page
from motionmae.report.pictures import CAPTIONS

# What a part of the loss has to beat, in words.
TRIVIAL = {
    "appearance": "trivial: predict the mean patch",
    "motion": "trivial: predict zero motion",
    "second": "trivial: predict zero motion",
}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise MotionMAEError(f"{folder}: is not a run folder: it has no metrics.jsonl")
    return [json.loads(line) for line in read_text(file).splitlines() if line.endswith("}")]


def curve(metrics: list[dict[str, Any]], name: str) -> page.Points:
    """The points (step, value) at which a quantity was logged."""
    return [(float(line["step"]), float(line[name])) for line in metrics if name in line]


def loss_charts(folder: Path) -> str:
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


def columns(folder: Path) -> list[str]:
    """The names of the columns of a run's pictures, as its config tells them."""
    loss = (read_json(folder / "config.json") if (folder / "config.json").is_file() else {}).get("loss", {})
    names = ["input", "masked"]
    names += ["predicted_appearance"] if loss.get("appearance") else []
    names += ["motion", "predicted_motion"] if loss.get("motion") else []
    return [CAPTIONS[name] for name in names]
