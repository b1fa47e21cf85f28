"""The page of a test: its figures, what motion is worth to the model, the confusions, and the worst mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from motionmae.evaluation import comparing
from motionmae.evaluation.recognition import LabelledVideos, accuracy_by_group, write_predictions
from motionmae.files import write_image, write_json, write_text
from motionmae.report import page
from motionmae.report.page import Finding
from motionmae.words import many

SMALL = 40  # classes up to which the confusions are a table of numbers, and not a picture
LISTED, EACH = 3000, 20  # mistakes that are listed behind the confusions, in all and behind each
MATTERS = 0.05  # a difference in accuracy that is worth a word


def write(
    folder: Path,
    figures: dict[str, Any],
    probabilities: Float[Tensor, "n classes"],
    labels: LabelledVideos,
    mistakes: Sequence[tuple[str, Shaped[Tensor, "c t h w"]]],
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """evaluation.json, predictions.csv and report.html in the folder, with its pictures beside it and inside it; the
    figures with their intervals.

    `about` says what was tested on what.
    """
    numbers = torch.tensor(labels.numbers)
    right = (probabilities.argmax(1) == numbers).tolist()
    figures = figures | intervals_of(right, labels.groups)
    write_json(folder / "evaluation.json", figures)
    write_predictions(folder / "predictions.csv", probabilities, labels)
    views = figures["views"]
    seen = f"{many(views['clips'], 'clip')} x {many(views['crops'], 'crop')} of each"
    lead = f"{many(figures['videos'], 'video')} of {many(len(figures['classes']), 'class')}, {seen}"
    sections = [_headline(figures), _groups(figures), _orders(figures), _calibration(figures), _classes(figures)]
    sections.append(_confusions(figures, folder, _wrong(folder, probabilities, labels)))
    if mistakes:
        pictures = [_strip(folder / f"mistake-{at}.webp", told, clip) for at, (told, clip) in enumerate(mistakes)]
        sections.append(page.section("The surest mistakes", *pictures))
    told = page.page("Action recognition", lead, sections, verdict(figures), about)
    write_text(folder / "report.html", told, "replace")
    return figures


def intervals_of(right: Sequence[bool], groups: Sequence[str]) -> dict[str, Any]:
    """The interval of the accuracy, over whole groups where there are several; the figures of each group then."""
    names = sorted(set(groups))
    if len(names) < 2:
        return {"top1_interval": list(comparing.of_share(right))}
    interval = comparing.of_share(right, [names.index(group) for group in groups])
    return {"top1_interval": list(interval), "groups": accuracy_by_group(right, groups)}


def verdict(figures: Mapping[str, Any]) -> list[Finding]:
    """Accuracy beside that of always saying the commonest class, what the orders of frames tell, and calibration."""
    top1, (low, high) = figures["top1"], figures["top1_interval"]
    blind = max(map(sum, figures["confusion"])) / max(1, figures["videos"])
    words = f"top-1 {top1:.1%}, 95 % interval {low:.1%} to {high:.1%}; the commonest class is {blind:.1%}"
    found = [Finding("good" if low > blind else "bad", words)]
    if told := of_motion(figures["orders"]):
        found.append(Finding("plain", told))
    sure = sum(sure * count for sure, _, count in figures["calibration"]) / max(1, figures["videos"])
    if abs(sure - top1) > MATTERS:
        more = "surer" if sure > top1 else "less sure"
        found.append(Finding("plain", f"the model is {more} than it is right: {sure:.1%} on average"))
    return found


def of_motion(orders: Mapping[str, float]) -> str:
    """What accuracies with frames in other orders say, in one sentence; empty where they were not measured."""
    if not {"forwards", "backwards", "shuffled", "one frame"} <= orders.keys():
        return ""
    whole, still = orders["forwards"], orders["one frame"]
    falls = {name: whole - orders[name] for name in ("backwards", "shuffled")}
    told = f"of {whole:.1%} on one view, {still:.1%} remain of a single frame"
    most = max(falls, key=lambda name: falls[name])
    if falls[most] > MATTERS:
        return f"the order of frames matters: {told}, and {orders[most]:.1%} with frames {most}"
    if whole - still > MATTERS:
        return f"several frames matter, but not their order: {told}, and {orders['shuffled']:.1%} with frames shuffled"
    return f"the model goes by appearance: {told}, and {orders['shuffled']:.1%} with frames shuffled"


def _headline(figures: dict[str, Any]) -> str:
    low, high = figures["top1_interval"]
    rows = [("top-1", f"{figures['top1']:.1%}", f"{low:.1%} to {high:.1%}")]
    if len(figures["classes"]) > 5:  # else it is 100 % whatever the model says
        rows.append(("top-5", f"{figures['top5']:.1%}", ""))
    rows.append(("mean over classes", f"{figures['mean_class']:.1%}", ""))
    words = "The interval is a bootstrap over videos: where few people or places made many of them, it is too narrow."
    if "groups" in figures:
        words = f"The interval is a bootstrap over {many(len(figures['groups']), 'group')}: whole ones are drawn."
    table = page.table(("figure", "value", "95 % interval"), rows)
    return page.section("Accuracy", table, page.text(words))


def _groups(figures: dict[str, Any]) -> str:
    """Each group's accuracy, the hardest first."""
    found = sorted(figures.get("groups", {}).items(), key=lambda item: item[1]["top1"])
    if not found:
        return ""
    rows = [
        (name, f"{it['top1']:.1%}", f"{it['interval'][0]:.1%} to {it['interval'][1]:.1%}", str(it["videos"]))
        for name, it in found
    ]
    table = page.table(("group", "top-1", "95 % interval over its videos", "videos"), rows)
    return page.section("Groups, the hardest first", table)


