"""Augmentation is PIL's, the same for all frames of a clip, and depends on a clip's key alone."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from motionmae.config import Augment
from motionmae.data import transforms
from motionmae.data.transforms import OPERATIONS, augment, erase, randaugment

KEYS = torch.arange(1, 7)
B, T, H, W = 6, 3, 32, 40


@pytest.fixture
def clip() -> Tensor:
    """Smooth colours with a few hard edges, as uint8 [b c t h w]; every clip different."""
    made = torch.Generator().manual_seed(0)
    small = torch.rand(B * T, 3, 5, 6, generator=made)
    frames = torch.nn.functional.interpolate(small, (H, W), mode="bilinear") * 200 + 20
    frames[:, :, 8:16, 10:20] += 30
    return frames.view(B, T, 3, H, W).transpose(1, 2).round().byte().contiguous()


def as_image(one: Tensor) -> Image.Image:
    """A clip [c t h w] as one tall picture, so that PIL's statistics are those of the clip."""
    return Image.fromarray(one.permute(1, 2, 3, 0).reshape(T * H, W, 3).numpy())


def as_clip(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).view(T, H, W, 3).permute(3, 0, 1, 2).float()


PIL_SAYS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda p, m: ImageOps.autocontrast(p),
    "equalize": lambda p, m: ImageOps.equalize(p),
    "invert": lambda p, m: ImageOps.invert(p),
    "posterize": lambda p, m: ImageOps.posterize(p, max(1, 4 - int(4 * m))),
    "solarize": lambda p, m: ImageOps.solarize(p, 256 - int(256 * m)),
    "solarize_add": lambda p, m: p.point([min(255, v + int(110 * m)) if v < 128 else v for v in range(256)] * 3),
    "saturation": lambda p, m: ImageEnhance.Color(p).enhance(1 + 0.9 * m),
    "contrast": lambda p, m: ImageEnhance.Contrast(p).enhance(1 + 0.9 * m),
    "brightness": lambda p, m: ImageEnhance.Brightness(p).enhance(1 + 0.9 * m),
}


@pytest.mark.parametrize("name", PIL_SAYS)
def test_colour_operations_are_those_of_pil(name: str, clip: Tensor):
    strengths, signs = torch.tensor([0.0, 0.3, 0.5, 0.7, 0.9, 1.0]), torch.tensor([1.0, 1, -1, 1, -1, 1])
    signed = name in ("saturation", "contrast", "brightness")
    made = OPERATIONS[name](clip.float(), strengths, signs)
    for one, found, m, s in zip(clip, made, strengths.tolist(), signs.tolist(), strict=True):
        expected = as_clip(PIL_SAYS[name](as_image(one), m * s if signed else m))
        assert (found - expected).abs().max() <= 2, (name, m)


