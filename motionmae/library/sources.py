"""Where the videos are, and their classes: folders, manifests, lists, and the annotations of the common data sets.

Its one rule: what a list names and is not there is told, never dropped silently.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.library import manifest, tables
from motionmae.library.annotations import PATHS, Row, of_hmdb, of_split, rows_of
from motionmae.library.scan import label_of, promises, walk
from motionmae.library.tars import distant, is_shards, members
from motionmae.video import remote
from motionmae.video.origin import as_place, is_address, is_of_shards
from motionmae.words import many

LISTS = (".csv", ".tsv", ".txt", ".json", ".parquet", ".tar")
"""How the names of lists and shards end, which are files but no videos."""


@dataclass(frozen=True)
class Videos:
    """Videos with their classes' names; `labels` is empty where not all classes are known."""

    paths: list[Path]
    labels: list[str]
    missing: list[str]
    """What a list names and is not there, and what a manifest quarantines."""
    unlabelled: str = ""
    """The first video without a class, where others have one."""
    groups: list[str] = field(default_factory=list)
    """What a list's column `group` says of each (a person, a place); empty where no list has one."""

    def told(self) -> str:
        """One line for the log: how many videos, and what is missing."""
        classes = f" of {many(len(set(self.labels)), 'class')}" if self.labels else ""
        lost = f"; {len(self.missing)} more listed but missing or unusable, first " if self.missing else ""
        none = f"; classes are not used, as {self.unlabelled} has none" if self.unlabelled else ""
        return f"{many(len(self.paths), 'video')}{classes}{lost}{''.join(self.missing[:1])}{none}"


def find(data: Data, option: str = "--data.path", root: str = "--data.root") -> Videos:
    """The videos that `data.path` names, in a fixed order; see `Data.path` for what it may be.

    Raises MotionMAEError where nothing is found, or where a list is none of those known. It names what the user typed:
    `option` before `data.path`, and `root` for `data.root`; "" where that was no option.
    """
    try:
        found = _found(data)
        if not found.paths and found.missing:
            example = f", not {found.missing[0]!r}" + (f"; {root} names the folder that they are in" if root else "")
            raise MotionMAEError(f"{data.path}: of its {many(len(found.missing), 'video')} none is there{example}")
        if not found.paths:
            raise MotionMAEError(f"{data.path}: there is no video in it")
    except MotionMAEError as error:
        told = str(error)
        raise MotionMAEError(told if told.startswith("--") else f"{option} {told}".strip()) from error
    return found


def _found(data: Data) -> Videos:
    path, root = data.path, as_place(data.root)
    if is_address(path) and is_of_shards(path):
        return _videos(distant(path, os.path.expanduser(data.fetched), data.fetched_gb * 1e9), [])
    if is_address(path):
        try:
            return _afar(path, root, data.split)
        except OSError as error:
            raise MotionMAEError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not path or not os.path.exists(path):
        raise MotionMAEError(f"{path!r}: there is no such folder, manifest or list")
    if is_shards(path):
        return _videos(members(path), [])
    if os.path.isdir(path):
        splits = sorted(glob.glob(os.path.join(glob.escape(path), "*_test_split[0-9].txt")))
        found = _resolved(of_hmdb(splits, data.split), path, root) if splits else _below(path)
    else:
        found = _of_list(path, root, data.split)
    return found


def _afar(address: str, root: str, split: str) -> Videos:
    """The videos that an address names: all below a folder, those of a list in it, or one. Raises OSError."""
    if not address.lower().endswith(LISTS):
        place = remote.root(address)
        return _below(place) if remote.is_folder(place) else _videos([(_asked(place), "")], [])
    folder, _, name = address.rpartition("/")
    place = os.path.join(remote.root(folder), name)  # its videos lie beside it
    return _of_list(_asked(place), root, split)


def _asked(place: str) -> str:
    """The place, where a file is there. Raises OSError."""
    remote.about(place)
    return place


