"""What a video file says of itself, and what it promises and does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from motionmae.video import remote
from motionmae.video.packets import Demuxer
from motionmae.words import many


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video without decoding it."""

    frames: int
    """Pictures in the container; decoding may yield fewer where the file is damaged."""
    rate: Fraction
    """Frames per second, on average."""
    constant: bool
    """Whether all frames last equally long, to within the container's rounding."""
    duration: Fraction
    """Seconds from the first frame's start to the last one's end."""
    height: int
    """Rows of a frame as shown: after rotation and the sample aspect ratio."""
    width: int
    """Columns of a frame as shown."""
    codec: str
    """FFmpeg's name of the codec, or `images` for a folder of frames."""
    keyframe_spacing: int
    """The largest number of frames from one key frame to the next."""
    audio: bool
    """Whether there is sound."""
    missing: str = ""
    """What the container claims to hold and does not, in words; empty where nothing is known to be missing."""


def missing(source: Demuxer) -> str:
    """In words, what the header claims and the file does not hold; empty where nothing is known to be missing."""
    name, held = source.container.format.name, len(source.table.pts)
    if name == "avi" and not source.part:
        with remote.open_file(source.path) as file:
            claimed, size = int.from_bytes(file.read(8)[4:], "little") + 8, remote.about(source.path).size
        return f"truncated: {size} of {claimed} bytes" if size < claimed else ""
    if name.startswith("matroska") and source.table.timed and len(source.container.streams) == 1:
        times, tick = source.table.times, source.stream.time_base or Fraction(0)
        ends, claimed = float(times[-1] * tick), (source.container.duration or 0) / 1e6
        step = ends / max(1, len(times))
        return f"truncated: ends after {ends:.1f} of {claimed:.1f} s" if ends < 0.97 * claimed - 3 * step else ""
    claimed = source.stream.frames if name.startswith("mov") else 0
    if held < (enough := claimed - max(2, claimed / 50)):
        held = _stored(source)
    return f"truncated: holds {held} of {many(claimed, 'frame')}" if held < enough else ""


def _stored(source: Demuxer) -> int:
    """The packets in an mp4, also those that its edit list hides: a trimmed copy lacks nothing."""
    source.open(ignore_editlist="1")
    held = sum(1 for _ in source.demux())
    source.open()
    return held
