"""Image files. Its one rule: none is decoded that says it has more pixels than MOST_PIXELS."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from motionmae.errors import MotionMAEError

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
