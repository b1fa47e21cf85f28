"""Folders of images as videos: the images, sorted by name with numbers as numbers, are the frames."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.video.errors import VideoError
from motionmae.video.images import as_rgb, open_image

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
    return sorted(found, key=by_number)


def by_number(name: str) -> list[tuple[int, str]]:
    """What names are sorted by: numbers in them count as numbers."""
    parts = [part.lstrip("0") or "0" if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]
    return [(len(part), part) if part.isdigit() else (0, part) for part in parts]


class Images:
    """A folder of images, opened: the same methods as those of a `Video`."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.names, self.rate, self.slack = os.fspath(path), names(path), RATE, 1 / (1000 * RATE)
        self.shape: tuple[int, ...] = _load(self.path, self.names[0], ()).shape[:2]

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __len__(self) -> int:
        return len(self.names)

    def starts(self) -> list[Fraction]:
        """Seconds from the first frame's start to each frame's."""
        return [number / RATE for number in range(len(self))]

    @property
    def duration(self) -> Fraction:
        """Seconds, at RATE frames per second."""
        return len(self) / RATE

    def at(self, seconds: Iterable[int | float | Fraction]) -> list[int]:
        """The numbers of the frames at these seconds, within the folder."""
        places = [int((Fraction(second) + self.slack) * RATE) for second in seconds]
        return [min(max(place, 0), len(self) - 1) for place in places]

    def read(self, indices: Sequence[int] | None = None) -> UInt8[Tensor, "t h w c"]:
        """The frames of these numbers, or all, in RGB and at the size of the folder's first image."""
        wanted = range(len(self)) if indices is None else indices
        if not len(wanted) or min(wanted) < 0 or max(wanted) >= len(self):
            asked = f"{min(wanted)} to {max(wanted)}" if len(wanted) else "none"
            raise VideoError(self.path, f"frames {asked} were asked for; there are 0 to {len(self) - 1}")
        loaded = dict(self.pictures(sorted(set(wanted))))
        return torch.from_numpy(np.stack([loaded[index] for index in wanted]))

    def pictures(self, indices: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, one at a time with their numbers."""
        return ((index, _load(self.path, self.names[index], self.shape)) for index in indices)

    def walk(self) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """All frames, one at a time."""
        return (_load(self.path, name, self.shape) for name in self.names)


class Kept:
    """A video's frames in memory: the same methods as those of the opened video, and the same answers."""

    def __init__(self, video: Any):
        """Read everything from a `Video` or from `Images`."""
        self.frames: Tensor = video.read()
        self.starts, self.slack, self.duration = video.starts(), video.slack, video.duration

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, seconds: Iterable[int | float | Fraction]) -> list[int]:
        """The numbers of the frames at these seconds, within the video."""
        places = [bisect_right(self.starts, Fraction(second) + self.slack) - 1 for second in seconds]
        return [min(max(place, 0), len(self) - 1) for place in places]

    def pictures(self, indices: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, with their numbers."""
        return ((index, self.frames[index].numpy()) for index in indices)


def _load(path: str | os.PathLike[str], name: str, size: tuple[int, ...]) -> UInt8[np.ndarray, "h w c"]:
    """One image, turned as its Exif data say; resized where it differs from the first."""
    try:
        with open_image(os.path.join(path, name)) as image:
            picture = as_rgb(image, "")
    except MotionMAEError as error:
        raise VideoError(os.path.join(path, name), str(error).partition(": ")[2]) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise VideoError(os.path.join(path, name), f"not a readable image ({error})") from error
    if size and picture.size != size[::-1]:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture)
