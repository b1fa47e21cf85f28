"""In which order clips are read, and the processes that read them.

What is in which batch depends on (seed, step) alone, not on the number of workers or ranks: so a run can stop anywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from motionmae.config import Data
from motionmae.data.clips import Place, Sample
from motionmae.errors import MotionMAEError
from motionmae.library.processes import when_parent_ends
from motionmae.progress import unwrap
from motionmae.video import origin, pulse
from motionmae.video.origin import WINDOW
from motionmae.words import many

LOOK, SILENT, STARTING = 10, 5, 30
"""Seconds of waiting for a batch after which one looks whether workers are alive; how many such looks may find that
none has read anything, less than a minute together; and how many may find that no worker has started yet, which on a
busy machine is minutes of imports."""
SHARED = "/dev/shm"
STOPS = (signal.SIGINT, signal.SIGTERM)


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
    pulse.beat()
    samples = [sample for item in items for sample in item]
    return {
        name: torch.stack([sample[name] for sample in samples])
        if isinstance(samples[0][name], Tensor)
        else torch.tensor([sample[name] for sample in samples], dtype=torch.int64)
        for name in samples[0]
    }


def within(workers: int, ahead: int, batch: int, option: str, room: float | None = None) -> tuple[int, int, str]:
    """As many workers and batches ahead of each as `room` has bytes for, and what is said of it.

    `batch` is the bytes of a batch, `option` what sets the workers. By default the room is what is free of the shared
    memory through which workers hand over batches, for each rank here: a container often has 64 MB of it, and a worker
    that gets none dies.
    """
    if room is None:
        if not os.path.isdir(SHARED):
            return workers, ahead, ""
        room = 0.9 * shutil.disk_usage(SHARED).free / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    needed = workers * (ahead + 1) * batch
    if needed <= room:
        return workers, ahead, ""
    fitting = int(room // batch)
    fewer = min(workers, fitting // 2)
    less = min(ahead, fitting // fewer - 1) if fewer else ahead
    how = f", {many(less, 'batch')} ahead each" if fewer else ", in this process"
    return (
        fewer,
        less,
        (
            f"{option} {workers} with {many(ahead, 'batch')} ahead each need {needed / 1e6:.0f} MB of {SHARED}, "
            f"{room / 1e6:.0f} MB are free: goes on with {many(fewer, 'worker')}{how}; docker run has --shm-size"
        ),
    )


def loader(
    dataset: Dataset[list[Sample]],
    order: Order | Sequence[list[int]],
    data: Data,
    pin: bool,
    option: str = "--data.workers",
) -> Generator[dict[str, Tensor], None, None]:
    """The batches of an order, decoded by `data.workers` processes that live as long as the iterator; `option` is what
    sets their number. Raises MotionMAEError as `watched`."""
    most = order.micro if isinstance(order, Order) else max(map(len, order), default=0)
    how: dict[str, Any] = {"batch_sampler": order, "collate_fn": collate, "pin_memory": pin}
    return watched(dataset, data.workers, data.prefetch, most, option, **how)


def watched(
    dataset: Dataset[Any], workers: int, ahead: int, items: int, option: str, **how: Any
) -> Generator[Any, None, None]:
    """What a DataLoader gives: the one door to processes that read. `how` are its arguments, `items` those of a batch.

    There are no more of the workers, and of batches `ahead` of each, than shared memory has room for, by the data
    set's `nbytes` of an item: that there are fewer than `option` asks for is told on stderr. Raises MotionMAEError
    where a worker dies, or where for about a minute none has read anything.
    """
    workers, ahead, said = within(workers, ahead, items * getattr(dataset, "nbytes", 0), option)
    if said and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"motionmae: {said}", file=sys.stderr, flush=True)
    beats = torch.zeros(max(1, workers), dtype=torch.int64).share_memory_()
    if workers:
        started = partial(_start_worker, addresses=origin.told(), beats=beats)
        how |= {"prefetch_factor": ahead, "persistent_workers": True, "timeout": LOOK, "worker_init_fn": started}
    with warnings.catch_warnings(), _held_back():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than processors: some wait for a store
        batches = DataLoader(dataset, num_workers=workers, **how)
        told, iterator = "", iter(batches)
    processes = list(getattr(iterator, "_workers", ()))
    kill = partial(_kill, processes)
    atexit.register(kill)  # where nobody closes this generator: they do not end by being asked
    try:
        while (batch := _next(iterator, beats, option)) is not None:
            yield batch
    except MotionMAEError as error:  # from a worker it comes with that worker's traceback: the sentence is enough
        told = str(error).strip().splitlines()[-1].removeprefix("motionmae.errors.MotionMAEError: ")
    finally:  # left to the garbage collector, the workers' queues may go before the word that ends the workers
        shut = getattr(iterator, "_shutdown_workers", lambda: None)
        for end in (kill, shut, kill) if told else (shut, kill):  # a stuck worker would be waited for
            with contextlib.suppress(RuntimeError):  # that a worker was killed
                end()
        atexit.unregister(kill)
    if told:
        raise MotionMAEError(told)


def _next(iterator: Iterator[Any], beats: Tensor, option: str) -> Any:
    """The next batch, None at the end; waits for as long as any of the workers does something."""
    sign, silent = int(beats.sum()), 0
    while True:
        try:
            return next(iterator, None)
        except (RuntimeError, OSError, EOFError) as error:  # the last two where it died in the midst of a word
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if reason.startswith("Caught") or (isinstance(error, RuntimeError) and not reason.startswith("DataLoader")):
                raise
            if "timed out" not in reason:
                raise MotionMAEError(
                    f"a process that reads clips has died ({reason}): memory, or {SHARED}, may be too small for "
                    f"{option} {len(beats)}"
                ) from error
            before, sign = sign, int(beats.sum())
            silent = silent + 1 if sign == before else 0
            if silent >= (SILENT if sign else STARTING):
                raise MotionMAEError(
                    f"no clip has been read for {silent * LOOK:g} s, by {many(len(beats), 'process')}: "
                    f"the storage hangs, or {SHARED} is too small for {option} {len(beats)}"
                ) from error


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM wait, and a process that is started is born so: a worker, which has seconds of
    imports before it can say that a stop is not its own affair, would die of one until then."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(workers: Sequence[Any]) -> None:
    for worker in workers:
        with contextlib.suppress(ValueError):  # one that was closed
            if worker.is_alive():
                worker.kill()


def _start_worker(worker: int, addresses: Mapping[str, tuple[str, float]], beats: Tensor) -> None:
    mine = beats.numpy()[worker : worker + 1]

    def alive() -> None:
        mine[0] += 1  # a row of its own: none disturbs another

    pulse.listen(alive)
    pulse.beat()
    origin.inherit(addresses)
    unwrap()
    torch.set_num_threads(1)  # a worker's parallelism is the other workers
    # PyTorch's own watch is of the process that forked the worker; where that is a server of forks, it lives on.
    when_parent_ends(partial(os._exit, 1))
    # A stop is asked of the whole group of processes: the training process ends the step in hand, however long that
    # takes, and then its workers.
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
