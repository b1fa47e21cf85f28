"""Probe and read videos: what the rest of the house asks.

Its one rule: frame i is the i-th frame of decoding the whole file from its start, whatever the container says. To get
it without decoding everything, the packets are listed once (no decoding), the times of their pictures sorted, and
decoding starts at the key frame that the wanted picture needs. Where times cannot be trusted, it starts at the start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

from motionmae.video.damage import judged
from motionmae.video.errors import VideoError, door
from motionmae.video.frames import Frames, Images, Real, shown
from motionmae.video.header import VideoInfo, missing
from motionmae.video.images import too_large
from motionmae.video.packets import Demuxer, Lost

__all__ = ["Video", "VideoError", "VideoInfo", "probe", "read_frames"]

_reformatter = VideoReformatter()  # one for all reads of a process


def open_video(path: str | os.PathLike[str], limit: float = 60.0) -> Video | Images:
    """A video or a folder of frames, opened for several reads: a context manager. `limit` bounds the seconds of
    opening it, and of each read.

    Examples:
        >>> from pathlib import Path
        >>> from motionmae.data.synthetic import write_videos
        >>> path, _ = next(write_videos(Path("videos"), "train", 1, seed=0))
        >>> with open_video(path) as video:
        ...     len(video), video.duration, video.at([0.0, 1.0]), video.read([0, 12]).shape
        (24, Fraction(2, 1), [0, 12], torch.Size([2, 64, 64, 3]))
    """
    return Images(path) if os.path.isdir(path) else Video(path, limit)


def probe(path: str | os.PathLike[str], limit: float = 60.0) -> VideoInfo:
    """Size, rate, length and codec of a video or a folder of frames: lists its packets and decodes one frame.

    `limit` bounds the time in seconds. Raises VideoError for what is not a readable video.
    """
    with open_video(path, limit) as video, door(path):
        if isinstance(video, Video):
            return video.info()
        height, width = video.shape
        return VideoInfo(len(video), video.rate, True, video.duration, height, width, "images", 1, False)


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | None = None,
    *,
    seconds: Sequence[Real] | None = None,
    limit: float = 60.0,
) -> UInt8[Tensor, "t h w c"]:
    """RGB frames of a video or a folder of frames, as shown (rotation and sample aspect ratio applied).

    `indices` count from 0 in the order of presentation, in any order and with repeats; or `seconds` from the first
    frame on, each giving the frame then on screen; or neither for all frames. `limit` bounds the time in seconds.
    Raises VideoError where a frame does not exist, does not decode or is damaged.
    """
    with open_video(path, limit) as video:
        return video.read(video.at(seconds) if seconds is not None else indices)


class Video(Frames):
    """An open video file: a context manager for several reads from one opening."""

    def __init__(self, path: str | os.PathLike[str], limit: float = 60.0):
        """`limit` bounds the seconds from now on, and again those from the start of each `read`: any method raises
        VideoError when they are over."""
        with door(path):
            self.source = Demuxer(path, limit)
        self.path, self.table = self.source.path, self.source.table
        try:
            with door(path):
                self.shape = self._shape()
        except BaseException:
            self.source.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def __len__(self) -> int:
        return len(self.table)

    def pictures(self, indices: Iterable[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames of these numbers, or all, one at a time with their numbers: little memory however many.

        In any order, and again from the first where the way by the times turns out wrong: the last one counts.
        """
        with door(self.path):
            yield from self._pictures(indices)

    def _pictures(self, indices: Iterable[int] | None) -> Iterator[tuple[int, np.ndarray]]:
        self.source.deadline = time.monotonic() + self.source.limit  # a long video may be read for longer, bit by bit
        if indices is None:
            missing, coming = {0}, self._count(None)
        else:
            wanted = sorted({int(index) for index in indices})
            if not wanted or wanted[0] < 0 or (self.table.timed and wanted[-1] >= len(self)):
                asked = f"{wanted[0]} to {wanted[-1]}" if wanted else "none"
                raise VideoError(self.path, f"frames {asked} were asked for; there are 0 to {len(self) - 1}")
            missing, coming = set(wanted), self._find(wanted) if self.table.seekable else self._count(wanted)
        for number, picture in coming:
            missing.discard(number)
            yield number, picture
        if missing:
            raise VideoError(self.path, f"frame {min(missing)} of about {len(self)} does not decode")

    def walk(self) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """All frames from the start, one at a time; none where none decodes."""
        with door(self.path):
            yield from (picture for _, picture in self._count(None))

    def count(self) -> tuple[int, str]:
        """How many frames decode from the start on, and why the next one does not; "" at the end."""
        number = 0
        try:
            with door(self.path):
                for number, (_, damaged) in enumerate(judged(self.source.frames(), self.source, self.source.codec), 1):
                    if damaged:
                        return number - 1, f"frame {number - 1} is damaged"
        except VideoError as error:
            return number, error.reason
        return number, ""

    def at(self, seconds: Iterable[Real]) -> list[int]:
        """The numbers of the frames on screen at these seconds from the first frame's start, within the video."""
        if not self.table.timed:
            rate = self.rate
            return shown(seconds, len(self), lambda number: number / rate, self.slack)
        first, tick = self.table.time(0), self.tick
        return shown(seconds, len(self), lambda number: (self.table.time(number) - first) * tick, self.slack)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's start to the last one's end."""
        return len(self) / self.rate

    @property
    def slack(self) -> Fraction:
        """Seconds by which a time may miss a frame's start and still mean it: the container rounds its times."""
        return min(self.tick / 2, 1 / (4 * self.rate)) if self.table.timed else 1 / (1000 * self.rate)

    def starts(self) -> list[Fraction]:
        """Seconds from the first frame's start to each frame's."""
        if not self.table.timed:
            return [number / self.rate for number in range(len(self))]
        times = self.table.times
        return [step * self.tick for step in (times - times[0]).tolist()]

    @property
    def tick(self) -> Fraction:
        """Seconds of one unit of time in the container."""
        return Fraction(self.source.stream.time_base or Fraction(1, 1000))

    @property
    def constant(self) -> bool:
        """Whether all frames last equally long, to within 1 % or the container's rounding."""
        steps = np.diff(self.table.times)
        if not self.table.timed or not len(steps):
            return True
        return bool(steps.max() - steps.min() <= max(2 if steps.mean() >= 10 else 0, steps.mean() / 100))

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average; 25 where nothing tells."""
        stream = self.source.stream
        claims = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate] or [Fraction(25)]
        if not self.table.timed or len(self) < 2:
            return claims[0]
        measured = (len(self) - 1) / ((self.table.time(-1) - self.table.time(0)) * self.tick)
        claimed = min(claims, key=lambda rate: abs(rate / measured - 1))  # FFmpeg's average may count a gap at the end
        near = self.constant and abs(claimed / measured - 1) < Fraction(1, 100)
        return claimed if near else measured.limit_denominator(100_000)

    def info(self) -> VideoInfo:
        """What `probe` says; decodes the first frame."""
        first = next(self.walk(), None)
        if first is None:
            raise VideoError(self.path, "no frame decodes")
        height, width = first.shape[:2]
        spacing = np.diff(np.append(self.table.keys, len(self.table.pts)))
        return VideoInfo(
            frames=len(self),
            rate=self.rate,
            constant=self.constant,
            duration=self.duration,
            height=height,
            width=width,
            codec=self.source.stream.codec_context.codec.canonical_name,
            keyframe_spacing=int(spacing.max()) if len(spacing) else 0,
            audio=bool(self.source.container.streams.audio),
            missing=missing(self.source),
        )

    def _shape(self) -> tuple[int, int]:
        """Height and width of a frame with square pixels, before rotation."""
        stream = self.source.stream
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, 8) <= aspect <= 8:  # nonsense in the header
            aspect = Fraction(1)
        if not stream.codec_context.width or not stream.codec_context.height:
            raise VideoError(self.path, "no picture size in it")
        shape = stream.codec_context.height, max(1, round(stream.codec_context.width * aspect))
        if why := too_large(*shape):
            raise VideoError(self.path, f"pictures {why}")
        return shape

    def _count(self, wanted: Sequence[int] | None) -> Iterator[tuple[int, np.ndarray]]:
        """Decode from the start and count: the wanted frames (sorted), or all."""
        chosen = set(wanted or ())
        for number, (frame, damaged) in enumerate(judged(self.source.frames(), self.source, self.source.codec)):
            if wanted is None or number in chosen:
                yield number, self._picture(frame, number, damaged)
            del frame
            if wanted is not None and number >= wanted[-1]:
                return

    def _find(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The wanted frames (sorted) by their times; by counting where the times do not keep their promise."""
        table, runs, reach = self.table, [], -1
        for index in wanted:
            if not runs or table.start(index) > reach:
                runs.append([])
            runs[-1].append(index)
            reach = max(reach, int(table.packet[index]))
        found = 0
        try:
            for run in runs:
                for number, picture in self._run(run):
                    found += 1
                    yield number, picture
        except Lost:
            found = 0
        if found < len(wanted):
            yield from self._count(wanted)

    def _run(self, run: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The frames of one stretch (sorted), from the key frame before them; from the one before that where decoding
        from there meets damage, which may be the key frame's own fault: not each is what the container says it is."""
        names, left = {self.table.time(index): index for index in run}, set(run)
        for earlier in (0, 1):
            first, latest = min(self.table.start(index, earlier) for index in left), None
            coming = self.source.between(first, self.table.packet[sorted(left)].tolist())
            for frame, damaged in judged(coming, self.source, self.source.codec):
                if frame.pts is None or (latest is not None and frame.pts <= latest):
                    raise Lost
                latest, number = frame.pts, names.get(frame.pts)
                if number in left:
                    if damaged and not earlier and first != self.table.start(number, 1):
                        break
                    left.remove(number)
                    yield number, self._picture(frame, number, damaged)
                del frame
            if not left:
                return

    def _picture(self, frame: av.VideoFrame, number: int, damaged: bool) -> UInt8[np.ndarray, "h w c"]:
        """The frame as RGB, with square pixels and turned as it is shown."""
        if damaged:
            raise VideoError(self.path, f"frame {number} is damaged")
        height, width = self.shape
        picture = _reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        # frame.side_data would keep this, and this keeps the frame: the two would wait for the garbage collector.
        beside = SideDataContainer(frame)  # pyright: ignore[reportCallIssue]
        if "DISPLAYMATRIX" not in beside:
            return picture
        a, b, _, c, d = np.frombuffer(bytes(beside["DISPLAYMATRIX"]), dtype="<i4")[:5].tolist()
        if abs(b) > abs(a):  # x' = a x + c y, y' = b x + d y
            picture, a, d = picture.swapaxes(0, 1), c, b
        return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
