"""Clips along a video's time, each with the stretch that it stands for: end to end, or a window every few seconds.

Its one rule: every frame of every video belongs to some clip, however long, short or fast the video is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import UInt8
from torch import Tensor

from motionmae.data.sampling import crop, square_boxes, uniform_frames
from motionmae.errors import MotionMAEError
from motionmae.inference.views import View
from motionmae.video.frames import Frames

LEAST = Fraction(1, 1000)
"""Seconds that two windows are apart: no video has more frames."""
Span = tuple[Fraction, Fraction]
"""From when to when, in seconds from the first frame's start."""


@dataclass(frozen=True)
class Window:
    """One clip of a video: the seconds that it stands for, and the numbers of the frames that a model sees of them."""

    start: Fraction
    end: Fraction
    frames: list[int]


def parse_seconds(text: str, option: str) -> Fraction:
    """Seconds from words such as 1s, 0.5s or 2, LEAST and more. Raises MotionMAEError, naming the option."""
    words = text.strip().removesuffix("s")
    try:
        value = Fraction(words) if re.fullmatch(r"[\d./]{1,20}", words) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value < LEAST:
        raise MotionMAEError(f"{option} {text!r}: expected seconds, {float(LEAST)} or more, such as 1s or 0.5")
    return value


def spans(duration: Fraction, every: Fraction, long: Fraction) -> list[Span]:
    """Windows of `long` seconds, one beginning `every` so many; the last ones end with the video."""
    starts = [every * step for step in range(max(1, -(-duration // every)))]
    return [(start, min(start + long, duration)) for start in starts]


def spaced(video: Frames, every: str, long: str, view: View, before: str = "--") -> list[Window]:
    """A clip every so many seconds, each of so many: words such as 1s, of which an empty `long` is as `every`.

    Raises MotionMAEError that names the option, with what stands `before` its name.
    """
    step = parse_seconds(every, f"{before}every")
    reach = parse_seconds(long, f"{before}window") if long else step
    return [Window(*span, inside(video, span, view)) for span in spans(Fraction(video.duration), step, reach)]


def inside(video: Frames, span: Span, view: View) -> list[int]:
    """The clip of a span: spread over it (uniform), or at the model's stride around its middle, within the video."""
    first, last = video.at([span[0], span[1]])
    last = max(first, min(last, len(video) - 1))
    frames, stride = view.frames, view.stride
    if view.sampling == "uniform":
        return [first + place for place in uniform_frames(last - first + 1, frames, [0.5] * frames)]
    if view.fps is not None:
        middle, fps = (span[0] + span[1]) / 2, Fraction(view.fps).limit_denominator(1001)
        begin = max(Fraction(0), min(middle - frames / fps / 2, video.duration - frames / fps))
        return video.at([begin + place / fps for place in range(frames)])
    reach = stride * (frames - 1)
    begin = max(0, min((first + last - reach) // 2, len(video) - 1 - reach))
    if view.short == "loop":
        return [(begin + stride * place) % len(video) for place in range(frames)]
    return [min(begin + stride * place, len(video) - 1) for place in range(frames)]


def end_to_end(video: Frames, view: View) -> list[Window]:
    """Clips one after another, as the model samples them; the last one begins earlier, so as to end with the video.

    A video shorter than one clip gives one, and so does any where the model spreads its frames over the whole video.
    """
    duration, frames = Fraction(video.duration), view.frames
    if view.sampling == "uniform":
        whole = (Fraction(0), duration)
        return [Window(*whole, inside(video, whole, view))]
    if view.fps is not None:
        long = frames / Fraction(view.fps).limit_denominator(1001)
        starts = [long * step for step in range(max(1, int(duration // long)))]
        if starts[-1] + long < duration:
            starts.append(duration - long)
        parts = [(start, min(start + long, duration)) for start in starts]
        return [Window(*part, inside(video, part, view)) for part in parts]
    reach, count, times = view.stride * frames, len(video), [*video.starts(), duration]
    firsts = list(range(0, max(1, count - reach + 1), reach))
    if firsts[-1] + reach < count:
        firsts.append(count - reach)
    found = []
    for first in firsts:
        numbers = [first + step * view.stride for step in range(frames)]
        numbers = [at % count if view.short == "loop" else min(at, count - 1) for at in numbers]
        found.append(Window(times[first], times[min(first + reach, count)], numbers))
    return found


def clips(
    video: Frames, windows: Sequence[Window], view: View, batch: int
) -> Iterator[tuple[Sequence[Window], UInt8[Tensor, "b crops c t s s"]]]:
    """The pixels of at most `batch` clips at a time, each in its crops: little memory however long the video.

    Raises VideoError where a frame cannot be read.
    """
    step = max(1, batch // view.crops)
    for at in range(0, len(windows), step):
        part = windows[at : at + step]
        places = {number: place for place, number in enumerate(sorted({n for window in part for n in window.frames}))}
        frames = video.read(list(places))
        boxes = square_boxes(frames.shape[1], frames.shape[2], view.crops)
        cuts = [frames[[places[number] for number in window.frames]] for window in part]
        yield part, torch.stack([torch.stack([crop(cut, box, view.size, False) for box in boxes]) for cut in cuts])
