"""`motionmae scan FOLDER`: a manifest of what is there, and a summary of what can be used."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from shlex import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from motionmae.config import Data, Scan, check
from motionmae.errors import MotionMAEError
from motionmae.files import one_line, remove
from motionmae.library import parts
from motionmae.library.cluster import each_by
from motionmae.library.manifest import Entry
from motionmae.library.processes import available
from motionmae.library.scan import scan
from motionmae.library.sources import find
from motionmae.progress import Progress, then
from motionmae.video.origin import as_place, is_address
from motionmae.words import many

BETWEEN = 60.0
"""Seconds after which what is done is written down again."""


def run(config: Scan) -> None:
    """Scan the folder, write the manifest, print the summary; what is done is kept where the scan is stopped."""
    check(config)
    if not config.folder:
        raise MotionMAEError("motionmae scan needs a FOLDER: the folder with the videos")
    if is_address(config.out):
        raise MotionMAEError(f"--out {config.out}: a manifest is written on this machine; copy it where you want it")
    out, folder, mine = config.out, as_place(config.folder), parts.parse_share(config.spread.part)
    made = parts.Manifest(out, mine, folder if folder != config.folder else "")
    labels, listed = _labels(config) if config.labels else ({}, [])
    console, entries, others = Console(color_system=None), [], 0
    whole, written = False, time.monotonic()
    try:
        for entry in _examined(replace(config, folder=folder), made):
            others += entry is None
            entries += [replace(entry, label=labels.get(entry.path, entry.label))] if entry else []
            if time.monotonic() > written + BETWEEN:
                made.keep(entries, whole)
                written = time.monotonic()
        whole = True
    finally:
        lost = [os.path.abspath(os.path.join(folder, name)) for name in listed if mine.has(name)]
        entries += [Entry(path, "missing") for path in lost]
        entries.sort(key=lambda entry: entry.path)
        if entries or mine.jobs > 1:
            made.keep(entries, whole)
    if mine.jobs > 1:
        if left := made.lacking():
            print(f"{many(len(entries), 'video')}; not there yet: {left} of {many(mine.jobs, 'part')}")
            return
        entries = made.join()
    if not entries:
        raise MotionMAEError(f"{config.folder}: there is no video below this folder ({many(others, 'other file')})")
    remove(parts.parts_beside(out))
    show(console, out, entries, others)
    start = f" --data.root {quote(config.folder)}" if made.home else ""  # paths start there, and no file says where
    then(f"motionmae pretrain small --data.path {quote(str(out))}{start}")


def _examined(config: Scan, made: parts.Manifest) -> Iterator[Entry | None]:
    """What there is, as it is done, behind a bar of progress."""
    workers = config.workers or available()
    with Progress("files examined") as progress:
        asked = {"full": config.full, "workers": workers, "limit": config.limit, "each": each_by(config.spread)}
        for done, total, entry in scan(config.folder, known=made.known(), mine=made.mine, **asked):
            progress.total = total
            progress.show(done)
            yield entry


def _labels(config: Scan) -> tuple[dict[str, str], list[str]]:
    """The classes of a list by path, and the names in it that are not there."""
    found = find(Data(path=config.labels, root=config.folder), "--labels", "")
    if not found.labels:
        raise MotionMAEError(f"--labels {config.labels}: not every line of it has a class")
    return {os.path.abspath(path): label for path, label in zip(found.paths, found.labels, strict=True)}, found.missing


def show(console: Console, out: str, entries: Sequence[Entry], others: int) -> None:
    """The summary: what can be used, what cannot and why, and what is worth knowing."""
    usable = [entry for entry in entries if entry.usable]
    hours = sum(entry.duration for entry in usable) / 3600
    table = Table("videos", "what", "for instance", title=Text(one_line(out)), title_justify="left")

    def add(count: int, what: str, example: str) -> None:
        table.add_row(str(count), *(Text(one_line(words)) for words in (what, os.path.basename(example))))

    add(len(usable), f"usable: {hours:.2f} hours, {many(sum(e.frames for e in usable), 'frame')}", "")
    for reason, count in Counter(_kind(entry.status) for entry in entries if not entry.usable).most_common():
        example = next(entry.path for entry in entries if _kind(entry.status) == reason)
        add(count, f"quarantined: {reason}", example)
    for text, example in _notes(usable):
        add(*text, example)
    if others:
        add(others, "other files, neither videos nor listed", "")
    console.print(table, soft_wrap=not console.is_terminal)


def _kind(status: str) -> str:
    """A reason without its numbers, so that like is counted with like."""
    return status.split(":")[0] if status.startswith(("truncated", "undecodable")) else status


def _notes(usable: Sequence[Entry]) -> list[tuple[tuple[int, str], str]]:
    """What is worth knowing of the usable videos: how many, what, and one of them."""
    copies = Counter(entry.hash for entry in usable if entry.hash)
    seen: set[str] = set()
    again = [entry for entry in usable if copies[entry.hash] > 1 and (entry.hash in seen or seen.add(entry.hash))]
    groups = [
        (again, "copies of another video, byte for byte"),
        ([entry for entry in usable if not entry.constant], "of variable frame rate: sample them in seconds"),
        ([e for e in usable if e.keyframe_spacing > 60], "with more than 60 frames between key frames: prepare them"),
        ([e for e in usable if min(e.height, e.width) > 400], "larger than training needs: prepare them"),
        ([e for e in usable if e.frames < 16], "shorter than 16 frames"),
    ]
    kinds = Counter(entry.label for entry in usable if entry.label)
    notes = [((len(group), text), group[0].path) for group, text in groups if group]
    told = f"in {many(len(kinds), 'folder')}, taken for classes"
    return notes + ([((sum(kinds.values()), told), "")] if kinds else [])
