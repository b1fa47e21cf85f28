"""Scan a folder: what is there, what can be used, and why the rest cannot. Nothing found is dropped silently."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.library.cluster import Each
from motionmae.library.manifest import Entry
from motionmae.library.parts import ALL, Share
from motionmae.library.processes import Failure, each
from motionmae.video import frames as folder
from motionmae.video import remote
from motionmae.video.reading import Video, VideoError, VideoInfo, probe, read_frames
from motionmae.words import many

_NAMES = """3g2 3gp asf avi divx dv f4v flv gif h264 h265 hevc ivf m2ts m4v mj2 mjpeg mkv mov mp4 mpe mpeg mpg mts mxf
nut obu ogg ogm ogv qt rm rmvb ts vob webm wmv"""
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""Names that promise a video. A file of such a name that is none is quarantined; any other is just another file."""
GRACE = 10.0
"""Seconds beyond its own limit after which a process that does not answer is killed."""


def walk(root: str | os.PathLike[str]) -> Iterator[str]:
    """Everything below a folder that may be a video, sorted: files that are not hidden, and folders of images.

    Links are followed, each folder once, so that circles end. Raises MotionMAEError where the root is not a folder.
    """
    if remote.address_of(root):
        yield from _afar(os.fspath(root))
        return
    if not os.path.isdir(root):
        raise MotionMAEError(f"{os.fspath(root)}: not a folder")
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(root)]
    while pending:
        here = pending.pop()
        try:
            found = os.stat(here)
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(here) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError:  # a folder that may not be entered: examined, it says why
            yield here
            continue
        inner = [entry for entry in entries if _is_folder(entry)]
        images = [entry for entry in entries if folder.is_image(entry.name) and not _is_folder(entry)]
        files = [entry for entry in entries if not _is_folder(entry) and not folder.is_image(entry.name)]
        if len(images) > 1 and not any(promises(entry.name) for entry in files):
            yield here
        else:
            files = sorted([*files, *images], key=lambda entry: entry.name)  # one of them may be moving
        yield from (entry.path for entry in files)
        pending.extend(entry.path for entry in reversed(inner))


def _afar(place: str) -> Iterator[str]:
    """All files below a place that an address has, sorted; pictures are no videos there."""
    try:
        if remote.is_folder(place):
            yield from (path for path in remote.walk(place) if not folder.is_image(path))
            return
    except OSError as error:
        raise MotionMAEError(f"{remote.shown(place)}: cannot be listed ({error.strerror or error})") from error
    raise MotionMAEError(f"{remote.shown(place)}: not a folder")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle: examined as a file, it says so
        return False


def promises(path: str) -> bool:
    """Whether the name says that this is a video."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def label_of(path: str, root: str | os.PathLike[str]) -> str:
    """The class by the folder layout: the name of the folder that holds the video; none directly below the root."""
    parent = os.path.dirname(os.path.abspath(path))
    return "" if parent == os.path.abspath(root) else os.path.basename(parent)


def examine(path: str, full: bool = False, limit: float = 60.0) -> Entry:
    """What a file is and whether it can be used; `full` decodes every frame. `limit` bounds the seconds.

    Frames are also read from the middle, as training reads them: what decodes in order need not be found by place.
    """
    entry, limit = _failed(path, "ok", full), seconds_for(path, full, limit)
    try:
        info = probe(path, limit)
        entry = replace(entry, **_described(info), hash=_hash(path))
        if info.missing:
            return replace(entry, status=info.missing)
        if full:
            entry = replace(entry, **_decoded(path, info, limit))
        if entry.usable:
            _picked(path, entry.frames, 8 if full else 2, limit)
        return replace(entry, status="one frame") if entry.usable and entry.frames == 1 else entry
    except VideoError as error:
        return replace(entry, status=error.reason)
    except OSError as error:
        return replace(entry, status=(error.strerror or "unreadable").lower())


def _described(info: VideoInfo) -> dict[str, Any]:
    names = ("frames", "rate", "constant", "height", "width", "codec", "keyframe_spacing", "audio")
    return {name: getattr(info, name) for name in names} | {"duration": round(float(info.duration), 6)}


def _decoded(path: str, info: VideoInfo, limit: float) -> dict[str, Any]:
    """Decode everything: the number of frames that come out, and the status."""
    if info.codec == "images":
        images = folder.Images(path)
        for number in range(info.frames):
            images.read([number])
        return {}
    with Video(path, limit) as video:
        count, reason = video.count()
    if reason:
        return {"frames": count, "status": f"undecodable after {count} of {many(info.frames, 'frame')}: {reason}"}
    if count < info.frames - max(2, info.frames // 50):
        return {"frames": count, "status": f"truncated: {count} of {many(info.frames, 'frame')} decoded"}
    return {"frames": count}


def _picked(path: str, count: int, parts: int, limit: float) -> None:
    """Read a frame at the end of each of `parts` equal parts but the last, each by itself: raises VideoError."""
    for number in sorted({count * part // parts for part in range(1, parts)}):
        read_frames(path, [number], limit=limit)


def _hash(path: str) -> str:
    """128 bits of BLAKE2 over the content; for a folder over its images in their order. Of a file behind an address it
    is what the store tells, perhaps nothing: it would have to be fetched for it."""
    if remote.address_of(path):
        return remote.about(path).checksum
    digest = hashlib.blake2b(digest_size=16)
    files = [os.path.join(path, name) for name in folder.names(path)] if os.path.isdir(path) else [path]
    for name in files:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def seconds_for(path: str, full: bool, limit: float) -> float:
    """The time that a file may take: the limit, and one second more for each MB where everything is decoded."""
    try:
        return limit + (remote.about(path).size / 1e6 if full else 0.0)
    except OSError:
        return limit


def scan(
    root: str | os.PathLike[str],
    *,
    full: bool = False,
    known: Iterable[Entry] = (),
    workers: int = 1,
    limit: float = 60.0,
    mine: Share = ALL,
    each: Each = each,
) -> Iterator[tuple[int, int, Entry | None]]:
    """Examine all that may be a video below a folder, or this job's share of it: (done, of how many, entry), in the
    order in which they are done.

    The entry is None for other files, which promise no video and are none. `known` entries are taken over where the
    file has not changed. Each file is examined in a process that is killed after `seconds_for` it, by `each`.
    """
    paths = [path for path in walk(root) if mine.has(os.path.relpath(path, root))]
    before = {entry.path: entry for entry in known if entry.checked == "full" or not full}
    fresh = []
    for path in paths:
        entry = before.get(os.path.abspath(path))
        if entry and _stamp(path) == (entry.bytes, entry.modified):
            yield len(paths), len(paths), entry
        else:
            fresh.append(path)
    examined = partial(examine, full=full, limit=limit)
    results = each(examined, fresh, min(workers, len(fresh)), lambda path: seconds_for(path, full, limit) + GRACE)
    for done, (path, result) in enumerate(results, len(paths) - len(fresh) + 1):
        entry = _failed(path, result.reason, full) if isinstance(result, Failure) else result
        named = entry.usable or promises(path) or os.path.isdir(path)
        yield (
            done,
            len(paths),
            replace(entry, path=os.path.abspath(path), label=label_of(path, root)) if named else None,
        )


def _failed(path: str, reason: str, full: bool) -> Entry:
    size, modified = _stamp(path)
    return Entry(path, reason, checked="full" if full else "quick", bytes=size, modified=modified)


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change: an entry with the same two need not be examined again. Zeros where there is no file."""
    try:
        found = remote.about(path)
    except OSError:
        return 0, 0
    return found.size, found.modified
