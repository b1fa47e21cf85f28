"""`motionmae bench data`: how fast clips come from the disk, against the decoder alone, and what to do about it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from motionmae.config import BenchData, check
from motionmae.data.clips import Clips, pretraining_offsets
from motionmae.data.loading import Order, loader
from motionmae.errors import MotionMAEError
from motionmae.library.processes import available
from motionmae.library.sources import find
from motionmae.progress import Progress
from motionmae.training import machine
from motionmae.video.packets import Demuxer
from motionmae.video.reading import VideoInfo, probe
from motionmae.video.table import forget
from motionmae.words import many

LONG, LARGE = 60, 400
"""Frames between key frames, and pixels of the short side, above which preparing pays."""


def run(config: BenchData) -> None:
    """Print clips per second in one process and in workers, the decoder's ceiling, the memory, and one advice."""
    check(config)
    found = find(config.data)
    paths = [path for path in found.paths if path.is_file() or "::" in str(path)]
    if not paths:
        raise MotionMAEError(f"--data.path {config.data.path}: holds no video files, only folders of images")
    offsets = pretraining_offsets(config.frames, config.data.stride, "clip", 1)
    dataset = Clips(paths, config.data, offsets, config.size, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(
        f"{found.told()}; clips of {many(len(offsets), 'frame')} at stride {config.data.stride}, {config.size} pixels"
    )
    ours, alone = speeds(dataset, config.clips)
    ratio = ours / alone
    print(f"one process: {ours:.1f} clips/s; the decoder alone, to RGB: {alone:.1f} clips/s; ratio {ratio:.2f}")
    workers = config.data.workers
    if workers:
        together = with_workers(dataset, config)
        print(
            f"{many(workers, 'worker')}: {together:.1f} clips/s, {together / workers:.1f} a worker, on "
            f"{many(available(), 'processor')}"
        )
    looks = list[Memory]()
    for look in memory_of_reads(dataset, config.reads):
        print(f"memory after {look.reads:,} reads: {look.resident:.0f} MB, {look.own:.0f} its own", flush=True)
        looks.append(look)
    print(f"memory: {100 * (looks[-1].resident / looks[0].resident - 1):+.1f} % from the first look to the last")
    torch.set_num_threads(threads)
    print(advice(config, [probe(path) for path in paths[:: max(1, len(paths) // 20)]], ratio))


def speeds(dataset: Clips, clips: int) -> tuple[float, float]:
    """Clips per second of the data set and of the decoder alone, in turns on the same frames of the same files.

    Each opening lists the packets anew, as in the first epoch; what the decoder alone needs to know is told to it.
    """
    spent = [0.0, 0.0]
    done = 0
    count = max(1, clips // dataset.data.repeats)
    with Progress("reads in turns", count) as progress:
        for place in itertools.islice(_places(len(dataset)), count):
            forget()
            begun = time.perf_counter()
            samples = dataset[place]
            taken = time.perf_counter() - begun
            path = dataset.files[samples[0]["index"]]
            alone = [_alone(dataset, path, sample["key"]) for sample in samples]
            if all(alone):
                spent, done = [spent[0] + taken, spent[1] + sum(alone)], done + len(samples)
            progress.step()
    if not done:
        raise MotionMAEError(f"--data.path {dataset.data.path}: nothing in it can be decoded in the plainest way")
    return done / spent[0], done / spent[1]


def _places(length: int):
    return (place for epoch in itertools.count() for place in ((epoch, index) for index in range(length)))


def _alone(dataset: Clips, path: Path, key: int) -> float:
    """Seconds of the decoder alone for the frames of one sample; 0 where it does not find them all."""
    wanted = dataset.frames_of(path, key)
    source = Demuxer(path, 60.0)
    begun = time.perf_counter()
    came = source.plainly(wanted)
    spent = time.perf_counter() - begun
    source.close()
    return spent if came == len(wanted) else 0.0


def with_workers(dataset: Clips, config: BenchData) -> float:
    """Clips per second from the workers together, after each has given its first batch."""
    batch = 4 * config.data.repeats
    batches = loader(dataset, Order(len(dataset), 4, 4, 0), config.data, pin=False)
    count = max(config.data.workers * config.data.prefetch * 2, config.clips // batch)
    with Progress("batches from workers", config.data.workers + count) as progress:
        for _ in range(config.data.workers):
            next(batches)
            progress.step()
        begun = time.perf_counter()
        for _ in range(count):
            next(batches)
            progress.step()
        spent = time.perf_counter() - begun
    batches.close()
    return count * batch / spent


class Memory(NamedTuple):
    """Of this process after so many reads, in megabytes."""

    reads: int
    resident: float
    own: float
    """What no other process shares; the same where the system does not tell."""


def memory_of_reads(dataset: Clips, reads: int) -> Iterator[Memory]:
    """What a worker needs, after a tenth of the reads, a quarter, a half and all."""
    looks = {max(1, reads // part) for part in (10, 4, 2, 1)}
    with Progress("reads", reads) as progress:
        for number, place in enumerate(itertools.islice(_places(len(dataset)), reads), 1):
            dataset[place]
            progress.step()
            if number in looks:
                yield Memory(number, *_megabytes())


def _megabytes() -> tuple[float, float]:
    """Resident memory and the part that is this process's own; at most until now where the system does not tell."""
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        words = [line.split() for line in rollup.read_text().splitlines()]
        kilobytes = {parts[0]: int(parts[1]) for parts in words if parts[-1] == "kB"}
        own = kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]
        return kilobytes["Rss:"] * 1024 / 1e6, own * 1024 / 1e6
    most = machine.peak(torch.device("cpu")) / 1e6
    return most, most


def advice(config: BenchData, videos: Sequence[VideoInfo], ratio: float) -> str:
    """One sentence: what would make the data come faster."""
    long = sum(video.keyframe_spacing > LONG or min(video.height, video.width) > LARGE for video in videos)
    cores, workers, repeats = available(), config.data.workers, config.data.repeats
    if long > len(videos) / 4:
        told = f"{long} of {many(len(videos), 'video')}"
        return f"advice: motionmae prepare, as videos are large or have key frames far apart: {told}."
    if workers < cores:
        return f"advice: more workers, up to --data.workers {cores}, one for each processor."
    if repeats == 1 and not config.data.cache:
        return "advice: --data.repeats 2 or 4 where the model still waits: several clips from each opening."
    return (
        "advice: nothing to change; more processors would help." if ratio > 0.8 else "advice: fewer crops and repeats."
    )
