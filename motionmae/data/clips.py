"""Clips of many videos, in batches. What a sample is depends on (seed, epoch, index) alone.

Not on the number of workers or ranks, nor on what was read before: so a run can stop anywhere and go on.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from motionmae import noise
from motionmae.config import Data, check
from motionmae.data.sampling import (
    Box,
    area_box,
    crop,
    crop_box,
    dense,
    pretraining_offsets,
    seconds,
    uniform_clip,
)
from motionmae.errors import MotionMAEError
from motionmae.library.tars import groups, holder
from motionmae.video import origin, pulse, remote
from motionmae.video.frames import Frames, Kept
from motionmae.video.reading import VideoError, open_video
from motionmae.words import many

__all__ = ["Clips", "Place", "Sample", "crop", "dense", "pretraining_offsets"]

Sample = dict[str, Any]
Place = tuple[int, int]  # epoch, index
BoxOf = Callable[[int, int], Box]  # by height and width of the frame
TRIES = 10
"""Videos that are tried for one sample, and how often a video is tried that always fails."""


class Draws(NamedTuple):
    """All that is random about a sample before it reaches the device: numbers in [0, 1)."""

    start: float
    """Where the clip starts among the places where it may."""
    crop: list[float]
    """Four: which shape is cut out of the frames, and where."""
    mirror: float
    """Below a half, left and right change places, if they may."""
    parts: list[float]
    """Of a spread clip: a place in each part of the video."""


@dataclass(frozen=True)
class Cut:
    """What a clip is of a video."""

    numbers: list[int]
    """Of its frames."""
    box: BoxOf
    """Where it is cut out of them."""
    mirror: bool = False
    """Whether left and right change places."""


def cut(video: Frames, cuts: Sequence[Cut], size: int) -> list[UInt8[Tensor, "c t s s"]]:
    """Clips of an opened video, each frame decoded once, cut and resized as it comes: one whole frame in memory."""
    clips = [torch.empty(3, len(wish.numbers), size, size, dtype=torch.uint8) for wish in cuts]
    for number, picture in video.pictures(sorted({number for wish in cuts for number in wish.numbers})):
        for wish, clip in zip(cuts, clips, strict=True):
            places = [place for place, name in enumerate(wish.numbers) if name == number]
            if places:
                top, left, height, width = wish.box(*picture.shape[:2])
                part = np.ascontiguousarray(picture[top : top + height, left : left + width])
                clip[:, places] = crop(torch.from_numpy(part[None]), (0, 0, height, width), size, wish.mirror)
    return clips


class Clips(Dataset[Any]):
    """Random clips of videos: `dataset[3]` is a clip of video 3, the same again until `set_epoch`. Indexed by (epoch,
    index) it is a list of `data.repeats` clips from one opening, as the project's own loader wants them.

    A sample is `clip`, uint8 [c t s s], its `key`, its `index` and, with labels, its `label`; where videos may start
    again (`data.short` loop) also `numbers`, int64 [t], those of its frames in the video. A video that cannot be
    read is replaced by another that the same key picks, told on stderr and counted in `failures`; where more than
    `data.bad_share` of the reads of all workers fail (and at least ten), MotionMAEError stops the run.
    """

    def __init__(
        self,
        files: Sequence[Path],
        data: Data,
        offsets: Sequence[int],
        size: int,
        seed: int,
        labels: Sequence[int] = (),
    ):
        check(data, "data")
        self.files, self.data, self.offsets, self.size, self.seed = list(files), data, list(offsets), size, seed
        self.labels = list(labels)
        self.kept: dict[int, Kept] = {}
        self.failures: Counter[int] = Counter()
        # Reads and failures of this process and of each worker, seen by all: a row each, none disturbs another.
        self.counts = torch.zeros(1 + data.workers, 2, dtype=torch.int64).share_memory_()
        self.groups = groups(self.files)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # the workers of a loader see it change

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """Of the pixels of one opening."""
        return self.data.repeats * len(self.offsets) * 3 * self.size**2

    def set_epoch(self, epoch: int) -> None:
        """From now on `dataset[index]` is the clip of this epoch, in the workers of a loader too."""
        self.epoch.fill_(epoch)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: Place) -> list[Sample]: ...
    def __getitem__(self, place: int | Place) -> Sample | list[Sample]:
        if isinstance(place, tuple):
            return self.opening(*place)
        if not -len(self) <= place < len(self):
            raise IndexError(f"video {place} was asked for, there are {len(self)}")
        return self.opening(int(self.epoch), int(place) % len(self))[0]

    def opening(self, epoch: int, index: int) -> list[Sample]:
        """The clips of one opening of a video, or of one that stands in for it."""
        attempt = 0
        while attempt < TRIES:
            chosen = index if attempt == 0 else noise.key(self.seed, epoch, index, -attempt) % len(self)
            keys = [noise.key(self.seed, epoch, index, repeat) for repeat in range(self.data.repeats)]
            self.count(0)
            if self.failures[chosen] < TRIES:
                try:
                    return self.samples(chosen, keys)
                except VideoError as error:
                    if self.away(chosen):
                        self.wait(chosen)
                        continue
                    self.fail(chosen, error)
            else:
                self.fail(chosen)
            attempt += 1
        raise MotionMAEError(
            f"{remote.shown(self.files[index])} and {TRIES - 1} other videos in a row could not be read"
        )

    def away(self, index: int) -> bool:
        """Whether this video is not alone in having gone: of videos from all over the list none is there."""
        some = [index, *range(0, len(self), max(1, len(self) // TRIES))]
        places = {holder(self.files[at]) for at in some}
        return not any(remote.exists(place) or origin.is_fetched(place) for place in places)

    def wait(self, index: int) -> None:
        """Until the videos are back; MotionMAEError after `data.patience` seconds."""
        patience, begun, pause = self.data.patience, time.monotonic(), 0.5
        told = f"{remote.shown(self.files[index])} and the other videos are out of reach"
        print(f"motionmae: {told}; trying again for {patience:g} s", file=sys.stderr, flush=True)
        while self.away(index):
            left = begun + patience - time.monotonic()
            if left <= 0:
                raise MotionMAEError(f"{told}, for longer than --data.patience {patience:g} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, 30.0)
            pulse.beat()
        print("motionmae: the videos are back", file=sys.stderr, flush=True)

    def fail(self, index: int, error: VideoError | None = None) -> None:
        """Count a failure, tell a video's first, and stop where there are too many."""
        if not self.failures[index]:
            print(f"motionmae: skipped {error}", file=sys.stderr, flush=True)
        self.failures[index] += 1
        self.count(1)
        reads, failed = self.counts.sum(0).tolist()
        if failed >= TRIES and failed > self.data.bad_share * reads:
            raise MotionMAEError(
                f"{failed} of {reads} reads failed, more than --data.bad-share {self.data.bad_share:g}, the last of "
                f"{remote.shown(self.files[index])}; motionmae scan tells which and why"
            )

    def count(self, column: int) -> None:
        """One more read (0) or failure (1) of this process."""
        pulse.beat()
        worker = get_worker_info()
        self.counts[min(worker.id + 1, len(self.counts) - 1) if worker else 0, column] += 1

    def frames_of(self, path: Path, key: int) -> list[int]:
        """The numbers of the frames, sorted, that the sample of this key takes from the video."""
        with open_video(path) as video:
            return sorted(set(self.choose(video, self.draws(key))))

    def draws(self, key: int) -> Draws:
        """What is drawn for the sample of this key."""
        drawn = np.random.default_rng(key).random(6 + len(self.offsets)).tolist()
        return Draws(start=drawn[0], crop=drawn[1:5], mirror=drawn[5], parts=drawn[6:])

    def samples(self, index: int, keys: Sequence[int]) -> list[Sample]:
        """One clip for each key, all from one opening; raises VideoError."""
        drawn = [self.draws(key) for key in keys]
        with self.kept.get(index) or open_video(self.files[index]) as video:
            if self.data.cache and index not in self.kept:
                self.kept[index] = video = Kept(video)
            cuts = [Cut(self.choose(video, draws), *self.place(draws)) for draws in drawn]
            clips = cut(video, cuts, self.size)
        label = {"label": self.labels[index]} if self.labels else {}
        samples = [{"clip": clip, "key": key, "index": index, **label} for clip, key in zip(clips, keys, strict=True)]
        if self.data.short == "loop":
            for sample, wish in zip(samples, cuts, strict=True):
                sample["numbers"] = torch.tensor(wish.numbers)
        return samples

    def choose(self, video: Frames, draws: Draws) -> list[int]:
        """The numbers of the clip's frames."""
        data = self.data
        if data.sampling == "uniform":
            return uniform_clip(len(video), self.offsets, data.stride, draws.parts)
        if data.fps is not None:
            fps = Fraction(data.fps).limit_denominator(1001)
            return video.at(seconds(video.duration, self.offsets, fps, draws.start, data.short))
        return dense(len(video), self.offsets, draws.start, data.short)

    def place(self, draws: Draws) -> tuple[BoxOf, bool]:
        """Where a clip is cut out of its frames, by their size, and whether it is mirrored."""
        data = self.data

        def box(height: int, width: int) -> Box:
            if data.area is not None:
                return area_box(height, width, draws.crop, data.area, data.aspect)
            return crop_box(height, width, draws.crop, data.scales)

        return box, data.flip and draws.mirror < 0.5


def told_short(dataset: Clips, most: int = 8) -> str:
    """A sentence where some of the first videos are shorter than a clip; nothing for uniform sampling and rates."""
    data, span, lengths = dataset.data, dataset.offsets[-1] + 1, []
    if data.sampling == "uniform" or data.fps is not None:
        return ""
    for file in dataset.files[:most]:
        with contextlib.suppress(VideoError), open_video(file) as video:
            lengths.append(len(video))
    short = [length for length in lengths if length < span]
    if not short:
        return ""
    frozen = "starts again" if data.short == "loop" else "holds its last frame"
    return (
        f"shorter than a clip, which spans {many(span, 'frame')}: {len(short)} of {many(len(lengths), 'video')} looked "
        f"at; one of {many(min(short), 'frame')} {frozen} (--data.stride {data.stride} is from one frame of a clip to "
        f"the next)"
    )
