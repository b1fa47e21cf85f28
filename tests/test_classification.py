"""The fine-tuning objective against its parts' definitions, other programs' numbers and slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from motionmae.config import Mix, Model, Optim
from motionmae.errors import MotionMAEError
from motionmae.models.blocks import Block
from motionmae.models.classifier import Classifier, read_classifier
from motionmae.objectives.classification import Classification, beta, boxes, mix, partners, smooth
from motionmae.training.optim import parameter_groups

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)
NAMES = ("a", "b", "c", "d")


def batch_of(count: int, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    clip = torch.randint(0, 256, (count, 3, 4, 16, 16), generator=random, dtype=torch.uint8)
    return {"clip": clip, "label": torch.arange(count) % 4, "key": torch.arange(count) * 7919 + seed}


def test_videomae_finetuning_checkpoint_gives_its_golden_logits(shared):
    folder = shared / "golden" / "videomae_tiny"
    expected = load_file(folder / "expected.safetensors")
    classifier, _ = read_classifier(folder / "finetune-checkpoint.pth", heads=3)
    with torch.no_grad():
        found = classifier(expected["clip_uint8_bcthw"])
        objective = Classification(classifier, Mix()).eval()
        torch.testing.assert_close(objective.logits(expected["clip_uint8_bcthw"]), found)
    torch.testing.assert_close(found, expected["finetune_logits_bc"], atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transformers_classifier_gives_its_logits_and_the_names_of_its_classes(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, decoder_num_attention_heads=2, decoder_hidden_size=12, decoder_num_hidden_layers=1,
        decoder_intermediate_size=24, id2label={0: "wave", 1: "bend", 2: "jump"},
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    theirs.save_pretrained(tmp_path)
    clip = torch.rand(2, 3, 4, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((clip - mean[:, None, None, None]) / std[:, None, None, None]).transpose(1, 2)
    ours, _ = read_classifier(tmp_path)
    assert ours.names == ("wave", "bend", "jump")
    with torch.no_grad():  # the LayerNorm before their head has eps 1e-5, ours 1e-6
        torch.testing.assert_close(ours(clip), theirs(pixels).logits, atol=1e-3, rtol=1e-3)


def test_a_checkpoint_without_a_head_is_refused_by_name(shared):
    with pytest.raises(MotionMAEError, match=r"pretrain-checkpoint\.pth.*finetune"):
        read_classifier(shared / "golden" / "videomae_tiny" / "pretrain-checkpoint.pth", heads=3)


def test_a_new_head_holds_all_classes_for_about_equally_likely():
    scores = Classifier(SMALL, NAMES)(batch_of(4)["clip"]).softmax(1)
    torch.testing.assert_close(scores, torch.full_like(scores, 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_beta_follows_the_distribution_of_that_name(alpha):
    draws = (torch.arange(20_000) + 0.5) / 20_000
    found = beta(draws, alpha)
    assert found.min() >= 0
    assert found.max() <= 1
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.beta(alpha, alpha).ppf(draws.numpy())
    assert np.abs(found.numpy() - wanted).max() < 5e-4


def test_smoothed_targets_sum_to_one_and_keep_their_class():
    targets = smooth(torch.tensor([2, 0]), 4, 0.1)
    torch.testing.assert_close(targets[0], torch.tensor([0.025, 0.025, 0.925, 0.025]))
    torch.testing.assert_close(targets.sum(1), torch.ones(2))


@pytest.mark.parametrize("config", [Mix(0.8, 0.0, 0.0), Mix(0.0, 1.0, 0.0), Mix(0.8, 1.0, 0.0)])
def test_a_target_has_the_share_of_each_clip_that_is_in_the_pixels(config):
    """Clip i is everywhere i, so its mixture's mean tells how much of each clip is in it."""
    count = 64
    clip = torch.arange(count).float()[:, None, None, None, None].expand(-1, 3, 2, 32, 48).contiguous()
    targets = torch.eye(count)
    mixed, found = mix(clip, targets, torch.arange(count), config)
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), (found * torch.arange(count)).sum(1), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(count))
    blended = torch.tensor([len(one.unique()) == 1 for one in mixed])
    assert blended.any() == (config.mixup > 0)
    assert (~blended).any() == (config.cutmix > 0)


def test_cutmix_puts_the_same_box_into_every_frame():
    clip = torch.rand(8, 3, 4, 16, 16)
    mixed, _ = mix(clip, torch.eye(8), torch.arange(8), Mix(0.0, 1.0))
    taken = (mixed != clip).any(1)
    assert taken.any()
    assert torch.equal(taken, taken[:, :1].expand_as(taken))
    other = clip[[1, 0, 3, 2, 5, 4, 7, 6]]
    assert torch.equal(mixed[taken[:, None].expand_as(mixed)], other[taken[:, None].expand_as(mixed)])


def test_boxes_equal_their_definition_pixel_by_pixel():
    draws, share = torch.tensor([[0.5, 0.5], [0.0, 0.99]]), torch.tensor([0.25, 0.5])
    found = boxes(draws, share, 10, 20)
    for at in range(2):
        side = [math.floor(length * math.sqrt(share[at]) / 2) for length in (10, 20)]
        centre = [math.floor(float(draws[at, axis]) * length) for axis, length in enumerate((10, 20))]
        for row in range(10):
            for column in range(20):
                inside = all(c - s <= p < c + s for p, c, s in zip((row, column), centre, side, strict=True))
                assert found[at, row, column] == inside


