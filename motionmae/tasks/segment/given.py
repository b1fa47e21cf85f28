"""What a user says of some frames: masks, boxes, polygons and points, from the options of `segment video`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8

from motionmae.config import SegmentVideo
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID, draw_shapes, read_user_mask
from motionmae.inference.following import Labels, check_mask
from motionmae.inference.sequence import ImageSequence

Place = tuple[float, float]
"""x, y in pixels."""


@dataclass(frozen=True)
class Given:
    """The masks of the frames that have one, and each point's places in the frames that have one."""

    masks: dict[int, UInt8[np.ndarray, "h w"]] = field(default_factory=dict)
    points: list[dict[int, Place]] = field(default_factory=list)

    def groups(self) -> Iterator[tuple[dict[int, Labels], list[int]]]:
        """What is labelled in the same frames, and is so followed together: the labels, and which points they hold."""
        masked, pointed = tuple(sorted(self.masks)), [tuple(sorted(places)) for places in self.points]
        alike: dict[tuple[int, ...], list[int]] = {masked: []} if masked else {}
        for number, times in enumerate(pointed):
            alike.setdefault(times, []).append(number)
        for times, chosen in alike.items():
            labels: dict[int, Labels] = {}
            for time in times:
                points = torch.tensor([self.points[number][time] for number in chosen]) if chosen else None
                labels[time] = Labels(self.masks[time] if times == masked else None, points)
            yield labels, chosen


def read_given(config: SegmentVideo, frames: ImageSequence) -> Given:
    """All that the options say. Raises for what is wrong in them, and where they say nothing at all."""
    given = Given(given_masks(config, frames), given_points(config, frames))
    if not given.masks and not given.points:
        raise MotionMAEError("nothing to follow: give --mask, --box, --polygon or --points")
    return given


def placed(text: str, config: SegmentVideo, frames: ImageSequence, option: str) -> tuple[int, str]:
    """The frame of FRAME:REST, or `--at`, and the rest."""
    frame, rest = re.fullmatch(r"(?:([0-9]{1,9}):)?(.*)", text, re.DOTALL).groups()  # pyright: ignore
    time = config.at if frame is None else int(frame)
    if time >= frames.count:
        what = f"--at is {time}" if frame is None else f"--{option} {text}"
        raise MotionMAEError(f"{what}: {config.video} has the frames 0 to {frames.count - 1}")
    return time, rest


def parse_numbers(text: str, option: str, pairs: int | None) -> list[Place]:
    """Pairs of numbers out of x,y,x,y…; `pairs` says how many there must be, None three or more."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if (
        not all(abs(value) < 1e6 for value in values)
        or len(values) % 2
        or (len(values) // 2 != pairs if pairs else len(values) < 6)
    ):
        expected = "x,y,x,y,x,y,… of three corners or more" if pairs is None else f"{2 * pairs} numbers with commas"
        raise MotionMAEError(f"--{option} {text}: expected {expected}, in pixels")
    return list(zip(values[::2], values[1::2], strict=True))


def given_masks(config: SegmentVideo, frames: ImageSequence) -> dict[int, UInt8[np.ndarray, "h w"]]:
    """The objects as mask files, or as the boxes or polygons of one frame give them."""
    ways = [name for name in ("mask", "box", "polygon") if getattr(config, name)]
    if len(ways) > 1:
        raise MotionMAEError(f"--{ways[0]} and --{ways[1]} are both given: expected one of --mask, --box and --polygon")
    if config.mask:
        return read_masks(config, frames)
    if not ways:
        return {}
    shapes = [parse_numbers(text, "polygon", None) for text in config.polygon]
    for text in config.box:
        (left, top), (right, bottom) = parse_numbers(text, "box", 2)
        if right <= left or bottom <= top:
            raise MotionMAEError(f"--box {text}: expected left,top,right,bottom with left < right and top < bottom")
        shapes.append([(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)])
    mask = draw_shapes(shapes, frames.height, frames.width)
    for label, text in enumerate(config.box or config.polygon, start=1):
        if not (mask == label).any():
            raise MotionMAEError(
                f"--{ways[0]} {text}: covers no pixel of its own in frames of {frames.width}x{frames.height} pixels"
            )
    return {placed("", config, frames, "at")[0]: mask}


def read_masks(config: SegmentVideo, frames: ImageSequence) -> dict[int, UInt8[np.ndarray, "h w"]]:
    """The mask files; one of them at least holds an object, the others may say that there is none any more."""
    masks: dict[int, UInt8[np.ndarray, "h w"]] = {}
    for text in config.mask:
        time, path = placed(text, config, frames, "mask")
        if time in masks:
            raise MotionMAEError(f"--mask {text}: frame {time} has a mask already")
        masks[time] = read_user_mask(path)
        check_mask(masks[time], frames, path, empty=len(config.mask) > 1)
    if not any(mask[mask != VOID].any() for mask in masks.values()):
        raise MotionMAEError(f"--mask {' '.join(config.mask)}: none of them holds an object")
    return masks


def given_points(config: SegmentVideo, frames: ImageSequence) -> list[dict[int, Place]]:
    """Each point's places."""
    points: list[dict[int, Place]] = []
    for text in config.points:
        point: dict[int, Place] = {}
        for part in text.split("/"):
            time, rest = placed(part, config, frames, "points")
            ((x, y),) = parse_numbers(rest, "points", 1)
            if not (0 <= x < frames.width and 0 <= y < frames.height):
                raise MotionMAEError(f"--points {part}: lies outside frames of {frames.width}x{frames.height} pixels")
            if time in point:
                raise MotionMAEError(f"--points {text}: has two places in frame {time}")
            point[time] = (x, y)
        points.append(point)
    return points
