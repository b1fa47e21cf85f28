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
from dataclasses import dataclass
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


def parse_share(part: str) -> Share:
    """The share that a word such as 3/64 names; of the empty word, all. Raises MotionMAEError for any other."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", part or "1/1")
    job, jobs = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= job <= jobs:
        raise MotionMAEError(f"--part {part!r}: expected K/N with K from 1 to N, such as 3/64")
    return Share(job - 1, jobs)


def parts_beside(out: str | os.PathLike[str]) -> Path:
    """The folder of the parts of what will be `out`."""
    return Path(f"{os.fspath(out)}.parts")


@dataclass(frozen=True)
class Manifest:
    """A manifest that the jobs of a command write together: `mine` is what this one does of it."""

    out: str
    mine: Share = ALL
    home: str = ""
    """The folder that paths are told from; by default the manifest's own."""

    @property
    def start(self) -> str:
        """The folder that paths start from, in the parts too."""
        return self.home or os.path.dirname(self.out) or "."

    def part(self, job: int, whole: bool = True) -> Path:
        """Where a job writes its part, or what it has of it before it has ended."""
        name = f"{job + 1:05d}-of-{self.mine.jobs:05d}{'' if whole else '.begun'}{Path(self.out).suffix}"
        return parts_beside(self.out) / name

    def known(self) -> list[Entry]:
        """The entries that are there: of the manifest, and of all parts, whole or begun."""
        files = sorted(parts_beside(self.out).glob(f"[0-9]*{Path(self.out).suffix}"))
        there = [Path(self.out)] if os.path.exists(self.out) else []
        return [entry for file in [*there, *files] for entry in read_manifest(file, self.start)]

    def keep(self, entries: Sequence[Entry], whole: bool) -> None:
        """Write what this job has, whole where it has ended; sorted by path."""
        entries = sorted(entries, key=lambda entry: entry.path)
        if self.mine.jobs == 1:
            write_manifest(self.out, entries, self.start)
            return
        write_manifest(self.part(self.mine.job, whole), entries, self.start)
        if whole:
            remove(self.part(self.mine.job, False))

    def lacking(self) -> int:
        """How many of the jobs have not ended."""
        return sum(not self.part(job).exists() for job in range(self.mine.jobs))

    def join(self) -> list[Entry]:
        """Make one manifest of the parts, sorted by path; the parts go. Returns its entries."""
        found: list[Entry] = []
        with joining(parts_beside(self.out), Path(self.out)) as aside:
            for job in range(self.mine.jobs):
                found += read_manifest(self.part(job), self.start)
            write_manifest(aside, sorted(found, key=lambda entry: entry.path), self.start)
        return read_manifest(self.out, self.start)


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
