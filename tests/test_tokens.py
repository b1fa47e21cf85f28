"""Tokens: cutting and joining lose nothing, and positions fit any grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motionmae.errors import MotionMAEError
from motionmae.models.tokens import (
    Positions,
    clip_grid,
    grid_of,
    patchify,
    positions_table,
    put,
    sincos1d,
    sincos3d,
    take,
    unpatchify,
)

sides = st.integers(1, 4)


@settings(deadline=None, max_examples=25)
@given(sides, sides, sides, sides, sides, sides)
def test_unpatchify_undoes_patchify(tn, hn, wn, tp, hp, wp):
    clip = torch.randint(0, 256, (2, 3, tn * tp, hn * hp, wn * wp), dtype=torch.uint8)
    tokens = patchify(clip, (tp, hp, wp))
    assert tokens.shape == (2, tn * hn * wn, tp * hp * wp * 3)
    assert torch.equal(unpatchify(tokens, (tp, hp, wp), (tn, hn, wn)), clip)


def test_patchify_of_some_tokens_is_take_of_all():
    clip = torch.rand(3, 3, 4, 16, 24)
    ids = torch.stack([torch.randperm(2 * 4 * 6)[:7] for _ in range(3)])
    assert torch.equal(patchify(clip, (2, 4, 4), ids), take(patchify(clip, (2, 4, 4)), ids))


def test_a_token_holds_its_pixels_in_frame_row_column_channel_order():
    clip = torch.arange(3 * 2 * 4 * 4).reshape(1, 3, 2, 4, 4)
    token = patchify(clip, (2, 2, 2))[0, 1]  # first slot, first row, second column
    assert torch.equal(token, clip[0, :, :, 0:2, 2:4].permute(1, 2, 3, 0).flatten())


def test_take_undoes_put_and_leaves_the_rest():
    base, values = torch.zeros(2, 6, 3), torch.rand(2, 2, 3)
    ids = torch.tensor([[1, 4], [0, 5]])
    changed = put(base, ids, values)
    assert torch.equal(take(changed, ids), values)
    assert changed.sum() == pytest.approx(values.sum().item())
    assert base.sum() == 0


@pytest.mark.parametrize(("name", "sizes"), [("frames", (3, 8, 8)), ("height", (4, 9, 8)), ("width", (4, 8, 12))])
def test_a_side_that_is_no_multiple_of_the_cube_is_named(name, sizes):
    with pytest.raises(MotionMAEError, match=name):
        grid_of(*sizes, (2, 8, 8))


def test_sincos1d_is_the_slow_definition():
    table = sincos1d(5, 6)
    for position in range(5):
        for column in range(6):
            angle = torch.tensor(position / 10000 ** (2 * (column // 2) / 6), dtype=torch.float64)
            value = angle.sin() if column % 2 == 0 else angle.cos()
            assert table[position, column].item() == pytest.approx(value.item(), abs=1e-6)


@pytest.mark.parametrize("width", [12, 64, 128, 192, 384, 768, 1280])
def test_sincos3d_tells_all_places_apart_and_each_axis_has_its_own_columns(width):
    table = sincos3d((4, 3, 5), width)
    assert table.shape == (60, width)
    assert torch.cdist(table, table).add(torch.eye(60) * 9).min() > 1e-2
    same_slot = table.unflatten(0, (4, 3, 5))
    share = width // 3 // 2 * 2
    assert torch.equal(same_slot[:, 0, 0, width - 2 * share :], same_slot[:1, 0, 0, width - 2 * share :].expand(4, -1))


@pytest.mark.parametrize("kind", ["sincos3d", "sincos1d", "learned"])
def test_positions_of_the_own_grid_are_the_table_and_of_another_are_interpolated(kind):
    positions = Positions(kind, (2, 3, 3), 12)
    assert positions((2, 3, 3)) is positions.table
    assert positions((4, 6, 5)).shape == (120, 12)
    assert bool(list(positions.parameters())) == (kind == "learned")


def test_interpolated_positions_keep_the_middle_of_the_clip():
    positions = Positions("sincos3d", (2, 3, 3), 12)
    assert torch.allclose(positions((2, 9, 9)).unflatten(0, (2, 9, 9))[0, 4, 4], positions.table[4])


@pytest.mark.parametrize("kind", ["sincos3d", "learned"])
def test_positions_between_tokens_lie_on_the_line_between_them(kind):
    """Trilinear between the centres of tokens, the border held: along rows that is a line's interpolation."""
    positions = Positions(kind, (1, 3, 1), 4)
    with torch.no_grad():
        positions.table.copy_(torch.tensor([[0.0], [10.0], [40.0]]).expand(3, 4))
    found = positions((1, 6, 1))[:, 0].tolist()
    assert found == pytest.approx([0.0, 2.5, 7.5, 17.5, 32.5, 40.0])


def test_of_the_columns_each_axis_has_a_third_and_time_what_is_left():
    """Of 44: 16, 14 and 14, even numbers, in the order of time, rows, columns."""
    table = sincos3d((3, 4, 5), 44)
    for axis, columns in enumerate((slice(0, 16), slice(16, 30), slice(30, 44))):
        side = (3, 4, 5)[axis]
        place = torch.cartesian_prod(*(torch.arange(n) for n in (3, 4, 5)))[:, axis]
        assert torch.equal(table[:, columns], sincos1d(side, columns.stop - columns.start)[place])


def test_positions_without_a_grid_are_made_for_the_grid_at_hand():
    positions = Positions("sincos1d", None, 8)
    assert torch.equal(positions((2, 2, 2)), positions_table("sincos1d", (2, 2, 2), 8))
    with pytest.raises(MotionMAEError, match="learned"):
        Positions("learned", None, 8)


def test_clip_grid_counts_tokens():
    assert clip_grid(torch.zeros(1, 3, 4, 16, 24), (2, 8, 8)) == (2, 2, 3)


def test_sines_over_the_index_are_made_anew_for_another_grid():
    positions = Positions("sincos1d", (8, 14, 14), 24)
    assert torch.equal(positions((8, 30, 52)), sincos1d(8 * 30 * 52, 24))
    assert torch.equal(positions((16, 14, 14))[: 8 * 14 * 14], positions((8, 14, 14)))
