"""The pretraining objective: its targets, its baselines, what it learns, and that all of it gets a gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from motionmae import noise
from motionmae.config import Decoder, Loss, Mask, Model, Target
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.encoder import to_unit
from motionmae.models.tokens import patchify
from motionmae.objectives.motion import difference, predicted
from motionmae.objectives.reconstruction import (
    Reconstruction,
    heads_of,
)
from motionmae.objectives.scales import denormalise, normalise, scale_by_clip, scale_by_cube
from motionmae.presets import COMMANDS, SIZES

SMALL = Model(
    frames=4, size=32, cube=(2, 8, 8), width=32, depth=2, heads=2, decoder=Decoder(width=24, depth=1, heads=2)
)


def batch_of(count=4, frames=5, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, 3, frames, 4, 4, generator=generator)
    clip = F.interpolate(smooth, (frames, size, size), mode="trilinear")
    return {"clip": (clip * 255).byte(), "key": torch.tensor([noise.key(seed, i) for i in range(count)])}


def objective_of(model=SMALL, mask=None, target=None, loss=None):
    torch.manual_seed(0)
    loss, target = loss or Loss(), target or Target()
    autoencoder = MotionMAE(model, heads_of(loss, target, model.cube))
    return Reconstruction(autoencoder, mask or Mask(kind="random", ratio=0.75), target, loss)


def test_a_cube_is_normalised_over_its_own_numbers_of_each_channel():
    tokens = torch.rand(2, 5, 16 * 3)
    made = normalise(tokens, scale_by_cube(tokens, 0.0))
    one = tokens[1, 2, 1::3]  # the second channel of one cube
    assert torch.allclose(made[1, 2, 1::3], (one - one.mean()) / (one.std(correction=1) + 1e-6), atol=1e-6)


def test_the_floor_keeps_a_flat_cube_flat_and_leaves_a_lively_one():
    flat, lively = 0.5 + 0.001 * torch.randn(1, 1, 48), torch.rand(1, 1, 48)
    assert normalise(flat, scale_by_cube(flat, 0.0)).std() > 0.9
    assert normalise(flat, scale_by_cube(flat, 0.05)).std() < 0.05
    assert normalise(lively, scale_by_cube(lively, 0.05)).std() > 0.9


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("scale", [scale_by_cube, scale_by_clip])
def test_the_floor_is_added_in_quadrature(scale, centred):
    tokens = torch.rand(2, 5, 48)
    bare, floored = scale(tokens, 0.0, centred).std - 1e-6, scale(tokens, 0.4, centred).std - 1e-6
    torch.testing.assert_close(floored, (bare.square() + 0.16).sqrt())


def test_a_clips_scale_keeps_zero_motion_at_zero_and_brightness_apart():
    motion = torch.rand(2, 6, 24)
    motion[:, 0] = 0
    made = normalise(motion, scale_by_clip(motion, 0.0, centred=False))
    assert made[:, 0].abs().max() == 0
    assert torch.allclose(made.unflatten(2, (-1, 3)).square().mean((1, 2)), torch.ones(2, 3), atol=1e-4)
    pixels = torch.rand(2, 6, 24)
    made = normalise(pixels, scale_by_clip(pixels, 0.0, centred=True)).unflatten(2, (-1, 3))
    assert made.mean((1, 2)).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [scale_by_cube, lambda t, f: scale_by_clip(t, f, True)])
def test_denormalise_undoes_normalise(scale):
    tokens = torch.rand(2, 5, 24)
    made = scale(tokens, 0.03)
    assert torch.allclose(denormalise(normalise(tokens, made), made), tokens, atol=1e-5)


def test_raw_targets_are_the_pixels_and_the_differences():
    objective = objective_of(target=Target(appearance="none", motion_normalise="none", motion="signed"))
    batch = batch_of()
    now, after = objective.frames(batch["clip"])
    _, masked = objective.draw(now, after, batch["key"])
    assert torch.equal(
        objective.wanted("appearance", now, after, masked)[0], to_unit(patchify(now, (2, 8, 8), masked), torch.float32)
    )
    whole = patchify(difference(now, after, "signed"), (2, 8, 8), masked)
    assert torch.allclose(objective.wanted("motion", now, after, masked)[0], whole)


@pytest.mark.parametrize("kind", ["mse", "l1", "smooth_l1"])
def test_the_loss_is_the_weighted_sum_of_distances_over_masked_tokens(kind):
    loss = Loss(kind=kind, appearance=0.7, motion=0.2)
    objective, batch = objective_of(loss=loss), batch_of()
    parts = objective(batch)
    now, after = objective.frames(batch["clip"])
    visible, masked = objective.draw(now, after, batch["key"])
    predictions = objective.autoencoder(now, visible, masked)
    slow = {}
    for name in ("appearance", "motion"):
        gap = (predictions[name] - objective.wanted(name, now, after, masked)[0]).abs()
        slow[name] = {"mse": gap**2, "l1": gap, "smooth_l1": torch.where(gap < 1, gap**2 / 2, gap - 0.5)}[kind].mean()
        assert torch.allclose(parts[name], slow[name], atol=1e-6)
    assert torch.allclose(parts["loss"], 0.7 * slow["appearance"] + 0.2 * slow["motion"], atol=1e-6)


@pytest.mark.parametrize("name", ["appearance", "motion"])
@pytest.mark.parametrize("kind", ["absolute", "velocity"])
def test_a_clips_scale_is_that_of_the_whole_clip_whatever_is_predicted(name, kind):
    objective = objective_of(target=Target(appearance="clip", motion=kind, motion_normalise="clip", motion_floor=0.0))
    now, after = objective.frames(batch_of()["clip"])
    every = torch.arange(32).expand(4, -1)
    whole, scale = objective.wanted(name, now, after, every)
    few, same = objective.wanted(name, now, after, every[:, 3:9])
    assert torch.equal(few, whole[:, 3:9])
    assert torch.equal(scale.std, same.std)
    if name == "motion":
        assert torch.allclose(whole.square().mean((1, 2)), torch.ones(4), atol=1e-3)  # no motion is 0, the mean is 1


@pytest.mark.parametrize("kind", ["absolute", "signed", "velocity"])
@pytest.mark.parametrize("normalised", ["cube", "clip", "none"])
@pytest.mark.parametrize("pairs", ["all", "inside", "across"])
def test_each_target_has_a_head_of_its_size_learns_and_is_shown(kind, normalised, pairs):
    target = Target(motion=kind, motion_normalise=normalised, pairs=pairs)
    objective, batch = objective_of(target=target), batch_of()
    frames = 2 if pairs == "all" else 1
    assert objective.autoencoder.decoders[0].heads["motion"].out_features == frames * (2 if kind == "velocity" else 192)
    objective(batch)["loss"].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in objective.parameters())
    shown = objective.pictures(batch)
    assert shown["motion"].shape == shown["predicted_motion"].shape == (4, 2 if kind == "velocity" else 3, 4, 32, 32)
    truth, predicted = (patchify(shown[name], (1, 8, 8)) for name in ("motion", "predicted_motion"))
    left = {"all": [], "inside": [1, 3], "across": [0, 2]}[pairs]
    for frame in range(4):
        same = torch.equal(truth[:, frame * 16 : frame * 16 + 16], predicted[:, frame * 16 : frame * 16 + 16])
        assert same == (frame in left)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_second_time_head_learns_its_own_target_beside_the_first(kind):
    target = Target(motion="signed", second="velocity", second_normalise="none")
    model, loss = replace(SMALL, decoder=replace(SMALL.decoder, kind=kind)), Loss(motion=0.5, second=0.25)
    objective, batch = objective_of(model, target=target, loss=loss), batch_of()
    assert len(objective.autoencoder.decoders) == (1 if kind == "shared" else 3)
    parts = objective(batch)
    assert torch.allclose(parts["loss"], parts["appearance"] + 0.5 * parts["motion"] + 0.25 * parts["second"])
    alone = objective_of(model, target=Target(motion="velocity", motion_normalise="none"))
    now, after = objective.frames(batch["clip"])
    ids = torch.arange(32).expand(4, -1)
    assert torch.equal(objective.wanted("second", now, after, ids)[0], alone.wanted("motion", now, after, ids)[0])
    shown = objective.pictures(batch)
    assert shown["second"].shape == shown["predicted_second"].shape == (4, 2, 4, 32, 32)
    assert shown["motion"].shape[1] == 3
    assert "second" not in objective_of()(batch)


def test_a_velocity_on_its_cubes_scale_is_a_direction():
    objective = objective_of(target=Target(motion="velocity", pairs="across", motion_floor=0.0))
    now, after = objective.frames(batch_of()["clip"])
    wanted, _ = objective.wanted("motion", now, after, torch.arange(32).expand(4, -1))
    assert torch.allclose(wanted.square().sum(2), torch.tensor(2.0), atol=1e-2)


@pytest.mark.parametrize("kind", ["absolute", "velocity"])
@pytest.mark.parametrize("adjacent", ["clip", "video"])
def test_nothing_is_learnt_across_the_seam_of_a_video_that_starts_again(kind, adjacent):
    """Frames 2, 3, 0, 1, and then 2: between 3 and 0 the video starts again."""
    objective = objective_of(target=Target(motion=kind, adjacent=adjacent, motion_normalise="clip"))
    numbers = torch.tensor([2, 3, 0, 1, 2] if adjacent == "clip" else [2, 3, 0, 1, 3, 0, 1, 2]).expand(4, -1)
    batch = batch_of(frames=numbers.shape[1]) | {"numbers": numbers}
    now, after, whole = objective.pairs(batch)
    assert whole.tolist() == [[True, False, True, True]] * 4
    assert torch.equal(now[:, :, 1], after[:, :, 1])
    assert not torch.equal(now[:, :, 0], after[:, :, 0])
    masked = torch.arange(32).expand(4, -1)
    kept = predicted(whole, masked, (2, 4, 4), (2, 8, 8), objective.target)
    each = 2 if kind == "velocity" else 192
    assert kept[0, 3].tolist() == [True] * each + [False] * each
    assert kept[:, 16:].all()
    bias = objective.autoencoder.decoders[0].heads["motion"].bias
    objective.draw = lambda now, after, keys: (masked[:, 16:], masked[:, :16])  # the first slot alone is hidden
    objective(batch)["loss"].backward()
    assert bias.grad is not None
    assert bias.grad[:each].abs().min() > 0
    assert bias.grad[each:].abs().max() == 0


def test_a_ratio_is_the_loss_over_what_the_trivial_prediction_costs():
    objective, batch = objective_of(), batch_of()
    parts = objective(batch)
    now, after = objective.frames(batch["clip"])
    _, masked = objective.draw(now, after, batch["key"])
    wanted, _ = objective.wanted("motion", now, after, masked)
    assert torch.allclose(parts["motion_ratio"], parts["motion"] / wanted.square().mean())
    wanted, _ = objective.wanted("appearance", now, after, masked)
    around = (wanted - wanted.mean((0, 1))).square().mean()
    assert torch.allclose(parts["appearance_ratio"], parts["appearance"] / around)


@pytest.mark.parametrize(("loss", "left"), [(Loss(motion=0.0), "appearance"), (Loss(appearance=0.0), "motion")])
def test_a_weight_of_zero_leaves_that_head_out_altogether(loss, left):
    objective = objective_of(loss=loss)
    parts = objective(batch_of())
    assert set(parts) == {"loss", left, f"{left}_ratio"}
    assert not [name for name, _ in objective.named_parameters() if "heads" in name and left not in name]


def test_no_weight_at_all_is_refused():
    with pytest.raises(MotionMAEError, match="both 0"):
        objective_of(loss=Loss(appearance=0.0, motion=0.0))


@pytest.mark.parametrize(("kind", "ratio"), [("tube", 0.01), ("frame", 0.4), ("random", 0.005)])
def test_a_ratio_that_hides_none_or_all_is_refused_before_any_work(kind, ratio):
    with pytest.raises(MotionMAEError, match="none or all"):
        objective_of(mask=Mask(kind=kind, ratio=ratio))


@pytest.mark.parametrize("attention", ["self", "cross"])
@pytest.mark.parametrize("decoder", ["shared", "separate"])
@pytest.mark.parametrize("kind", ["tube", "random", "frame", "motion", "motion-tube"])
def test_every_parameter_gets_a_gradient(attention, decoder, kind):
    model = replace(SMALL, positions="learned", decoder=replace(SMALL.decoder, kind=decoder, attention=attention))
    objective = objective_of(model, Mask(kind=kind, ratio=0.5, decode_ratio=0.5))
    objective(batch_of())["loss"].backward()
    assert [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_hidden_pixels_do_not_reach_the_prediction():
    objective, batch = objective_of(), batch_of()
    now, after = objective.frames(batch["clip"])
    visible, masked = objective.draw(now, after, batch["key"])
    predicted = objective.autoencoder(now, visible, masked)["appearance"]
    from motionmae.models.tokens import clip_grid, put, unpatchify

    tokens = patchify(now, (2, 8, 8))
    other = put(tokens, masked, torch.randint(0, 256, (4, masked.shape[1], tokens.shape[2]), dtype=torch.uint8))
    changed = unpatchify(other, (2, 8, 8), clip_grid(now, (2, 8, 8)))
    assert torch.equal(objective.autoencoder(changed, visible, masked)["appearance"], predicted)


def test_predicting_a_share_gives_the_same_predictions_where_masks_see_only_the_visible():
    objective, batch = objective_of(mask=Mask(kind="random", ratio=0.75, decode_ratio=0.25)), batch_of()
    parts = objective(batch)
    assert torch.isfinite(parts["loss"])
    whole = objective_of()(batch)
    assert parts["appearance"] != whole["appearance"]


@pytest.mark.parametrize("target", [Target(appearance_floor=0.05), Target(appearance="clip", motion_normalise="clip")])
def test_one_batch_is_learnt_far_below_the_trivial_predictions_by_both_heads(target):
    objective, batch = objective_of(target=target), batch_of()
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-3)
    for _ in range(150):
        parts = objective(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
    assert parts["appearance_ratio"] < 0.5
    assert parts["motion_ratio"] < 0.7


def test_pictures_show_the_input_where_visible_and_grey_where_hidden():
    objective, batch = objective_of(), batch_of()
    shown = objective.pictures(batch)
    now, after = objective.frames(batch["clip"])
    visible, masked = objective.draw(now, after, batch["key"])
    assert set(shown) >= {"input", "masked", "motion", "predicted_appearance", "predicted_motion"}
    pixels = {name: patchify(value, (2, 8, 8), visible) for name, value in shown.items()}
    assert torch.allclose(pixels["input"], pixels["masked"])
    assert torch.allclose(pixels["input"], pixels["predicted_appearance"])
    assert torch.allclose(patchify(shown["masked"], (2, 8, 8), masked), torch.tensor(0.5))
    assert torch.allclose(shown["motion"], difference(now, after, "absolute"), atol=1e-6)


# Encoder and whole autoencoder, in millions: what README states.
COUNTS = {
    "tiny": (0.84, 1.0),
    "small": (21.88, 24.33),
    "base": (86.23, 94.80),
    "large": (303.86, 318.57),
    "huge": (631.61, 654.09),
}


@pytest.mark.parametrize("size", sorted(SIZES))
def test_sizes_have_the_parameters_that_the_readme_states(size):
    with torch.device("meta"):
        autoencoder = MotionMAE(SIZES[size])
    encoder, whole = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (autoencoder.encoder, autoencoder))
    assert (round(encoder, 2), round(whole, 2)) == COUNTS[size]


def test_every_pretraining_preset_is_made_of_whole_cubes_and_tubes():
    for name, preset in COMMANDS["pretrain"].choices.items():
        model = preset.model
        assert model.frames % model.cube[0] == 0, name
        assert model.size % model.cube[1] == 0, name
        assert model.width % model.heads == 0, name
        assert model.decoder.width % model.decoder.heads == 0, name
