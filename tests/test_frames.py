"""A folder of images is a video: in the order of the numbers in their names."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zoo
from PIL import Image

import motionmae
from motionmae.video.frames import Frames, Kept, names
from motionmae.video.reading import VideoError, open_video, probe, read_frames


def save(folder: Path, name: str, number: int, size: tuple[int, int] = (zoo.HEIGHT, zoo.WIDTH)) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    Image.fromarray(zoo.numbered(number, *size)).save(folder / name)


def test_images_are_read_in_the_order_of_their_numbers(tmp_path: Path):
    for i in range(12):
        save(tmp_path, f"frame{i}.png", i)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    shown = read_frames(tmp_path, [11, 2, 2, 10, 0]).numpy()
    np.testing.assert_array_equal(shown, np.stack([zoo.numbered(i) for i in (11, 2, 2, 10, 0)]))
    info = probe(tmp_path)
    assert (info.frames, info.height, info.width, info.codec) == (12, zoo.HEIGHT, zoo.WIDTH, "images")
    assert zoo.number_of(read_frames(tmp_path, seconds=[0.1])[0].numpy()) == 3
    assert len(read_frames(tmp_path)) == 12


def test_names_with_and_without_zeros_are_numbers(tmp_path: Path):
    for name in ("img_0010.jpg", "img_2.jpg", "img_1.JPG", "img_0003.jpeg"):
        save(tmp_path, name, 0)
    assert names(tmp_path) == ["img_1.JPG", "img_2.jpg", "img_0003.jpeg", "img_0010.jpg"]


def test_an_image_of_another_size_is_brought_to_the_first(tmp_path: Path):
    save(tmp_path, "0.png", 0)
    save(tmp_path, "1.png", 1, (96, 128))
    assert read_frames(tmp_path).shape == (2, zoo.HEIGHT, zoo.WIDTH, 3)


def test_grey_and_turned_images_are_shown_right(tmp_path: Path):
    Image.fromarray(zoo.numbered(1)).convert("L").save(tmp_path / "0.png")
    assert read_frames(tmp_path).shape == (1, zoo.HEIGHT, zoo.WIDTH, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(zoo.numbered(1)).save(tmp_path / "0.jpg", exif=exif)
    (tmp_path / "0.png").unlink()
    assert probe(tmp_path).height == zoo.WIDTH


def test_a_broken_image_is_named(tmp_path: Path):
    save(tmp_path, "0.png", 0)
    (tmp_path / "1.png").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"1\.png: not a readable image"):
        read_frames(tmp_path)
    with pytest.raises(VideoError, match="frames 5 to 5 were asked for; there are 0 to 1"):
        read_frames(tmp_path, [5])


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "zero bytes")))
    assert (str(error), error.path, error.reason) == ("a.mp4: zero bytes", "a.mp4", "zero bytes")


@pytest.mark.parametrize("opening", [open_video, motionmae.open_video], ids=["below", "public"])
@pytest.mark.parametrize("kind", ["file", "file with times of its own", "file without times", "folder"])
def test_whatever_is_watched_gives_the_same_answers_from_memory(opening, kind: str, tmp_path: Path):
    if kind == "folder":
        path = tmp_path / "folder"
        for number in range(7):
            save(path, f"{number}.png", number)
    elif kind == "file without times":
        path = zoo.encode(tmp_path / "film.h264", "libx264", count=7, options=zoo.H264)
    else:
        times = {"times": zoo.jittered, "clock": zoo.SLOW_CLOCK} if "own" in kind else {}
        path = zoo.encode(tmp_path / "film.mkv", "libx264", count=7, options=zoo.H264, **times)
    with opening(path) as opened:
        kept, starts = Kept(opened), opened.starts()
        assert isinstance(opened, Frames)
        asked = [-1, *starts, *(float(start) for start in starts), *(start + opened.slack for start in starts), 1e6]
        asked += [start - 2 * opened.slack for start in starts]
        numbers = opened.at(asked)
        assert kept.at(asked) == numbers
        assert numbers[1:8] == numbers[8:15] == numbers[15:22] == list(range(7))
        assert numbers[0] == 0
        assert numbers[22] == 6
        assert numbers[23:] == [0, 0, 1, 2, 3, 4, 5]
        assert (kept.read([3, 0, 3]) == opened.read([3, 0, 3])).all()
        assert (kept.duration, kept.starts(), len(kept)) == (opened.duration, starts, len(opened))
        for each in (kept, opened):
            with pytest.raises(VideoError, match=r"frames 0 to 7 were asked for|frame 7 of about 7"):
                each.read([7, 0])