def _orders(figures: dict[str, Any]) -> str:
    if not figures["orders"]:
        return ""
    words = (
        "One view a video, its frames in other orders. Where the accuracies are alike, the model does not use motion."
    )
    rows = [(name, value, f"{value:.1%}") for name, value in figures["orders"].items()]
    return page.section("Motion or appearance", page.text(words), page.part("bars", ("frames", "top-1"), rows))


def _calibration(figures: dict[str, Any]) -> str:
    words = f"Expected calibration error {figures['calibration_error']:.1%}: how far confidence is from accuracy."
    rows = [(f"{sure:.1%}", f"{right:.1%}", str(count)) for sure, right, count in figures["calibration"]]
    lines = {
        "this model": [(100 * sure, 100 * right) for sure, right, _ in figures["calibration"]],
        "trivial: as right as it is sure": [(0.0, 0.0), (100.0, 100.0)],
    }
    drawn = page.chart("accuracy, percent", lines, "confidence, percent")
    table = page.table(("confidence", "accuracy", "videos"), rows)
    return page.section("Calibration", page.text(words), page.part("beside", drawn, table))


def _classes(figures: dict[str, Any]) -> str:
    counts = [sum(row) for row in figures["confusion"]]
    each = zip(figures["classes"], figures["class_accuracy"], counts, strict=True)
    rows = sorted(((name, value, count) for name, value, count in each if value is not None), key=lambda row: row[1])
    shown = [(name, value, f"{value:.1%}", str(count)) for name, value, count in rows]
    return page.section("Classes, the hardest first", page.part("bars", ("class", "accuracy", "videos"), shown))


def _wrong(
    folder: Path, probabilities: Float[Tensor, "n classes"], labels: LabelledVideos
) -> dict[str, list[list[str]]]:
    """Behind each pair of classes, as "row,column": names and places of the videos so mistaken, the surest first."""
    sure, guess = probabilities.max(1)
    wrong = (guess != torch.tensor(labels.numbers)).nonzero()[:, 0]
    found: dict[str, list[list[str]]] = {}
    for at in wrong[sure[wrong].argsort(descending=True, stable=True)][:LISTED].tolist():
        listed = found.setdefault(f"{labels.numbers[at]},{int(guess[at])}", [])
        if len(listed) < EACH:
            place = quote(os.path.relpath(labels.files[at], folder), errors="replace")
            listed.append([f"{labels.files[at].name} ({sure[at].item():.0%} sure)", place])
    return found


def _confusions(figures: dict[str, Any], folder: Path, wrong: dict[str, list[list[str]]]) -> str:
    names, table = figures["classes"], torch.tensor(figures["confusion"])
    words = "Rows: the class; columns: what it was taken for. A click on a confusion lists its videos."
    if len(names) <= SMALL:
        shares = (table / table.sum(1, keepdim=True).clamp_min(1)).tolist()
        rows = [list(zip(*pair, strict=True)) for pair in zip(table.tolist(), shares, strict=True)]
        parts = [page.text(words), page.part("heat", names, rows, wrong)]
    else:
        write_image(folder / "confusion.png", Image.fromarray(heat_map(table).numpy()))
        words += " Both are in the order of the model."
        parts = [page.part("heat_picture", names, page.inline(folder / "confusion.png"), words, wrong)]
    mistaken = table - table.diagonal().diag()
    most = mistaken.flatten().argsort(descending=True, stable=True)[:10].tolist()
    pairs = [(at // len(names), at % len(names)) for at in most]
    rows = [(names[a], names[b], str(int(mistaken[a, b]))) for a, b in pairs if mistaken[a, b]]
    if rows:
        parts += [page.text("The most frequent:"), page.table(("class", "taken for", "videos"), rows)]
    return page.section("Confusions", *parts)


def heat_map(table: Int[Tensor, "true predicted"], side: int = 480) -> UInt8[Tensor, "rows columns 3"]:
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
