"""`motionmae prepare SOURCE`: videos re-encoded for fast training, and how much faster they are to read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from motionmae.config import Data, Prepare, check
from motionmae.data.sampling import dense
from motionmae.errors import MotionMAEError
from motionmae.files import read_json, remove, write_json
from motionmae.library import parts, tars
from motionmae.library.cluster import each_by
from motionmae.library.manifest import Entry
from motionmae.library.prepare import Job, done, jobs, prepare, seconds_for
from motionmae.library.processes import Failure, available
from motionmae.library.sources import find
from motionmae.progress import Progress, then
from motionmae.video import remote
from motionmae.video.reading import open_video
from motionmae.video.table import forget
from motionmae.words import many

FREE = ("source", "workers", "root", "split", "spread", "out")
SAMPLED = 8
"""Videos of which the gain is measured."""


def run(config: Prepare) -> None:
    """Prepare what is not yet prepared, write the manifest, say what was gained."""
    check(config)
    if not config.source:
        raise MotionMAEError("motionmae prepare needs a SOURCE: a manifest of motionmae scan, a folder or a list")
    found = find(Data(path=config.source, root=config.root, split=config.split), "", "--root")
    how = {name: getattr(config, name) for name in ("short", "spacing", "fps", "quality")}
    mine, manifest = parts.parse_share(config.spread.part), os.path.join(config.out, "manifest.csv")
    work = jobs(found.paths, found.labels, config.out, **how)
    every, work = len(work), [job for job in work if mine.has(os.path.relpath(job.target, config.out))]
    _same_settings(config)
    entries, failed = [], 0
    print(found.told())
    before = sum(done(job) for job in work)
    workers = min(config.workers or available(), len(work))
    with Progress("videos prepared", len(work)) as progress:
        for job, result in each_by(config.spread)(prepare, work, workers, seconds_for):
            if isinstance(result, Failure):
                reason = result.reason if job.source in result.reason else f"{job.source}: {result.reason}"
                print(f"not prepared: {reason}")
                failed += 1
            else:
                entries.append(result)
            progress.step()
    if not entries and mine.jobs == 1:
        raise MotionMAEError(f"{config.source}: of its {many(every, 'video')} none could be prepared")
    entries.sort(key=lambda entry: entry.path)
    made = parts.Manifest(manifest, mine)
    made.keep(entries, True)
    print(f"{len(entries) - before} prepared, {before} were there, {failed} failed: {config.out}/manifest.csv")
    if entries:
        gained(work, entries)
    if mine.jobs > 1:
        if left := made.lacking():
            print(f"not there yet: {left} of {many(mine.jobs, 'part')}")
            return
        entries = made.join()
    remove(parts.parts_beside(manifest))
    if config.shard:
        count = tars.pack(entries, os.path.join(config.out, "shards"), config.shard)
        print(f"{many(count, 'shard')}: {config.out}/shards")
    then(f"motionmae pretrain small --data.path {quote(f'{config.out}/shards' if config.shard else str(manifest))}")


def gained(work: Sequence[Job], entries: Sequence[Entry]) -> None:
    """Measure reads of some originals and their targets, and say the ratio."""
    made = {entry.path for entry in entries}
    sample = [job for job in work if job.target in made][:: max(1, len(made) // SAMPLED)][:SAMPLED]
    slow, fast = (seconds_a_clip([getattr(job, name) for job in sample]) for name in ("source", "target"))
    sizes = [
        sum(_size(getattr(job, name)) for job in work if job.target in made) / 1e6 for name in ("source", "target")
    ]
    print(
        f"a clip of 16 frames in {slow * 1e3:.0f} ms before, {fast * 1e3:.0f} ms now: {slow / fast:.1f}x faster; "
        f"{sizes[0]:.1f} MB before, {sizes[1]:.1f} MB now"
    )


def seconds_a_clip(paths: Sequence[str], clips: int = 4, frames: int = 16, stride: int = 4) -> float:
    """Mean seconds to open a video and read a training clip of it; the list of packets is made anew each time."""
    begun, count = time.perf_counter(), 0
    for path in paths:
        for place in range(clips):
            forget()
            with open_video(path) as video:
                video.read(
                    sorted(set(dense(len(video), range(0, frames * stride, stride), (place + 0.5) / clips, "loop")))
                )
            count += 1
    return (time.perf_counter() - begun) / count


def _size(path: str) -> int:
    return sum(file.stat().st_size for file in Path(path).iterdir()) if os.path.isdir(path) else remote.about(path).size


def _same_settings(config: Prepare) -> None:
    """Keep the settings beside the results; raise where the results there were made with others."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    file = Path(config.out) / "prepare.json"
    if file.exists():
        there = read_json(file)
        differing = [
            f"{name} ({there.get(name)} there, {settings[name]} here)"
            for name in settings
            if there.get(name) != settings[name]
        ]
        if differing:
            raise MotionMAEError(f"--out {config.out} holds videos prepared otherwise: {', '.join(differing)}")
    write_json(file, settings)
