"""The views of a video for testing. Nothing in them is random: they follow from its length and size."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from torch.utils.data import Dataset

from motionmae import noise
from motionmae.config import Data
from motionmae.data.clips import BoxOf, Cut, Sample, cut
from motionmae.data.sampling import seconds, square_boxes, uniform_clip, views
from motionmae.errors import MotionMAEError
from motionmae.video.errors import VideoError
from motionmae.video.frames import Frames
from motionmae.video.reading import open_video


class Views(Dataset[list[Sample]]):
    """All views of a video for testing: `number` clips spread over its time, each in `crops` squares along the side.

    Indexed by the video. A sample is as in Clips, with `view` in [0, number x crops); nothing is random. A video that
    cannot be read is a MotionMAEError: a test has no substitutes.
    """

    def __init__(
        self,
        files: Sequence[Path],
        data: Data,
        offsets: Sequence[int],
        size: int,
        number: int = 5,
        crops: int = 3,
        labels: Sequence[int] = (),
    ):
        self.files, self.data, self.offsets, self.size = list(files), data, list(offsets), size
        self.number, self.crops, self.labels = number, crops, list(labels)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """Of the pixels of one video's views."""
        return self.number * self.crops * len(self.offsets) * 3 * self.size**2

    def __getitem__(self, index: int) -> list[Sample]:
        label = {"label": self.labels[index]} if self.labels else {}
        try:
            with open_video(self.files[index]) as video:
                clips = cut(video, self.cuts(video), self.size)
        except VideoError as error:
            raise MotionMAEError(str(error)) from error
        return [
            {"clip": clip, "key": noise.key(index, view), "index": index, "view": view, **label}
            for view, clip in enumerate(clips)
        ]

    def cuts(self, video: Frames) -> list[Cut]:
        """All squares of the first view, then those of the next."""

        def box_of(turn: int) -> BoxOf:
            return lambda height, width: square_boxes(height, width, self.crops)[turn]

        return [Cut(numbers, box_of(turn)) for numbers in self.choose(video) for turn in range(self.crops)]

    def choose(self, video: Frames) -> list[list[int]]:
        """The numbers of each view's frames."""
        data, places = self.data, [(view + 0.5) / self.number for view in range(self.number)]
        if data.sampling == "uniform":
            return [
                uniform_clip(len(video), self.offsets, data.stride, [place] * len(self.offsets)) for place in places
            ]
        if data.fps is not None:
            fps = Fraction(data.fps).limit_denominator(1001)
            starts = [
                Fraction(view, max(self.number - 1, 1)) if self.number > 1 else 0.5 for view in range(self.number)
            ]
            return [video.at(seconds(video.duration, self.offsets, fps, start, data.short)) for start in starts]
        return views(len(video), self.offsets, self.number, data.short)
