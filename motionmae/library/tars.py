"""Tar shards in WebDataset's form: each video is NUMBER.mp4 beside NUMBER.json with its class.

Its one rule: shards on a disk are read in place and at random, so that they give the samples that single files would.
A video in a shard has a path of its own, SHARD.tar::START+SIZE::NAME, that `open_video` understands.
"""

from __future__ import annotations

import glob
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.files import parsed, read_json, replacing, write_text
from motionmae.library.manifest import Entry
from motionmae.library.scan import promises
from motionmae.video import origin

INDEX = "index.json"
"""Beside the shards: what is in each, so that they need not be fetched to know."""
LABELS = (".json", ".cls", ".txt")
"""How the names of files end that tell a video's class."""
LONGEST = 1 << 20
"""Bytes that such a file may have."""


def pack(entries: Sequence[Entry], folder: str, count: int) -> int:
    """Write videos into tar shards of `count` each, in the place of earlier ones; returns how many.

    Needs the webdataset library. Raises MotionMAEError where the folder holds anything else.
    """
    writer = origin.library(folder).ShardWriter
    if os.path.isdir(folder) and os.listdir(folder) and not is_shards(folder):
        raise MotionMAEError(f"{folder}: holds other files than shards, and is left as it is")
    with replacing(folder) as aside:
        aside.mkdir()
        with writer(os.path.join(str(aside).replace("%", "%%"), "%06d.tar"), maxcount=count, verbose=0) as shards:
            for number, entry in enumerate(entries):
                about = {"label": entry.label, "name": os.path.basename(entry.path), "frames": entry.frames}
                with open(entry.path, "rb") as file:
                    shards.write({"__key__": f"{number:08d}", "mp4": file.read(), "json": json.dumps(about).encode()})
        files = sorted(aside.glob("*.tar"))
        index = {file.name: {"bytes": file.stat().st_size, "videos": listing(str(file))} for file in files}
        write_text(aside / INDEX, json.dumps(index))
    return len(files)


def is_shards(path: str) -> bool:
    """Whether a path is a shard, or a folder that holds nothing but shards and their index."""
    if os.path.isdir(path):
        names = [name for name in os.listdir(path) if not name.startswith(".") and name != INDEX]
        return bool(names) and all(name.endswith(".tar") for name in names)
    return path.endswith(".tar")


def members(path: str) -> list[tuple[str, str]]:
    """The videos of a shard, or of all shards of a folder, with their classes' names: only headers are read."""
    files = sorted(glob.glob(os.path.join(glob.escape(path), "*.tar"))) if os.path.isdir(path) else [path]
    return [_row(file, video) for file in files for video in listing(file)]


def distant(path: str, folder: str, most: float) -> list[tuple[str, str]]:
    """The videos of the shards behind addresses, with their classes' names; their places are below `folder`.

    What is in them is told by INDEX beside them, as `pack` writes it; without it each shard is fetched once to be
    listed. Raises MotionMAEError where that fails, or where `most` bytes of shards are too few to work with.
    """
    wanted = origin.addresses(path)
    text = origin.text_beside(wanted[0], INDEX)
    try:
        index = parsed(text, INDEX) if text else {}
        sizes = [about["bytes"] for about in index.values()]
        rows = [row for address in wanted for row in _distant(address, origin.place_of(address, folder, most), index)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise MotionMAEError(f"{path}: the {INDEX} beside the shards is not one ({error!r})") from error
    needed = 2 * origin.WINDOW * max(sizes, default=0)
    if sum(sizes) > most and needed > most:
        raise MotionMAEError(
            f"--data.fetched-gb {most / 1e9:g}: is too little for shards of {max(sizes) / 1e9:.2g} GB, of which "
            f"{2 * origin.WINDOW} are needed at a time: at least {needed / 1e9:.2g}"
        )
    return rows


def _distant(address: str, file: str, index: dict[str, Any]) -> list[tuple[str, str]]:
    known, kept = index.get(os.path.basename(file).partition("-")[2]), Path(f"{file}.list")
    if known:
        return [_row(file, video) for video in known["videos"]]
    if not kept.exists():
        try:
            held = origin.hold(file)
        except OSError as error:
            raise MotionMAEError(f"{address}: {error}") from error
        assert held
        with held:
            write_text(kept, json.dumps(listing(file)))
    return [_row(file, video) for video in read_json(kept)]


def groups(files: Sequence[str | os.PathLike[str]]) -> list[int]:
    """A number for the shard that each video is in; none at all where not all are in shards behind addresses."""
    shards = [holder(file) for file in files]
    if not all(origin.is_fetched(shard) for shard in set(shards)):
        return []
    places = {shard: number for number, shard in enumerate(dict.fromkeys(shards))}
    return [places[shard] for shard in shards]


def holder(file: str | os.PathLike[str]) -> str:
    """The file on the disk that holds a video: its shard, or itself."""
    path, mark, _ = os.fspath(file).partition(".tar::")
    return f"{path}.tar" if mark else path


def _row(file: str, video: Sequence[Any]) -> tuple[str, str]:
    name, start, size, label = video
    return f"{os.path.abspath(file)}::{int(start)}+{int(size)}::{name}", str(label)


def listing(file: str) -> list[tuple[str, int, int, str]]:
    """Name, first byte, bytes and class of each video in a shard: only headers are read."""
    videos: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                stem, ending = os.path.splitext(member.name)
                if member.issparse() or (ending in LABELS and member.size > LONGEST):
                    raise ValueError(f"{member.name} says that it holds {member.size} bytes")  # which are not there
                if member.isfile() and promises(member.name):
                    videos[stem] = (member.name, member.offset_data, member.size)
                elif member.isfile() and ending in LABELS:
                    content = tar.extractfile(member)
                    labels[stem] = _label(member.name, ending, content.read() if content else b"")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise MotionMAEError(f"{file}: cannot be read as a tar shard ({error})") from error
    return [(*video, labels.get(stem, "")) for stem, video in videos.items()]


def _label(name: str, ending: str, content: bytes) -> str:
    if ending == ".json":
        about = parsed(content, name)
        return str(about.get("label", about.get("cls", ""))) if isinstance(about, dict) else ""
    return content.decode().strip()
