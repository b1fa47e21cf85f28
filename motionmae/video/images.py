"""Image files. Its one rule: none is decoded that says it has more pixels than MOST_PIXELS.

And none is shown with its values cut off: more than 8 bits are scaled by their range, or refused.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from motionmae.errors import MotionMAEError
from motionmae.words import many

MOST_PIXELS = 1 << 26
"""Pixels of a picture (an image, a mask, a frame of a video) beyond which it is not read: 8192 x 8192."""


def too_large(height: int, width: int) -> str:
    """Why a picture of this size is not read; empty where it is."""
    return "" if height * width <= MOST_PIXELS else f"of {width} x {height} pixels; at most {MOST_PIXELS} are read"


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image, opened but not decoded. Raises MotionMAEError where it is too large, and what Pillow raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our bound is asked below
        try:
            image = Image.open(path)
        except Image.DecompressionBombError as error:
            raise MotionMAEError(
                f"{os.fspath(path)}: an image of more than {MOST_PIXELS} pixels is not read"
            ) from error
    with image:
        if why := too_large(image.height, image.width):
            raise MotionMAEError(f"{os.fspath(path)}: an image {why}")
        yield image


def as_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    """An opened image in RGB, turned as its Exif data say: 16 bits by their whole range, floats as they lie in [0, 1].

    Raises MotionMAEError for others, and where 8 bits would make different values the same (a thermal camera's, which
    fill a small part of the range).
    """
    image = ImageOps.exif_transpose(image)
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F" and values.min() >= 0 and values.max() <= 1:  # NaN is neither
        grey = values * 255
    elif image.mode != "F" and values.min() >= 0 and values.max() < 1 << 16:
        grey = values / 257
    else:
        raise MotionMAEError(
            f"{os.fspath(path)}: has values from {values.min():g} to {values.max():g}; expected 8 bits, 16 bits, or "
            "floats in [0, 1]"
        )
    grey = np.round(grey).astype(np.uint8)
    before, after = len(np.unique(values)), len(np.unique(grey))
    if after < 32 and before > 2 * after:
        raise MotionMAEError(
            f"{os.fspath(path)}: its {many(before, 'value')} from {values.min():g} to {values.max():g} would become "
            f"{after} in 8 bits; scale the images to their own range first"
        )
    return Image.fromarray(grey).convert("RGB")
