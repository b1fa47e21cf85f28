from __future__ import annotations

import pytest
import torch

from motionmae.config import Model
from motionmae.errors import MotionMAEError
from motionmae.inference.dense import clip_times, dense_features, pixel_features
from motionmae.models.encoder import VideoEncoder


def encoder() -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(Model(frames=4, size=32, cube=(2, 8, 8), width=32, depth=2, heads=2)).eval()


def clips(count: int = 1, frames: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, frames, 32, 48), generator=torch.Generator().manual_seed(1)).byte()


def test_how_a_frame_enters_a_cube():
    assert clip_times("repeat", 5, 9, 2, 8) == ([5, 5], 0)
    assert clip_times("pair", 5, 9, 2, 8) == ([4, 5], 0)
    assert clip_times("pair", 0, 9, 2, 8) == ([0, 0], 0)
    assert clip_times("window", 5, 20, 2, 8) == ([0, 1, 2, 3, 4, 5, 6, 7], 2)
    assert clip_times("window", 8, 9, 2, 8) == ([3, 4, 5, 6, 7, 8, 8, 8], 2)
    assert clip_times("window", 0, 1, 2, 4) == ([0] * 4, 1)


@pytest.mark.parametrize("time", range(6))
def test_in_a_window_the_frame_is_the_last_of_its_own_slot(time):
    times, slot = clip_times("window", time, 6, 2, 4)
    assert len(times) == 4
    assert times[slot * 2 + 1] == time


@torch.no_grad()
def test_at_the_cube_side_features_are_the_tokens_of_the_slot():
    model, batch = encoder(), clips(2, 4)
    tokens = model(batch).unflatten(1, (2, 4, 6))
    for slot in (0, 1):
        torch.testing.assert_close(dense_features(model, batch, slot, 8, 2), tokens[:, slot])


@torch.no_grad()
def test_layers_count_from_the_embedding_and_others_are_refused():
    model, batch = encoder(), clips()
    first = model.norm(model.blocks[0](model.tokens(batch))).unflatten(1, (1, 4, 6))[:, 0]
    for layer in (1, None):  # of two the first is the middle one
        torch.testing.assert_close(dense_features(model, batch, 0, 8, layer), first)
    embedding = model.norm(model.tokens(batch)).unflatten(1, (1, 4, 6))[:, 0]
    torch.testing.assert_close(dense_features(model, batch, 0, 8, 0), embedding)
    with pytest.raises(MotionMAEError, match=r"layer is 3: the encoder has the layers 0 to 2"):
        dense_features(model, batch, 0, 8, 3)


@torch.no_grad()
def test_a_cell_of_a_shifted_pass_sees_the_cube_around_its_centre():
    frames = torch.arange(24).repeat(16, 1).byte()[None, None].repeat(1, 3, 1, 1)  # brightness is the column's number
    values = (pixel_features(frames, patch=8, stride=4).mean(-1)[0] + 0.5) * 255
    assert values.shape == (4, 6)
    torch.testing.assert_close(values[1, 1:5], 4 * torch.arange(1, 5) + 1.5)


@torch.no_grad()
def test_shifted_passes_of_an_image_are_passes_over_the_shifted_image():
    model = encoder()
    batch = clips()
    fine = dense_features(model, batch, 0, 4, None)
    assert fine.shape == (1, 8, 12, 32)
    padded = torch.nn.functional.pad(batch.flatten(1, 2).float(), (2, 2, 2, 2), mode="replicate").byte()
    shifted = padded.unflatten(1, (3, 2))[..., 4:36, 0:48]
    torch.testing.assert_close(fine[:, 1::2, 0::2], dense_features(model, shifted, 0, 8, None))


def test_a_stride_that_does_not_divide_the_cube_is_refused():
    with pytest.raises(MotionMAEError, match=r"stride is 3: it must divide the cube's side, 8x8"):
        dense_features(encoder(), clips(), 0, 3, None)
