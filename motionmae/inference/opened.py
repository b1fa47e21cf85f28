"""A video opened for Python: its frames, as `Frames` gives them, and its clips, as a model wants them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from motionmae.config import Model, Viewing
from motionmae.inference import windows
from motionmae.inference.views import settle
from motionmae.models.encoder import VideoEncoder
from motionmae.video import reading
from motionmae.video.frames import Frames, Real
from motionmae.video.origin import as_place


class Stretch(NamedTuple):
    """A clip and the seconds, from the first frame's start, that it stands for."""

    start: float
    end: float
    clip: UInt8[Tensor, "1 c t h w"]


class OpenedVideo(Frames):
    """A video file or a folder of images, a context manager: `len`, `duration`, `at(seconds)`, `read(numbers)`,
    `pictures()`, and `clips()`. What else the file says (`rate`, `starts()` …) is there too."""

    def __init__(self, video: Any):
        self._video, self.path = video, video.path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._video, name)

    def __exit__(self, *error: object) -> None:
        self._video.__exit__(*error)

    def __len__(self) -> int:
        return len(self._video)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's start to the last one's end."""
        return self._video.duration

    @property
    def slack(self) -> Fraction:
        """Seconds by which a time may miss a frame's start and still mean it."""
        return self._video.slack

    def starts(self) -> list[Fraction]:
        """Seconds from the first frame's start to each frame's."""
        return self._video.starts()

    def at(self, seconds: Iterable[Real]) -> list[int]:
        """The numbers of the frames on screen at these seconds."""
        return self._video.at(seconds)

    def pictures(self, indices: Iterable[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, or all, one at a time with their numbers."""
        return self._video.pictures(indices)

    def clips(
        self,
        encoder: VideoEncoder | None = None,
        *,
        frames: int | None = None,
        size: int | None = None,
        stride: int | None = None,
        every: str = "clip",
    ) -> Iterator[Stretch]:
        """Clips along the video, one at a time: uint8 [1, 3, frames, size, size], the middle square of the frames.

        They are as the `encoder` was trained on, or 16 frames at a stride of 4 and 224 pixels, but for what is given.
        `every` is `clip`, end to end, or the seconds from one's start to the next, such as "1s". Raises MotionMAEError
        for a number that cannot be, VideoError where a frame cannot be read.
        """
        model, made_with = (Model(), {}) if encoder is None else (encoder.config, encoder.made_with)
        view = settle(Viewing(1, 1, frames=frames, size=size, stride=stride), made_with, model)
        found = windows.end_to_end(self, view) if every == "clip" else windows.spaced(self, every, "", view, before="")
        for (window, *_), clip in windows.clips(self, found, view, 1):
            yield Stretch(float(window.start), float(window.end), clip[:, 0])


def open_video(path: str | os.PathLike[str], limit: float = 60.0) -> OpenedVideo:
    """A video file, its address (`https://…`, `s3://…`) or a folder of images, opened for its frames and its clips: a
    context manager.

    `limit` bounds the seconds of opening it, and of each read. Raises VideoError for what is not a readable video.
    """
    return OpenedVideo(reading.open_video(as_place(os.fspath(path)), limit))
