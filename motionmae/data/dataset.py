"""Clips for a loop of one's own: a map-style data set for any DataLoader, and the project's order as a sampler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from motionmae.config import Data, Target
from motionmae.data.clips import Clips, pretraining_offsets
from motionmae.data.loading import Order
from motionmae.library.classes import number
from motionmae.library.sources import find


def open_clips(
    path: str | os.PathLike[str],
    frames: int = 16,
    size: int = 224,
    *,
    after: int = 1,
    seed: int = 0,
    **changes: Any,
) -> Clips:
    """The videos of a folder, list or shards as random clips: `dataset[3]` is {"clip", "key", "index"}.

    `clip` is uint8 [c, frames + after, size, size]: `after` frames close the last difference, which a motion target
    needs; 0 for any other use. Where the videos' classes are known there is `label` too, a number by the sorted names.
    `changes` are fields of `motionmae.config.Data`: stride=2, flip=False, bad_share=0.0 and so on.
    Raises MotionMAEError where there is no video, or a field is out of its bounds.

    Examples:
        >>> from pathlib import Path
        >>> from motionmae.data.synthetic import write_videos
        >>> count = len(list(write_videos(Path("videos"), "train", 1, seed=0)))
        >>> dataset = open_clips("videos", frames=8, size=64, stride=2)
        >>> len(dataset) == count, dataset[0]["clip"].shape
        (True, torch.Size([3, 9, 64, 64]))
    """
    data = Data(path=os.fspath(path), **changes)
    videos = find(data, "", "root=")
    offsets = pretraining_offsets(frames, data.stride, Target().adjacent, after)
    return Clips(videos.paths, data, offsets, size, seed, number(videos.labels)[0] if videos.labels else ())


class Epochs(Sampler[int]):
    """The project's order for a plain DataLoader: every pass is the next epoch, in which each video comes once.

    The videos' order in an epoch and the clips taken of them depend on the data set's seed and the epoch alone: they
    are those of a run of motionmae with this seed. `set_epoch` goes to any epoch, as to go on with a run.
    """

    def __init__(self, dataset: Clips, epoch: int = 0):
        self.dataset, self.epoch = dataset, epoch
        self.order = Order(len(dataset), 1, 1, dataset.seed, groups=dataset.groups)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.dataset.set_epoch(epoch)
        yield from self.order.permutation(epoch).tolist()

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch."""
        self.epoch = epoch
