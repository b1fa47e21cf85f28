"""`segment video` from end to end on a small moving square."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import SIDE, SMALL, clip_file, davis_folder, scene

from motionmae.cli import main
from motionmae.config import SegmentVideo
from motionmae.evaluation.masks import read_mask, write_mask
from motionmae.tasks.segment import video
from motionmae.video.reading import read_frames


def test_a_video_is_followed_both_ways_from_a_mask(tmp_path):
    path, mask = clip_file(tmp_path / "v.mp4"), tmp_path / "m.png"
    labels = scene(3)[1]
    labels[:8, :8] = 200
    write_mask(mask, labels)
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    write_mask(out / "masks/00099.png", labels)  # of an earlier run on a longer video
    (out / "config.json").write_text('{"resolved": {}}')
    command = ["segment", "video", path, "--mask", str(mask), "--at", "3", "--out", str(out), *SMALL]
    assert main([*command, "--points", "22,32"]) == 0
    masks = [read_mask(each) for each in sorted((out / "masks").glob("*.png"))]
    assert len(masks) == 6
    assert (masks[3] == labels).all()
    for time in (0, 5):
        truth = scene(time)[1] == 1
        assert ((masks[time] == 1) & truth).sum() / ((masks[time] == 1) | truth).sum() > 0.4
    with (out / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["object"] for row in rows] == ["1", "200"] * 6
    assert int(rows[6]["pixels"]) == 256
    assert int(rows[7]["pixels"]) == 64
    assert float(rows[6]["share"]) == 0.0625
    assert float(rows[6]["seconds"]) == 0.25
    assert read_frames(out / "overlay.mp4").shape == (6, SIDE, SIDE, 3)
    (track,) = json.loads((out / "tracks.json").read_text())["points"]
    assert (track[3]["x"], track[3]["y"], track[3]["confidence"]) == (22, 32, 1)
    assert abs(track[0]["x"] - 16) < 6
    assert abs(track[5]["x"] - 26) < 6


@pytest.mark.parametrize("config", [None, '{"optim": {}}'])
def test_a_folder_with_files_that_are_no_earlier_results_is_left_alone(tmp_path, capsys, config):
    path, out = clip_file(tmp_path / "v.mp4"), tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    write_mask(out / "masks" / "mine.png", scene(0)[1])
    if config:
        (out / "config.json").write_text(config)  # of a training run
    mask = str(out / "masks" / "mine.png")
    assert main(["segment", "video", path, "--mask", mask, "--out", str(out), *SMALL]) == 2
    assert f"--out {out}: holds other files" in capsys.readouterr().err
    assert len(list(out.rglob("*.*"))) == 1 + bool(config)


def test_a_video_that_breaks_off_is_followed_up_to_there(tmp_path, capsys):
    data = bytearray(Path(clip_file(tmp_path / "v.mp4", 40)).read_bytes())
    data[len(data) * 6 // 10 : len(data) * 7 // 10] = bytes(len(data) * 7 // 10 - len(data) * 6 // 10)
    (tmp_path / "v.mp4").write_bytes(data)
    command = [
        "segment",
        "video",
        str(tmp_path / "v.mp4"),
        "--box",
        "8,24,24,40",
        "--out",
        str(tmp_path / "out"),
        *SMALL,
    ]
    assert main(command) == 0
    count = len(list((tmp_path / "out/masks").glob("*.png")))
    assert 20 < count <= 31
    assert f"only the {count} frames before it are used" in capsys.readouterr().err
    assert len(read_frames(tmp_path / "out/overlay.mp4")) == count
    assert main([*command, "--at", "35"]) == 2
    assert f"has the frames 0 to {count - 1}" in capsys.readouterr().err


def test_a_folder_of_images_is_a_video(tmp_path):
    root = davis_folder(tmp_path / "data", 4)
    folder, out = root / "JPEGImages/480p/square", tmp_path / "out"
    assert main(["segment", "video", str(folder), "--box", "8,24,24,40", "--out", str(out), *SMALL]) == 0
    assert len(list((out / "masks").glob("*.png"))) == 4
    Image.new("RGB", (60, 64)).save(folder / "00002.jpg")
    assert main(["segment", "video", str(folder), "--box", "8,24,24,40", "--out", str(out), *SMALL]) == 2


def test_a_long_video_is_read_in_blocks(tmp_path):
    path = clip_file(tmp_path / "v.mp4", 70)
    frames, starts, rate = video.open_frames(path)
    assert (frames.count, len(starts), rate) == (70, 70, 12)
    for times in ([0], [69, 31, 32, 5], [64, 63]):
        assert torch.equal(frames.read(times), read_frames(path, times))


def test_boxes_and_polygons_stand_in_for_a_mask(tmp_path):
    frames, _, _ = video.open_frames(clip_file(tmp_path / "v.mp4", 2))
    mask = video.given_mask(SegmentVideo("v", box=("8,24,24,40", "0,0,8,8")), frames)
    assert ((mask == 1) == (scene(0)[1] == 1)).all()
    assert (mask == 2).sum() == 64
    triangle = video.given_mask(SegmentVideo("v", polygon=("0,0,40,0,0,40",)), frames)
    assert triangle[0, 0] == triangle[10, 10] == 1
    assert triangle[39, 39] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "nothing to follow"),
        (("--box", "1,2,3"), "expected 4 numbers"),
        (("--box", "9,9,3,3"), "left < right"),
        (("--box", "90,90,95,95"), "covers no pixel of its own"),
        (("--polygon", "1,2,3,4"), "three corners or more"),
        (("--points", "70,1"), "lies outside"),
        (("--points", "nan,1"), "expected 2 numbers"),
        (("--box", "0,0,inf,9"), "expected 4 numbers"),
        (("--box", "1,1,9,9", "--polygon", "0,0,4,0,4,4"), "both given"),
        (("--box", "1,1,9,9", "--at", "6"), "has the frames 0 to 5"),
        (("--mask", "none.png"), "none.png is missing"),
        (("--box", "1,1,9,9", "--model", "nowhere"), "nowhere"),
        (("--box", "1,1,9,9", "--features.stride", "3"), "stride is 3"),
        (("--box", "1,1,9,9", "--features.stride", "0"), "stride must be between 1 and 512, it is 0"),
        (("--box", "1,1,9,9", "--features.batch", "0"), "batch must be between 1 and 1000000000, it is 0"),
    ],
)
def test_mistakes_with_a_video_end_in_one_sentence(tmp_path, capsys, options, sentence):
    path = clip_file(tmp_path / "v.mp4")
    assert main(["segment", "video", path, "--out", str(tmp_path / "out"), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_mask_of_another_size_than_the_video_is_refused(tmp_path, capsys):
    write_mask(tmp_path / "m.png", np.ones((64, 32), dtype=np.uint8))
    assert main(["segment", "video", clip_file(tmp_path / "v.mp4"), "--mask", str(tmp_path / "m.png")]) == 2
    assert "m.png is 32x64 pixels, the frames are 64x64" in capsys.readouterr().err
