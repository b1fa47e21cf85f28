"""Action recognition measured: labelled videos in a model's order of classes, and the figures of its predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motionmae.config import Data, ProbeData
from motionmae.errors import MotionMAEError
from motionmae.evaluation import metrics
from motionmae.evaluation.comparing import of_share
from motionmae.files import read_text, write_csv
from motionmae.library.classes import number
from motionmae.library.sources import Videos
from motionmae.words import many


@dataclass(frozen=True)
class LabelledVideos:
    """The videos of a test, the number of each one's class, the classes' names, and each one's group, where known."""

    files: list[Path]
    numbers: list[int]
    names: tuple[str, ...]
    groups: Sequence[str] = ()


def option_of_tests(data: Data | ProbeData) -> str:
    """The option that names the videos to test on."""
    return "--data.test" if getattr(data, "test", "") else "--data.path"


def labelled(videos: Videos, names: Sequence[str], asked: str, groups: Sequence[str] = ()) -> LabelledVideos:
    """Videos with the numbers of their classes in a model's order.

    Raises MotionMAEError for videos without classes, which were `asked` for so (the option and its value), for classes
    that the model does not know, and for names where the model's classes are mere numbers: nothing says which is which.
    """
    if not videos.labels:
        which = f"; {videos.unlabelled} has none" if videos.unlabelled else ""
        raise MotionMAEError(f"{asked}: a test needs the class of every video: class folders, or a list{which}")
    numbers, names = number(videos.labels, names)
    return LabelledVideos(videos.paths, numbers, tuple(names), groups)


def measure(
    found: dict[str, Float[Tensor, "n classes"]], numbers: Int[Tensor, " n"], names: Sequence[str]
) -> dict[str, Any]:
    """All figures of a test as plain numbers; shares are in [0, 1]."""
    probabilities = found["views"]
    table = metrics.confusion(probabilities.argmax(1), numbers, len(names))
    each = metrics.class_accuracy(table)
    error, bins = metrics.calibration(probabilities, numbers)
    return {
        "videos": len(numbers),
        "top1": metrics.top_k(probabilities, numbers, 1),
        "top5": metrics.top_k(probabilities, numbers, 5),
        "mean_class": each[~each.isnan()].mean().item(),
        "calibration_error": error,
        "calibration": bins,
        "orders": {name: metrics.top_k(found[name], numbers, 1) for name in found if name != "views"},
        "classes": list(names),
        "class_accuracy": [None if value.isnan() else value.item() for value in each],
        "confusion": table.tolist(),
    }


def summary(figures: dict[str, Any]) -> str:
    """The figures that a person looks at first, in two lines, and one for each group where there are several."""
    views = figures["views"]
    top5 = f", top-5 {figures['top5']:.1%}" if len(figures["classes"]) > 5 else ""
    seen = f"{many(views['clips'], 'clip')} x {many(views['crops'], 'crop')} of each"
    text = (
        f"{many(figures['videos'], 'video')}, {seen}: top-1 {figures['top1']:.1%}{top5}, "
        f"mean over classes {figures['mean_class']:.1%}, calibration error "
        f"{figures['calibration_error']:.1%}"
    )
    orders = ", ".join(f"{name} {value:.1%}" for name, value in figures["orders"].items())
    text += f"\ntop-1 of one view with its frames {orders}" if orders else ""
    return f"{text}\n{told_groups(figures)}" if figures.get("groups") else text


def accuracy_by_group(right: Sequence[bool], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each group: its videos, the accuracy on them and its 95 % interval, were other videos of the group drawn."""
    found = {}
    for name in sorted(set(groups)):
        hits = [hit for hit, group in zip(right, groups, strict=True) if group == name]
        found[name] = {"videos": len(hits), "top1": sum(hits) / len(hits), "interval": list(of_share(hits))}
    return found


def told_groups(figures: dict[str, Any]) -> str:
    """A line for each group, the worst first, and the mean over groups."""
    groups = sorted(figures["groups"].items(), key=lambda item: item[1]["top1"])
    wide = max(len(name) for name, _ in groups)
    lines = [
        f"  {name:{wide}}  {it['top1']:6.1%}  {it['interval'][0]:.1%} to {it['interval'][1]:.1%}  "
        f"{many(it['videos'], 'video')}"
        for name, it in groups
    ]
    low, high = figures["top1_interval"]
    mean = sum(it["top1"] for _, it in groups) / len(groups)
    return "\n".join(
        (
            "group, top-1, 95 % interval over its videos:",
            *lines,
            f"mean over {many(len(groups), 'group')} "
            f"{mean:.1%}; of all videos {figures['top1']:.1%}, 95 % interval over groups {low:.1%} to {high:.1%}",
        )
    )


def read_predictions(path: Path) -> tuple[Float[Tensor, "n classes"], list[Path], list[str], tuple[str, ...]]:
    """What `write_predictions` wrote: probabilities, videos, their classes, and the classes' names in order."""
    head, *rows = csv.reader(read_text(path, "surrogateescape").splitlines())
    values = torch.tensor([[float(value) for value in row[3:]] for row in rows])
    return values, [Path(row[0]) for row in rows], [row[1] for row in rows], tuple(head[3:])


def write_predictions(path: Path, probabilities: Float[Tensor, "n classes"], labels: LabelledVideos) -> None:
    """A CSV: video, its class, the likeliest class, and the probability of each class under the class's name."""
    rows: list[list[Any]] = [["video", "label", "prediction", *labels.names]]
    best = probabilities.argmax(1).tolist()
    for video, label, guess, row in zip(labels.files, labels.numbers, best, probabilities.tolist(), strict=True):
        rows.append([video, labels.names[label], labels.names[guess], *(f"{value:.9g}" for value in row)])
    write_csv(path, rows)
