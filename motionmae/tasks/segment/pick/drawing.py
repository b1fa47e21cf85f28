"""What the page sends: shapes and points that were drawn on frames. Nothing in it is believed before it is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID
from motionmae.inference.sequence import ImageSequence
from motionmae.tasks.segment.given import Given, Place

LABELLED, SHAPES, CORNERS, POINTS, WIDTH, LETTERS = 256, 2000, 20_000, 100, 1024, 100
PIXELS = 1 << 29
"""Of all labelled frames together."""
KINDS = {"box": 2, "polygon": 3, "stroke": 1, "erase": 1}
"""How many corners each kind of shape has at least."""


@dataclass(frozen=True)
class Shape:
    """A box, polygon or stroke of an object (a stroke of 0 erases), in pixels of the video."""

    label: int
    kind: str
    corners: list[Place]
    width: float


@dataclass(frozen=True)
class Drawing:
    """All that was drawn: shapes of frames, the run whose mask a frame starts from (0: the options), points, names."""

    shapes: dict[int, list[Shape]]
    based: dict[int, int]
    points: list[dict[int, Place]]
    names: tuple[str, ...]


def read_drawing(content: Any, frames: ImageSequence) -> Drawing:
    """The page's JSON as a drawing; raises MotionMAEError for anything else."""
    try:
        labelled = {_frame(number, frames): each for number, each in content["frames"].items()}
        shapes = {number: [_shape(shape) for shape in each["shapes"]] for number, each in labelled.items()}
        based = {number: int(each["base"]) for number, each in labelled.items() if each["base"] is not None}
        points = [
            {_frame(number, frames): _inside(place, frames) for number, place in point.items()}
            for point in content["points"]
        ]
        names = tuple(str(name) for name in content["names"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise MotionMAEError("the page has sent something that is no drawing") from None
    most = {
        "labelled frames": (len(shapes), min(LABELLED, PIXELS // (frames.height * frames.width))),
        "shapes": (sum(map(len, shapes.values())), SHAPES),
        "points": (len(points), POINTS),
        "objects": (len(names), VOID - 1),
        "letters of a name": (max(map(len, names), default=0), LETTERS),
    }
    for what, (count, limit) in most.items():
        if count > limit:
            raise MotionMAEError(f"{count} {what}: at most {limit} can be drawn")
    return Drawing(shapes, based, [point for point in points if point], names)


def _frame(number: str, frames: ImageSequence) -> int:
    if not 0 <= (frame := int(number)) < frames.count:
        raise ValueError
    return frame


def _place(place: Any) -> Place:
    x, y = (float(side) for side in place)
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < 1e5):
        raise ValueError
    return x, y


def _inside(place: Any, frames: ImageSequence) -> Place:
    x, y = _place(place)
    if not (0 <= x < frames.width and 0 <= y < frames.height):
        raise ValueError
    return x, y


def _shape(shape: Any) -> Shape:
    kind, label, width = shape["kind"], int(shape["object"]), float(shape.get("width", 1))
    corners = [_place(place) for place in shape["points"]]
    if not (KINDS[kind] <= len(corners) <= CORNERS and 1 <= label < VOID and 1 <= width <= WIDTH):
        raise ValueError
    return Shape(0 if kind == "erase" else label, kind, corners, width)


def to_given(
    drawing: Drawing, bases: Mapping[tuple[int, int], UInt8[np.ndarray, "h w"]], frames: ImageSequence
) -> Given:
    """The points, and the masks that the shapes make, each on that of `bases`, by frame and run, that it starts from.

    Raises where no object covers a pixel and there is no point.
    """
    masks = {}
    for number, shapes in drawing.shapes.items():
        if shapes or number in drawing.based:
            ground = np.zeros((frames.height, frames.width), dtype=np.uint8)
            if number in drawing.based:
                ground = bases[number, drawing.based[number]]
            masks[number] = draw(ground, shapes)
    if not any(mask[mask != VOID].any() for mask in masks.values()):
        if not drawing.points:
            raise MotionMAEError("nothing to follow: draw an object or set a point")
        masks = {}
    return Given(masks, drawing.points)


def draw(mask: UInt8[np.ndarray, "h w"], shapes: list[Shape]) -> UInt8[np.ndarray, "h w"]:
    """A copy of a mask with the shapes on it, a later one on top. A box covers what `--box` does."""
    image = Image.fromarray(mask.copy())
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        if shape.kind == "box":
            (left, right), (top, bottom) = (sorted(sides) for sides in zip(*shape.corners[:2], strict=True))
            if right > left and bottom > top:
                corners = [(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)]
                pen.polygon(corners, fill=shape.label)
        elif shape.kind == "polygon":
            pen.polygon(shape.corners, fill=shape.label)
        else:
            pen.line(shape.corners, fill=shape.label, width=max(1, round(shape.width)))
            far = shape.width / 2
            for x, y in shape.corners:
                pen.ellipse((x - far, y - far, x + far, y + far), fill=shape.label)
    return np.array(image)
