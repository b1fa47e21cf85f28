"""Small videos of every kind, encoded where the tests run. Each frame shows its own number in black and white."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # errors only
COUNT, HEIGHT, WIDTH = 40, 48, 64


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """An RGB frame: its number in binary as the top two rows of blocks, and a colour that drifts below."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = 128 + 100 * np.sin(number / 7 + np.arange(3) + np.linspace(0, 2, width)[:, None])
    for bit in range(8):
        row, column = bit // 4 * height // 3, bit % 4 * width // 4
        frame[row : row + height // 3, column : column + width // 4] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame shows."""
    height, width = frame.shape[:2]
    middles = [(bit // 4 * height // 3 + height // 6, bit % 4 * width // 4 + width // 8) for bit in range(8)]
    return sum(1 << bit for bit, (y, x) in enumerate(middles) if frame[y, x].mean() > 128)


def encode(
    path: Path,
    codec: str,
    *,
    count: int = COUNT,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Callable[[int], int] | None = None,
    clock: Fraction = Fraction(1, 25),
    container: dict[str, str] | None = None,
    setup: Callable[[av.VideoStream], None] | None = None,
    format: str | None = None,
    sound: bool = False,
) -> Path:
    """Write numbered frames: frame i at times(i) x clock seconds."""
    with av.open(str(path), "w", options=container or {}, format=format) as out:
        stream = out.add_stream(codec, rate=Fraction(1) / clock if clock.numerator == 1 else 25)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = clock
        stream.codec_context.thread_count = 1
        stream.options = options or {}
        if setup:
            setup(stream)
        tone = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame = frame.reformat(format=pixels, dst_color_range=stream.codec_context.color_range or None)
            frame.pts, frame.time_base = times(number) if times else number, clock
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            out.mux(tone.encode(silence))
            out.mux(tone.encode(None))
    return path


def remux(source: Path, path: Path, first: int, shift: int, container: dict[str, str]) -> Path:
    """Copy packets from number `first` on without encoding, `shift` ticks earlier: what a cutting tool does."""
    with av.open(str(source)) as inp, av.open(str(path), "w", options=container) as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        packets = [packet for packet in inp.demux(inp.streams.video[0]) if packet.size]
        for packet in packets[first:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            out.mux(packet)
    return path


H264 = {"g": "12", "bf": "3", "x264-params": "scenecut=0:b-pyramid=normal:b-adapt=0", "preset": "fast"}
OPEN = {**H264, "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
HEVC = {
    "x265-params": "log-level=none:keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0:pools=1",
    "preset": "fast",
}
AV1 = {"preset": "10", "g": "12", "svtav1-params": "lp=1"}
VP9 = {"g": "12", "cpu-used": "5", "lag-in-frames": "12", "auto-alt-ref": "1", "b": "300k"}
SLOW_CLOCK = Fraction(1, 1000)


def jittered(number: int) -> int:
    """Milliseconds of a frame of variable rate: steps of 20, 33, 60 and 127."""
    return number // 4 * 240 + (0, 20, 53, 113)[number % 4]


def cut_copy(folder: Path) -> Path:
    """Cut out of the middle without encoding: the edit list hides the pictures between the key frame and the cut."""
    whole = encode(folder / "whole.mp4", "libx264", options=H264)
    with av.open(str(whole)) as inp:
        times = [packet.pts for packet in inp.demux(inp.streams.video[0]) if packet.size]
        tick = sorted(times)[1] - sorted(times)[0]
    return remux(whole, folder / "cut.mp4", 12, tick * 17, {"avoid_negative_ts": "disabled", "use_editlist": "1"})


def cut_ts(folder: Path) -> Path:
    """A recording that starts between two key frames."""
    whole = encode(folder / "whole.ts", "libx264", options=H264)
    return remux(whole, folder / "cut.ts", 5, 0, {})


def turned(degrees: float, mirror: bool = False) -> Callable[[av.VideoStream], None]:
    return lambda stream: stream.set_display_rotation(degrees, hflip=mirror)


def full_range(stream: av.VideoStream) -> None:
    stream.codec_context.color_range = 2


def wide_pixels(stream: av.VideoStream) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(3, 2)


KINDS: dict[str, Callable[[Path], Path]] = {
    "h264": lambda f: encode(f / "a.mp4", "libx264", options=H264),
    "h264-open-gop": lambda f: encode(f / "a.mp4", "libx264", options=OPEN),
    "h264-open-gop-mkv": lambda f: encode(f / "a.mkv", "libx264", options=OPEN),
    "h264-intra-refresh": lambda f: encode(
        f / "a.mkv", "libx264", options={"g": "12", "x264-params": "intra-refresh=1:scenecut=0"}
    ),
    "h264-fragmented": lambda f: encode(f / "a.mp4", "libx264", options=H264, container={"movflags": "frag_keyframe"}),
    "h264-flv": lambda f: encode(f / "a.flv", "libx264", options=H264),
    "h264-ts": lambda f: encode(f / "a.ts", "libx264", options=H264),
    "h264-ts-open-gop": lambda f: encode(f / "a.ts", "libx264", options=OPEN),
    "h264-avi": lambda f: encode(f / "a.avi", "libx264", options=H264),
    "h264-raw": lambda f: encode(f / "a.h264", "libx264", options=H264),
    "h264-sound": lambda f: encode(f / "a.mp4", "libx264", options=H264, sound=True),
    "h264-10-bit": lambda f: encode(f / "a.mp4", "libx264", options=H264, pixels="yuv420p10le"),
    "h264-grey": lambda f: encode(f / "a.mp4", "libx264", options=H264, pixels="gray"),
    "h264-full-range": lambda f: encode(f / "a.mp4", "libx264", options=H264, setup=full_range),
    "h264-odd-size": lambda f: encode(f / "a.mp4", "libx264", options=H264, pixels="yuv444p", size=(51, 67)),
    "h264-wide-pixels": lambda f: encode(f / "a.mp4", "libx264", options=H264, setup=wide_pixels),
    "h264-turned-90": lambda f: encode(f / "a.mp4", "libx264", options=H264, setup=turned(90)),
    "h264-turned-180": lambda f: encode(f / "a.mov", "libx264", options=H264, setup=turned(180)),
    "h264-variable": lambda f: encode(f / "a.mp4", "libx264", options=H264, times=jittered, clock=SLOW_CLOCK),
    "h264-variable-mkv": lambda f: encode(f / "a.mkv", "libx264", options=H264, times=jittered, clock=SLOW_CLOCK),
    "h264-late-start": lambda f: encode(f / "a.mkv", "libx264", options=H264, times=lambda i: i + 100),
    "h264-cut-copy": cut_copy,
    "h264-cut-ts": cut_ts,
    "hevc": lambda f: encode(f / "a.mp4", "libx265", options=HEVC),
    "hevc-ts": lambda f: encode(f / "a.ts", "libx265", options=HEVC),
    "vp8": lambda f: encode(f / "a.webm", "libvpx", options=VP9),
    "vp9": lambda f: encode(f / "a.webm", "libvpx-vp9", options=VP9),
    "vp9-mp4": lambda f: encode(f / "a.mp4", "libvpx-vp9", options=VP9),
    "av1": lambda f: encode(f / "a.mp4", "libsvtav1", options=AV1, size=(64, 96)),
    "av1-mkv": lambda f: encode(f / "a.mkv", "libsvtav1", options=AV1, size=(64, 96)),
    "mpeg4-avi": lambda f: encode(f / "a.avi", "mpeg4", options={"g": "12"}),
    "mpeg4-avi-b-frames": lambda f: encode(f / "a.avi", "mpeg4", options={"g": "12", "bf": "2"}),
    "mpeg4-mp4": lambda f: encode(f / "a.mp4", "mpeg4", options={"g": "12", "bf": "2"}),
    "mpeg2-mpg": lambda f: encode(f / "a.mpg", "mpeg2video", options={"g": "12", "bf": "2"}),
    "mpeg2-ts": lambda f: encode(f / "a.ts", "mpeg2video", options={"g": "12", "bf": "2"}),
    "mpeg1-mpg": lambda f: encode(f / "a.mpg", "mpeg1video", options={"g": "12", "bf": "2"}),
    "mjpeg-avi": lambda f: encode(f / "a.avi", "mjpeg", pixels="yuvj420p"),
    "mjpeg-raw": lambda f: encode(f / "a.mjpeg", "mjpeg", pixels="yuvj420p", format="mjpeg"),
    "gif": lambda f: encode(f / "a.gif", "gif", pixels="rgb8", clock=Fraction(1, 100), times=lambda i: 4 * i),
    "wmv": lambda f: encode(f / "a.wmv", "wmv2", options={"g": "12"}),
    "apng": lambda f: encode(f / "a.png", "apng", pixels="rgb24", format="apng", count=12),
}
