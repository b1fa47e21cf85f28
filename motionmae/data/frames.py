"""Folders of images as videos: the images, sorted by name with numbers as numbers, are the frames."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from motionmae.data.packets import VideoError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
RATE = Fraction(30)
"""Frames per second of a folder, for want of anything that says it."""


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the folder's images in their order: frame2 comes before frame10. Raises VideoError without any."""
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry in entries if is_image(entry.name)]
    except OSError as error:
        raise VideoError(path, (error.strerror or "unreadable").lower()) from error
    if not found:
        raise VideoError(path, "a folder without images")
    return sorted(found, key=lambda name: [(len(part), part) if part.isdigit() else (0, part) for part in _parts(name)])


def _parts(name: str) -> list[str]:
    return [part.lstrip("0") or "0" if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def examine(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Number of frames, height and width of the first."""
    found = names(path)
    height, width = _load(path, found[0], None).shape[:2]
    return len(found), height, width


def read(path: str | os.PathLike[str], indices: Sequence[int] | None) -> UInt8[Tensor, "t h w c"]:
    """The frames of these numbers, or all, in RGB and at the size of the folder's first image."""
    found = names(path)
    wanted = range(len(found)) if indices is None else indices
    if not len(wanted) or min(wanted) < 0 or max(wanted) >= len(found):
        asked = f"{min(wanted)} to {max(wanted)}" if len(wanted) else "none"
        raise VideoError(path, f"frames {asked} were asked for; there are 0 to {len(found) - 1}")
    size = _load(path, found[0], None).shape[:2]
    loaded = {index: _load(path, found[index], size) for index in sorted(set(wanted))}
    return torch.from_numpy(np.stack([loaded[index] for index in wanted]))


def _load(path: str | os.PathLike[str], name: str, size: tuple[int, ...] | None) -> UInt8[np.ndarray, "h w c"]:
    """One image, turned as its Exif data say; resized where it differs from the first."""
    try:
        with Image.open(os.path.join(path, name)) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(os.path.join(path, name), f"not a readable image ({error})") from error
    if size is not None and picture.size != size[::-1]:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture)
