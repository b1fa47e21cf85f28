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
from typing import Any

from motionmae.data.manifest import Entry
from motionmae.data.scan import promises
from motionmae.errors import MotionMAEError


def pack(entries: Sequence[Entry], folder: str, count: int) -> int:
    """Write videos into tar shards of `count` each; returns the number of shards. Needs the webdataset library."""
    writer = library(folder).ShardWriter
    os.makedirs(folder, exist_ok=True)
    with writer(os.path.join(folder.replace("%", "%%"), "%06d.tar"), maxcount=count, verbose=0) as shards:
        for number, entry in enumerate(entries):
            about = {"label": entry.label, "name": os.path.basename(entry.path), "frames": entry.frames}
            with open(entry.path, "rb") as file:
                shards.write({"__key__": f"{number:08d}", "mp4": file.read(), "json": json.dumps(about).encode()})
    return len(glob.glob(os.path.join(glob.escape(folder), "*.tar")))


def library(path: str) -> Any:
    """The webdataset library; raises MotionMAEError where it is not installed."""
    try:
        import webdataset
    except ImportError as error:
        raise MotionMAEError(f"{path}: shards need webdataset: pip install 'motionmae[shards]'") from error
    return webdataset


def is_shards(path: str) -> bool:
    """Whether a path is a shard, or a folder that holds nothing but shards."""
    if os.path.isdir(path):
        names = [name for name in os.listdir(path) if not name.startswith(".")]
        return bool(names) and all(name.endswith(".tar") for name in names)
    return path.endswith(".tar")


def members(path: str) -> list[tuple[str, str]]:
    """The videos of a shard, or of all shards of a folder, with their classes' names: only headers are read."""
    files = sorted(glob.glob(os.path.join(glob.escape(path), "*.tar"))) if os.path.isdir(path) else [path]
    return [row for file in files for row in _members(file)]


def _members(file: str) -> list[tuple[str, str]]:
    videos: dict[str, str] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                stem, ending = os.path.splitext(member.name)
                if member.isfile() and promises(member.name):
                    videos[stem] = f"{os.path.abspath(file)}::{member.offset_data}+{member.size}::{member.name}"
                elif member.isfile() and ending in (".json", ".cls", ".txt"):
                    content = tar.extractfile(member)
                    labels[stem] = _label(ending, content.read() if content else b"")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise MotionMAEError(f"{file}: cannot be read as a tar shard ({error})") from error
    return [(path, labels.get(stem, "")) for stem, path in videos.items()]


def _label(ending: str, content: bytes) -> str:
    if ending == ".json":
        about = json.loads(content)
        return str(about.get("label", about.get("cls", ""))) if isinstance(about, dict) else ""
    return content.decode().strip()