def per_frame(one: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    frames = [np.asarray(change(Image.fromarray(frame.permute(1, 2, 0).numpy()))) for frame in one.unbind(1)]
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float()


def test_sharpness_is_that_of_pil(clip: Tensor):
    made = transforms.sharpness(clip.float(), torch.tensor([0.1, 0.5, 1.0, 1.5, 1.9, 1.3]))
    for one, found, factor in zip(clip, made, (0.1, 0.5, 1.0, 1.5, 1.9, 1.3), strict=True):
        assert (found - per_frame(one, lambda p, f=factor: ImageEnhance.Sharpness(p).enhance(f))).abs().max() <= 2


MOVES = {
    "rotate": lambda m: (np.cos(a := np.deg2rad(30 * m)), -np.sin(a), 0, np.sin(a), np.cos(a), 0),
    "shear_x": lambda m: (1, 0.3 * m, 0, 0, 1, 0),
    "shear_y": lambda m: (1, 0, 0, 0.3 * m, 1, 0),
    "translate_x": lambda m: (1, 0, 0.45 * m * W, 0, 1, 0),
    "translate_y": lambda m: (1, 0, 0, 0, 1, 0.45 * m * H),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_those_of_pil(name: str, clip: Tensor):
    strengths, signs = torch.tensor([0.0, 0.3, 0.5, 0.7, 0.9, 1.0]), torch.tensor([1.0, 1, -1, 1, -1, 1])
    made = OPERATIONS[name](clip.float(), strengths, signs)
    ones = OPERATIONS[name](torch.full_like(clip, 255).float(), strengths, signs)
    for one, found, whole, m in zip(clip, made, ones, (strengths * signs).tolist(), strict=True):
        a, b, c, d, e, f = MOVES[name](m)
        middle = (a, b, c + W / 2 - a * W / 2 - b * H / 2, d, e, f + H / 2 - d * W / 2 - e * H / 2)
        expected = per_frame(
            one, lambda p, k=middle: p.transform(p.size, Image.Transform.AFFINE, k, Image.Resampling.BILINEAR)
        )
        inside = (whole == 255) & (expected.sum(0) > 0)
        assert inside.float().mean() > 0.4
        assert (found - expected)[inside].abs().max() <= 2
    fill = torch.tensor(transforms.FILL)[:, None]
    if name == "translate_x":
        assert torch.allclose(made[5, :, 0, :, -1], fill.expand(3, H), atol=1e-3)


def test_hue_turns_as_colorsys_says(clip: Tensor):
    turns = torch.tensor([0.0, 0.1, -0.2, 0.5, 0.33, -0.45])
    made = transforms.hue(clip.float(), turns)
    for one, found, turn in zip(clip, made, turns.tolist(), strict=True):
        for y, x in ((0, 0), (9, 12), (31, 39), (20, 5)):
            h, s, v = colorsys.rgb_to_hsv(*(one[:, 1, y, x].float() / 255).tolist())
            expected = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * 255
            assert torch.allclose(found[:, 1, y, x], expected, atol=0.05)


EVERYTHING = Augment(4, 7.0, 0.5, 1.0, 0.4, 0.4, 0.4, 0.1, 0.5)


def test_a_clip_is_augmented_alike_in_any_batch(clip: Tensor):
    whole = augment(clip, KEYS, EVERYTHING)
    assert whole.dtype == torch.float32
    assert 0 <= whole.min() <= whole.max() <= 1
    for at in range(B):
        assert torch.equal(augment(clip[at : at + 1], KEYS[at : at + 1], EVERYTHING)[0], whole[at])
    assert not torch.equal(augment(clip[:1], KEYS[1:2], EVERYTHING)[0], whole[0])


def test_still_clips_stay_still(clip: Tensor):
    still = clip[:, :, :1].expand(-1, -1, T, -1, -1)
    for seed in range(5):
        made = augment(still, KEYS + 10 * seed, EVERYTHING)
        assert torch.allclose(made[:, :, 0], made[:, :, 2], atol=1e-5)
        assert torch.allclose(made[:, :, 0], made[:, :, 1], atol=1e-5)


def test_nothing_asked_changes_nothing(clip: Tensor):
    assert torch.equal(augment(clip, KEYS, Augment()), clip.float() / 255)
    assert torch.equal(augment(clip, KEYS, Augment(layers=3, chance=0.0)), clip.float() / 255)
    assert torch.allclose(augment(clip.float() / 255, KEYS, Augment()), clip.float() / 255)


def test_every_operation_is_drawn_equally_often(monkeypatch: pytest.MonkeyPatch):
    counts = dict.fromkeys(OPERATIONS, 0)

    def count(name: str):
        def operation(clip: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
            counts[name] += len(clip)
            assert (strength - 0.7).abs().max() < 0.3
            return clip

        return operation

    monkeypatch.setattr(transforms, "OPERATIONS", {name: count(name) for name in OPERATIONS})
    randaugment(torch.zeros(3000, 3, 1, 1, 1), torch.arange(3000), Augment(layers=2, chance=0.5))
    assert sum(counts.values()) == pytest.approx(3000, rel=0.05)
    assert all(count == pytest.approx(200, rel=0.3) for count in counts.values())


def test_erased_boxes_have_the_area_asked_for_and_hold_noise():
    keys = torch.arange(400)
    made = erase(torch.full((400, 3, 2, 24, 24), -1.0), keys, 0.5, (0.1, 0.3))
    inside = (made >= 0).all(1).all(1).float().mean((1, 2))
    assert (inside > 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert 0.07 < inside[inside > 0].min() < 0.13
    assert 0.25 < inside.max() < 0.34
    assert torch.equal(made[:, :, 0], made[:, :, 1])
    assert made[made >= 0].std() == pytest.approx(255 / 12**0.5, rel=0.05)


def test_strengths_are_normal_around_the_magnitude_and_stay_in_range(monkeypatch: pytest.MonkeyPatch):
    """timm's "mstd": the magnitude of an operation is drawn from a normal distribution, then cut to [0, 10]."""
    seen: list[Tensor] = []
    monkeypatch.setattr(transforms, "OPERATIONS", {"one": lambda clip, m, s: seen.append(m) or clip})
    keys = torch.arange(4000)
    for spread in (0.0, 0.5, 20.0):
        randaugment(torch.zeros(len(keys), 3, 1, 1, 1), keys, Augment(1, 7.0, spread, 1.0))
    fixed, published, wide = (10 * values for values in seen)
    assert torch.allclose(fixed, torch.tensor(7.0))
    assert published.mean().item() == pytest.approx(7.0, abs=0.03)
    assert published.std().item() == pytest.approx(0.5, rel=0.05)
    assert (wide.min().item(), wide.max().item()) == (0.0, 10.0)


@pytest.mark.gpu
def test_the_device_draws_the_same(clip: Tensor):
    here, there = augment(clip, KEYS, EVERYTHING), augment(clip.cuda(), KEYS.cuda(), EVERYTHING).cpu()
    assert (here - there).abs().mean() < 2e-3
