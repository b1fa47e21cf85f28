"""In which order clips are read, and the processes that read them.

What is in which batch depends on (seed, step) alone, not on the number of workers or ranks: so a run can stop anywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from motionmae.config import Data
from motionmae.data.clips import Place, Sample
from motionmae.errors import MotionMAEError
from motionmae.video import origin
from motionmae.video.origin import WINDOW

GRACE = 30
"""Seconds that a worker goes on for after it was asked to stop, so that the training process can end its step."""


class Order(Sampler[list[Place]]):
    """Batches without end: each epoch is a permutation of its own, and batches run on over the epochs' borders.

    Every video is seen once an epoch. Rank r of w takes the r-th part of each global batch, cut into micro-batches.
    With `groups`, a number for each video (its shard), WINDOW groups at a time are mixed: no others need be at hand.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        micro: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
        groups: Sequence[int] = (),
    ):
        self.length, self.batch, self.micro, self.seed = length, batch, micro, seed
        self.rank, self.ranks, self.start, self.groups = rank, ranks, start, np.asarray(groups)

    def __iter__(self) -> Iterator[list[Place]]:
        step, epoch, order = self.start, -1, np.empty(0, dtype=np.int64)
        share = self.batch // self.ranks
        while True:
            places: list[Place] = []
            for position in range(step * self.batch + self.rank * share, step * self.batch + (self.rank + 1) * share):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = self.permutation(epoch)
                places.append((epoch, int(order[position % self.length])))
            yield from (places[at : at + self.micro] for at in range(0, share, self.micro))
            step += 1

    def permutation(self, epoch: int) -> Int[np.ndarray, " n"]:
        """The order of an epoch: all videos, each once."""
        draw = np.random.default_rng([self.seed, epoch])
        if not len(self.groups):
            return draw.permutation(self.length)
        names = draw.permutation(np.unique(self.groups))
        windows = [names[at : at + WINDOW] for at in range(0, len(names), WINDOW)]
        return np.concatenate([draw.permutation(np.flatnonzero(np.isin(self.groups, window))) for window in windows])


def collate(items: Sequence[list[Sample]]) -> dict[str, Tensor]:
    """Samples of several openings as one batch: clips stacked, numbers as int64."""
    samples = [sample for item in items for sample in item]
    return {
        name: torch.stack([sample[name] for sample in samples])
        if isinstance(samples[0][name], Tensor)
        else torch.tensor([sample[name] for sample in samples], dtype=torch.int64)
        for name in samples[0]
    }


def loader(
    dataset: Dataset[list[Sample]], order: Order | Sequence[list[int]], data: Data, pin: bool
) -> Generator[dict[str, Tensor], None, None]:
    """The batches of an order, decoded by `data.workers` processes that live as long as the iterator."""
    many = {"prefetch_factor": data.prefetch, "persistent_workers": True} if data.workers else {}
    batches = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=data.workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=partial(_start_worker, addresses=origin.told()) if data.workers else None,
        **many,
    )
    told, iterator = "", iter(batches)
    try:
        yield from iterator
    except MotionMAEError as error:  # from a worker it comes with that worker's traceback: the sentence is enough
        told = str(error).strip().splitlines()[-1].removeprefix("motionmae.errors.MotionMAEError: ")
    finally:  # left to the garbage collector, the workers' queues may go before the word that ends the workers
        getattr(iterator, "_shutdown_workers", lambda: None)()
    if told:
        raise MotionMAEError(told)


def _start_worker(worker: int, addresses: Mapping[str, tuple[str, float]]) -> None:
    origin.learn(addresses)
    torch.set_num_threads(1)  # a worker's parallelism is the other workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A stop is asked of the whole group of processes: the training process ends the step in hand and then its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


def _end_with_parent() -> None:
    """End this worker when the process that reads from it has ended, however that ended.

    PyTorch's own watch is of the process that forked the worker; where that is a server of forks, it lives on.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
