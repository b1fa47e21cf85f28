"""Action recognition measured: labelled videos in a model's order of classes, and the figures of its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.evaluation import metrics
from motionmae.files import write_csv
from motionmae.library.classes import number
from motionmae.library.sources import Videos


@dataclass(frozen=True)
class LabelledVideos:
    """The videos of a test, the number of each one's class, and the classes' names."""

    files: list[Path]
    numbers: list[int]
    names: tuple[str, ...]


def labelled(videos: Videos, names: Sequence[str], path: str) -> LabelledVideos:
    """Videos with the numbers of their classes in a model's order.

    Raises MotionMAEError for videos without classes, for classes that the model does not know, and for names where the
    model's classes are mere numbers: nothing says which is which.
    """
    if not videos.labels:
        which = f"; {videos.unlabelled} has none" if videos.unlabelled else ""
        raise MotionMAEError(
            f"--data.path {path}: a test needs the class of every video: class folders, or a list{which}"
        )
    numbers, names = number(videos.labels, names)
    return LabelledVideos(videos.paths, numbers, tuple(names))


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
    """The figures that a person looks at first, in two lines."""
    views = figures["views"]
    top5 = f", top-5 {figures['top5']:.1%}" if len(figures["classes"]) > 5 else ""
    text = (
        f"{figures['videos']} videos, {views['clips']} x {views['crops']} views: top-1 {figures['top1']:.1%}{top5}, "
        f"mean over classes {figures['mean_class']:.1%}, calibration error "
        f"{figures['calibration_error']:.1%}"
    )
    orders = ", ".join(f"{name} {value:.1%}" for name, value in figures["orders"].items())
    return f"{text}\ntop-1 of one view with its frames {orders}" if orders else text


def write_predictions(path: Path, probabilities: Float[Tensor, "n classes"], labels: LabelledVideos) -> None:
    """A CSV: video, its class, the likeliest class, and the probability of each class under the class's name."""
    rows: list[list[Any]] = [["video", "label", "prediction", *labels.names]]
    best = probabilities.argmax(1).tolist()
    for video, label, guess, row in zip(labels.files, labels.numbers, best, probabilities.tolist(), strict=True):
        rows.append([video, labels.names[label], labels.names[guess], *(f"{value:.9g}" for value in row)])
    write_csv(path, rows)
