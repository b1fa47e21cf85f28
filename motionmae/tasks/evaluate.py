"""`motionmae evaluate`: a fine-tuned model on labelled videos, each counted once whatever the number of ranks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from motionmae import metrics, noise
from motionmae.config import Compute, Data, Evaluate, Model, Run, Viewing
from motionmae.data.clips import Views
from motionmae.data.loading import loader
from motionmae.data.sources import Videos, find, number
from motionmae.errors import MotionMAEError
from motionmae.models.classifier import Classifier, load_classifier
from motionmae.report import evaluation as report
from motionmae.training import runtime
from motionmae.training.runtime import Progress, Runtime

Clip = Shaped[Tensor, "b c t h w"]
Reorder = Callable[[Clip, Int[Tensor, " b"]], Clip]

SHUFFLE_STREAM = 30
# The usual test of Kinetics (Feichtenhofer et al., 2018, arXiv 1812.03982), for files that do not say how to test them.
USUAL = Viewing(clips=5, crops=3, sampling="dense", stride=4, short="loop")


def _backwards(clip: Clip, keys: Int[Tensor, " b"]) -> Clip:
    return clip.flip(2)


def _shuffled(clip: Clip, keys: Int[Tensor, " b"]) -> Clip:
    order = noise.uniform(keys, clip.shape[2], SHUFFLE_STREAM).argsort(1)
    return clip.gather(2, order[:, None, :, None, None].expand_as(clip))


def _one_frame(clip: Clip, keys: Int[Tensor, " b"]) -> Clip:
    middle = clip.shape[2] // 2
    return clip[:, :, middle : middle + 1].expand_as(clip)


ORDERS: dict[str, Reorder] = {
    "forwards": lambda clip, keys: clip,
    "backwards": _backwards,
    "shuffled": _shuffled,
    "one frame": _one_frame,
}


@dataclass(frozen=True)
class Labels:
    """The videos of a test, the number of each one's class, and the classes' names."""

    files: list[Path]
    numbers: list[int]
    names: tuple[str, ...]


def run(config: Evaluate) -> None:
    """Test `config.model` on `config.data.path`; prints the figures and writes them, the predictions and a report."""
    here = start(config.compute)
    with runtime.leaving(here):
        if config.mistakes < 0:
            raise MotionMAEError(f"--mistakes must be at least 0, it is {config.mistakes}")
        classifier, made_with = load_classifier(config.model, config.heads)
        views = settle(config.views, made_with, classifier.encoder.config)
        labels = labelled(find(Data(**asdict(config.data))), classifier.names, config.data.path)
        folder = Path(config.out) if config.out else beside(config.model, "evaluation")
        examine(classifier, labels, views, config.compute, here, folder, config.orders, config.mistakes)


def start(compute: Compute) -> Runtime:
    """The runtime of a command that trains nothing."""
    if compute.batch < 1:
        raise MotionMAEError(f"--batch must be at least 1, it is {compute.batch}")
    return runtime.start(Run(device=compute.device, precision=compute.precision, threads=compute.threads))


def beside(model: str, name: str) -> Path:
    """Where a command writes about a model: in its run folder, or in runs/ for a single file."""
    path = Path(model)
    return path / name if path.is_dir() else Path("runs") / f"{path.stem}-{name}"


def settle(asked: Viewing, made_with: dict[str, Any], model: Model) -> Viewing:
    """The views with nothing left open: what was asked, else the model's own run, else the usual ones."""
    own = made_with.get("views") or made_with.get("data") or {}  # a pretraining run has no views, but its sampling
    usual = asdict(replace(USUAL, frames=model.frames, size=model.size))
    chosen = {}
    for name in (item.name for item in fields(Viewing)):
        options = (getattr(asked, name), own.get(name), usual[name])
        chosen[name] = next((value for value in options if value is not None), None)
    if not chosen["size"] and asked.size is None:
        raise MotionMAEError("the checkpoint does not say the size of its frames: set --views.size")
    for name in ("clips", "crops", "frames", "size", "stride"):
        if chosen[name] < 1:
            raise MotionMAEError(f"--views.{name} must be at least 1, it is {chosen[name]}")
    if chosen["fps"] is not None and chosen["fps"] <= 0:
        raise MotionMAEError(f"--views.fps must be above 0, it is {chosen['fps']:g}")
    fits("views", chosen["frames"], chosen["size"], model)
    return Viewing(**chosen)


def fits(section: str, frames: int, size: int, model: Model) -> None:
    """Raise MotionMAEError where a clip of so many frames and pixels cannot be cut into the model's cubes."""
    for name, value, cube in (("frames", frames, model.cube[0]), *(("size", size, side) for side in model.cube[1:])):
        if value < 1 or value % cube:
            raise MotionMAEError(f"--{section}.{name} {value} must be a positive multiple of the model's cube, {cube}")


def labelled(videos: Videos, names: Sequence[str], path: str) -> Labels:
    """Videos with the numbers of their classes in a model's order.

    A model whose classes are mere numbers takes the videos' classes in sorted order. Raises MotionMAEError for videos
    without classes, and for classes that the model does not know.
    """
    if not videos.labels:
        raise MotionMAEError(f"--data.path {path}: a test needs the class of every video: class folders, or a list")
    found = sorted(set(videos.labels))
    if all(name.isdigit() for name in names) and not all(name.isdigit() for name in found):
        if len(found) != len(names):
            raise MotionMAEError(f"--data.path {path}: has {len(found)} classes, the model tells {len(names)}")
        names = found
    numbers, names = number(videos.labels, names)
    return Labels(videos.paths, numbers, tuple(names))


