"""What is prepared shows the same, is small, has key frames nearby and a constant rate; the originals stay."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from PIL import Image

from motionmae.cli import main
from motionmae.config import Data
from motionmae.data.clips import Clips
from motionmae.library.manifest import read_manifest
from motionmae.library.sources import find
from motionmae.video.reading import VideoError, probe, read_frames


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    root = tmp_path / "originals"
    (root / "dogs" / "still").mkdir(parents=True)
    (root / "cats").mkdir()
    zoo.encode(root / "dogs" / "large.mkv", "libx264", size=(144, 192), options={"g": "250"})
    zoo.encode(root / "dogs" / "variable.mp4", "libx264", times=zoo.jittered, clock=zoo.SLOW_CLOCK)
    zoo.encode(root / "cats" / "turned.mp4", "libx264", setup=zoo.turned(90))
    zoo.encode(root / "cats" / "odd.avi", "mpeg4", size=(51, 67))
    (root / "cats" / "broken.mp4").write_bytes(b"not a video")
    for i in range(5):
        Image.fromarray(zoo.numbered(i)).save(root / "dogs" / "still" / f"{i}.png")
    return root


def test_a_folder_is_prepared_and_trains_the_same(originals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in originals.rglob("*")}
    out = tmp_path / "out"
    assert main(["prepare", str(originals), "--out", str(out), "--short", "72", "--workers", "1"]) == 0
    told = capfd.readouterr().out
    assert "5 prepared, 0 were there, 1 failed" in told
    assert "broken.mp4: not a video" in told
    assert "x faster" in told
    assert {path: path.stat().st_mtime_ns for path in originals.rglob("*")} == before
    entries = {os.path.relpath(entry.path, out): entry for entry in read_manifest(out / "manifest.csv")}
    assert {name: (entry.height, entry.width, entry.label) for name, entry in entries.items()} == {
        "dogs/large.mkv.mp4": (72, 96, "dogs"),
        "dogs/variable.mp4": (48, 64, "dogs"),
        "dogs/still.mp4": (48, 64, "dogs"),
        "cats/turned.mp4": (64, 48, "cats"),
        "cats/odd.avi.mp4": (52, 68, "cats"),
    }
    assert all(entry.constant and entry.keyframe_spacing <= 12 and entry.usable for entry in entries.values())
    large = read_frames(out / "dogs/large.mkv.mp4").numpy()
    assert [zoo.number_of(frame) for frame in large] == list(range(zoo.COUNT))
    assert [zoo.number_of(np.rot90(f, -1)) for f in read_frames(out / "cats/turned.mp4").numpy()] == list(
        range(zoo.COUNT)
    )


def test_a_constant_rate_shows_each_frame_at_its_time(originals: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert main(["prepare", str(originals / "dogs"), "--out", str(out), "--fps", "10", "--workers", "1"]) == 0
    path = out / "variable.mp4"
    info = probe(path)
    assert (info.rate, info.constant) == (Fraction(10), True)
    shown = [zoo.number_of(frame) for frame in read_frames(path).numpy()]
    times = [max(n for n in range(zoo.COUNT) if zoo.jittered(n) <= 100 * place) for place in range(len(shown))]
    assert shown == times


def test_what_is_there_is_not_made_again_and_other_settings_are_refused(
    originals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    arguments = ["prepare", str(originals / "cats"), "--out", str(out), "--workers", "1"]
    assert main(arguments) == 0
    made = (out / "turned.mp4").stat().st_mtime_ns
    (out / "odd.avi.mp4").unlink()
    capfd.readouterr()
    assert main(arguments) == 0
    assert "1 prepared, 1 were there, 1 failed" in capfd.readouterr().out
    assert (out / "turned.mp4").stat().st_mtime_ns == made
    assert main([*arguments, "--short", "100"]) == 2
    assert "prepared otherwise: short (256 there, 100 here)" in capfd.readouterr().err


def test_mistakes_are_one_sentence(originals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for arguments, told in [
        ([], "prepare needs SOURCE: a manifest"),
        ([str(originals), "--out", str(originals / "small")], "must not lie in the folder of the originals"),
        ([str(tmp_path / "absent")], "there is no such folder"),
    ]:
        assert main(["prepare", *arguments]) == 2
        error = capfd.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_shards_give_the_clips_of_the_files_that_were_packed(originals: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert main(["prepare", str(originals), "--out", str(out), "--shard", "2", "--workers", "1"]) == 0
    assert sorted(path.name for path in (out / "shards").glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    data = Data(path=str(out / "manifest.csv"), stride=2)
    files, shards = find(data), find(replace(data, path=str(out / "shards")))
    assert shards.labels == files.labels == ["cats", "cats", "dogs", "dogs", "dogs"]
    assert find(replace(data, path=str(out / "shards" / "000002.tar"))).labels == ["dogs"]
    loose, packed = (Clips(found.paths, data, [0, 2, 4], 32, 0) for found in (files, shards))
    for place in itertools.product(range(2), range(5)):
        assert torch.equal(loose[place][0]["clip"], packed[place][0]["clip"])
    content = (out / "shards" / "000000.tar").read_bytes()
    (out / "shards" / "000000.tar").write_bytes(content[:3000])
    with pytest.raises(VideoError, match=r"000000\.tar::"):
        probe(shards.paths[0])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_shards_are_read_by_the_webdataset_library(originals: Path, tmp_path: Path):
    import webdataset

    out = tmp_path / "out"
    assert main(["prepare", str(originals / "cats"), "--out", str(out), "--shard", "9", "--workers", "1"]) == 0
    samples = list(webdataset.WebDataset(str(out / "shards" / "000000.tar"), shardshuffle=False).decode())
    assert [sample["json"]["name"] for sample in samples] == ["odd.avi.mp4", "turned.mp4"]
    assert samples[0]["mp4"] == (out / "odd.avi.mp4").read_bytes()


def test_the_bench_tells_speed_ceiling_memory_and_one_advice(originals: Path, capfd: pytest.CaptureFixture[str]):
    arguments = ["--data.path", str(originals / "dogs"), "--data.stride", "2", "--frames", "4", "--size", "32"]
    assert main(["bench", "data", *arguments, "--clips", "8", "--reads", "8", "--data.workers", "1"]) == 0
    told = capfd.readouterr().out
    for words in ("one process: ", "the decoder alone, to RGB: ", "ratio ", "1 worker: ", "memory: ", "advice: "):
        assert words in told
    assert told.count("advice") == 1
