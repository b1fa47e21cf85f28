"""From the labels of one frame to those of all: where frames, encoder and propagation meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import Features, Propagation
from motionmae.data.masks import VOID
from motionmae.errors import MotionMAEError
from motionmae.models.dense import clip_times, dense_features, pixel_features
from motionmae.models.encoder import VideoEncoder
from motionmae.models.propagation import harden, heat, peaks, propagate, soften
from motionmae.models.weights import load
from motionmae.training.runtime import Runtime

# The published numbers, which given ones override. SiamMAE's are those that CropMAE (arXiv 2403.17823) evaluates with.
PROTOCOLS = {
    "dino": Propagation("dino", topk=5, context=7, radius=12, temperature=0.1, short=480, multiple=64, size=(0, 0)),
    "crw": Propagation("crw", topk=10, context=20, radius=12, temperature=0.05, short=0, multiple=0, size=(0, 0)),
    "siammae": Propagation(
        "siammae", topk=7, context=20, radius=20, temperature=0.7, short=0, multiple=0, size=(480, 880)
    ),
}
RGB_PATCH = 16


@dataclass(frozen=True)
class Frames:
    """A video: `read` gives RGB frames uint8 [t h w c] at any indices below `count`."""

    read: Callable[[Sequence[int]], UInt8[Tensor, "t h w c"]]
    count: int
    height: int
    width: int


@dataclass(frozen=True)
class Source:
    """Where features come from: an encoder, or None for a baseline, whose `name` is then `rgb` or `copy`."""

    name: str
    encoder: VideoEncoder | None
    runtime: Runtime

    @property
    def patch(self) -> int:
        """Pixels on a side of a cube."""
        return self.encoder.config.cube[1] if self.encoder else RGB_PATCH


def open_source(model: str, runtime: Runtime) -> Source:
    """The baseline or the encoder that the word or path `model` stands for."""
    encoder = None if model in ("rgb", "copy") else load(model).to(runtime.device)
    return Source(model, encoder, runtime)


def resolve(propagation: Propagation) -> Propagation:
    """All numbers: the given ones, else the protocol's. A given `short` takes the place of the protocol's `size`."""
    given = {each.name: getattr(propagation, each.name) for each in fields(propagation)}
    given = {name: value for name, value in given.items() if value is not None}
    if propagation.short is not None and propagation.size is None:
        given["size"] = (0, 0)
    whole = replace(PROTOCOLS[propagation.protocol], **given)
    for name, least in (("topk", 1), ("context", 0), ("radius", 0), ("short", 0), ("multiple", 0)):
        if getattr(whole, name) < least:
            raise MotionMAEError(f"--{name} is {getattr(whole, name)}: it must be {least} or more")
    if whole.temperature is None or whole.temperature <= 0:
        raise MotionMAEError(f"--temperature is {whole.temperature}: it must be above 0")
    return whole


def input_size(height: int, width: int, propagation: Propagation, patch: int) -> tuple[int, int]:
    """The height and width in pixels that frames are resized to: multiples of `patch`, as the resolved settings say."""
    if propagation.size and all(propagation.size):
        sides = propagation.size if width >= height else propagation.size[::-1]
    else:
        short, long = sorted((height, width))
        if propagation.short:
            short, long = propagation.short, propagation.short * long / short
        if propagation.multiple and long >= propagation.multiple:
            long = long // propagation.multiple * propagation.multiple
        sides = (short, long) if width >= height else (long, short)
    rows, columns = (max(patch, round(side / patch) * patch) for side in sides)
    return rows, columns


@torch.inference_mode()
def features_of(
    frames: Frames, order: Sequence[int], size: tuple[int, int], source: Source, settings: Features
) -> Iterator[Float[Tensor, "h w d"]]:
    """The features of the frames `order`, read and encoded a few at a time."""
    cube, window = (source.encoder.config.cube[0], source.encoder.config.frames) if source.encoder else (1, 1)
    stride = source.patch if settings.stride is None else settings.stride
    kept: dict[int, Tensor] = {}
    for start in range(0, len(order), settings.batch):
        chunk = order[start : start + settings.batch]
        clips = [clip_times(settings.entry, time, frames.count, cube, window) for time in chunk]
        needed = sorted({time for times, _ in clips for time in times})
        missing = [time for time in needed if time not in kept]
        if missing:
            fresh = frames.read(missing).to(source.runtime.device).permute(0, 3, 1, 2)
            fresh = F.interpolate(fresh, size, mode="bilinear", antialias=True)
            kept |= dict(zip(missing, fresh, strict=True))
        kept = {time: kept[time] for time in needed}
        batch = torch.stack([torch.stack([kept[time] for time in times], dim=1) for times, _ in clips])
        if source.encoder is None:
            yield from pixel_features(batch[:, :, 0], RGB_PATCH, stride)
            continue
        with source.runtime.autocast():
            grids = dense_features(source.encoder, batch, clips[0][1], stride, settings.layer)
        yield from grids.float()


def check_mask(mask: UInt8[np.ndarray, "h w"], frames: Frames, name: str) -> int:
    """The number of objects of a mask; raises where it differs from the frames in size or holds no object."""
    if mask.shape != (frames.height, frames.width):
        raise MotionMAEError(
            f"{name} is {mask.shape[1]}x{mask.shape[0]} pixels, the frames are {frames.width}x{frames.height}"
        )
    count = int(mask[mask != VOID].max(initial=0))
    if not count:
        raise MotionMAEError(f"{name} holds no object: all of its pixels are background")
    return count


@torch.inference_mode()
def segment(
    frames: Frames,
    mask: UInt8[np.ndarray, "h w"],
    order: Sequence[int],
    source: Source,
    features: Features,
    propagation: Propagation,
) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """The labels of the frames `order[1:]`, one after the other, from the `mask` of frame `order[0]`.

    `order` may run forward or backward in time. `propagation` must be resolved.
    """
    if source.name == "copy":
        yield from (mask for _ in order[1:])
        return
    count = int(mask[mask != VOID].max(initial=0))
    first = soften(torch.tensor(mask, dtype=torch.int64), count, grid_for(frames, source, features, propagation))
    for labels in _carried(frames, first, order, source, features, propagation):
        hard = harden(labels, (frames.height, frames.width), propagation.stretch)
        yield hard.to("cpu", torch.uint8).numpy()


@torch.inference_mode()
def track(
    frames: Frames,
    points: Float[Tensor, "p 2"],
    order: Sequence[int],
    source: Source,
    features: Features,
    propagation: Propagation,
) -> Iterator[Float[Tensor, "p 3"]]:
    """x, y (pixels) and confidence in [0, 1] of points in the frames `order[1:]`, from their x, y in frame `order[0]`.

    A point is a label like any other, spread over the cells around it (Jabri et al., 2020, arXiv 2006.14613). Where all
    trace of it is lost, x and y are NaN and the confidence 0.
    """
    if source.name == "copy":
        yield from (torch.cat((points, torch.ones(len(points), 1)), dim=1) for _ in order[1:])
        return
    grid = grid_for(frames, source, features, propagation)
    cell = torch.tensor([frames.width / grid[1], frames.height / grid[0]])  # pixels of the video in a cell, x and y
    first = heat(((points + 0.5) / cell - 0.5).flip(1), grid)
    for labels in _carried(frames, first, order, source, features, propagation):
        places, heights = peaks(labels.cpu())
        yield torch.cat(((places.flip(1) + 0.5) * cell - 0.5, heights[:, None]), dim=1)


def grid_for(frames: Frames, source: Source, features: Features, propagation: Propagation) -> tuple[int, int]:
    """Rows and columns of cells of a frame."""
    size = input_size(frames.height, frames.width, propagation, source.patch)
    stride = features.stride or source.patch
    return size[0] // stride, size[1] // stride


def _carried(
    frames: Frames,
    first: Float[Tensor, "h w c"],
    order: Sequence[int],
    source: Source,
    features: Features,
    propagation: Propagation,
) -> Iterator[Float[Tensor, "h w c"]]:
    size = input_size(frames.height, frames.width, propagation, source.patch)
    numbers = (propagation.context, propagation.radius, propagation.topk, propagation.temperature)
    context, radius, topk, temperature = (number for number in numbers if number is not None)
    return propagate(
        features_of(frames, order, size, source, features),
        first.to(source.runtime.device),
        context=int(context),
        radius=int(radius),
        topk=int(topk),
        temperature=temperature,
    )
