"""The views of a video that a model is shown in a test, and what it says of them: each video once, over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from motionmae import noise
from motionmae.config import Compute, Data, Model, Sampling, Short, Viewing, check
from motionmae.data.loading import loader
from motionmae.data.views import Views
from motionmae.errors import MotionMAEError
from motionmae.evaluation.recognition import LabelledVideos, measure
from motionmae.models.classifier import Classifier
from motionmae.progress import Progress
from motionmae.runtime import Runtime

Clip = Shaped[Tensor, "b c t h w"]
Reorder = Callable[[Clip, Int[Tensor, " b"]], Clip]

SHUFFLE_STREAM = 30


@dataclass(frozen=True)
class View:
    """What a model sees of a video in a test, with nothing left open: a `Viewing` that was settled, field by field."""

    clips: int
    crops: int
    sampling: Sampling
    stride: int
    fps: float | None
    """None takes every frame at the video's own rate."""
    short: Short
    frames: int
    size: int


# The usual test of Kinetics (Feichtenhofer et al., 2018, arXiv 1812.03982), for files that do not say how to test them.
USUAL = {"clips": 5, "crops": 3, "sampling": "dense", "stride": 4, "fps": None, "short": "clamp"}


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


def settle(asked: Viewing, made_with: dict[str, Any], model: Model) -> View:
    """The views with nothing left open: what was asked, else the model's own run, else the usual ones."""
    own = made_with.get("views") or made_with.get("data") or {}  # a pretraining run has no views, but its sampling
    usual = USUAL | {"frames": model.frames, "size": model.size}
    chosen = {}
    for name in (item.name for item in fields(View)):
        options = (getattr(asked, name), own.get(name), usual[name])
        chosen[name] = next((value for value in options if value is not None), None)
    if not chosen["size"] and asked.size is None:
        raise MotionMAEError("the checkpoint does not say the size of its frames: set --views.size")
    check(Viewing(**chosen), "views")  # where the bounds stand: a checkpoint's own words are asked too
    view = View(**chosen)
    fits("views", view.frames, view.size, model)
    return view


def fits(section: str, frames: int, size: int, model: Model) -> None:
    """Raise MotionMAEError where a clip of so many frames and pixels cannot be cut into the model's cubes."""
    for name, value, cube in (("frames", frames, model.cube[0]), *(("size", size, side) for side in model.cube[1:])):
        if value < 1 or value % cube:
            raise MotionMAEError(f"--{section}.{name} {value} must be a positive multiple of the model's cube, {cube}")


def as_views(files: Sequence[Path], view: View, labels: Sequence[int] = ()) -> Views:
    """The videos as the views of a test."""
    data = Data(sampling=view.sampling, stride=view.stride, fps=view.fps, short=view.short)
    offsets = [view.stride * step for step in range(view.frames)]
    return Views(files, data, offsets, view.size, view.clips, view.crops, labels)


@torch.inference_mode()
def watch(
    model: Callable[[Clip], Tensor],
    dataset: Views,
    compute: Compute,
    here: Runtime,
    orders: Sequence[str] = (),
    quiet: bool = False,
    take: Callable[[list[int], Tensor], Tensor] = lambda videos, means: means,
) -> dict[str, Float[Tensor, "n ..."]]:
    """What the model says of each video: under "views" its mean over all views, and for each of `orders` that of the
    middle view with its frames so ordered. On the CPU, on every rank, in the order of the videos.

    Each rank watches its own videos, and none is watched twice. `take` gets the numbers of some videos and their means
    as they come, and gives what is to be kept of these in memory.
    """
    each, total = dataset.number * dataset.crops, len(dataset)
    middle = dataset.number // 2 * dataset.crops + dataset.crops // 2
    mine = list(range(here.rank, total, here.ranks))
    step = max(1, compute.batch // each)
    order = [mine[at : at + step] for at in range(0, len(mine), step)]
    data = replace(dataset.data, workers=min(compute.workers, len(order)), prefetch=2)
    found: dict[str, list[Tensor]] = {"views": [], **{name: [] for name in orders}}

    def say(clip: Clip) -> Tensor:
        with here.autocast():
            return torch.cat([model(part) for part in clip.split(compute.batch)]).cpu()

    with Progress("videos", len(mine), speak=here.main and not quiet) as progress:
        for at, batch in enumerate(loader(dataset, order, data, here.device.type == "cuda", "--workers")):
            chosen = batch["view"] == middle
            clip, keys = batch["clip"].to(here.device), batch["key"].to(here.device)
            found["views"].append(take(order[at], say(clip).unflatten(0, (-1, each)).mean(1)))
            for name in orders:
                found[name].append(say(ORDERS[name](clip[chosen], keys[chosen])))
            progress.show(progress.done + len(order[at]))
    return {name: _gather(parts, mine, total, here) for name, parts in found.items()}


def _gather(parts: list[Tensor], mine: list[int], total: int, here: Runtime) -> Tensor:
    """The ranks' rows in the order of the videos; each is there exactly once."""
    shares = here.gather((mine, torch.cat(parts) if parts else None))
    rows = {index: row for places, values in shares if places for index, row in zip(places, values, strict=True)}
    assert sum(len(places) for places, _ in shares) == len(rows) == total
    return torch.stack([rows[index] for index in range(total)])


@dataclass(frozen=True)
class Examined:
    """What a test found: its figures, the probabilities of each video's classes, and the surest mistakes."""

    figures: dict[str, Any]
    probabilities: Float[Tensor, "n classes"]
    mistakes: list[tuple[str, Shaped[Tensor, "c t h w"]]]


def examine_classifier(
    classifier: Classifier,
    labels: LabelledVideos,
    view: View,
    compute: Compute,
    here: Runtime,
    orders: bool = True,
    mistakes: int = 8,
) -> Examined:
    """Test a classifier on labelled videos: the same on every rank, but that rank 0 alone looks at the mistakes."""
    classifier.to(here.device).eval()
    dataset = as_views(labels.files, view, labels.numbers)
    wanted = tuple(ORDERS) if orders else ()
    found = watch(lambda clip: classifier(clip).double().softmax(1), dataset, compute, here, wanted)
    figures = measure(found, torch.tensor(labels.numbers), labels.names) | {"views": asdict(view)}
    shown = worst(dataset, found["views"], labels, mistakes) if here.main else []
    return Examined(figures, found["views"], shown)


def worst(
    dataset: Views, probabilities: Float[Tensor, "n classes"], labels: LabelledVideos, count: int
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
