"""A picture that says it is enormous costs one sentence, in an image, a mask and a video alike."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zoo
from PIL import Image

from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import read_images
from motionmae.evaluation.masks import read_mask, read_user_mask
from motionmae.video import images
from motionmae.video.reading import VideoError, open_video, probe, read_frames


def bomb(path: Path, width: int, height: int) -> Path:
    """A grey PNG that says its size, and is of nothing but zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_000, 10_000), (8193, 8192)])
def test_images_and_masks_that_say_they_are_enormous(tmp_path, width, height):
    place = bomb(tmp_path / "0.png", width, height)
    for read in (read_mask, read_user_mask, lambda path: read_images([path])):
        with pytest.raises(MotionMAEError, match=r"0\.png: an image of .* pixels"):
            read(place)
    with pytest.raises(VideoError, match=r"0\.png: an image of .* pixels"):
        open_video(tmp_path)


def test_what_is_at_the_bound_is_read(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "0.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 128)
    assert read_mask(tmp_path / "0.png").shape == (8, 16)
    monkeypatch.setattr(images, "MOST_PIXELS", 127)
    with pytest.raises(MotionMAEError, match="an image of 16 x 8 pixels; at most 127 are read"):
        read_mask(tmp_path / "0.png")


def test_videos_beyond_the_bound(tmp_path, monkeypatch):
    place = zoo.encode(tmp_path / "v.mp4", "libx264", count=3, options=zoo.H264)
    monkeypatch.setattr(images, "MOST_PIXELS", zoo.HEIGHT * zoo.WIDTH)
    assert probe(place).frames == 3
    monkeypatch.setattr(images, "MOST_PIXELS", zoo.HEIGHT * zoo.WIDTH - 1)
    with pytest.raises(VideoError, match=rf"v\.mp4: pictures of {zoo.WIDTH} x {zoo.HEIGHT} pixels; at most"):
        probe(place)


def test_a_video_whose_pictures_grow_on_the_way(tmp_path, monkeypatch):
    small = zoo.encode(tmp_path / "small.mjpeg", "mjpeg", count=4, pixels="yuvj420p", format="mjpeg")
    large = zoo.encode(tmp_path / "l.mjpeg", "mjpeg", count=4, size=(480, 640), pixels="yuvj420p", format="mjpeg")
    both = tmp_path / "both.mjpeg"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert len(read_frames(both)) == 8
    monkeypatch.setattr(images, "MOST_PIXELS", zoo.HEIGHT * zoo.WIDTH * 4)
    with pytest.raises(VideoError, match=r"both\.mjpeg"):
        read_frames(both)


def test_a_pixel_shape_that_makes_a_video_enormous(tmp_path, monkeypatch):
    place = zoo.encode(
        tmp_path / "v.mp4", "libx264", count=2, options=zoo.H264,
        setup=lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", 8),
    )  # fmt: skip
    monkeypatch.setattr(images, "MOST_PIXELS", zoo.HEIGHT * zoo.WIDTH * 4)
    with pytest.raises(VideoError, match=rf"pictures of {8 * zoo.WIDTH} x {zoo.HEIGHT} pixels"):
        probe(place)
