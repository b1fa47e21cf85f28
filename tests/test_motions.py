"""Clips cut from real videos are labelled by their motion, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from motionmae.cli import main
from motionmae.data.motions import FAST, MOTIONS, REACH, camera, clip, moments, split_sources, write_clips
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.video.reading import read_frames
from motionmae.video.writing import write_video

OPPOSITES = (("pan left", "pan right"), ("pan up", "pan down"), ("zoom in", "zoom out"))


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", [(90, 160), (200, 100)])
def test_every_window_lies_within_the_frame(motion, shape):
    random = np.random.default_rng(0)
    for draws in [*random.random((50, 4)), np.zeros(4), np.full(4, 0.999)]:
        for row, column, side in camera(motion, 8, draws.tolist(), *shape):
            assert row - side / 2 >= 0
            assert row + side / 2 <= shape[0]
            assert column - side / 2 >= 0
            assert column + side / 2 <= shape[1]


def test_a_motion_moves_what_its_name_says_by_its_reach_and_nothing_else():
    windows = {motion: np.array(camera(motion, 5, [0.3, 0.6, 0.8, 0.5], 100, 100)) for motion in MOTIONS}
    moved = {motion: found[-1] - found[0] for motion, found in windows.items()}
    side = windows["pan right"][0, 2]
    np.testing.assert_allclose(moved["pan right"], [0, REACH * side, 0], atol=1e-9)
    np.testing.assert_allclose(moved["pan down"], [REACH * side, 0, 0], atol=1e-9)
    assert moved["zoom in"][2] < 0
    for one, other in OPPOSITES:
        np.testing.assert_allclose(windows[one], windows[other][::-1])  # one is the other backwards
    for motion in ("forward", "backward", "fast"):
        np.testing.assert_allclose(windows[motion], windows["forward"])
        assert (moved[motion] == 0).all()


def test_one_frame_of_a_pan_tells_nothing_of_its_direction():
    """Over all of a clip's frames, centres are spread alike in every class."""
    random = np.random.default_rng(0).random((400, 4)).tolist()
    spread = {
        motion: np.concatenate([np.array(camera(motion, 8, draws, 100, 100))[:, :2] for draws in random]).mean(0)
        for motion in MOTIONS
    }
    for motion in MOTIONS:
        np.testing.assert_allclose(spread[motion], [50, 50], atol=0.5)


def test_moments_are_forward_backward_and_fast_within_the_source():
    for draw in (0.0, 0.5, 0.999):
        forward, backward, fast = (moments(motion, 40, 16, draw) for motion in ("forward", "backward", "fast"))
        assert np.diff(forward).tolist() == [1] * 15
        assert backward == forward[::-1]
        assert np.diff(fast).tolist() == [FAST] * 15
        assert fast[0] == forward[0] >= 0
        assert fast[-1] <= 39


def test_panning_right_over_a_still_scene_moves_it_left():
    scene = render(0, "left", 1, 96).frames.expand(40, -1, -1, -1)
    panned = clip(scene, "pan right", 0, 8, 32).float()
    shift = round(REACH * 32 / 7)  # pixels from frame to frame
    still = (panned[1:] - panned[:-1]).abs().mean()
    followed = (panned[1:, :, :-shift] - panned[:-1, :, shift:]).abs().mean()
    assert followed < still / 2


def test_sources_of_train_and_test_are_apart_and_the_command_says_which(tmp_path, capsys):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", render(ord(name), "up", 20, 48).frames, 12)
    files = [str(tmp_path / f"{name}.mp4") for name in "abc"]
    assert (
        main(["motions", *files, "--out", str(tmp_path / "set"), "--count", "2", "--frames", "8", "--size", "16"]) == 0
    )
    assert "test: 18 clips of 9 motions from c.mp4" in capsys.readouterr().out
    train, test = (sorted((tmp_path / "set" / split).rglob("*.mp4")) for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 18)
    assert not any("-c-" in file.name for file in train)
    assert read_frames(train[0]).shape == (8, 16, 16, 3)
    stamp = train[0].stat().st_mtime_ns
    write_clips([tmp_path / f"{name}.mp4" for name in "ab"], [tmp_path / "c.mp4"], tmp_path / "set", 2, 0, 8, 16)
    assert train[0].stat().st_mtime_ns == stamp


def test_sources_for_the_test_can_be_named(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    assert split_sources([a, b], [c]) == ([a, b], [c])
    assert split_sources([a, b, c], []) == ([a, b], [c])
    with pytest.raises(MotionMAEError, match=r"--test .*a: is among"):
        split_sources([a, b], [c, a])


def test_mistakes_are_one_sentence(tmp_path):
    write_video(tmp_path / "short.mp4", torch.zeros(5, 16, 16, 3, dtype=torch.uint8), 12)
    with pytest.raises(MotionMAEError, match=r"short\.mp4: has 5 frames"):
        write_clips([tmp_path / "short.mp4"], [], tmp_path / "set", 1, 0)
    with pytest.raises(MotionMAEError, match="at least 3"):
        split_sources([tmp_path / "short.mp4"], [])
    assert main(["motions"]) == 2
    assert main(["motions", str(tmp_path / "nothing.mp4")]) == 2
