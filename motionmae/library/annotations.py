"""What lists and the annotations of the common data sets say: their text to rows of a video and its class.

Its one rule: whether a video is there is not asked here, but where only that tells what a line means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from motionmae.errors import MotionMAEError
from motionmae.files import parsed, read_text
from motionmae.library import tables
from motionmae.library.scan import promises
from motionmae.video import remote

PATHS = ("path", "video", "file", "filename", "file_name", "filepath", "file_path", "video_path", "video_name", "name")
LABELS = ("label", "class", "class_name", "category", "action", "target", "label_name")
HMDB = {"1": "train", "2": "test"}

Row = tuple[str, str]  # path or name of a video, and its class or ""


def rows_of(path: str, split: str, root: str) -> list[Row]:
    """The rows of a list: JSON, or text."""
    try:
        with remote.open_file(path) as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise MotionMAEError(f"{path}: cannot be read ({error.strerror})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or "\0" in text:
        raise MotionMAEError(f"{path}: not a folder, manifest or list of videos")
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


def of_split(path: str, text: str, split: str, required: Sequence[str] = ()) -> list[tables.Line]:
    """Lines of a table with named columns, of one split (or several: train+val) where there is a column of them."""
    found, wanted = tables.lines(path, text, required), (split, *split.split("+"))
    return [(at, row) for at, row in found if not split or row.get("split", split) in wanted]


def _named(path: str, text: str, split: str) -> list[Row]:
    names = tables.header(text)[0]
    where = next(name for name in PATHS if name in names)
    what = next((name for name in LABELS if name in names), "")
    rows = of_split(path, text, split, (where, what))
    broken = next((at for at, row in rows if not row[where]), None)
    if broken:
        raise MotionMAEError(f"{path}: line {broken} has no value for {where!r}")
    return [(row[where], row.get(what, "")) for _, row in rows]


def _kinetics(path: str, text: str, split: str) -> list[Row]:
    """Kinetics' annotations (Kay et al., 2017, arXiv 1705.06950): files are named by id, first and last second."""
    found = []
    for at, row in of_split(path, text, split):
        try:
            first, last = int(row["time_start"]), int(row["time_end"])
        except (KeyError, ValueError) as error:
            raise MotionMAEError(f"{path}: line {at} does not say from when to when ({error})") from error
        found.append((f"{row['youtube_id']}_{first:06d}_{last:06d}.mp4", row.get("label") or ""))
    return found


def _json(path: str, text: str, split: str) -> list[Row]:
    """Something-Something V2 (Goyal et al., 2017, arXiv 1706.04261), a list, its class the template without brackets;
    or Kinetics as JSON, an object of videos by their YouTube id."""
    found = parsed(text, path)
    try:
        if isinstance(found, dict):
            rows = [(name, about, about["annotations"]) for name, about in found.items()]
            return [
                (f"{name}_{int(first):06d}_{int(last):06d}.mp4", said.get("label") or "")
                for name, about, said in rows
                for first, last in [said["segment"]]
                if not split or about.get("subset", split) == split
            ]
        return [(f"{row['id']}.webm", _plain(row.get("template") or row.get("label") or "")) for row in found]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise MotionMAEError(
            f"{path}: not a list of objects with an 'id', nor Kinetics' object of annotations ({error!r})"
        ) from error


def _plain(template: str) -> str:
    return re.sub(r"[\[\]]", "", template).strip()


def of_hmdb(files: Sequence[str], split: str) -> list[Row]:
    """HMDB51's splits (Kuehne et al., 2011): a file for each class; 1 marks training videos, 2 testing ones."""
    wanted = re.fullmatch(r"(train|test)([0-9])", split)
    if not wanted:
        home, known = os.path.dirname(files[0]), "train1, test1, train2, test2, train3 or test3"
        raise MotionMAEError(f"{home}: holds HMDB51's splits; choose {known}, the split is {split!r}")
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
