"""Motion targets on clips whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motionmae.config import Target
from motionmae.data.sampling import pretraining_offsets
from motionmae.errors import MotionMAEError
from motionmae.models.tokens import patchify
from motionmae.objectives.motion import difference, energy, motion, neighbours, outputs, pairs, seamless, velocity


def video(count=40):
    """A video whose frame t has the value t everywhere."""
    return torch.arange(count, dtype=torch.uint8).expand(3, 4, 4, count).permute(0, 3, 1, 2)


def pair(target, frames=4, stride=3):
    offsets = pretraining_offsets(frames, stride, target.adjacent, target.gap)
    now, after = neighbours(video()[None, :, offsets], frames, target)
    return now[0, 0, :, 0, 0].tolist(), after[0, 0, :, 0, 0].tolist()


def test_adjacent_in_the_clip_is_the_next_frame_of_the_clip_and_the_last_has_one_too():
    assert pair(Target(adjacent="clip")) == ([0, 3, 6, 9], [3, 6, 9, 12])


def test_adjacent_in_the_video_is_the_neighbour_in_the_source():
    assert pair(Target(adjacent="video")) == ([0, 3, 6, 9], [1, 4, 7, 10])


@pytest.mark.parametrize(("adjacent", "after"), [("clip", [6, 9, 12, 15]), ("video", [2, 5, 8, 11])])
def test_a_gap_of_two_looks_two_frames_ahead(adjacent, after):
    assert pair(Target(adjacent=adjacent, gap=2)) == ([0, 3, 6, 9], after)


@pytest.mark.parametrize("adjacent", ["clip", "video"])
def test_a_clip_of_the_wrong_length_is_refused_with_both_lengths(adjacent):
    with pytest.raises(MotionMAEError, match=r"clip of 4 frames.*need (5|8)"):
        neighbours(torch.zeros(1, 3, 4, 4, 4), 4, Target(adjacent=adjacent))


@pytest.mark.parametrize("kind", ["absolute", "signed"])
def test_a_static_clip_has_no_motion(kind):
    still = torch.randint(0, 256, (1, 3, 1, 8, 8), dtype=torch.uint8).expand(-1, -1, 5, -1, -1)
    assert difference(*neighbours(still, 4, Target()), kind).abs().max() == 0


def test_a_linear_ramp_in_time_has_constant_motion_with_its_sign():
    ramp = torch.arange(5, 0, -1).view(1, 1, 5, 1, 1).expand(1, 3, 5, 8, 8) * 0.1
    now, after = neighbours(ramp, 4, Target())
    assert torch.allclose(difference(now, after, "signed"), torch.tensor(-0.1))
    assert torch.allclose(difference(now, after, "absolute"), torch.tensor(0.1))


def test_a_square_that_moves_one_pixel_shows_its_two_edges():
    clip = torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8)
    clip[:, :, 0, 2:5, 2:5] = 255
    clip[:, :, 1, 2:5, 3:6] = 255  # one pixel to the right
    signed = difference(*neighbours(clip, 1, Target()), "signed")[0, 0, 0]
    expected = torch.zeros(8, 8)
    expected[2:5, 2], expected[2:5, 5] = -1, 1
    assert torch.equal(signed, expected)
    assert torch.equal(difference(*neighbours(clip, 1, Target()), "absolute")[0, 0, 0], expected.abs())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_motion_of_uint8_equals_motion_of_the_same_floats_and_swaps_its_sign_with_the_frames(seed):
    generator = torch.Generator().manual_seed(seed)
    now, after = torch.randint(0, 256, (2, 1, 3, 2, 4, 4), dtype=torch.uint8, generator=generator)
    signed = difference(now, after, "signed")
    assert torch.equal(signed, difference(now.float() / 255, after.float() / 255, "signed"))
    assert torch.equal(signed, -difference(after, now, "signed"))


def test_energy_is_the_mean_change_of_each_token():
    clip = torch.zeros(1, 3, 3, 4, 4)
    clip[:, :, 1:, :2, :2] = 1.0  # the first place changes between frames 0 and 1
    clip[:, :, 1, 2:, 2:] = 1.0  # the last one comes and goes
    now, after = neighbours(clip, 2, Target())
    assert energy(now, after, (2, 2, 2)).tolist() == [[0.5, 0, 0, 1.0]]
    assert patchify(now, (2, 2, 2)).shape == (1, 4, 24)


def test_a_seam_is_where_numbers_fall_and_not_where_a_frame_is_held():
    numbers = torch.tensor([[4, 5, 6, 0, 1], [4, 5, 6, 6, 6]])
    assert seamless(numbers, 4, Target()).tolist() == [[True, True, False, True], [True] * 4]


def test_offsets_of_stride_one_are_the_same_frames_either_way():
    one = replace(Target(), adjacent="clip")
    assert pair(one, stride=1) == pair(Target(adjacent="video"), stride=1)


def texture(seed=0, size=64):
    """Waves some pixels long in all directions, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, size // 8, size // 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("rows", [-1, 0, 2])
