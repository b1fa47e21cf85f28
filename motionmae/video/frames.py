"""What can be watched, `Frames`: a video file (`reading.py`), and here a folder of images and a video kept in memory.

Its one rule: who watches needs not know which of them it is. A folder's images, sorted by name with numbers as numbers,
are its frames.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.video import pulse
from motionmae.video.errors import VideoError
from motionmae.video.images import as_rgb, open_image

F = TypeVar("F")
Real = int | float | Fraction

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
RATE = Fraction(30)
"""Frames per second of a folder, for want of anything that says it."""
MAX_BYTES = 8 << 30
"""Of frames that are read at a time."""


@runtime_checkable
class Frames(Protocol):
    """An opened video, whatever it comes from: a context manager, with frames from 0 on."""

    path: str

    def __enter__(self: F) -> F:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __len__(self) -> int: ...

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's start to the last one's end."""
        ...

    @property
    def slack(self) -> Fraction:
        """Seconds by which a time may miss a frame's start and still mean it."""
        ...

    def starts(self) -> list[Fraction]:
        """Seconds from the first frame's start to each frame's."""
        ...

    def at(self, seconds: Iterable[Real]) -> list[int]:
        """The numbers of the frames on screen at these seconds from the first frame's start, within the video."""
        ...

    def pictures(self, indices: Iterable[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, or all, in RGB, one at a time with their numbers: little memory however many.

        In any order, and perhaps again from the first: the last one counts. Raises VideoError.
        """
        ...

    def read(self, indices: Sequence[int] | None = None) -> UInt8[Tensor, "t h w c"]:
        """The frames of these numbers, in any order and with repeats, or all; see `reading.read_frames`."""
        found: dict[int, np.ndarray] = {}
        for number, picture in self.pictures(indices):
            found[number] = picture
            if len(found) * picture.nbytes > MAX_BYTES:
                raise VideoError(self.path, f"its frames need more than {MAX_BYTES >> 30} GiB; read fewer at a time")
        order = range(len(found)) if indices is None else [int(index) for index in indices]
        return torch.from_numpy(np.stack([found[index] for index in order]))


def shown(seconds: Iterable[Real], count: int, start: Callable[[int], Fraction], slack: Fraction) -> list[int]:
    """The numbers of the frames on screen at these seconds, of `count` that start at `start(number)`, rising.

    A time that is `slack` seconds short of a frame's start means that frame; one outside the video, its nearest frame.
    """
    places = [bisect_right(range(count), Fraction(second) + slack, key=start) - 1 for second in seconds]
    return [min(max(place, 0), count - 1) for place in places]


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


class Images(Frames):
    """A folder of images, opened."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.names, self.rate = os.fspath(path), names(path), RATE
        self.shape: tuple[int, ...] = _load(self.path, self.names[0], ()).shape[:2]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def slack(self) -> Fraction:
        """Seconds: a thousandth of a frame."""
        return 1 / (1000 * RATE)

    def starts(self) -> list[Fraction]:
        return [number / RATE for number in range(len(self))]

    @property
    def duration(self) -> Fraction:
        """Seconds, at RATE frames per second."""
        return len(self) / RATE

    def at(self, seconds: Iterable[Real]) -> list[int]:
        return shown(seconds, len(self), lambda number: number / RATE, self.slack)

    def pictures(self, indices: Iterable[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, or all, at the size of the folder's first image, the first number first."""
        for number in range(len(self)) if indices is None else wished(indices, self):
            yield number, _load(self.path, self.names[number], self.shape)

    def walk(self) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """All frames, one at a time."""
        return (_load(self.path, name, self.shape) for name in self.names)


class Kept(Frames):
    """A video's frames in memory: the same answers as those of the opened video."""

    def __init__(self, video: Frames):
        """Read everything; the video may be closed then."""
        self.path, self.frames = video.path, video.read()
        self._starts, self._slack, self._duration = video.starts(), video.slack, video.duration

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def duration(self) -> Fraction:
        """Seconds, as those of the video."""
        return self._duration

    @property
    def slack(self) -> Fraction:
        """Seconds, as those of the video."""
        return self._slack

    def starts(self) -> list[Fraction]:
        return self._starts

    def at(self, seconds: Iterable[Real]) -> list[int]:
        return shown(seconds, len(self), self._starts.__getitem__, self._slack)

    def pictures(self, indices: Iterable[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, or all."""
        for number in range(len(self)) if indices is None else wished(indices, self):
            yield number, self.frames[number].numpy()


def wished(indices: Iterable[int], frames: Frames) -> list[int]:
    """The numbers, sorted, each once. Raises VideoError where the video has none of such a number."""
    wanted = sorted({int(index) for index in indices})
    if not wanted or wanted[0] < 0 or wanted[-1] >= len(frames):
        asked = f"{wanted[0]} to {wanted[-1]}" if wanted else "none"
        raise VideoError(frames.path, f"frames {asked} were asked for; there are 0 to {len(frames) - 1}")
    return wanted


def _load(path: str | os.PathLike[str], name: str, size: tuple[int, ...]) -> UInt8[np.ndarray, "h w c"]:
    """One image, turned as its Exif data say; resized where it differs from the first."""
    pulse.beat()
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
