"""From the labels of some frames to those of all: where frames, encoder and propagation meet.

Each frame takes its labels from the nearest labelled one, so that a correction reaches half-way to its neighbours.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import Features
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID
from motionmae.inference.propagation import carry, harden, heat, match, peaks, propagate, soften
from motionmae.inference.sequence import ImageSequence, Settings, Source, features_of, input_size
from motionmae.runtime import wait


@dataclass(frozen=True)
class Labels:
    """What is known of one frame: its objects (0 the background), the places x, y of points in pixels, or both."""

    mask: UInt8[np.ndarray, "h w"] | None = None
    points: Float[Tensor, "p 2"] | None = None


@dataclass(frozen=True)
class Found:
    """What was found of frame `time`, or was given: the objects, and the points' x, y and confidence in [0, 1]."""

    time: int
    mask: UInt8[np.ndarray, "h w"] | None
    points: Float[Tensor, "p 3"] | None


def check_mask(mask: UInt8[np.ndarray, "h w"], frames: ImageSequence, name: str, empty: bool = False) -> None:
    """Raises where a mask differs from the frames in size, or holds no object and may not be `empty`."""
    if mask.shape != (frames.height, frames.width):
        raise MotionMAEError(
            f"{name} is {mask.shape[1]}x{mask.shape[0]} pixels, the frames are {frames.width}x{frames.height}"
        )
    if not empty and not mask[mask != VOID].any():
        raise MotionMAEError(f"{name} holds no object: all of its pixels are background")


