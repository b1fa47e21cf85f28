"""Work that several jobs share: each does its part, and whichever ends last joins the parts.

Its one rule: whose an item is depends on its name and the number of jobs alone, so that jobs need not know each other.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from motionmae.errors import MotionMAEError
from motionmae.files import flush, remove
from motionmae.library.manifest import Entry, read_manifest, write_manifest


class Share(NamedTuple):
    """One job of several, counted from 0."""

    job: int = 0
    jobs: int = 1

    def has(self, name: str) -> bool:
        """Whether the item of this name is this job's."""
        return self.jobs == 1 or zlib.crc32(os.fsencode(name)) % self.jobs == self.job


ALL = Share()


def share(part: str) -> Share:
    """The share that a word such as 3/64 names; of the empty word, all. Raises MotionMAEError for any other."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", part or "1/1")
    job, jobs = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= job <= jobs:
        raise MotionMAEError(f"--part {part!r}: expected K/N with K from 1 to N, such as 3/64")
    return Share(job - 1, jobs)


def beside(out: str | os.PathLike[str]) -> Path:
    """The folder of the parts of what will be `out`."""
    return Path(f"{os.fspath(out)}.parts")


def manifest_of(out: str, mine: Share, whole: bool = True) -> Path:
    """Where a job writes its part of the manifest `out`, or what it has of it before it has ended."""
    name = f"{mine.job + 1:05d}-of-{mine.jobs:05d}{'' if whole else '.begun'}{Path(out).suffix}"
    return beside(out) / name


def known(out: str) -> list[Entry]:
    """The entries of all parts of a manifest that are there, whole or begun."""
    files = sorted(beside(out).glob(f"[0-9]*{Path(out).suffix}"))
    return [entry for file in files for entry in read_manifest(file, os.path.dirname(out) or ".")]


def keep(out: str, mine: Share, entries: Sequence[Entry], whole: bool) -> None:
    """Write what a job has of the manifest `out`, whole where it has ended; sorted by path."""
    home, entries = os.path.dirname(out) or ".", sorted(entries, key=lambda entry: entry.path)
    if mine.jobs == 1:
        write_manifest(out, entries)
        return
    write_manifest(manifest_of(out, mine, whole), entries, home)
    if whole:
        remove(manifest_of(out, mine, False))


def lacking(out: str, jobs: int) -> int:
    """How many of so many jobs have not ended."""
    return sum(not manifest_of(out, Share(job, jobs)).exists() for job in range(jobs))


def join(out: str, jobs: int) -> list[Entry]:
    """The parts of so many jobs as one manifest, sorted by path; the parts go. Returns its entries."""
    found, home = list[Entry](), os.path.dirname(out) or "."
    with joining(beside(out), Path(out)) as aside:
        for job in range(jobs):
            found += read_manifest(manifest_of(out, Share(job, jobs)), home)
        found.sort(key=lambda entry: entry.path)
        write_manifest(aside, found, home)
    return read_manifest(out)


@contextmanager
def joining(folder: Path, out: Path) -> Iterator[Path]:
    """Yields the name in `folder` under which to join the parts that lie there; then it becomes `out`, and they go.

    Two jobs that end at the same moment may both join: the parts go under the slower one's hands, which is no fault.
    """
    aside = folder / f"joined-{socket.gethostname()}-{os.getpid()}{out.suffix}"
    try:
        yield aside
        flush(aside)
        os.replace(aside, out)
    except (OSError, MotionMAEError) as error:
        remove(aside)
        if folder.exists() or not out.exists():
            told = error if isinstance(error, MotionMAEError) else f"{out}: could not be written ({error})"
            raise MotionMAEError(str(told)) from error
    shutil.rmtree(folder, ignore_errors=True)
