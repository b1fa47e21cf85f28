"""`segment davis` and `bench segment` from end to end on a small moving square."""

from __future__ import annotations

import json
import weakref
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import SIDE, SMALL, davis_folder, scene
from torch import nn

from motionmae.cli import main
from motionmae.config import Davis, Features, Model, Propagation
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import draw_points, paint, palette, read_mask, write_mask
from motionmae.inference.propagation import propagate
from motionmae.inference.sequence import PROTOCOLS, Source, input_size, open_source, resolve
from motionmae.models import weights
from motionmae.models.encoder import VideoEncoder
from motionmae.runtime import Runtime
from motionmae.tasks.segment.davis import score_encoder, segment_davis
from motionmae.video.reading import read_frames

CPU = Runtime(torch.device("cpu"), None)


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


def test_an_untrained_encoder_has_the_checkpoint_shape_and_the_seed_weights(tmp_path, capsys):
    weights.save(tmp_path / "m.safetensors", nn.ModuleDict({"encoder": tiny()}), {"model": asdict(tiny().config)})
    trained = open_source(str(tmp_path / "m.safetensors"), CPU).encoder
    other = open_source(str(tmp_path / "m.safetensors"), CPU, untrained=1).encoder
    again = open_source(str(tmp_path / "m.safetensors"), CPU, untrained=0).encoder
    frames = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    assert trained.config == other.config
    assert not torch.equal(trained(frames), other(frames))
    assert torch.equal(trained(frames), again(frames))  # of the same seed
    assert main(["segment", "davis", "rgb", "--untrained", "--data.path", str(tmp_path)]) == 2
    assert "--untrained is for encoders" in capsys.readouterr().err


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


def test_nothing_of_an_earlier_run_stays_in_its_folder(tmp_path):
    root, out = davis_folder(davis_folder(tmp_path / "data", 4), 4, name="other"), tmp_path / "out"
    command = ["segment", "davis", "copy", "--data.path", str(root), "--out", str(out)]
    assert main(command) == 0
    assert {path.stem for path in out.glob("overlays/*.mp4")} == {"square", "other"}
    assert main([*command, "--data.sequences", "other", "other", "--no-overlays"]) == 0
    assert {path.parent.name for path in out.glob("predictions/*/*.png")} == {"other"}
    assert not list(out.glob("overlays/*.mp4"))
    assert list(json.loads((out / "scores.json").read_text())["per_sequence"]) == ["other"]


def test_where_only_first_frames_are_annotated_masks_are_made_and_nothing_is_scored(tmp_path, capsys):
    root, out = davis_folder(tmp_path / "data", 4), tmp_path / "out"
    for time in (1, 2, 3):
        (root / f"Annotations/480p/square/{time:05d}.png").unlink()
    assert main(["segment", "davis", "copy", "--data.path", str(root), "--out", str(out)]) == 0
    assert "nothing to score" in capsys.readouterr().out
    assert len(list(out.glob("predictions/square/*.png"))) == 4
    assert not (out / "scores.json").exists()
    assert "Overlays" in (out / "index.html").read_text()


def test_sequences_are_checked_before_any_work(tmp_path, capsys):
    root, out = davis_folder(davis_folder(tmp_path / "data", 4), 4, name="late"), tmp_path / "out"
    command = ["segment", "davis", "copy", "--data.path", str(root), "--out", str(out)]
    (root / "Annotations/480p/late/00000.png").unlink()
    assert main(command) == 2
    assert (
        "late/00001.png is the first annotation of late: expected one of its frame 00000.jpg" in capsys.readouterr().err
    )
    assert main([*command, "--data.sequences", "square", "nowhere"]) == 2
    assert "nowhere holds no .jpg files" in capsys.readouterr().err
    assert not out.exists()


def test_protocols_are_the_published_ones_and_every_number_can_be_overridden():
    assert {name: resolve(Propagation(name)) for name in PROTOCOLS} == PROTOCOLS
    numbers = {name: (p.topk, p.context, p.radius, p.temperature) for name, p in PROTOCOLS.items()}
    assert numbers == {"dino": (5, 7, 12, 0.1), "crw": (10, 20, 12, 0.05), "siammae": (7, 20, 20, 0.7)}
    for name, value in (("topk", 3), ("context", 0), ("radius", 1), ("temperature", 2.0), ("multiple", 32)):
        assert getattr(resolve(Propagation("crw", **{name: value})), name) == value
    assert resolve(Propagation("siammae", short=240)).size == (0, 0)
    with pytest.raises(MotionMAEError, match=r"--topk must be between 1 and .* it is 0"):
        resolve(Propagation(topk=0))
    with pytest.raises(MotionMAEError, match="--temperature must be above 0"):
        resolve(Propagation(temperature=0.0))


def test_frames_enter_at_the_size_of_the_protocol():
    assert input_size(480, 854, PROTOCOLS["dino"], 16) == (480, 832)
    assert input_size(854, 480, PROTOCOLS["dino"], 16) == (832, 480)
    assert input_size(480, 854, PROTOCOLS["crw"], 16) == (480, 848)
    assert input_size(480, 854, PROTOCOLS["siammae"], 16) == (480, 880)
    assert input_size(30, 40, PROTOCOLS["crw"], 16) == (32, 32)
    assert input_size(480, 854, resolve(Propagation(size=(100, 200))), 8) == (96, 200)


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

    for _ in propagate(features(), torch.rand(1, 4, 4, 2), context=2, radius=2, topk=2, temperature=0.1):
        assert sum(each() is not None for each in alive) <= 2


def test_the_bench_finds_its_reference_equal(capsys):
    command = ["bench", "segment", "--model", "tiny", "--height", "64", "--width", "96", "--frames", "2"]
    assert main([*command, "--short", "64", "--multiple", "0", "--radius", "2", "--context", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("times as fast") == 2
    assert "grid 8x12, 128 wide" in shown
    assert "grid 16x24" in shown
    assert all(float(line.split("difference ")[1]) < 1e-5 for line in shown.splitlines() if "difference" in line)
