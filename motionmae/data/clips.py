"""Which frames make a clip, and the clips of many videos. What a sample is depends on (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from motionmae import noise
from motionmae.config import Adjacent, Data, Short
from motionmae.data.video import VideoError, read_frames
from motionmae.errors import MotionMAEError

Sample = dict[str, Any]
Place = tuple[int, int]  # epoch, index


def pretraining_offsets(frames: int, stride: int, adjacent: Adjacent, gap: int) -> list[int]:
    """Frames of a clip from its first: those that the encoder sees, and those that close the differences.

    "clip": frames + gap at the stride; "video": the frames at the stride, then each one's neighbour `gap` later.
    """
    if adjacent == "clip":
        return [stride * step for step in range(frames + gap)]
    return [stride * step + shift for shift in (0, gap) for step in range(frames)]


def dense(count: int, offsets: Sequence[int], draw: float, short: Short) -> list[int]:
    """The clip's frames of a video of `count` frames, from a start that `draw` in [0, 1) picks."""
    free = max(0, count - 1 - max(offsets))
    start = int(draw * (free + 1))
    return [(start + offset) % count if short == "loop" else min(start + offset, count - 1) for offset in offsets]


def crop_box(height: int, width: int, draws: Sequence[float], scales: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a multi-scale crop: two neighbouring scales of the short side, at a random place.

    Wang et al., 2016, arXiv 1608.00859, section 3.2; the place is uniform here.
    """
    first = int(draws[0] * len(scales))
    second = min(max(first + int(draws[1] * 3) - 1, 0), len(scales) - 1)
    short = min(height, width)
    rows, columns = max(1, round(short * scales[first])), max(1, round(short * scales[second]))
    return int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1)), rows, columns


def crop(
    frames: UInt8[Tensor, "t h w c"], box: tuple[int, int, int, int], size: int, mirror: bool
) -> UInt8[Tensor, "c t s s"]:
    """The box of every frame, resized (bilinear, antialiased) to a square: only its pixels are touched."""
    top, left, rows, columns = box
    part = frames[:, top : top + rows, left : left + columns].permute(0, 3, 1, 2)
    if (rows, columns) != (size, size):
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return (part.flip(3) if mirror else part).transpose(0, 1).contiguous()


class Clips(Dataset[list[Sample]]):
    """Random clips of videos, `data.repeats` for each opening; indexed by (epoch, index).

    A sample is `clip`, uint8 [c t s s], its `key`, its `index` and, with labels, its `label`. A video that cannot be
    read is replaced by another that the same key picks.
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
        self.files, self.data, self.offsets, self.size, self.seed = list(files), data, list(offsets), size, seed
        self.labels = list(labels)
        self.cached: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: Place) -> list[Sample]:
        epoch, index = place
        for attempt in range(10):
            chosen = index if attempt == 0 else noise.key(self.seed, epoch, index, attempt) % len(self)
            try:
                frames = self.frames(chosen)
            except VideoError:
                continue
            return [
                self.sample(frames, chosen, noise.key(self.seed, epoch, index, k)) for k in range(self.data.repeats)
            ]
        raise MotionMAEError(f"{self.files[index]} and nine other videos in a row could not be read")

    def frames(self, index: int) -> Tensor:
        """The video's frames, from memory where they are kept."""
        if index in self.cached:
            return self.cached[index]
        frames = read_frames(self.files[index])
        if self.data.cache:
            self.cached[index] = frames
        return frames

    def sample(self, frames: UInt8[Tensor, "t h w c"], index: int, key: int) -> Sample:
        """One clip, cut by the numbers that its key gives."""
        random = np.random.default_rng(key).random(6)
        chosen = dense(len(frames), self.offsets, random[0], self.data.short)
        box = crop_box(frames.shape[1], frames.shape[2], random[1:5].tolist(), self.data.scales)
        clip = crop(frames[chosen], box, self.size, self.data.flip and random[5] < 0.5)
        label = {"label": self.labels[index]} if self.labels else {}
        return {"clip": clip, "key": key, "index": index, **label}


class Order(Sampler[list[Place]]):
    """Batches without end: each epoch is a permutation of its own, and batches run on over the epochs' borders.

    Every video is seen once an epoch. Rank r of w takes the r-th part of each global batch, cut into micro-batches.
    """

    def __init__(self, length: int, batch: int, micro: int, seed: int, rank: int = 0, ranks: int = 1, start: int = 0):
        self.length, self.batch, self.micro, self.seed = length, batch, micro, seed
        self.rank, self.ranks, self.start = rank, ranks, start

    def __iter__(self) -> Iterator[list[Place]]:
        step, epoch, order = self.start, -1, np.empty(0, dtype=np.int64)
        share = self.batch // self.ranks
        while True:
            places: list[Place] = []
            for position in range(step * self.batch + self.rank * share, step * self.batch + (self.rank + 1) * share):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
                places.append((epoch, int(order[position % self.length])))
            yield from (places[at : at + self.micro] for at in range(0, share, self.micro))
            step += 1


def collate(items: Sequence[list[Sample]]) -> dict[str, Tensor]:
    """Samples of several openings as one batch: clips stacked, numbers as int64."""
    samples = [sample for item in items for sample in item]
    return {
        name: torch.stack([sample[name] for sample in samples])
        if isinstance(samples[0][name], Tensor)
        else torch.tensor([sample[name] for sample in samples], dtype=torch.int64)
        for name in samples[0]
    }


def loader(dataset: Dataset[list[Sample]], order: Order, data: Data, pin: bool) -> DataLoader[Any]:
    """The batches of an order, decoded by `data.workers` processes that live as long as the run."""
    many = {"prefetch_factor": data.prefetch, "persistent_workers": True} if data.workers else {}
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=data.workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_one_thread if data.workers else None,
        **many,
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # a worker's parallelism is the other workers
