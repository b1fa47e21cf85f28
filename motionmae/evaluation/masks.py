"""Masks as label maps: uint8, 0 the background, 1 to 254 the objects, 255 void; their files are palette PNGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, UnidentifiedImageError

from motionmae.errors import MotionMAEError
from motionmae.files import write_image
from motionmae.video.images import open_image

VOID = 255


def palette() -> UInt8[np.ndarray, "256 3"]:
    """The colours of DAVIS and Pascal VOC: the bits of a label, from the lowest, dealt to red, green and blue in turn,
    fill each channel from its highest bit down (Everingham et al., 2010, development kit)."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colours[:, channel] |= (labels >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def read_mask(path: Path | str) -> UInt8[np.ndarray, "h w"]:
    """The labels of a palette or grey PNG; raises where the file is missing, broken, smeared or in true colours.

    Grey ones of 0 and 255 alone are black and white, as DAVIS 2016 has them: one object.
    """
    try:
        with open_image(path) as image:
            if image.format == "JPEG":
                raise MotionMAEError(f"{path} is a JPEG, which smears object numbers: expected a PNG")
            if image.mode not in ("P", "L", "1"):
                raise MotionMAEError(
                    f"{path} must be a palette or 8-bit grey image of object numbers; its mode is {image.mode}"
                )
            labels = np.array(image).astype(np.uint8)
            white = image.mode == "L" and np.isin(labels, (0, VOID)).all()
            return (labels > 0).astype(np.uint8) if white else labels
    except MotionMAEError:
        raise
    except FileNotFoundError:
        raise MotionMAEError(f"{path} is missing: expected a mask (PNG)") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise MotionMAEError(f"{path} cannot be read as a PNG: {error}") from None


def read_user_mask(path: Path | str) -> UInt8[np.ndarray, "h w"]:
    """As `read_mask`, and masks as drawing programs save them: black and white, with soft edges or on a transparent
    ground (half and more is the object), or in the palette's very colours."""
    try:
        with open_image(path) as image:
            mode = "" if image.format == "JPEG" else image.mode
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError):  # that one says why
        return read_mask(path)
    if mode not in ("1", "L", "LA", "RGB", "RGBA"):
        return read_mask(path)
    solid = pixels[..., 3] >= 128
    if not solid.all() and len(np.unique(pixels[solid][:, :3], axis=0)) == 1:
        return solid.astype(np.uint8)
    drawn = np.where(solid[..., None], pixels[..., :3], 0).astype(np.int64)
    if (drawn == drawn[..., :1]).all() and _one_shape(np.unique(drawn[..., 0]).tolist()):
        return (drawn[..., 0] >= 128).astype(np.uint8)
    colours = drawn @ (1 << 16, 1 << 8, 1)
    if mode not in ("RGB", "RGBA"):
        return read_mask(path)
    labels = dict(zip((palette().astype(np.int64) @ (1 << 16, 1 << 8, 1)).tolist(), range(256), strict=True))
    found, places = np.unique(colours, return_inverse=True)
    for colour in found.tolist():
        if colour not in labels:
            raise MotionMAEError(
                f"{path} holds the colour #{colour:06x}: expected black and white, DAVIS's palette, or object numbers"
            )
    return np.array([labels[colour] for colour in found.tolist()], dtype=np.uint8)[places].reshape(colours.shape)


def _one_shape(greys: list[int]) -> bool:
    """Whether greys are black, white and what lies between at soft edges, not the numbers of objects: these follow each
    other from 1 on, or are few."""
    between = [grey for grey in greys if 0 < grey < VOID]
    return VOID in greys and (not between or (len(between) > 2 and between != list(range(1, len(between) + 1))))


def write_mask(path: Path | str, labels: UInt8[np.ndarray, "h w"]) -> None:
    """Save labels as a palette PNG, which the benchmark's own scorer and any viewer can read."""
    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    write_image(path, image)


def draw_shapes(
    shapes: Sequence[Sequence[tuple[float, float]]], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width}"]:
    """Polygons (corners as x, y in pixels) as a label map: the first is object 1; a later one lies on top."""
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    for label, corners in enumerate(shapes, start=1):
        pen.polygon([tuple(corner) for corner in corners], fill=label)
    return np.array(image)


def paint(
    frame: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"], strength: float = 0.5
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of an RGB frame with the objects tinted and outlined in their palette colours; void is left alone."""
    shown = np.where(labels == VOID, 0, labels)
    colours = palette()[shown]
    inside = shown > 0
    outline = np.zeros_like(inside)
    for axis in (0, 1):
        differs = np.diff(shown, axis=axis) != 0
        outline |= np.pad(differs, [(0, int(axis == other)) for other in (0, 1)])
        outline |= np.pad(differs, [(int(axis == other), 0) for other in (0, 1)])
    share = np.where(inside & outline, 1.0, strength * inside)[:, :, None]
    return np.round(frame * (1 - share) + colours * share).astype(np.uint8)


def draw_points(
    frame: UInt8[np.ndarray, "h w 3"], ways: Float[np.ndarray, "t p 2"], radius: int = 4
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of an RGB frame with the ways (x, y in pixels, NaN where unknown) of points as lines that end in dots."""
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    colours = palette()
    for number in range(ways.shape[1]):
        colour = tuple(colours[number % 254 + 1].tolist())
        way = [tuple(place) for place in ways[:, number].tolist() if place[0] == place[0]]
        if len(way) > 1:
            pen.line(way, fill=colour, width=2)
        x, y = ways[-1, number].tolist()
        if x == x:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=(255, 255, 255))
    return np.array(image)
