"""Packets and pictures of a video file, below `video.py`: what is in it, and where decoding starts for a picture.

Its one rule: nothing is believed that has not been checked. Where the times in the container are not those of the
pictures, the table says so, and the reader decodes from the start and counts.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from motionmae.errors import MotionMAEError
from motionmae.video import images, origin

# Containers of video; FFmpeg would also "open" playlists (which name other files and addresses), text and pictures.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng,flv,asf,ogg,ivf,nut,mxf,dv,rm,wtv,obu,"
    "h264,hevc,m4v,mjpeg,vc1,yuv4mpegpipe"
)
# Codecs whose key frames are what they say: decoding may start there. All others are decoded from the file's start.
SEEKABLE = frozenset("h264 hevc vp8 vp9 av1 mpeg4 mpeg1video mpeg2video mjpeg prores ffv1 dnxhd".split())  # noqa: SIM905
# Codecs whose pictures say truly that no other picture needs them: those are not decoded unless they are wanted.
SKIPPABLE = frozenset(("h264", "mpeg4", "mpeg1video", "mpeg2video"))
# Containers with one packet a picture and its time beside it; in others the first pictures are decoded to make sure.
TRUSTED = frozenset(("mov", "matroska", "ivf", "flv"))
MAX_PACKETS = 20_000_000
TABLE_FRAMES = 1 << 19
CHECKED = 8
NEAR = 300
LATE = "not done after {:g} s"
NONE = np.iinfo(np.int64).min


class VideoError(MotionMAEError):
    """A file that cannot be read as asked; `reason` is the message without the file's name."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"{self.path if self.path.isprintable() else repr(self.path)}: {reason}")

    def __reduce__(self):
        return VideoError, (self.path, self.reason)


@dataclass(frozen=True)
class Table:
    """The packets of a video stream in the order of decoding, and its pictures in the order of presentation (int64)."""

    pts: np.ndarray  # of each packet, in ticks
    dts: np.ndarray
    keys: np.ndarray  # packets that are key frames
    times: np.ndarray  # of each picture, in ticks
    packet: np.ndarray  # each picture's packet
    key: np.ndarray  # the key frame's packet from which each picture can be decoded
    timed: bool  # whether the times are the pictures' own
    seekable: bool  # whether decoding may start at key frames


_tables: OrderedDict[tuple[str, int, int], Table] = OrderedDict()


class Lost(Exception):
    """Seeking did not find what the table promised."""


