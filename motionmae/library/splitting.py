"""Videos to learn from and videos to test on, where nobody has named the second: by a list's column, else by the seed.

Its one rule: the videos of a group (a person, a camera) are never on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.files import read_text, write_csv
from motionmae.library import tables
from motionmae.library.sources import Videos, column
from motionmae.words import many

HELD = 0.2
"""Share of each class, or of the videos by whole groups, that is drawn for the test."""
EACH = "each"
"""What `--data.leave-out` calls every group in turn, unless a group is called so."""
TESTS = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""What a column `split` calls the videos of a test; the first of these that it has is taken."""


def apart(data: Data, videos: Videos, leave_out: str, seed: int) -> tuple[Videos, Videos, str]:
    """Videos of known classes as those to learn from and those to test on, and a sentence that says how.

    With `leave_out`, a value of the list's column `group`, its videos are the test; else the list's column `split`
    decides where it has one, else a fifth of each class is drawn, whole groups where there is a column `group`; none
    where each class, or group, is too small. Raises MotionMAEError where a side that is named is empty.
    """
    names, count, groups = _columns(data), len(videos.paths), groups_of(data, videos)
    if leave_out:
        if leave_out not in groups:
            known = f"its groups are {', '.join(sorted(set(groups)))}" if groups else "it has no column 'group'"
            raise MotionMAEError(f"--data.leave-out {leave_out}: not in --data.path {data.path}: {known}")
        test = [at for at, group in enumerate(groups) if group == leave_out]
        train, how = sorted(set(range(count)) - set(test)), f"those of {leave_out!r}"
    elif "split" in names and not data.split:
        parts = [name.lower() for name in column(data, "split", videos.paths)]
        wanted = next((name for name in TESTS if name in parts), "")
        test = [at for at, name in enumerate(parts) if name == wanted]
        train = [at for at, name in enumerate(parts) if name in ("train", "training")]
        how = f"{wanted!r} in the column split"
    else:
        test = by_group(groups, videos.labels, seed) if groups else by_class(videos.labels, seed)
        train = sorted(set(range(count)) - set(test))
        how = f"{'whole groups' if groups else 'a fifth of each class'}, drawn by --seed {seed}"
    if not train or not (test or how.endswith(f"--seed {seed}")):
        lacking = "test on" if train else "learn from"
        raise MotionMAEError(f"--data.path {data.path}: no video is left to {lacking} ({how})")
    said = f"--data.test is not given: {many(len(train), 'video')} to learn from, {len(test)} to test on ({how})"
    return _some(videos, train), _some(videos, test), said


def groups_of(data: Data, videos: Videos) -> list[str]:
    """What the column `group` of the list `data.path` says of each of these videos of it; nothing where it has none."""
    return column(data, "group", videos.paths) if "group" in _columns(data) else []


def in_turn(data: Data, videos: Videos) -> list[str]:
    """The groups that `--data.leave-out each` leaves out one after another; none where no group is to be, or one alone.

    Raises MotionMAEError where there are fewer than two, or where the videos of one are all that there are of a class.
    """
    groups = groups_of(data, videos)
    if getattr(data, "leave_out", "") != EACH or EACH in groups:
        return []
    names = sorted(set(groups))
    if len(names) < 2:
        known = f"its only group is {names[0]}" if names else "it has no column 'group'"
        raise MotionMAEError(f"--data.leave-out {EACH}: --data.path {data.path}: {known}")
    for name in names:
        others = {label for label, group in zip(videos.labels, groups, strict=True) if group != name}
        if alone := sorted(set(videos.labels) - others):
            raise MotionMAEError(
                f"--data.leave-out {EACH}: without the group {name} no video of the class {alone[0]} is left"
            )
    return names


def write_split(file: Path, videos: Videos, tests: Videos) -> None:
    """A list of all videos with the column split, which `--data.path` takes."""
    rows: list[list[str]] = [["path", "label", "split"]]
    for part, name in ((videos, "train"), (tests, "test")):
        paths = (str(path.absolute()) for path in part.paths)
        rows += [[path, label, name] for path, label in zip(paths, part.labels, strict=True)]
    write_csv(file, rows)


def by_class(labels: Sequence[str], seed: int) -> list[int]:
    """A fifth of each class of at least two videos, at least one; ascending."""
    held: list[int] = []
    for turn, label in enumerate(sorted(set(labels))):
        places = [at for at, other in enumerate(labels) if other == label]
        order = np.random.default_rng([seed, turn]).permutation(len(places))
        held += [places[at] for at in order[: min(max(1, round(HELD * len(places))), len(places) - 1)]]
    return sorted(held)


def by_group(groups: Sequence[str], labels: Sequence[str], seed: int) -> list[int]:
    """Whole groups, in the order of the seed, until they hold a fifth of the videos: none that would leave a class with
    no video to learn from."""
    names = sorted(set(groups))
    held: set[int] = set()
    for turn in np.random.default_rng(seed).permutation(len(names)):
        if len(held) >= HELD * len(groups):
            break
        more = held | {at for at, group in enumerate(groups) if group == names[turn]}
        if {labels[at] for at in range(len(labels)) if at not in more} == set(labels):
            held = more
    return sorted(held)


def _columns(data: Data) -> list[str]:
    """The names of the columns of the list `data.path`; none where it is no table of text."""
    if not os.path.isfile(data.path) or data.path.endswith((".json", ".parquet", ".tar")):
        return []
    return tables.header(read_text(data.path, "surrogateescape"))[0]


def _some(videos: Videos, places: Sequence[int]) -> Videos:
    return replace(videos, paths=[videos.paths[at] for at in places], labels=[videos.labels[at] for at in places])