def walks(labelled: Iterable[int], count: int) -> Iterator[tuple[list[int], range]]:
    """How `count` frames are walked through from the labelled ones: forward from each, then backward from each.

    Yields the labelled frames that were reached so far in that direction, and the frames to follow from the last of
    them, up to half-way to the next labelled one (the middle belongs to the earlier) or to the end.

    >>> [(known, list(order)) for known, order in walks([1, 4], 6)]
    [([1], [1, 2]), ([1, 4], [4, 5]), ([4], [4, 3]), ([4, 1], [1, 0])]
    """
    times = sorted(labelled)
    middles = [(left + right) // 2 for left, right in pairwise(times)]
    for place, (time, stop) in enumerate(zip(times, [*middles, count - 1], strict=True), start=1):
        yield times[:place], range(time, stop + 1)
    for place, (time, stop) in reversed(list(enumerate(zip(times, [-1, *middles], strict=True)))):
        yield times[place:][::-1], range(time, stop, -1)


@torch.inference_mode()
def follow(
    frames: ImageSequence, given: Mapping[int, Labels], source: Source, features: Features, settings: Settings
) -> Iterator[Found]:
    """The labels of all frames, each once, from those of the frames `given`, both ways in time.

    A labelled frame is returned as it is given. It stays in the context of all frames that follow it in the direction
    of work, as the first frame of the published protocols does; they have no other. An object that a labelled frame
    lacks is not looked for in the frames that follow it. All of `given` hold a mask, or none does, and the same number
    of points.

    Points return with a confidence, and as NaN where all trace of them is lost. They are labels like any other, each
    spread over the cells around it (Jabri et al., 2020, arXiv 2006.14613); confidence is how high its peak still is,
    that of the labelled frame being 1.
    """
    for time, labels in given.items():
        yield Found(time, labels.mask, sure(labels.points))
    if source.name == "copy":
        for known, order in walks(given, frames.count):
            labels = given[known[-1]]
            yield from (Found(time, labels.mask, sure(labels.points)) for time in order[1:])
        return
    size = input_size(frames.height, frames.width, settings, source.cube[1])
    grid = size[0] // source.stride(features), size[1] // source.stride(features)
    coded = Code(frames, given.values(), grid)
    labelled = dict(zip(given, features_of(frames, list(given), size, source, features), strict=True))
    for known, order in walks(given, frames.count):
        if len(order) == 1:
            continue
        start = torch.stack([coded.soft(given[time]) for time in known]).to(source.runtime.device)
        found = propagate(
            chain((labelled[time] for time in known), features_of(frames, order[1:], size, source, features)),
            start,
            context=settings.context,
            radius=settings.radius,
            topk=settings.topk,
            temperature=settings.temperature,
        )
        for time, maps in zip(order[1:], found, strict=True):
            yield Found(time, *coded.hard(maps, start[-1], settings.stretch))


def sure(points: Float[Tensor, "p 2"] | None) -> Float[Tensor, "p 3"] | None:
    """Points with a confidence of 1."""
    return None if points is None else torch.cat((points, torch.ones(len(points), 1)), dim=1)


class Code:
    """Labels of frames as soft labels of cells and back: the background, the objects, then the points.

    The objects are those of all labelled frames; their numbers may have gaps. Void is background.
    """

    def __init__(self, frames: ImageSequence, given: Iterable[Labels], grid: tuple[int, int]):
        self.size, self.grid = (frames.height, frames.width), grid
        self.cell = torch.tensor([frames.width / grid[1], frames.height / grid[0]])  # pixels in a cell, x and y
        masks = [labels.mask for labels in given if labels.mask is not None]
        self.numbers = np.unique([0, *(label for mask in masks for label in np.unique(mask))]).astype(np.uint8)
        self.numbers = self.numbers[self.numbers != VOID]
        self.objects = len(self.numbers) if masks else 0

    def soft(self, labels: Labels) -> Float[Tensor, "h w c"]:
        """The labels of each cell."""
        parts = []
        if labels.mask is not None:
            places = np.searchsorted(self.numbers, np.where(labels.mask == VOID, 0, labels.mask))
            parts.append(soften(torch.from_numpy(places), self.objects - 1, self.grid))
        if labels.points is not None:
            parts.append(heat(((labels.points + 0.5) / self.cell - 0.5).flip(1), self.grid))
        return torch.cat(parts, dim=-1)

    def hard(
        self, maps: Float[Tensor, "h w c"], start: Float[Tensor, "h w c"], stretch: bool
    ) -> tuple[UInt8[np.ndarray, "y x"] | None, Float[Tensor, "p 3"] | None]:
        """The object of each pixel, out of those of the labelled frame, and the points; `start` is its `soft`."""
        mask, points = None, None
        if self.objects:
            there = start[..., : self.objects].amax((0, 1)) > 0
            there[0] = True
            labels = harden(maps[..., : self.objects][..., there], self.size, stretch).cpu().numpy()
            mask = self.numbers[there.cpu().numpy()][labels]
        if maps.shape[-1] > self.objects:
            found, heights = peaks(maps[..., self.objects :].cpu())
            trust = (heights / start[..., self.objects :].cpu().amax((0, 1))).clamp(max=1)
            points = torch.cat(((found.flip(1) + 0.5) * self.cell - 0.5, trust[:, None]), dim=1)
        return mask, points


@torch.inference_mode()
def pace(frames: ImageSequence, labels: Labels, source: Source, features: Features, settings: Settings) -> float:
    """Seconds that following takes for a frame, measured on the first one with a full context."""
    if source.name == "copy":
        return 0.0
    size = input_size(frames.height, frames.width, settings, source.cube[1])
    frames.read([0])  # a block of frames is decoded, for many
    begun = clock.perf_counter()
    query = F.normalize(next(features_of(frames, [0], size, source, features)), dim=-1)
    coded = Code(frames, [labels], (query.shape[0], query.shape[1]))
    start = coded.soft(labels).to(query)
    context = 1 + settings.context
    places = match(query, query.repeat(context, 1, 1, 1), settings.radius, settings.topk)
    coded.hard(carry(start.repeat(context, 1, 1, 1), *places, settings.temperature), start, settings.stretch)
    wait(query.device)
    return clock.perf_counter() - begun