def cut(files: Sequence[Path], views: Viewing, labels: Sequence[int] = ()) -> Views:
    """The videos as the views of a test; every field of `views` is set but `fps`."""
    assert views.sampling is not None
    assert views.short is not None
    assert views.stride is not None
    assert views.frames is not None
    assert views.size is not None
    data = Data(sampling=views.sampling, stride=views.stride, fps=views.fps, short=views.short)
    offsets = [views.stride * step for step in range(views.frames)]
    return Views(files, data, offsets, views.size, views.clips or 1, views.crops or 1, labels)


@torch.inference_mode()
def watch(
    model: Callable[[Clip], Tensor],
    dataset: Views,
    compute: Compute,
    here: Runtime,
    orders: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Float[Tensor, "n ..."]]:
    """What the model says of each video: under "views" its mean over all views, and for each of `orders` that of the
    middle view with its frames so ordered. On the CPU, on every rank, in the order of the videos.

    Each rank watches its own videos, and none is watched twice.
    """
    each, total = dataset.number * dataset.crops, len(dataset)
    middle = dataset.number // 2 * dataset.crops + dataset.crops // 2
    mine = list(range(here.rank, total, here.ranks))
    step = max(1, compute.batch // each)
    order = [mine[at : at + step] for at in range(0, len(mine), step)]
    data = replace(dataset.data, workers=min(compute.workers, len(order)), prefetch=2)
    found: dict[str, list[Tensor]] = {"views": [], **{name: [] for name in orders}}
    progress = Progress(len(order), 0, here.main and not quiet)

    def say(clip: Clip) -> Tensor:
        with here.autocast():
            return torch.cat([model(part) for part in clip.split(compute.batch)]).cpu()

    for at, batch in enumerate(loader(dataset, order, data, pin=here.device.type == "cuda"), 1):
        chosen = batch["view"] == middle
        clip, keys = batch["clip"].to(here.device), batch["key"].to(here.device)
        found["views"].append(say(clip).unflatten(0, (-1, each)).mean(1))
        for name in orders:
            found[name].append(say(ORDERS[name](clip[chosen], keys[chosen])))
        if at % 10 == 0 or at == len(order):
            progress.show(at, "videos" if step == 1 else f"batches of {step} videos")
    progress.close()
    return {name: _gather(parts, mine, total, here) for name, parts in found.items()}


def _gather(parts: list[Tensor], mine: list[int], total: int, here: Runtime) -> Tensor:
    """The ranks' rows in the order of the videos; each is there exactly once."""
    shares = here.gather((mine, torch.cat(parts) if parts else None))
    rows = {index: row for places, values in shares if places for index, row in zip(places, values, strict=True)}
    assert sum(len(places) for places, _ in shares) == len(rows) == total
    return torch.stack([rows[index] for index in range(total)])


def examine(
    classifier: Classifier,
    labels: Labels,
    views: Viewing,
    compute: Compute,
    here: Runtime,
    folder: Path,
    orders: bool = True,
    mistakes: int = 8,
) -> dict[str, Any]:
    """Test a classifier; rank 0 writes evaluation.json, predictions.csv and report.html into the folder."""
    classifier.to(here.device).eval()
    dataset = cut(labels.files, views, labels.numbers)
    wanted = tuple(ORDERS) if orders else ()
    found = watch(lambda clip: classifier(clip).double().softmax(1), dataset, compute, here, wanted)
    figures = measure(found, torch.tensor(labels.numbers), labels.names) | {"views": asdict(views)}
    if here.main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
        write_predictions(folder / "predictions.csv", found["views"], labels)
        report.write(folder, figures, worst(dataset, found["views"], labels, mistakes))
        here.say(f"{summary(figures)}\n{folder / 'report.html'}")
    return figures


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
        "orders": {name: metrics.top_k(found[name], numbers, 1) for name in ORDERS if name in found},
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


def write_predictions(path: Path, probabilities: Float[Tensor, "n classes"], labels: Labels) -> None:
    """A CSV: video, its class, the likeliest class, and the probability of each class under the class's name."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "prediction", *labels.names])
        best = probabilities.argmax(1).tolist()
        for video, label, guess, row in zip(labels.files, labels.numbers, best, probabilities.tolist(), strict=True):
            writer.writerow([video, labels.names[label], labels.names[guess], *(f"{value:.9g}" for value in row)])


def worst(
    dataset: Views, probabilities: Float[Tensor, "n classes"], labels: Labels, count: int
) -> list[tuple[str, Shaped[Tensor, "c t h w"]]]:
    """The mistakes of which the model was surest: a sentence and the middle view of each."""
    sure, guess = probabilities.max(1)
    wrong = (guess != torch.tensor(labels.numbers)).nonzero()[:, 0]
    shown = []
    for index in wrong[sure[wrong].argsort(descending=True, stable=True)][:count].tolist():
        views = dataset[index]
        told = f"{labels.files[index].name}: {labels.names[labels.numbers[index]]}, taken for "
        told += f"{labels.names[int(guess[index])]} ({sure[index].item():.0%} sure)"
        shown.append((told, views[len(views) // 2]["clip"]))
    return shown