@pytest.mark.parametrize("columns", [0, 1, -2])
def test_the_velocity_of_a_clip_moved_by_whole_pixels_is_that_shift(rows, columns):
    still = texture()
    moved = torch.stack([still.roll((t * rows, t * columns), (2, 3)) for t in range(5)], dim=2)[..., 16:48, 16:48]
    now, after = neighbours(moved, 4, Target())
    found = velocity(now, after, (2, 16, 16)).unflatten(2, (2, 2))
    assert found.shape == (1, 8, 2, 2)
    for axis, shift in enumerate((rows, columns)):
        assert (found[..., axis] - shift).abs().max() < 0.2 * max(1, abs(rows), abs(columns))


def test_a_velocity_is_still_without_texture_and_bounded_with_noise():
    flat = 0.5 + 0.002 * torch.randn(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert velocity(*neighbours(flat, 2, Target()), (2, 8, 8)).abs().max() < 0.3
    noise = torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert velocity(*neighbours(noise, 2, Target()), (2, 8, 8)).abs().max() <= 2.0
    jump = torch.stack((texture(1), texture(2), texture(3)), dim=2)
    assert velocity(*neighbours(jump, 2, Target()), (2, 16, 16)).abs().max() <= 4.0


def test_velocities_of_some_cubes_are_those_of_all():
    clip = torch.rand(2, 3, 5, 32, 32)
    now, after = neighbours(clip, 4, Target())
    target, ids = Target(motion="velocity", pairs="across"), torch.tensor([[1, 5, 30], [0, 2, 3]])
    every = motion(now, after, (2, 8, 8), target)
    assert every.shape == (2, 32, 2)
    assert torch.equal(motion(now, after, (2, 8, 8), target, ids)[1], every[1, ids[1]])


@pytest.mark.parametrize(("gap", "kind", "frames"), [
    (1, "all", [0, 1, 2, 3]), (1, "inside", [0, 1, 2]), (1, "across", [3]),
    (2, "inside", [0, 1]), (2, "across", [2, 3]), (4, "across", [0, 1, 2, 3]),
])  # fmt: skip
def test_pairs_are_told_apart_by_the_cubes_end(gap, kind, frames):
    """A clip whose frame t is worth t * t tells by each difference which frames it was between."""
    target = Target(gap=gap, pairs=kind, motion="signed")
    assert list(range(4))[pairs(target, (4, 1, 1))] == frames
    clip = (torch.arange(8 + gap).float() ** 2).view(1, 1, -1, 1, 1).expand(1, 3, -1, 1, 1)
    found = motion(*neighbours(clip, 8, target), (4, 1, 1), target)
    assert found.shape[2] == outputs(target, (4, 1, 1)) == 3 * len(frames)
    for slot in range(2):
        wanted = [(4 * slot + frame + gap) ** 2 - (4 * slot + frame) ** 2 for frame in frames]
        assert found[0, slot, ::3].tolist() == wanted


@pytest.mark.parametrize(("changes", "named"), [
    ({"pairs": "inside", "gap": 2}, "--target.gap"), ({"pairs": "across", "adjacent": "video"}, "--target.adjacent"),
])  # fmt: skip
def test_pairs_that_no_cube_has_are_named(changes, named):
    with pytest.raises(MotionMAEError, match=named):
        pairs(Target(**changes), (2, 8, 8))
