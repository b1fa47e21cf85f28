"""Broken files cost one sentence, never a hang: each is refused with its name and a reason, or read."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import zoo
from PIL import Image

from motionmae.video.reading import VideoError, probe, read_frames


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sound_only(folder: Path) -> Path:
    path = folder / "a.mp4"
    with av.open(str(path), "w") as out:
        tone = out.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 16000, 0
        out.mux(tone.encode(silence))
        out.mux(tone.encode(None))
    return path


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


def link(folder: Path, target: str) -> Path:
    (folder / "a.mp4").symlink_to(target)
    return folder / "a.mp4"


def cut(folder: Path, kind: str, share: float) -> Path:
    path = zoo.KINDS[kind](folder)
    return write(path, path.read_bytes()[: int(path.stat().st_size * share)])


def picture(folder: Path, kind: str, **options: object) -> Path:
    Image.new("RGB", (9, 9), "red").save(folder / f"a.{kind}", **options)
    return folder / f"a.{kind}"


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda f: write(f / "a.mp4", b""), "zero bytes"),
    "text": (lambda f: write(f / "a.mp4", b"hello\n" * 900), "not a video"),
    "zeros": (lambda f: write(f / "a.mp4", bytes(9000)), "not a video"),
    "noise": (lambda f: write(f / "a.avi", random.Random(0).randbytes(9000)), "not a video"),
    "playlist": (
        lambda f: write(f / "a.mp4", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n"),
        "not a",
    ),
    "concat": (lambda f: write(f / "a.mp4", b"ffconcat version 1.0\nfile 'b.mp4'\n"), "not a video"),
    "sound": (sound_only, "audio only"),
    "fifo": (fifo, "not a regular file"),
    "device": (lambda f: Path("/dev/zero"), "not a regular file"),
    "broken link": (lambda f: link(f, "nowhere.mp4"), "broken link"),
    "circular link": (lambda f: link(f, "a.mp4"), "too many levels of symbolic links"),
    "absent": (lambda f: f / "a.mp4", "no such file"),
    "mp4 without index": (lambda f: cut(f, "h264", 0.5), "truncated: an mp4 without its index"),
    "avi header": (lambda f: write(f / "a.avi", b"RIFF\x00\x10\x00\x00AVI LIST"), "truncated|no video in it"),
    "webp": (lambda f: picture(f, "webp", save_all=True, append_images=[Image.new("RGB", (9, 9))]), "a WebP: not read"),
    "empty folder": (lambda f: f, "a folder without images"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_unusable_files_are_refused_with_a_reason(kind: str, tmp_path: Path):
    make, reason = BROKEN[kind]
    path = make(tmp_path)
    for attempt in (lambda: probe(path), lambda: read_frames(path, [0])):
        with pytest.raises(VideoError, match=reason) as caught:
            attempt()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_say_so(tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", count=5)
    path.chmod(0)
    with pytest.raises(VideoError, match="permission denied"):
        probe(path)


@pytest.mark.parametrize("kind", ["h264-fragmented", "mpeg4-avi", "vp9", "h264-ts", "mpeg2-mpg", "gif", "h264-flv"])
def test_wherever_a_file_is_cut_it_is_read_or_refused(kind: str, tmp_path: Path):
    whole = zoo.KINDS[kind](tmp_path)
    content = whole.read_bytes()
    for share in (0.01, 0.05, 0.2, 0.5, 0.8, 0.97):
        part = write(tmp_path / f"part{whole.suffix}", content[: int(len(content) * share)])
        survive(part)


@pytest.mark.parametrize("kind", ["h264", "h264-ts", "mpeg4-avi", "vp9", "hevc", "av1", "mpeg2-mpg", "gif", "h264-mkv"])
def test_however_a_file_is_damaged_it_is_read_or_refused(kind: str, tmp_path: Path):
    whole = zoo.KINDS.get(kind, zoo.KINDS["h264-open-gop-mkv"])(tmp_path)
    draw = random.Random(0)
    for _ in range(12):
        content = bytearray(whole.read_bytes())
        start = draw.randrange(len(content))
        stop = min(start + draw.choice((1, 40, 600)), len(content))
        content[start:stop] = draw.randbytes(stop - start)
        survive(write(tmp_path / f"part{whole.suffix}", bytes(content)))


def survive(path: Path) -> None:
    """Every way of reading gives frames or one sentence, soon."""
    start = time.monotonic()
    for attempt in (lambda: probe(path), lambda: read_frames(path), lambda: read_frames(path, [0, 17, 39])):
        refusal = None
        try:
            attempt()
        except VideoError as error:
            refusal = str(error)
        assert refusal is None or (str(path) in refusal and "\n" not in refusal)
    assert time.monotonic() - start < 10


def test_a_header_that_promises_more_is_found_out(tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", options=zoo.H264, container={"movflags": "faststart"})
    content = path.read_bytes()
    part = write(tmp_path / "part.mp4", content[: int(len(content) * 0.6)])
    info = probe(part)
    assert info.missing.startswith("truncated: holds ")
    assert info.missing.endswith("of 40 frames")
    with pytest.raises(VideoError):
        read_frames(part, [39])


@pytest.mark.parametrize("kind", ["vp9", "mpeg4-avi", "h264-variable-mkv"])
def test_what_ends_before_its_time_is_found_out(kind: str, tmp_path: Path):
    assert probe(zoo.KINDS[kind](tmp_path)).missing == ""
    assert probe(cut(tmp_path, kind, 0.9 if "avi" in kind else 0.7)).missing.startswith("truncated: ")


def test_a_trimmed_copy_lacks_nothing(tmp_path: Path):
    """Half of its pictures lie before the start that its edit list gives."""
    path = zoo.encode(tmp_path / "a.mp4", "libx264", options=zoo.H264, times=lambda number: number - 20)
    assert (probe(path).frames, probe(path).missing) == (20, "")
    assert [zoo.number_of(frame) for frame in read_frames(path).numpy()] == list(range(20, 40))


def test_a_wrong_extension_does_not_matter(tmp_path: Path):
    path = zoo.KINDS["vp9"](tmp_path).rename(tmp_path / "a.avi")
    assert (probe(path).codec, len(read_frames(path))) == ("vp9", zoo.COUNT)


@pytest.mark.parametrize("name", ["with space, comma", "ünïcode 影片", "%03d", "a:b", "-x", "http:--a", "a\nb"])
def test_any_name_can_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zoo.encode(tmp_path / "a.mp4", "libx264", count=5).rename(tmp_path / f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read_frames(f"{name}.mp4")) == 5


def test_single_pictures_are_no_video_and_covers_are_no_frames(tmp_path: Path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    with pytest.raises(VideoError, match="not a video"):
        probe(tmp_path / "a.jpg")


def test_reading_forgets_what_it_opened(tmp_path: Path):
    path = zoo.KINDS["h264"](tmp_path)
    for _ in range(3):
        read_frames(path, [5])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        read_frames(path, [5])
        with pytest.raises(VideoError):
            read_frames(path, [99])
    assert not before or len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("kind", ["h264", "h264-turned-90", "vp9", "gif", "h264-ts"])
def test_a_decoder_and_its_frames_go_without_the_garbage_collector(kind: str, tmp_path: Path):
    path = zoo.KINDS[kind](tmp_path)
    kinds = ("VideoFrame", "VideoCodecContext", "InputContainer", "Demuxer")
    held = lambda: sum(type(thing).__name__ in kinds for thing in gc.get_objects())  # noqa: E731
    gc.collect()
    before = held()
    gc.disable()
    try:
        for _ in range(3):
            read_frames(path, [5, 30])
            with pytest.raises(VideoError):
                read_frames(path, [99])
        after = held()
    finally:
        gc.enable()
    assert after <= before


def test_nothing_is_printed_for_damaged_files(tmp_path: Path):
    whole = zoo.KINDS["h264-ts"](tmp_path)
    content = bytearray(whole.read_bytes())
    content[2000:2600] = bytes(600)
    write(whole, bytes(content))
    code = f"from motionmae.video.reading import *\ntry: read_frames({str(whole)!r})\nexcept VideoError: pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