class Source:
    """An open file and its video stream. Opening lists the packets, or takes the list from an earlier opening."""

    def __init__(self, path: str | os.PathLike[str], limit: float):
        """`limit` bounds the seconds from now on: any method raises VideoError when they are over."""
        self.path, self.limit = os.fspath(path), limit
        self.container: Any = None
        self.file, self.part = _located(self.path)
        try:
            self.held = origin.hold(self.file) if self.part else None
        except OSError as error:
            raise VideoError(path, str(error)) from error
        self.deadline = time.monotonic() + limit  # fetching has bounds of its own
        try:
            found = _regular(self.path, self.file)
            self._open()
        except BaseException:
            self._let_go()
            raise
        name = (os.path.abspath(self.path), 0 if self.held else found.st_mtime_ns, found.st_size)
        try:
            if name not in _tables:
                _remember(name, self._list())
            self.table = _tables[name]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. The packets hold this object and it holds them: let go, so that the decoder goes at once."""
        self.packets = iter(())
        self.container.close()
        self._let_go()

    def _let_go(self) -> None:
        if self.held:
            self.held.close()

    def missing(self) -> str:
        """In words, what the header claims and the file does not hold; empty where nothing is known to be missing."""
        name, held = self.container.format.name, len(self.table.pts)
        if name == "avi" and not self.part:
            with open(self.path, "rb") as file:
                claimed, size = int.from_bytes(file.read(8)[4:], "little") + 8, os.path.getsize(self.path)
            return f"truncated: {size} of {claimed} bytes" if size < claimed else ""
        if name.startswith("matroska") and self.table.timed and len(self.container.streams) == 1:
            times, tick = self.table.times, self.stream.time_base or Fraction(0)
            ends, claimed = float(times[-1] * tick), (self.container.duration or 0) / 1e6
            step = ends / max(1, len(times))
            return f"truncated: ends after {ends:.1f} of {claimed:.1f} s" if ends < 0.97 * claimed - 3 * step else ""
        claimed = self.stream.frames if name.startswith("mov") else 0
        if held < (enough := claimed - max(2, claimed / 50)):
            held = self._stored()
        return f"truncated: holds {held} of {claimed} frames" if held < enough else ""

    def _stored(self) -> int:
        """The packets in an mp4, also those that its edit list hides: a trimmed copy lacks nothing."""
        self._open(ignore_editlist="1")
        held = sum(1 for _ in self._demux())
        self._open()
        return held

    def _open(self, **more: str) -> None:
        """Open the container at its start and choose the stream; `more` are FFmpeg's options."""
        if self.container is not None:
            self.container.close()
        try:
            options = {"protocol_whitelist": "file,subfile", "format_whitelist": FORMATS, **more}
            self.container = av.open(
                f"{self.part}file:{self.file}", options=options, timeout=self.limit, metadata_errors="ignore"
            )
        except (av.error.FFmpegError, UnicodeError) as error:
            late = isinstance(error, av.error.ExitError)
            raise VideoError(self.path, LATE.format(self.limit) if late else _why(self.file, error)) from error
        streams = [
            stream for stream in self.container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not streams or streams[0].codec_context is None:
            reason = "audio only" if self.container.streams.audio else "no video in it"
            self.container.close()
            raise VideoError(self.path, reason)
        self.stream = streams[0]
        if why := images.too_large(self.stream.codec_context.height, self.stream.codec_context.width):
            self.container.close()
            raise VideoError(self.path, f"pictures {why}")
        self.stream.codec_context.options = {"max_pixels": str(images.MOST_PIXELS)}  # where the size changes on the way
        self.stream.codec_context.thread_type, self.stream.codec_context.thread_count = "SLICE", 1
        self.packets: Iterator[av.Packet] = self._demux()
        self.position = 0

    def _demux(self) -> Iterator[av.Packet]:
        """The packets from where the container stands, without empty ones: bounded in number and time."""
        packets = self.container.demux(self.stream)
        for number in range(MAX_PACKETS):
            if time.monotonic() > self.deadline:
                raise VideoError(self.path, LATE.format(self.limit))
            try:
                packet = next(packets, None)
            except av.error.ExitError as error:
                raise VideoError(self.path, LATE.format(self.limit)) from error
            except av.error.FFmpegError as error:
                raise VideoError(self.path, f"unreadable after packet {number}: {error.strerror}") from error
            if packet is None:
                return
            if packet.size:  # a packet without data stands for "as before", or for the end
                yield packet

    def _list(self) -> Table:
        """List the packets and find out whether pictures can be found by time."""
        held = [(p.pts, p.dts, p.is_keyframe, p.is_discard) for p in self._demux()]
        pts = np.array([NONE if p[0] is None else p[0] for p in held], dtype=np.int64)
        dts = np.array([NONE if p[1] is None else p[1] for p in held], dtype=np.int64)
        keys = np.flatnonzero([p[2] for p in held])
        shown = np.flatnonzero([not p[3] for p in held])
        if not len(keys) or not len(shown):
            raise VideoError(self.path, "no key frame in it" if len(shown) else "no frames in it")
        codec, name = self.stream.codec_context, self.container.format.name.split(",")[0]
        order = shown[np.argsort(pts[shown], kind="stable")]
        timed = bool((pts != NONE).all()) and len(np.unique(pts)) == len(pts)
        timed = timed and not (name == "avi" and codec.has_b_frames)
        unsorted = codec.has_b_frames and (np.diff(pts) > 0).all()  # times of decoding, given as times of showing
        if timed and (name not in TRUSTED or unsorted or keys[0] or pts[order[0]] < pts[keys[0]]):
            first = [frame.pts for frame in itertools.islice(self.frames(), CHECKED)]
            order = order[pts[order] >= first[0]] if first and first[0] is not None else order
            timed = len(first) > 0 and pts[order[: len(first)]].tolist() == first
        self.position = len(held)  # whatever was read: seek before reading on
        seekable = timed and codec.codec.canonical_name in SEEKABLE
        key = _needed(pts, keys, order) if seekable else np.zeros_like(order)
        return Table(pts, dts, keys, pts[order], order, key, timed, seekable)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode from the start. What fails before the first picture (a recording cut open) is passed over."""
        self._open()
        decoded = False
        for packet in itertools.chain(self.packets, [None]):
            self.position += 1
            try:
                frames = self._decode(packet)
            except VideoError:
                if decoded:
                    raise
                continue
            decoded = decoded or bool(frames)
            yield from frames

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The pictures that come out after this packet; None asks for those still inside."""
        try:
            return self.stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            raise VideoError(self.path, f"undecodable at packet {self.position - 1}: {error.strerror}") from error

    def between(self, first: int, needed: Sequence[int]) -> Iterator[av.VideoFrame]:
        """The pictures of the `needed` packets (sorted), and of others on the way there from key frame `first`."""
        if not 0 <= first - self.position <= NEAR:
            self._jump(first)
        for _ in range(first - self.position):
            next(self.packets, None)
        self.position = first
        codec, pts, wanted, skipping = self.stream.codec_context, self.table.pts, set(needed), None
        codec.flush_buffers()
        lean = codec.codec.canonical_name in SKIPPABLE
        for packet in itertools.islice(self.packets, max(needed) - first + 1):
            if packet.pts != pts[self.position]:
                raise Lost
            if lean and skipping != (skip := self.position not in wanted):
                codec.skip_frame, skipping = "NONREF" if skip else "DEFAULT", skip
            self.position += 1
            yield from self._decode(packet)
        yield from self._decode(None)

    def plainly(self, wanted: Sequence[int]) -> int:
        """Open the file anew and decode these pictures (sorted) to RGB in the plainest way: the ceiling of a reader.

        All pictures from the key frame on are decoded, as by a reader that knows where to look but nothing more.
        Returns how many of the wanted ones came.
        """
        self._open()
        table, found = self.table, 0
        if table.seekable and table.key[wanted[0]]:
            self.container.seek(int(table.pts[table.key[wanted[0]]]), stream=self.stream)
        times, last = set(table.times[list(wanted)].tolist()), int(table.times[wanted[-1]])
        for number, frame in enumerate(self.container.decode(self.stream)):
            if frame.pts in times if table.timed else number in wanted:
                frame.to_ndarray(format="rgb24", threads=1)
                found += 1
            if (frame.pts or 0) >= last if table.timed else number >= wanted[-1]:
                break
        return found

    def _jump(self, first: int) -> None:
        """Seek so that key frame `first` is the next packet."""
        time_of = int(self.table.pts[first])
        place = time_of if self.table.dts[first] == NONE else int(self.table.dts[first])
        for back in (0, 2, None):
            if back is None:
                self._open()
            else:
                try:
                    self.container.seek(place - int(back / (self.stream.time_base or 1)), stream=self.stream)
                except av.error.FFmpegError:
                    continue
                self.packets = self._demux()
            for packet in self.packets:
                if packet.pts == time_of:
                    self.packets, self.position = itertools.chain([packet], self.packets), first
                    return
                if packet.is_keyframe and packet.pts is not None and packet.pts > time_of:
                    break
        raise Lost


def _needed(pts: np.ndarray, keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each picture the last key frame that is decoded and shown no later than it: where its decoding may start."""
    place = np.searchsorted(keys, order, side="right") - 1
    while (early := (place > 0) & (pts[keys[place]] > pts[order])).any():
        place[early] -= 1
    return keys[np.maximum(place, 0)]


def forget() -> None:
    """Drop all lists of packets, so that the next opening of a file makes its own: for measuring."""
    _tables.clear()


def _remember(name: tuple[str, int, int], table: Table) -> None:
    """Keep the table for the file's next opening, and forget the oldest beyond TABLE_FRAMES frames in all."""
    _tables[name] = table
    while len(_tables) > 1 and sum(len(kept.pts) for kept in _tables.values()) > TABLE_FRAMES:
        _tables.popitem(last=False)


def _located(path: str) -> tuple[str, str]:
    """The file that holds a video, and FFmpeg's words for the part of it that is the video; "" for all."""
    match = re.fullmatch(r"(.+?\.tar)::(\d+)\+(\d+)::.*", path, re.DOTALL)
    if not match or os.path.lexists(path):
        return path, ""
    return match[1], f"subfile,,start,{match[2]},end,{int(match[2]) + int(match[3])},,:"


def _regular(path: str, file: str) -> os.stat_result:
    """The file's status; VideoError for what is not a file, is empty or may not be read."""
    try:
        found = os.stat(file)
    except OSError as error:
        broken = os.path.islink(file) and isinstance(error, FileNotFoundError)
        raise VideoError(path, "broken link" if broken else (error.strerror or "unreadable").lower()) from error
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(path, "not a regular file")
    if not found.st_size:
        raise VideoError(path, "zero bytes")
    if not os.access(file, os.R_OK):
        raise VideoError(path, "permission denied")
    return found


def _why(path: str, error: Exception) -> str:
    """Why a file does not open, in words."""
    if isinstance(error, PermissionError):
        return "permission denied"
    with open(path, "rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return "truncated: an mp4 without its index"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP: not read as a video"
    if head[:4] in (b"RIFF", b"\x1aE\xdf\xa3") or head[:3] == b"GIF":
        return "truncated: nothing but the beginning of its header"
    return "not a video"
