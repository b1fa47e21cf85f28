"""Where the videos are, and their classes: folders, manifests, lists, and the annotations of the common data sets.

Its one rule: what a list names and is not there is told, never dropped silently.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.files import read_text
from motionmae.library import manifest, tables
from motionmae.library.scan import label_of, promises, walk
from motionmae.library.tars import distant, is_shards, members
from motionmae.video import remote
from motionmae.video.origin import is_address, is_of_shards

PATHS = ("path", "video", "file", "filename", "file_name", "filepath", "file_path", "video_path", "video_name", "name")
LABELS = ("label", "class", "class_name", "category", "action", "target", "label_name")
LISTS = (".csv", ".tsv", ".txt", ".json", ".parquet", ".tar")
"""How the names of lists and shards end, which are files but no videos."""
HMDB = {"1": "train", "2": "test"}

Row = tuple[str, str]  # path or name of a video, and its class or ""


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
        classes = f" of {len(set(self.labels))} classes" if self.labels else ""
        lost = f"; {len(self.missing)} more are listed but missing or unusable, first " if self.missing else ""
        none = f"; classes are not used, as {self.unlabelled} has none" if self.unlabelled else ""
        return f"{len(self.paths)} videos{classes}{lost}{''.join(self.missing[:1])}{none}"


def find(data: Data) -> Videos:
    """The videos that `data.path` names, in a fixed order; see `Data.path` for what it may be.

    Raises MotionMAEError where nothing is found, or where a list is none of those known.
    """
    path, root = data.path, _placed(data.root)
    if is_address(path) and is_of_shards(path):
        return _videos(distant(path, os.path.expanduser(data.fetched), data.fetched_gb * 1e9), [])
    if is_address(path):
        try:
            return _afar(path, root, data.split)
        except OSError as error:
            raise MotionMAEError(f"--data.path {path}: cannot be read ({error.strerror or error})") from error
    if not path or not os.path.exists(path):
        raise MotionMAEError(f"--data.path {path!r}: there is no such folder, manifest or list")
    if is_shards(path):
        return _videos(members(path), [])
    if os.path.isdir(path):
        splits = sorted(glob.glob(os.path.join(glob.escape(path), "*_test_split[0-9].txt")))
        found = _resolved(_hmdb(splits, data.split), path, root) if splits else _below(path)
    else:
        found = _of_list(path, root, data.split)
    return _some(found, path)


def _some(found: Videos, path: str) -> Videos:
    """What was found, which is not nothing."""
    if not found.paths:
        why = f"none of its {len(found.missing)} videos is there" if found.missing else "there is no video in it"
        example = f", not {found.missing[0]!r}; --data.root names the folder that they are in" if found.missing else ""
        raise MotionMAEError(f"--data.path {path}: {why}{example}")
    return found


def _afar(address: str, root: str, split: str) -> Videos:
    """The videos that an address names: all below a folder, those of a list in it, or one. Raises OSError."""
    if not address.lower().endswith(LISTS):
        place = remote.root(address)
        return _some(_below(place) if remote.is_folder(place) else _videos([(_asked(place), "")], []), address)
    folder, _, name = address.rpartition("/")
    place = os.path.join(remote.root(folder), name)  # its videos lie beside it
    return _some(_of_list(_asked(place), root, split), address)


def _asked(place: str) -> str:
    """The place, where a file is there. Raises OSError."""
    remote.about(place)
    return place


def _placed(root: str) -> str:
    """A folder of videos that the user typed, as a path: an address as its place."""
    return remote.root(root) if is_address(root) else root


def _of_list(path: str, root: str, split: str) -> Videos:
    """The videos of a manifest, or of a list."""
    if not manifest.is_manifest(path):
        return _resolved(_listed(path, split, root), path, root)
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
    home = _placed(data.root) or os.path.dirname(os.path.abspath(data.path))
    return {Path(home, row[where]): row[name] for _, row in _rows(data.path, text, data.split)}


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
        found = find(Data(path=name))
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


def _listed(path: str, split: str, root: str) -> list[Row]:
    """The rows of a list: JSON, or text."""
    try:
        with remote.open_file(path) as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise MotionMAEError(f"--data.path {path}: cannot be read ({error.strerror})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or "\0" in text:
        raise MotionMAEError(f"--data.path {path}: not a folder, manifest or list of videos")
    if path.endswith(".json"):
        return _json(path, text, split)
    if re.fullmatch(r"(train|test)list0\d\.txt", os.path.basename(path)):  # UCF101: the class is the folder
        return [(line.split(" ")[0], line.split("/")[0]) for line in lines]
    if re.match(r"\d+;", lines[0]):  # the answers of Something-Something's test set
        return [(line.partition(";")[0], _plain(line.partition(";")[2])) for line in lines]
    names = tables.header(text)[0]
    if {"youtube_id", "time_start"} <= set(names):
        return _kinetics(path, text, split)
    if set(names) & set(PATHS):
        return _named(path, text, split)
    return [_spaced(line, path, root) for line in lines]


def _rows(path: str, text: str, split: str, required: Sequence[str] = ()) -> list[tables.Line]:
    """Lines of a table with named columns, of one split (or several: train+val) where there is a column of them."""
    found, wanted = tables.lines(f"--data.path {path}", text, required), (split, *split.split("+"))
    return [(at, row) for at, row in found if not split or row.get("split", split) in wanted]


def _named(path: str, text: str, split: str) -> list[Row]:
    names = tables.header(text)[0]
    where = next(name for name in PATHS if name in names)
    what = next((name for name in LABELS if name in names), "")
    rows = _rows(path, text, split, (where, what))
    broken = next((at for at, row in rows if not row[where]), None)
    if broken:
        raise MotionMAEError(f"--data.path {path}: line {broken} has no value for {where!r}")
    return [(row[where], row.get(what, "")) for _, row in rows]


def _kinetics(path: str, text: str, split: str) -> list[Row]:
    """Kinetics' annotations (Kay et al., 2017, arXiv 1705.06950): files are named by id, first and last second."""
    rows = [row for _, row in _rows(path, text, split)]
    return [
        (f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4", row.get("label") or "")
        for row in rows
    ]


def _json(path: str, text: str, split: str) -> list[Row]:
    """Something-Something V2 (Goyal et al., 2017, arXiv 1706.04261), a list, its class the template without brackets;
    or Kinetics as JSON, an object of videos by their YouTube id."""
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            rows = [(name, about, about["annotations"]) for name, about in found.items()]
            return [
                (f"{name}_{int(first):06d}_{int(last):06d}.mp4", said.get("label") or "")
                for name, about, said in rows
                for first, last in [said["segment"]]
                if not split or about.get("subset", split) == split
            ]
        return [(f"{row['id']}.webm", _plain(row.get("template") or row.get("label") or "")) for row in found]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MotionMAEError(
            f"--data.path {path}: not a list of objects with an 'id', nor Kinetics' object of annotations ({error!r})"
        ) from error


def _plain(template: str) -> str:
    return re.sub(r"[\[\]]", "", template).strip()


def _hmdb(files: Sequence[str], split: str) -> list[Row]:
    """HMDB51's splits (Kuehne et al., 2011): a file for each class; 1 marks training videos, 2 testing ones."""
    wanted = re.fullmatch(r"(train|test)([0-9])", split)
    if not wanted:
        raise MotionMAEError(
            f"--data.split {split!r}: of HMDB51's splits choose train1, test1, train2, test2, train3 or test3"
        )
    rows = []
    for file in files:
        label, _, ending = os.path.basename(file).rpartition("_test_split")
        if ending != f"{wanted[2]}.txt":
            continue
        for line in read_text(file).splitlines():
            name, _, use = line.strip().rpartition(" ")
            if HMDB.get(use) == wanted[1]:
                rows.append((os.path.join(label, name.strip()), label))
    return rows


def _spaced(line: str, path: str, root: str) -> Row:
    """A line of a list without named columns: path, number of frames for folders of images, class; parted by blanks,
    commas or tabs. A path is known by what is there, or by its ending; VideoMAE's own lists end in `0 -1`, no class."""
    home = root or os.path.dirname(os.path.abspath(path))
    line = line.strip()
    if os.path.exists(os.path.join(home, line)):
        return line, ""
    for match in re.finditer(r"[ ,;\t]+", line):
        name, rest = line[: match.start()], line[match.end() :]
        if promises(name.strip('"')) and not promises(rest):
            return name.strip('"'), _class_of(rest)
    match = re.fullmatch(r"(.+?)[ ,\t]+(\d+(?:\.0*)?)", line)
    if match:
        shorter = re.fullmatch(r"(.+?)[ ,\t]+\d+", match[1])
        counted = shorter and not os.path.exists(os.path.join(home, match[1]))
        return (shorter[1] if shorter and counted else match[1]), match[2]
    for match in re.finditer(r"[ ,;\t]+", line):
        if os.path.isdir(os.path.join(home, line[: match.start()])):
            return line[: match.start()], _class_of(line[match.end() :])
    return line, ""


def _class_of(rest: str) -> str:
    """The class behind a path: the last of two numbers, of which -1 is none; else all words."""
    numbers = re.fullmatch(r"\d+[ ,\t]+(-?\d+)", rest)
    found = numbers[1] if numbers else rest.strip().strip('"')
    return "" if found == "-1" else found
