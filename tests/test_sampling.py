"""Which frames and pixels make a clip: within the video, at the stride or the rate, spread evenly."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motionmae.data.sampling import (
    area_box,
    crop,
    crop_box,
    dense,
    pretraining_offsets,
    seconds,
    square_boxes,
    uniform_clip,
    uniform_frames,
    views,
)

draws = st.floats(0, 1, exclude_max=True)


def test_a_pretraining_clip_closes_its_last_difference():
    assert pretraining_offsets(4, 3, "clip", 1) == [0, 3, 6, 9, 12]
    assert pretraining_offsets(3, 4, "video", 2) == [0, 4, 8, 2, 6, 10]


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 9), draws)
def test_dense_frames_lie_in_the_video_at_the_stride(count: int, frames: int, stride: int, draw: float):
    offsets = [stride * step for step in range(frames)]
    for short in ("loop", "clamp"):
        chosen = dense(count, offsets, draw, short)
        assert all(0 <= frame < count for frame in chosen)
        if count > offsets[-1]:
            assert [frame - chosen[0] for frame in chosen] == offsets


def test_every_start_is_drawn_equally_often():
    starts = [dense(10, [0, 2, 4], draw / 600, "loop")[0] for draw in range(600)]
    assert [starts.count(start) for start in range(7)] == [100] * 6 + [0]


def test_short_videos_start_again_or_stay():
    assert dense(3, [0, 2, 4, 6], 0.9, "loop") == [0, 2, 1, 0]
    assert dense(3, [0, 2, 4, 6], 0.9, "clamp") == [0, 2, 2, 2]


@given(st.integers(1, 300), st.integers(1, 30), st.data())
def test_uniform_takes_one_frame_of_each_part(count: int, steps: int, data: st.DataObject):
    chosen = uniform_frames(count, steps, [data.draw(draws) for _ in range(steps)])
    assert chosen == sorted(chosen)
    assert len(chosen) == steps
    for step, frame in enumerate(chosen):
        assert count * step // steps <= frame < max(count * (step + 1) / steps + 1e-6, 1)


def test_uniform_middles():
    assert uniform_frames(100, 4, [0.5] * 4) == [12, 37, 62, 87]
    assert uniform_frames(2, 4, [0.5] * 4) == [0, 0, 1, 1]
    assert uniform_clip(100, [0, 4, 8, 12, 1, 5, 9, 13], 4, [0.5] * 9) == [12, 37, 62, 87, 13, 38, 63, 88]


@given(st.fractions(0.01, 60), st.integers(1, 20), st.sampled_from([Fraction(30000, 1001), Fraction(8)]), draws)
def test_seconds_are_apart_by_the_rate_exactly(duration: Fraction, frames: int, fps: Fraction, draw: float):
    times = seconds(duration, range(frames), fps, draw, "loop")
    assert all(0 <= time < duration for time in times)
    if duration >= frames / fps:
        assert [time - times[0] for time in times] == [step / fps for step in range(frames)]


def test_views_reach_from_the_first_frame_to_the_last():
    assert views(100, [0, 4, 8], 1, "loop") == [[46, 50, 54]]
    found = views(100, [0, 4, 8], 5, "loop")
    assert (found[0], found[-1]) == ([0, 4, 8], [91, 95, 99])
    assert views(2, [0, 4, 8], 3, "clamp") == [[0, 1, 1]] * 3


@given(st.integers(1, 400), st.integers(1, 400), st.lists(draws, min_size=4, max_size=4))
def test_boxes_lie_in_the_frame(height: int, width: int, four: list[float]):
    boxes = [
        crop_box(height, width, four, (1.0, 0.875, 0.75, 0.66)),
        area_box(height, width, four, (0.5, 1.0), (0.75, 4 / 3)),
    ]
    for top, left, rows, columns in boxes + square_boxes(height, width, 3):
        assert 0 <= top <= top + rows <= height
        assert 0 <= left <= left + columns <= width
        assert min(rows, columns) >= 1


def test_a_multi_scale_crop_draws_every_pair_of_neighbouring_scales_equally_often():
    """Wang et al., 2016, arXiv 1608.00859, section 3.2, with a distortion of at most one step, as VideoMAE has it."""
    scales = (1.0, 0.875, 0.75, 0.66)
    sides = [round(240 * scale) for scale in scales]
    found = Counter(crop_box(240, 400, (at / 1000, 0.5, 0.5, 0.5), scales)[2:] for at in range(1000))
    assert found == {(a, b): 100 for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}


def test_areas_and_aspects_are_those_drawn():
    for first, second in ((0.0, 0.0), (0.3, 0.7), (0.99, 0.5)):
        _, _, rows, columns = area_box(1000, 1000, (first, second, 0.5, 0.5), (0.08, 0.5), (0.75, 4 / 3))
        assert rows * columns / 1e6 == pytest.approx(0.08 + 0.42 * first, rel=0.01)
        assert columns / rows == pytest.approx(0.75 * (16 / 9) ** second, rel=0.01)


def test_squares_are_spread_along_the_long_side():
    assert square_boxes(240, 320, 3) == [(0, 0, 240, 240), (0, 40, 240, 240), (0, 80, 240, 240)]
    assert square_boxes(320, 240, 1) == [(40, 0, 240, 240)]


def test_a_crop_shows_its_box_and_nothing_else():
    frames = torch.zeros(3, 40, 60, 3, dtype=torch.uint8)
    frames[:, 10:30, 20:40] = torch.tensor([50, 100, 150], dtype=torch.uint8)
    clip = crop(frames, (10, 20, 20, 20), 16, False)
    assert clip.shape == (3, 3, 16, 16)
    assert [clip[c].unique().tolist() for c in range(3)] == [[50], [100], [150]]
    ramp = torch.arange(60, dtype=torch.uint8)[None, None, :, None].expand(2, 40, 60, 3)
    assert crop(ramp, (0, 20, 20, 20), 20, True)[0, 0, 0].tolist() == list(range(39, 19, -1))
