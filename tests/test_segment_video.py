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
from motionmae.inference.following import walks
from motionmae.tasks.segment import video
from motionmae.tasks.segment.given import given_masks, read_given
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
    assert f"used is only what comes before, {count} frames" in capsys.readouterr().err
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
    footage = video.open_footage(path)
    frames = footage.frames
    assert (frames.count, len(footage.starts), footage.rate) == (70, 70, 12)
    for times in ([0], [69, 31, 32, 5], [64, 63]):
        assert torch.equal(frames.read(times), read_frames(path, times))


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return ((found > 0) & (truth > 0)).sum() / max(1, ((found > 0) | (truth > 0)).sum())


def test_masks_of_several_frames_each_reach_half_way(tmp_path):
    path, out, other = clip_file(tmp_path / "v.mp4", 9), tmp_path / "out", np.zeros((SIDE, SIDE), dtype=np.uint8)
    other[48:64, 40:64] = 7  # something else, of the ground, which stands still
    write_mask(tmp_path / "first.png", scene(1)[1])
    write_mask(tmp_path / "later.png", other)
    masks = ["--mask", f"6:{tmp_path / 'later.png'}", str(tmp_path / "first.png"), "--at", "1"]
    assert main(["segment", "video", path, *masks, "--names", "square", "--out", str(out), *SMALL]) == 0
    found = [read_mask(out / f"masks/{time:05d}.png") for time in range(9)]
    assert (found[1] == scene(1)[1]).all()
    assert (found[6] == other).all()
    for time in range(9):
        truth, label = (scene(time)[1], 1) if time <= 3 else (other, 7)
        assert set(np.unique(found[time])) == {0, label}
        assert overlap(found[time], truth) > 0.4
    with (out / "areas.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)][:2] == ["square", ""]


def test_a_later_mask_may_say_that_nothing_is_there_any_more(tmp_path):
    path, out = clip_file(tmp_path / "v.mp4"), tmp_path / "out"
    write_mask(tmp_path / "first.png", scene(0)[1])
    write_mask(tmp_path / "gone.png", np.zeros((SIDE, SIDE), dtype=np.uint8))
    masks = ["--mask", str(tmp_path / "first.png"), f"3:{tmp_path / 'gone.png'}"]
    assert main(["segment", "video", path, *masks, "--out", str(out), *SMALL]) == 0
    assert [read_mask(out / f"masks/{time:05d}.png").any() for time in range(6)] == [True, True] + 4 * [False]


def test_a_point_has_places_in_several_frames_beside_masks_and_points_of_others(tmp_path):
    path, out = clip_file(tmp_path / "v.mp4", 8), tmp_path / "out"
    given = ["--box", "8,24,24,40", "--points", "0:16,32/6:28,32", "5:20,32", "12,30"]
    assert main(["segment", "video", path, *given, "--out", str(out), *SMALL]) == 0
    points = json.loads((out / "tracks.json").read_text())["points"]
    places = {(number, time): (points[number][time]["x"], points[number][time]["y"]) for number, time in
              ((0, 0), (0, 6), (1, 5), (2, 0))}  # fmt: skip
    assert list(places.values()) == [(16, 32), (28, 32), (20, 32), (12, 30)]
    assert all(place["x"] is not None for way in points for place in way)
    assert abs(points[0][5]["x"] - 26) < 4
    assert (read_mask(out / "masks/00000.png") == scene(0)[1]).all()
    assert overlap(read_mask(out / "masks/00007.png"), scene(7)[1]) > 0.4


def test_each_frame_is_followed_once_from_the_nearest_labelled_one():
    for labelled, count in (([0], 1), ([3], 9), ([0, 8], 9), ([2, 3, 7], 12), ([0, 1, 2], 3)):
        walked = [time for _, order in walks(labelled, count) for time in order[1:]]
        assert sorted(walked) == [time for time in range(count) if time not in labelled]
        for known, order in walks(labelled, count):
            assert known[-1] == order[0]
            for time in order:
                assert abs(time - order[0]) == min(abs(time - each) for each in labelled)


def test_how_long_it_takes_is_said_before_with_the_size_that_fits(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(video, "pace", lambda frames, labels, source, features, settings: settings.short / 10)
    footage = video.open_footage(clip_file(tmp_path / "v.mp4", 8))
    config = SegmentVideo("v", box=("8,24,24,40",))
    given, source = read_given(config, footage.frames), video.source_of(config)
    video.foretell(config, footage.frames, given, source)
    assert "8 frames, followed at 448x480 pixels on cpu: about 6:24; --short 120 would" in capsys.readouterr().out
    monkeypatch.setattr(video, "pace", lambda frames, labels, source, features, settings: settings.short / 100)
    video.foretell(config, footage.frames, given, source)
    assert capsys.readouterr().out.endswith("on cpu: about 0:38\n")
    measured = []

    def slow(frames, labels, source, features, settings):
        measured.append(settings.short)
        return (settings.short / 160) ** 3 * 2

    monkeypatch.setattr(video, "pace", slow)
    video.foretell(config, footage.frames, given, source)  # 54 s a frame at full size: nobody waits for that
    assert measured == [120, 160]
    assert "about 7:12; --short 240 would take about 0:54" in capsys.readouterr().out


def test_the_pace_is_of_a_frame(tmp_path, capsys):
    command = [
        "segment",
        "video",
        clip_file(tmp_path / "v.mp4", 8),
        "--box",
        "8,24,24,40",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "8 frames, followed at 64x64 pixels on cpu: about 0:0" in shown
    assert "overlay.mp4, masks, areas.csv, index.html are in" in shown


def test_boxes_and_polygons_stand_in_for_a_mask(tmp_path):
    frames = video.open_footage(clip_file(tmp_path / "v.mp4", 2)).frames
    mask = given_masks(SegmentVideo("v", box=("8,24,24,40", "0,0,8,8")), frames)[0]
    assert ((mask == 1) == (scene(0)[1] == 1)).all()
    assert (mask == 2).sum() == 64
    triangle = given_masks(SegmentVideo("v", polygon=("0,0,40,0,0,40",)), frames)[0]
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
        (("--mask", "6:none.png"), "--mask 6:none.png: "),
        (("--mask", "a.png", "0:b.png"), "--mask 0:b.png: frame 0 has a mask already"),
        (("--mask", "e.png", "2:e.png"), "--mask e.png 2:e.png: none of them holds an object"),
        (("--mask", "e.png"), "e.png holds no object"),
        (("--points", "9:1,1"), "--points 9:1,1: "),
        (("--points", "1,1/0:2,2"), "two places in frame 0"),
        (("--box", "1,1,9,9", "--names", "cat", "dog"), "--names cat dog: 2, for objects up to 1"),
        (("--box", "1,1,9,9", "--model", "nowhere"), "nowhere"),
        (("--box", "1,1,9,9", "--features.stride", "3"), "stride is 3"),
        (("--box", "1,1,9,9", "--features.stride", "0"), "stride must be between 1 and 512, it is 0"),
        (("--box", "1,1,9,9", "--features.batch", "0"), "batch must be between 1 and 1000000000, it is 0"),
    ],
)
def test_mistakes_with_a_video_end_in_one_sentence(tmp_path, capsys, monkeypatch, options, sentence):
    path = clip_file(tmp_path / "v.mp4")
    write_mask(tmp_path / "a.png", scene(0)[1])
    write_mask(tmp_path / "b.png", scene(0)[1])
    write_mask(tmp_path / "e.png", np.zeros((SIDE, SIDE), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    assert main(["segment", "video", path, "--out", str(tmp_path / "out"), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size_than_the_video_is_refused(tmp_path, capsys):
    write_mask(tmp_path / "m.png", np.ones((64, 32), dtype=np.uint8))
    assert main(["segment", "video", clip_file(tmp_path / "v.mp4"), "--mask", str(tmp_path / "m.png")]) == 2
    assert "m.png is 32x64 pixels, the frames are 64x64" in capsys.readouterr().err
