"""Masks: they partition the tokens, have their shape, and depend on the keys alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from motionmae import noise
from motionmae.errors import MotionMAEError
from motionmae.objectives.masking import KINDS, count, split, thin

GRID = (8, 14, 14)


def keys(n, seed=0):
    return torch.tensor([noise.key(seed, i) for i in range(n)])


def draw(kind, ratio=0.9, n=4, grid=GRID, energy=None, weight=1.0, seed=0):
    tokens = grid[0] * grid[1] * grid[2]
    energy = torch.rand(n, tokens) if energy is None else energy
    return split(KINDS[kind](keys(n, seed), grid, energy, weight), count(kind, ratio, grid))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(KINDS)), st.floats(0.1, 0.95), st.tuples(*(st.integers(1, 6),) * 3), st.integers(0, 99))
def test_visible_and_masked_partition_the_tokens_in_ascending_order(kind, ratio, grid, seed):
    try:
        count(kind, ratio, grid)
    except MotionMAEError:
        assume(False)
    visible, masked = draw(kind, ratio, 3, grid, seed=seed)
    assert masked.shape[1] == count(kind, ratio, grid)
    both = torch.cat((visible, masked), dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(grid[0] * grid[1] * grid[2]).expand(3, -1))
    assert all((part.diff(dim=1) > 0).all() for part in (visible, masked))


@pytest.mark.parametrize("kind", ["tube", "motion-tube", "motion-half-tube"])
def test_a_tube_is_equal_in_all_slots(kind):
    _, masked = draw(kind)
    places = [set((row[row // 196 == slot] % 196).tolist()) for row in masked for slot in range(8)]
    assert len(places[0]) == 176  # VideoMAE: int(0.9 * 196)
    assert all(places[8 * b] == places[8 * b + slot] for b in range(4) for slot in range(8))


def test_a_frame_mask_hides_whole_slots():
    _, masked = draw("frame")
    for row in masked:
        slots, sizes = (row // 196).unique(return_counts=True)
        assert len(slots) == 7
        assert (sizes == 196).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_clips_mask_depends_on_its_key_alone(kind):
    energy = torch.rand(6, 1568)
    whole = draw(kind, n=6, energy=energy)[1]
    parts = [
        split(KINDS[kind](keys(6)[i : i + 1], GRID, energy[i : i + 1], 1.0), count(kind, 0.9, GRID))[1]
        for i in range(6)
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, draw(kind, n=6, energy=energy, seed=1)[1])


@pytest.mark.parametrize("kind", ["random", "tube"])
def test_every_token_is_hidden_as_often_as_the_ratio_says(kind):
    _, masked = draw(kind, 0.75, 4000, (2, 3, 4))
    rates = torch.bincount(masked.flatten(), minlength=24) / 4000
    assert (rates - 0.75).abs().max() < 0.04


@pytest.mark.parametrize("kind", ["motion", "motion-tube"])
def test_moving_places_are_hidden_more_with_a_positive_weight_and_less_with_a_negative(kind):
    energy = torch.full((2000, 16), 0.01)
    energy[:, [5, 13]] = 0.1  # one place, both slots, of a grid of 2 x 2 x 4
    share = {}
    for weight in (1.0, 0.0, -1.0):
        _, masked = draw(kind, 0.5, 2000, (2, 2, 4), energy, weight)
        share[weight] = (masked == 5).any(1).float().mean().item()
    assert share[1.0] > 0.8
    assert share[0.0] == pytest.approx(0.5, abs=0.05)
    assert share[-1.0] < 0.2


@pytest.mark.parametrize(
    ("kind", "weight", "energy", "chance"),
    [
        ("motion", 1.0, [1.9, 0.1], 1.901 / 2.002),
        ("motion", 2.0, [1.2, 0.8], 1.201**2 / (1.201**2 + 0.801**2)),
        ("motion", 1.0, [1.0, 0.0], 2.001 / 2.002),  # what stands still is rarely hidden, not never
        ("motion-tube", 1.0, [0.3, 0.1, 0.1, 0.1], 2 / 3),  # two slots of two places: means of 0.2 and 0.1
    ],
)
def test_the_chance_to_be_hidden_is_the_energy_over_the_mean_and_a_thousandth_to_the_weight(
    kind, weight, energy, chance
):
    _, masked = draw(kind, 0.5, 4000, (len(energy) // 2, 1, 2), torch.tensor([energy]).expand(4000, -1), weight)
    assert (masked == 0).any(1).float().mean().item() == pytest.approx(
        chance, abs=4 * (chance * (1 - chance) / 4000) ** 0.5
    )


@pytest.mark.parametrize(("kind", "hidden"), [("motion-half", 28), ("motion-half-tube", 7)])
def test_half_of_the_visible_are_moving_wherever_there_are_enough(kind, hidden):
    """Grids of 4 x 3 x 3, ratio 0.78: 8 visible tokens, or 2 visible places, of 9."""
    energy = torch.rand(500, 36) * 0.01
    energy[:, [4, 13, 22, 31, 5, 14, 23, 32]] += 0.1  # two places in all four slots
    visible, masked = draw(kind, 0.78, 500, (4, 3, 3), energy)
    assert masked.shape[1] == hidden * (1 if kind == "motion-half" else 4)
    moving = ((visible % 9 == 4) | (visible % 9 == 5)).float().mean(1)
    assert moving.eq(0.5).all()
    assert len({tuple(row) for row in visible.tolist()}) > 10  # which of them is drawn


def test_what_moves_as_much_as_the_mean_is_still():
    energy = torch.full((200, 4), 1.0)
    energy[:, 0], energy[:, 1] = 2.0, 0.0  # of the mean 1: one moves, three do not
    visible, _ = draw("motion-half", 0.5, 200, (1, 2, 2), energy)
    assert (visible == 0).any(1).all()  # one moving and one still token are seen
    assert visible[:, 1].bincount(minlength=4)[1:].min() > 40


def test_where_few_move_the_still_ones_give_the_rest_and_where_none_does_all_are_alike():
    energy = torch.full((300, 36), 0.01)
    visible, _ = draw("motion-half", 0.5, 300, (4, 3, 3), energy)
    assert torch.bincount(visible.flatten(), minlength=36).float().std() < 20
    energy[:, 7] = 1.0
    visible, _ = draw("motion-half", 0.5, 300, (4, 3, 3), energy)
    assert (visible == 7).any(1).all()
    assert visible.shape[1] == 18


def test_thin_takes_a_share_of_the_masked_and_keeps_their_order():
    _, masked = draw("random", 0.75, 3, (2, 4, 4))
    few = thin(masked, 0.5, keys(3))
    assert few.shape == (3, 12)
    assert (few.diff(dim=1) > 0).all()
    assert all(set(a.tolist()) < set(b.tolist()) for a, b in zip(few, masked, strict=True))
    assert thin(masked, 1.0, keys(3)) is masked


def test_uniform_noise_is_uniform_independent_and_apart_by_stream():
    many = noise.uniform(keys(200), 500, 1)
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean().item() == pytest.approx(0.5, abs=0.005)
    assert many.var().item() == pytest.approx(1 / 12, abs=0.002)
    other = noise.uniform(keys(200), 500, 2)
    pairs = [(many.flatten(), other.flatten()), (many[:, 0], many[:, 1]), (many[0], many[1])]
    correlations = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    assert max(map(abs, correlations)) < 0.2
    assert abs(correlations[0]) < 0.02


def test_normal_noise_is_standard_normal():
    many = noise.normal(keys(200), 500, 3)
    assert many.mean().item() == pytest.approx(0, abs=0.02)
    assert many.std().item() == pytest.approx(1, abs=0.02)
