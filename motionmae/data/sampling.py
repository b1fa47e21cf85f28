"""Which frames and which pixels make a clip: pure functions of a video's length and a few random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from motionmae.config import Adjacent, Short

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def pretraining_offsets(frames: int, stride: int, adjacent: Adjacent, gap: int) -> list[int]:
    """Frames of a clip from its first: those that the encoder sees, and those that close the differences.

    "clip": frames + gap at the stride; "video": the frames at the stride, then each one's neighbour `gap` later.
    """
    if adjacent == "clip":
        return [stride * step for step in range(frames + gap)]
    return [stride * step + shift for shift in (0, gap) for step in range(frames)]


def dense(count: int, offsets: Sequence[int], draw: float, short: Short) -> list[int]:
    """The clip's frames of a video of `count` frames, from a start that `draw` in [0, 1) picks."""
    free = max(0, count - 1 - max(offsets))
    start = int(draw * (free + 1))
    return [(start + offset) % count if short == "loop" else min(start + offset, count - 1) for offset in offsets]


def uniform_frames(count: int, steps: int, draws: Sequence[float]) -> list[int]:
    """One frame from each of `steps` equal parts of the video, at the place that its draw in [0, 1) picks.

    Temporal segments (Wang et al., 2016, arXiv 1608.00859, section 3.1); draws of 0.5 give the parts' middles. Rising,
    and also right where the video has fewer frames than there are parts: frames then repeat.
    """
    edges = [count * step / steps for step in range(steps)]
    return [min(int(edge + draw * count / steps), count - 1) for edge, draw in zip(edges, draws, strict=True)]


def uniform_clip(count: int, offsets: Sequence[int], stride: int, draws: Sequence[float]) -> list[int]:
    """`uniform` over the clip's steps: offset // stride is the part, offset % stride the distance from its frame."""
    steps = [offset // stride for offset in offsets]
    bases = uniform_frames(count, max(steps) + 1, draws[: max(steps) + 1])
    return [min(bases[step] + offset % stride, count - 1) for step, offset in zip(steps, offsets, strict=True)]


def seconds(
    duration: Fraction, offsets: Sequence[int], fps: Fraction, draw: float | Fraction, short: Short
) -> list[Fraction]:
    """Seconds of the clip's frames, `fps` of them to the second, from a start that `draw` in [0, 1) picks: exact."""
    free = max(Fraction(0), duration - (max(offsets) + 1) / fps)
    start = Fraction(draw) * free
    times = [start + offset / fps for offset in offsets]
    return [time % duration for time in times] if short == "loop" else times


def views(count: int, offsets: Sequence[int], number: int, short: Short) -> list[list[int]]:
    """`number` clips for testing, their starts spread evenly over the video; the middle for one."""
    draws = [place / (number - 1) for place in range(number)] if number > 1 else [0.5]
    return [dense(count, offsets, min(draw, 1 - 1e-9), short) for draw in draws]


def crop_box(height: int, width: int, draws: Sequence[float], scales: Sequence[float]) -> Box:
    """A multi-scale crop: one of the pairs of equal or neighbouring scales of the short side, at a random place.

    Wang et al., 2016, arXiv 1608.00859, section 3.2; the place is uniform here. Four draws in [0, 1); the second has no
    use.
    """
    pairs = [(a, b) for a in range(len(scales)) for b in range(len(scales)) if abs(a - b) <= 1]
    first, second = pairs[int(draws[0] * len(pairs))]
    short = min(height, width)
    rows, columns = max(1, round(short * scales[first])), max(1, round(short * scales[second]))
    return int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1)), rows, columns


def area_box(
    height: int, width: int, draws: Sequence[float], area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """A random resized crop: a share of the area and an aspect ratio (width over height, by its logarithm), drawn.

    Szegedy et al., 2015, arXiv 1409.4842, section 6. Sides that do not fit are cut to the frame. Four draws in [0, 1).
    """
    share = height * width * (area[0] + draws[0] * (area[1] - area[0]))
    ratio = aspect[0] * (aspect[1] / aspect[0]) ** draws[1]
    rows = min(max(1, round((share / ratio) ** 0.5)), height)
    columns = min(max(1, round((share * ratio) ** 0.5)), width)
    return int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1)), rows, columns


def square_boxes(height: int, width: int, number: int) -> list[Box]:
    """`number` squares of the short side along the long side, evenly spread; the middle for one."""
    side, free = min(height, width), abs(height - width)
    starts = [round(free * place / (number - 1)) for place in range(number)] if number > 1 else [free // 2]
    return [(start, 0, side, side) if height > width else (0, start, side, side) for start in starts]


def crop(frames: UInt8[Tensor, "t h w c"], box: Box, size: int, mirror: bool) -> UInt8[Tensor, "c t s s"]:
    """The box of every frame, resized (bilinear, antialiased) to a square: only its pixels are touched."""
    top, left, rows, columns = box
    part = frames[:, top : top + rows, left : left + columns].permute(0, 3, 1, 2)
    if (rows, columns) != (size, size):
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return (part.flip(3) if mirror else part).transpose(0, 1).contiguous()
