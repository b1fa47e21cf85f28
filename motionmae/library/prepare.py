"""Re-encode videos for fast training: small, of constant rate, with a key frame every few frames. Originals stay."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.library.manifest import Entry
from motionmae.library.scan import examine
from motionmae.video import remote
from motionmae.video.frames import Images
from motionmae.video.reading import Video, open_video
from motionmae.video.writing import write_video


@dataclass(frozen=True)
class Job:
    """One video to prepare: from where to where, and how."""

    source: str
    target: str
    label: str
    short: int
    """Rows or columns of the short side; smaller videos keep their size."""
    spacing: int
    """Frames from key frame to key frame."""
    fps: float | None
    """Frames per second at most; None keeps the video's average."""
    quality: int


def jobs(paths: Sequence[Path], labels: Sequence[str], out: str, **how: Any) -> list[Job]:
    """One job for each video: below `out` the targets lie as the sources do below their common folder.

    Raises MotionMAEError where `out` lies in the sources' folder: targets would be taken for sources the next time.
    """
    sources = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(source) for source in sources])
    if os.path.commonpath([root, os.path.abspath(out)]) == root:
        raise MotionMAEError(f"--out {out}: must not lie in the folder of the originals, {root}")
    found: dict[str, Job] = {}
    for source, label in zip(sources, labels or [""] * len(sources), strict=True):
        target = os.path.join(out, os.path.relpath(source, root))
        target = target if target.lower().endswith(".mp4") else f"{target}.mp4"
        while target in found:
            target = f"{target[:-4]}_.mp4"
        found[target] = Job(source, target, label, **how)
    return list(found.values())


def done(job: Job) -> bool:
    """Whether the target is there and newer than its source; targets are never there half."""
    try:
        return os.stat(job.target).st_mtime_ns >= remote.about(job.source).modified
    except OSError:
        return False


def prepare(job: Job) -> Entry:
    """Write the target and examine it; raises VideoError where the source cannot be read to its end."""
    if not done(job):
        with open_video(job.source, limit=seconds_for(job)) as video:
            rate = video.rate if job.fps is None else min(video.rate, Fraction(job.fps).limit_denominator(1001))
            rate = rate.limit_denominator(65535)
            shrink(video, job.short)
            write_video(job.target, at_rate(video, rate), rate, spacing=job.spacing, quality=job.quality)
    return replace(examine(job.target), label=job.label)


def seconds_for(job: Job) -> float:
    """The time that a video may take: a minute, and ten seconds for each MB."""
    try:
        return 60.0 + remote.about(job.source).size / 1e5
    except OSError:
        return 60.0


def shrink(video: Video | Images, short: int) -> None:
    """Have the video read with its short side of at most `short`, its sides even."""
    height, width = video.shape
    scale = min(1.0, short / min(height, width))
    video.shape = (max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2))


def at_rate(video: Video | Images, rate: Fraction) -> Iterator[Tensor]:
    """The frames at a constant rate: each as often as its time on the screen asks, which may be never."""
    wanted = video.at([place / rate for place in range(max(1, round(video.duration * rate)))])
    times = np.bincount(wanted, minlength=len(video))
    for number, frame in enumerate(video.walk()):
        for _ in range(int(times[number]) if number < len(times) else 0):
            yield torch.from_numpy(np.ascontiguousarray(frame))
