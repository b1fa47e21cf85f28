"""Packets and pictures of a video file, below `reading.py`: what is in it, and where decoding starts for a picture.

Its one rule: nothing is believed that has not been checked. Where the times in the container are not those of the
pictures, the table says so, and the reader decodes from the start and counts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from motionmae.video import images, opening, origin, pulse, remote
from motionmae.video.damage import DOUBTED, STRICT, unneeded
from motionmae.video.errors import VideoError
from motionmae.video.table import NONE, Packets, Table, leads, listed, recall, remember

# Codecs whose key frames are what they say: decoding may start there. All others are decoded from the file's start.
SEEKABLE = frozenset("h264 hevc vp8 vp9 av1 mpeg4 mpeg1video mpeg2video mjpeg prores ffv1 dnxhd".split())  # noqa: SIM905
# Codecs whose pictures say truly that no other picture needs them: those are not decoded unless they are wanted.
SKIPPABLE = frozenset(("h264", "mpeg4", "mpeg1video", "mpeg2video"))
# Containers with one packet a picture and its time beside it; in others the first pictures are decoded to make sure.
TRUSTED = frozenset(("mov", "matroska", "ivf", "flv"))
# Codecs of whose packets an mp4's index says all that the table needs: their content need not be looked at.
INDEXED = frozenset(("h264", "hevc", "mpeg4"))
MAX_PACKETS = 20_000_000
CHECKED = 8
NEAR = 300
LATE = "not done after {:g} s"


class Lost(Exception):
    """Seeking did not find what the table promised."""


class Demuxer:
    """An open file and its video stream. Opening lists the packets, or takes the list from an earlier opening."""

    def __init__(self, path: str | os.PathLike[str], limit: float):
        """`limit` bounds the seconds from now on: any method raises VideoError when they are over."""
        self.path, self.limit = os.fspath(path), limit
        self.container: Any = None
        self.strict = True
        self.reader: remote.Reader | None = None
        self.file, self.part = opening.located(self.path)
        try:
            self.held = origin.hold(self.file) if self.part else None
        except OSError as error:
            raise VideoError(path, str(error)) from error
        self.deadline = time.monotonic() + limit  # fetching has bounds of its own
        try:
            found = opening.regular(self.path, self.file)
            if remote.address_of(self.file):
                self.reader = remote.Reader(self.file, self._late, partial(VideoError, self.path))
            self.open()
        except BaseException:
            self._let_go()
            raise
        name = (os.path.abspath(self.path), 0 if self.held else found.modified, found.size)
        try:
            known = recall(name)
            self.table = self._list() if known is None else known
            if not self.table.strict:
                self.strict = False
                self.open()
            remember(name, self.table)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. The packets hold this object and it holds them: let go, so that the decoder goes at once."""
        self.packets = iter(())
        self.container.close()
        self._let_go()

    def _let_go(self) -> None:
        for held in (self.held, self.reader):
            if held:
                held.close()

    def _late(self) -> str:
        return LATE.format(self.limit) if time.monotonic() > self.deadline else ""

    def open(self, **more: str) -> None:
        """Open the container at its start and choose the stream; `more` are FFmpeg's options."""
        if self.container is not None:
            self.container.close()
        try:
            options = {"protocol_whitelist": "file,subfile", "format_whitelist": opening.FORMATS, **more}
            if self.reader:
                self.reader.seek(0)
            source = self.reader or f"{self.part}file:{self.file}"
            self.container = av.open(source, options=options, timeout=self.limit, metadata_errors="ignore")
        except (av.error.FFmpegError, UnicodeError) as error:
            late = isinstance(error, av.error.ExitError)
            raise VideoError(self.path, LATE.format(self.limit) if late else opening.why(self.file, error)) from error
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
        self.codec = self.stream.codec_context.codec.canonical_name
        self.stream.codec_context.thread_type, self.stream.codec_context.thread_count = "SLICE", 1
        asked = self.strict and not (self.reader and self.codec in DOUBTED)  # that would fetch more than the index
        strict = {"err_detect": STRICT[self.codec]} if asked and self.codec in STRICT else {}
        self.stream.codec_context.options = {"max_pixels": str(images.MOST_PIXELS), **strict}  # sizes change on the way
        self.packets: Iterator[av.Packet] = self.demux()
        self.position = self.inside = 0

    def demux(self) -> Iterator[av.Packet]:
        """The packets from where the container stands, without empty ones: bounded in number and time."""
        # PyAV's generator, given up half-way, frees its packet only where it is closed by name: few bytes, large holes.
        with contextlib.closing(self.container.demux(self.stream)) as packets:
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
                if not number % 64:
                    pulse.beat()
                if packet.size:  # a packet without data stands for "as before", or for the end
                    yield packet

    def _list(self) -> Table:
        """List the packets and find out whether pictures can be found by time."""
        held = self._listed()
        pts, keys, order = held.pts, held.keys, held.shown
        if not len(keys) or not len(order):
            raise VideoError(self.path, "no key frame in it" if len(order) else "no frames in it")
        codec, name = self.stream.codec_context, self.container.format.name.split(",")[0]
        order = order[order >= keys[0]] if self.codec in SEEKABLE else order
        order = order[np.argsort(pts[order], kind="stable")]
        if self.codec in DOUBTED and not self.reader:
            self.strict = self._stands(min(CHECKED, len(order)))
        timed = bool((pts != NONE).all()) and len(np.unique(pts)) == len(pts)
        timed = timed and not (name == "avi" and codec.has_b_frames)
        unsorted = codec.has_b_frames and (np.diff(pts) > 0).all()  # times of decoding, given as times of showing
        if timed and (name not in TRUSTED or unsorted or keys[0] or pts[order[0]] < pts[keys[0]]):
            first = [frame.pts for frame in itertools.islice(self.frames(), CHECKED)]
            order = order[pts[order] >= first[0]] if first and first[0] is not None else order
            timed = len(first) > 0 and pts[order[: len(first)]].tolist() == first
        self.position = len(pts)  # whatever was read: seek before reading on
        return Table(pts, keys, leads(held), order, timed, timed and self.codec in SEEKABLE, self.strict)

    def _stands(self, count: int) -> bool:
        """Whether the first pictures decode where all that the decoder finds wrong is an error: not all cameras' do."""
        try:
            return sum(1 for _ in itertools.islice(self.frames(), count)) == count
        except VideoError:
            return False

    def _listed(self) -> Packets:
        """The packets; of a file behind an address whose index tells them all, without fetching what is in them."""
        name = self.container.format.name.split(",")[0]
        if self.reader is None or name != "mov" or self.codec not in INDEXED or not (blank := self.reader.data()):
            return listed(self.demux())
        self.open(fflags="noparse")  # key frames are those that the index names, too
        self.reader.blank = blank
        try:
            return listed(self.demux())
        finally:
            self.reader.blank = []
            self.open()  # what the demuxer has at hand is blank

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode from the start. What a recording that was cut open has before its first key frame is passed over, and
        what fails before the first picture."""
        self.open()
        decoded, started = False, self.codec not in SEEKABLE
        for packet in itertools.chain(self.packets, [None]):
            self.position += 1
            if not (started := started or packet is None or packet.is_keyframe):
                continue
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
            frames = self.stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            raise VideoError(self.path, f"undecodable at packet {self.position - 1}: {error.strerror}") from error
        self.inside = max(0, self.inside + (packet is not None) - len(frames))
        return frames

    def between(self, first: int, needed: Sequence[int]) -> Iterator[av.VideoFrame]:
        """The pictures of the `needed` packets (sorted), and of others on the way there from key frame `first`."""
        if not 0 <= first - self.position <= NEAR:
            self._jump(first)
        for _ in range(first - self.position):
            next(self.packets, None)
        self.position = first
        codec, pts, wanted, skipping = self.stream.codec_context, self.table.pts, set(needed), None
        codec.flush_buffers()
        self.inside = 0
        for packet in itertools.islice(self.packets, max(needed) - first + 1):
            if packet.pts != pts[self.position]:
                raise Lost
            skip = self.codec in SKIPPABLE and self.position not in wanted and self._unneeded(packet)
            if skip != skipping and self.codec in SKIPPABLE:
                codec.skip_frame, skipping = "NONREF" if skip else "DEFAULT", skip
            self.position += 1
            frames = self._decode(packet)
            if skip and self.codec == "h264":
                self.inside -= 1
            yield from frames
        yield from self._decode(None)

    def _unneeded(self, packet: av.Packet) -> bool:
        """Whether the picture of a packet may be passed over. H.264's decoder, told to pass such pictures over, says
        nothing of broken ones that others need: so those are picked here. Others tell for themselves."""
        if self.codec != "h264":
            return True
        about = self.stream.codec_context.extradata or b""
        return unneeded(bytes(packet), (about[4] & 3) + 1 if len(about) > 4 and about[0] == 1 else 0)

    def plainly(self, wanted: Sequence[int]) -> int:
        """Open the file anew and decode these pictures (sorted) to RGB in the plainest way: the ceiling of a reader.

        All pictures from the key frame on are decoded, as by a reader that knows where to look but nothing more.
        Returns how many of the wanted ones came.
        """
        self.open()
        table, found = self.table, 0
        if table.seekable and (first := table.start(wanted[0])):
            self.container.seek(int(table.pts[first]), stream=self.stream)
        times, last = set(table.times[list(wanted)].tolist()), int(table.times[wanted[-1]])
        with contextlib.closing(self.container.demux(self.stream)) as packets:
            for number, frame in enumerate(frame for packet in packets for frame in packet.decode()):
                if frame.pts in times if table.timed else number in wanted:
                    frame.to_ndarray(format="rgb24", threads=1)
                    found += 1
                if (frame.pts or 0) >= last if table.timed else number >= wanted[-1]:
                    break
        return found

    def _jump(self, first: int) -> None:
        """Seek so that key frame `first` is the next packet."""
        time_of = int(self.table.pts[first])
        place = self.table.decoded(first)
        for back in (0, 2, None):
            if back is None:
                self.open()
            else:
                try:
                    self.container.seek(place - int(back / (self.stream.time_base or 1)), stream=self.stream)
                except av.error.FFmpegError:
                    continue
                self.packets = self.demux()
            for packet in self.packets:
                if packet.pts == time_of:
                    self.packets, self.position = itertools.chain([packet], self.packets), first
                    return
                if packet.is_keyframe and packet.pts is not None and packet.pts > time_of:
                    break
        raise Lost
