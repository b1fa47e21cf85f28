"""The page of a test: its figures, what motion is worth to the model, the confusions, and the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from motionmae.evaluation.recognition import Labels, write_predictions
from motionmae.files import write_image, write_json, write_text
from motionmae.report import page

SMALL = 16  # classes up to which the confusions are a table of numbers, and not a picture


def write(
    folder: Path,
    figures: dict[str, Any],
    probabilities: Float[Tensor, "n classes"],
    labels: Labels,
    mistakes: Sequence[tuple[str, Shaped[Tensor, "c t h w"]]],
) -> None:
    """evaluation.json, predictions.csv and report.html in the folder, with its pictures beside it and inside it."""
    write_json(folder / "evaluation.json", figures)
    write_predictions(folder / "predictions.csv", probabilities, labels)
    views = figures["views"]
    lead = f"{figures['videos']} videos of {len(figures['classes'])} classes, {views['clips']} x {views['crops']} views"
    sections = [_headline(figures), _orders(figures), _calibration(figures), _classes(figures)]
    sections.append(_confusions(figures, folder / "confusion.png"))
    if mistakes:
        pictures = [_strip(folder / f"mistake-{at}.webp", told, clip) for at, (told, clip) in enumerate(mistakes)]
        sections.append(page.section("The surest mistakes", *pictures))
    write_text(folder / "report.html", page.page("Action recognition", lead, sections), "replace")


def _headline(figures: dict[str, Any]) -> str:
    names = {"top1": "top-1", "top5": "top-5", "mean_class": "mean over classes"}
    if len(figures["classes"]) <= 5:
        del names["top5"]  # it is 100 % whatever the model says
    rows = [(told, f"{figures[name]:.1%}") for name, told in names.items()]
    return page.section("Accuracy", page.table(("figure", "value"), rows))


def _orders(figures: dict[str, Any]) -> str:
    if not figures["orders"]:
        return ""
    rows = [(name, f"{value:.1%}") for name, value in figures["orders"].items()]
    words = (
        "One view a video, its frames in other orders. Where the accuracies are alike, the model does not use motion."
    )
    return page.section("Motion or appearance", page.text(words), page.table(("frames", "top-1"), rows))


def _calibration(figures: dict[str, Any]) -> str:
    rows = [(f"{sure:.1%}", f"{right:.1%}", str(count)) for sure, right, count in figures["calibration"]]
    words = f"Expected calibration error {figures['calibration_error']:.1%}: how far confidence is from accuracy."
    return page.section("Calibration", page.text(words), page.table(("confidence", "accuracy", "videos"), rows))


def _classes(figures: dict[str, Any]) -> str:
    counts = [sum(row) for row in figures["confusion"]]
    each = zip(figures["classes"], figures["class_accuracy"], counts, strict=True)
    rows = sorted(((name, value, count) for name, value, count in each if value is not None), key=lambda row: row[1])
    shown = [(name, f"{value:.1%}", str(count)) for name, value, count in rows]
    return page.section("Classes, the hardest first", page.table(("class", "accuracy", "videos"), shown))


def _confusions(figures: dict[str, Any], path: Path) -> str:
    names, table = figures["classes"], torch.tensor(figures["confusion"])
    if len(names) <= SMALL:
        rows = [(name, *(str(count) for count in row)) for name, row in zip(names, table.tolist(), strict=True)]
        words = "Rows: the class; columns: what it was taken for."
        parts = [page.text(words), page.table(("class", *names), rows)]
    else:
        write_image(path, Image.fromarray(heat(table).numpy()))
        words = "Rows: the class; columns: what it was taken for; both in the order of the model."
        parts = [page.picture(path, words)]
    wrong = table - table.diagonal().diag()
    most = wrong.flatten().argsort(descending=True, stable=True)[:10].tolist()
    pairs = [(at // len(names), at % len(names)) for at in most]
    rows = [(names[a], names[b], str(int(wrong[a, b]))) for a, b in pairs if wrong[a, b]]
    if rows:
        parts += [page.text("The most frequent:"), page.table(("class", "taken for", "videos"), rows)]
    return page.section("Confusions", *parts)


def heat(table: Int[Tensor, "true predicted"], side: int = 480) -> UInt8[Tensor, "rows columns 3"]:
    """A confusion matrix as a picture: each cell's share of its row, from white to blue."""
    share = table / table.sum(1, keepdim=True).clamp_min(1)
    times = max(1, side // len(table))
    cells = share.repeat_interleave(times, 0).repeat_interleave(times, 1)[:, :, None]
    white, blue = torch.tensor([255.0, 255.0, 255.0]), torch.tensor([20.0, 60.0, 160.0])
    return torch.lerp(white, blue, cells).round().byte()


def _strip(path: Path, told: str, clip: Shaped[Tensor, "c t h w"]) -> str:
    """Up to eight frames of a clip side by side."""
    frames = clip[:, torch.linspace(0, clip.shape[1] - 1, min(8, clip.shape[1])).round().long()]
    write_image(path, Image.fromarray(frames.permute(2, 1, 3, 0).flatten(1, 2).contiguous().numpy()), quality=80)
    return page.picture(path, told)