def test_of_mixup_and_cutmix_each_clip_has_one_with_equal_chance():
    """timm's mixup_switch_prob of 0.5, which VideoMAE's fine-tuning has; one alone is had by every clip."""
    count = 1000
    clip = (torch.arange(count) % 2).float()[:, None, None, None, None].expand(-1, 1, 1, 8, 8).clone()
    targets, keys = torch.eye(2)[torch.arange(count) % 2], torch.arange(count)

    def boxed(config: Mix) -> float:
        """The share of clips whose pixels are all of one clip or the other."""
        mixed, _ = mix(clip, targets, keys, config)
        return ((mixed == 0) | (mixed == 1)).flatten(1).all(1).float().mean().item()

    assert boxed(Mix(0.8, 1.0)) == pytest.approx(0.5, abs=0.05)
    assert boxed(Mix(0.8, 0.0)) < 0.02
    assert boxed(Mix(0.0, 1.0)) == 1.0


def test_mixing_depends_on_the_keys_alone():
    batch = batch_of(6)
    clip, targets = batch["clip"].float() / 255, smooth(batch["label"], 4, 0.1)
    first, again = (mix(clip, targets, batch["key"], Mix()) for _ in range(2))
    other = mix(clip, targets, batch["key"] + 1, Mix())
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_partners_pair_neighbouring_videos_and_never_a_video_with_itself():
    assert partners(7, 1).tolist() == [1, 0, 3, 2, 5, 4, 6]
    assert partners(8, 2).tolist() == [3, 2, 1, 0, 7, 6, 5, 4]
    for repeats in (1, 2, 3):
        partner, video = partners(12 * repeats, repeats), torch.arange(12 * repeats) // repeats
        assert (video[partner] != video).all()
        assert torch.equal(partner[partner], torch.arange(12 * repeats))


@pytest.mark.parametrize(("repeats", "micro"), [(1, 2), (1, 4), (2, 4)])
def test_accumulated_micro_batches_are_mixed_as_the_joined_batch(repeats, micro):
    objective = Classification(Classifier(SMALL, NAMES), Mix(), repeats=repeats)
    with torch.no_grad():
        objective.head.linear.weight.normal_()
    batch, gradients = batch_of(8), []
    for size in (8, micro):
        objective.zero_grad()
        for at in range(0, 8, size):
            part = objective({name: value[at : at + size] for name, value in batch.items()})
            (part["loss"] * size / 8).backward()
        gradients.append([value.grad for value in objective.parameters()])
    for joined, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, joined, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", [Mix(0.8, 0.0, 0.0), Mix(0.0, 1.0, 0.0)])
def test_either_way_to_mix_alone_is_enough_to_be_mixed(config):
    classifier = Classifier(SMALL, ("a", "b"))
    batch = {"clip": torch.rand(4, 3, 4, 16, 16), "label": torch.tensor([0, 1, 0, 1]), "key": torch.arange(4)}
    seen = []
    classifier.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    Classification(classifier, config).train()(batch)
    assert not torch.equal(seen[0], batch["clip"])


def test_nothing_is_mixed_or_augmented_in_eval_mode():
    def never(clip, keys):
        raise AssertionError

    objective = Classification(Classifier(SMALL, NAMES), Mix(smoothing=0.0), never).eval()
    batch = batch_of(4)
    wanted = torch.nn.functional.cross_entropy(objective.logits(batch["clip"]), batch["label"])
    torch.testing.assert_close(objective(batch)["loss"], wanted)


def test_one_batch_is_learnt_by_heart():
    torch.manual_seed(0)
    objective = Classification(Classifier(SMALL, NAMES), Mix(0.0, 0.0, 0.0))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    batch = batch_of(8)
    for _ in range(60):
        parts = objective(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
    assert parts["top1"] == 1
    assert parts["loss"] < 0.1


def test_every_parameter_gets_a_gradient():
    objective = Classification(Classifier(SMALL, NAMES, 0.0, 0.0), Mix())
    with torch.no_grad():
        objective.head.linear.weight.normal_()
    objective(batch_of(8))["loss"].backward()
    for name, value in objective.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


def test_drop_path_leaves_out_whole_branches_of_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(24, 3, 4.0, drop_path=0.25)
    x = torch.randn(1, 8, 24).expand(4000, -1, -1)
    with torch.no_grad():
        branch = block.attention(block.norm1(x[:1]))
        rest = block._drop(branch.expand(4000, -1, -1))
        scale = (rest / branch).flatten(1)
        kept = scale[:, 0] > 0
        torch.testing.assert_close(scale[kept], torch.full_like(scale[kept], 1 / 0.75))
        assert (scale[~kept] == 0).all()
        assert abs(kept.float().mean() - 0.75) < 0.03
        assert torch.equal(block.eval()._drop(branch), branch)


def test_drop_path_rises_linearly_from_0_to_its_rate():
    config = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=5, heads=3)
    rates = [block.drop_path for block in Classifier(config, NAMES, drop_path=0.2).encoder.blocks]
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.15, 0.2], atol=1e-7)


def test_layer_decay_scales_the_rate_by_the_layers_above():
    objective = Classification(Classifier(SMALL, NAMES), Mix())
    groups = parameter_groups(objective, Optim(), 1.0, 0.5)
    scales = {id(value): group["scale"] for group in groups for value in group["params"]}
    wanted = {"encoder.embed.": 0.125, "encoder.blocks.0.": 0.25, "encoder.blocks.1.": 0.5, "head.": 1.0}
    for name, value in objective.named_parameters():
        assert scales[id(value)] == next(scale for start, scale in wanted.items() if name.startswith(start)), name