def _of_list(path: str, root: str, split: str) -> Videos:
    """The videos of a manifest, or of a list."""
    if not manifest.is_manifest(path):
        return _resolved(rows_of(path, split, root), path, root)
    entries = manifest.read_manifest(path, root)
    usable = [(entry.path, entry.label) for entry in entries if entry.usable]
    return _videos(usable, [entry.path for entry in entries if not entry.usable])


def column(data: Data, name: str, paths: Sequence[Path]) -> list[str]:
    """What the column `name` of the list `data.path` says of each of these videos of it.

    Raises MotionMAEError where there is no such list or column, or where it says nothing of a video.
    """
    said = _said(data, name)
    if not said:
        raise MotionMAEError(f"--data.path {data.path}: is not a list with a column {name!r}")
    lost = next((path for path in paths if not said.get(path)), None)
    if lost is not None:
        raise MotionMAEError(f"--data.path {data.path}: its column {name!r} says nothing of {lost}")
    return [said[path] for path in paths]


def _said(data: Data, name: str) -> dict[Path, str]:
    """What the column `name` of the list `data.path` says of its videos; nothing where there is no such column."""
    listed = os.path.isfile(data.path) and not data.path.endswith((".parquet", ".json", ".tar"))
    text = Path(data.path).read_text(encoding="utf-8-sig", errors="surrogateescape") if listed else ""
    names = tables.header(text)[0] if text else []
    where = next((known for known in PATHS if known in names), None)
    if where is None or name not in names:
        return {}
    home = as_place(data.root) or os.path.dirname(os.path.abspath(data.path))
    return {Path(home, row[where]): row[name] for _, row in of_split(data.path, text, data.split)}


def collect(names: Sequence[str]) -> Videos:
    """The named video files, and all videos of the named folders, lists and shards; each once.

    Classes are known where all that is named knows them. Raises MotionMAEError for a name that is not there.
    """
    if not names:
        raise MotionMAEError("say which videos: files, folders of videos, or lists")
    rows: dict[str, str] = {}
    missing: list[str] = []
    groups: dict[Path, str] = {}
    for name in names:
        if not is_address(name) and not os.path.exists(name):
            raise MotionMAEError(f"{name}: there is no such file or folder")
        if os.path.isfile(name) and not name.lower().endswith(LISTS):
            rows.setdefault(name, "")
            continue
        found = find(Data(path=name), "", "")
        rows |= dict(zip(map(str, found.paths), found.labels or [""] * len(found.paths), strict=True))
        missing += found.missing
        groups |= _said(Data(path=name), "group")
    found = _videos(list(rows.items()), missing)
    return replace(found, groups=[groups.get(path, "") for path in found.paths] if groups else [])


def _below(path: str) -> Videos:
    rows = [(found, label_of(found, path)) for found in walk(path) if promises(found) or os.path.isdir(found)]
    return _videos(rows, [])


def _videos(rows: Sequence[Row], missing: list[str]) -> Videos:
    labels = [label.strip() for _, label in rows]
    lacking = next((path for path, label in rows if not label.strip()), "") if any(labels) else ""
    return Videos([Path(path) for path, _ in rows], labels if all(labels) else [], missing, lacking)


def _resolved(rows: Iterable[Row], path: str, root: str) -> Videos:
    """Find the named videos: by path from the root (by default the list's folder), else by name anywhere below it."""
    home = root or (path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path)))
    by_name: dict[str, str] | None = None
    there = set(remote.walk(home)).__contains__ if remote.address_of(home) else os.path.exists  # one listing, not each
    found: list[Row] = []
    missing = []
    for name, label in rows:
        place = os.path.join(home, name)
        if not there(place) and "\\" in name:  # as Windows parts folders
            name = name.replace("\\", "/")
            place = os.path.join(home, name)
        if not there(place):
            if by_name is None:
                by_name = {_stem(other): other for other in reversed(list(walk(home)))}
            place = by_name.get(_stem(name), "")
        if place:
            found.append((place, label))
        else:
            missing.append(name)
    return _videos(found, missing)


def _stem(path: str) -> str:
    name = os.path.basename(path.rstrip("/"))
    return os.path.splitext(name)[0] if promises(name) else name
