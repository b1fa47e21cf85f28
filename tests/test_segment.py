"""`segment davis`, `segment video` and `bench segment` from end to end on a small moving square."""

from __future__ import annotations

import csv
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from motionmae.cli import main
from motionmae.config import Davis, Features, Model, Propagation, SegmentVideo
from motionmae.data.masks import draw_points, paint, palette, read_mask, write_mask
from motionmae.data.video import read_frames, write_video
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder
from motionmae.models.propagation import propagate
from motionmae.tasks.segment import video
from motionmae.tasks.segment.davis import score_encoder, segment_davis
from motionmae.tasks.segment.sequence import PROTOCOLS, Source, input_size, resolve
from motionmae.training.runtime import Runtime

CPU = Runtime(torch.device("cpu"), None)
SIDE, SMALL = 64, ("--short", "64", "--multiple", "0", "--features.stride", "8")


def scene(time: int, hidden: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A textured background and, unless hidden, a bright square that moves right by two pixels a frame."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if not hidden:
        left = 8 + 2 * time % (SIDE - 32)
        frame[24:40, left : left + 16] = random.integers(160, 255, (16, 16, 3))
        labels[24:40, left : left + 16] = 1
    return frame, labels


def davis_folder(root: Path, frames: int, name: str = "square", hidden: tuple[int, ...] = ()) -> Path:
    for part in ("JPEGImages/480p", "Annotations/480p"):
        (root / part / name).mkdir(parents=True)
    for time in range(frames):
        frame, labels = scene(time, time in hidden)
        Image.fromarray(frame).save(root / f"JPEGImages/480p/{name}/{time:05d}.jpg", quality=95)
        write_mask(root / f"Annotations/480p/{name}/{time:05d}.png", labels)
    (root / "ImageSets/2017").mkdir(parents=True, exist_ok=True)
    with (root / "ImageSets/2017/val.txt").open("a") as file:
        file.write(f"{name}\n")
    return root


def clip_file(path: Path, frames: int = 6) -> str:
    write_video(path, torch.from_numpy(np.stack([scene(time)[0] for time in range(frames)])), 12.0)
    return str(path)


def tiny() -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(Model(frames=4, size=32, cube=(2, 8, 8), width=32, depth=2, heads=2))


def test_davis_propagates_scores_and_reports(tmp_path):
    root, out = davis_folder(tmp_path / "data", 5), tmp_path / "out"
    assert main(["segment", "davis", "rgb", "--data.path", str(root), "--out", str(out), *SMALL]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["global"]["J-Mean"] > 0.6
    still = segment_davis(
        Source("copy", None, CPU), Davis(str(root)), tmp_path / "copy", Features(), Propagation(), False
    )
    assert scores["global"]["J-Mean"] > still["global"]["J-Mean"]
    masks = sorted((out / "predictions/square").glob("*.png"))
    assert [path.name for path in masks] == [f"{time:05d}.png" for time in range(5)]
    assert (read_mask(masks[0]) == scene(0)[1]).all()
    with Image.open(masks[-1]) as image:
        assert image.mode == "P"
        assert image.size == (SIDE, SIDE)
    assert len(read_frames(out / "overlays/square.mp4")) == 5
    assert "data:video/mp4" in (out / "index.html").read_text()
    assert json.loads((out / "config.json").read_text())["resolved"]["topk"] == 5


def test_an_encoder_is_scored_in_one_call(tmp_path):
    root = davis_folder(tmp_path / "data", 4)
    settings = Propagation("crw", short=64, multiple=0, radius=3)
    for entry in ("repeat", "pair", "window"):
        scores = score_encoder(tiny(), root, tmp_path / entry, settings, Features(entry))
        assert 0 <= scores["global"]["J&F-Mean"] <= 1
        assert set(scores["per_sequence"]) == {"square"}


def test_an_object_that_is_hidden_returns(tmp_path):
    root = davis_folder(tmp_path / "data", 6, hidden=(2, 3))
    source = Source("rgb", None, CPU)
    settings = Propagation(short=64, multiple=0, stretch=False, topk=1)
    segment_davis(source, Davis(str(root)), tmp_path / "out", Features(stride=4), settings, False)
    last = read_mask(tmp_path / "out/predictions/square/00005.png")
    truth = scene(5)[1]
    assert ((last == 1) & (truth == 1)).sum() / ((last == 1) | (truth == 1)).sum() > 0.5


def test_a_sequence_of_one_frame_keeps_its_mask_and_is_not_scored(tmp_path):
    root = davis_folder(davis_folder(tmp_path / "data", 4), 1, name="still")
    scores = segment_davis(
        Source("rgb", None, CPU), Davis(str(root)), tmp_path / "out", Features(), Propagation(), False
    )
    assert (read_mask(tmp_path / "out/predictions/still/00000.png") == scene(0)[1]).all()
    assert scores["not_scored"] == ["still"]


def test_frames_and_masks_of_differing_sizes_are_errors_that_name_the_file(tmp_path, capsys):
    root = davis_folder(tmp_path / "data", 4)
    Image.new("RGB", (60, 64)).save(root / "JPEGImages/480p/square/00002.jpg")
    assert main(["segment", "davis", "rgb", "--data.path", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "00002.jpg is 60x64 pixels, the sequence's first frame 64x64" in capsys.readouterr().err
    write_mask(root / "Annotations/480p/square/00000.png", np.ones((64, 60), dtype=np.uint8))
    assert main(["segment", "davis", "rgb", "--data.path", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "00000.png is 60x64 pixels, the frames are 64x64" in capsys.readouterr().err
    write_mask(root / "Annotations/480p/square/00000.png", np.zeros((64, 64), dtype=np.uint8))
    assert main(["segment", "davis", "rgb", "--data.path", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "holds no object" in capsys.readouterr().err


def test_protocols_are_the_published_ones_and_every_number_can_be_overridden():
    assert {name: resolve(Propagation(name)) for name in PROTOCOLS} == PROTOCOLS
    numbers = {name: (p.topk, p.context, p.radius, p.temperature) for name, p in PROTOCOLS.items()}
    assert numbers == {"dino": (5, 7, 12, 0.1), "crw": (10, 20, 12, 0.05), "siammae": (7, 20, 20, 0.7)}
    for name, value in (("topk", 3), ("context", 0), ("radius", 1), ("temperature", 2.0), ("multiple", 32)):
        assert getattr(resolve(Propagation("crw", **{name: value})), name) == value
    assert resolve(Propagation("siammae", short=240)).size == (0, 0)
    with pytest.raises(MotionMAEError, match="--topk is 0: it must be 1 or more"):
        resolve(Propagation(topk=0))
    with pytest.raises(MotionMAEError, match="--temperature is 0"):
        resolve(Propagation(temperature=0.0))


def test_frames_enter_at_the_size_of_the_protocol():
    assert input_size(480, 854, PROTOCOLS["dino"], 16) == (480, 832)
    assert input_size(854, 480, PROTOCOLS["dino"], 16) == (832, 480)
    assert input_size(480, 854, PROTOCOLS["crw"], 16) == (480, 848)
    assert input_size(480, 854, PROTOCOLS["siammae"], 16) == (480, 880)
    assert input_size(30, 40, PROTOCOLS["crw"], 16) == (32, 32)
    assert input_size(480, 854, resolve(Propagation(size=(100, 200))), 8) == (96, 200)


def test_a_video_is_followed_both_ways_from_a_mask(tmp_path):
    path, mask = clip_file(tmp_path / "v.mp4"), tmp_path / "m.png"
    labels = scene(3)[1]
    labels[:8, :8] = 2
    write_mask(mask, labels)
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    write_mask(out / "masks/00099.png", labels)  # of an earlier run on a longer video
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
    assert len(rows) == 12
    assert int(rows[6]["pixels"]) == 256
    assert int(rows[7]["pixels"]) == 64
    assert float(rows[6]["share"]) == 0.0625
    assert float(rows[6]["seconds"]) == 0.25
    assert read_frames(out / "overlay.mp4").shape == (6, SIDE, SIDE, 3)
    (track,) = json.loads((out / "tracks.json").read_text())["points"]
    assert (track[3]["x"], track[3]["y"], track[3]["confidence"]) == (22, 32, 1)
    assert abs(track[0]["x"] - 16) < 6
    assert abs(track[5]["x"] - 26) < 6


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
        (("--box", "1,1,9,9", "--polygon", "0,0,4,0,4,4"), "both given"),
        (("--box", "1,1,9,9", "--at", "6"), "has the frames 0 to 5"),
        (("--mask", "none.png"), "none.png is missing"),
        (("--box", "1,1,9,9", "--model", "nowhere"), "nowhere"),
        (("--box", "1,1,9,9", "--features.stride", "3"), "stride is 3"),
        (("--box", "1,1,9,9", "--features.stride", "0"), "stride is 0"),
        (("--box", "1,1,9,9", "--features.batch", "0"), "batch is 0"),
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


def test_painting_tints_objects_and_leaves_the_rest():
    frame, labels = np.full((20, 20, 3), 100, dtype=np.uint8), np.zeros((20, 20), dtype=np.uint8)
    labels[5:15, 5:15], labels[0, 0] = 1, 255
    painted = paint(frame, labels)
    assert (painted[labels != 1] == 100).all()
    assert painted[10, 10].tolist() == [114, 50, 50]
    assert painted[5, 5].tolist() == palette()[1].tolist()
    dotted = draw_points(frame, np.array([[[4.0, 4.0]], [[np.nan, np.nan]]]))
    assert (dotted == frame).all()


def test_propagation_keeps_no_more_than_its_context():
    alive: list[weakref.ref] = []

    def features():
        for _ in range(30):
            frame = torch.randn(4, 4, 8)
            alive.append(weakref.ref(frame))
            yield frame

    for _ in propagate(features(), torch.rand(4, 4, 2), context=2, radius=2, topk=2, temperature=0.1):
        assert sum(each() is not None for each in alive) <= 2


def test_the_bench_finds_its_reference_equal(capsys):
    command = ["bench", "segment", "--model", "tiny", "--height", "64", "--width", "96", "--frames", "2"]
    assert main([*command, "--short", "64", "--multiple", "0", "--radius", "2", "--context", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("times as fast") == 2
    assert "grid 8x12, 128 wide" in shown
    assert "grid 16x24" in shown
    assert all(float(line.split("difference ")[1]) < 1e-5 for line in shown.splitlines() if "difference" in line)
