"""The recipes are the published ones, number by number, and one outside its range is refused before a run is written.

Source: VideoMAE (Tong et al., 2022, arXiv 2203.12602), appendix A, tables 8 to 10, and the scripts of its repository
(`scripts/{ssv2,kinetics,ucf101,hmdb51}/videomae_vit_base_patch16_224_*`) with the defaults of `run_mae_pretraining.py`
and `run_class_finetuning.py`. What differs on purpose stands in docs/method.md.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionmae.config import Augment, Labelled, Mix, Pretrain
from motionmae.errors import MotionMAEError
from motionmae.presets import COMMANDS, FINETUNE, SIZES
from motionmae.tasks import finetune


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("data.size 30", {"data": Labelled(size=30)}),
        ("data.frames 5", {"data": Labelled(frames=5)}),
    ],
)
def test_a_clip_that_the_models_cubes_do_not_fill_is_refused_by_its_options_name(option, changes):
    with pytest.raises(MotionMAEError, match=f"--{option}"):
        finetune.settle(replace(FINETUNE["tiny"], init="none", **changes), ("left", "right"))


def test_directions_are_not_mirrored_where_they_are_classes():
    assert not FINETUNE["ssv2"].data.flip
    assert not FINETUNE["custom"].data.flip
    assert not FINETUNE["tiny"].data.flip


SIZED = {"": "base", "-small": "small", "-large": "large", "-huge": "huge"}


def pretraining(recipe: str) -> list[Pretrain]:
    return [COMMANDS["pretrain"].choices[f"{recipe}{size}"] for size in SIZED]


@pytest.mark.parametrize(
    ("recipe", "stride", "ratio", "epochs", "rate", "batch", "flip"),
    [
        ("ssv2", 2, 0.9, 800, 1.5e-4, 1024, False),
        ("k400", 4, 0.9, 800, 1.5e-4, 1024, True),
        ("ucf101", 4, 0.75, 3200, 3e-4, 192, True),
        ("hmdb51", 2, 0.75, 4800, 3e-4, 192, True),
    ],
)
def test_pretraining_is_as_published(recipe, stride, ratio, epochs, rate, batch, flip):
    for config, size in zip(pretraining(recipe), SIZED.values(), strict=True):
        optim, data = config.optim, config.data
        assert config.model == SIZES[size]
        assert (config.model.frames, data.stride, data.sampling, data.repeats) == (16, stride, "dense", 1)
        assert (config.mask.kind, config.mask.ratio, config.mask.decode_ratio) == ("tube", ratio, 1.0)
        assert (optim.kind, optim.batch, optim.epochs, optim.steps) == ("adamw", batch, epochs, None)
        assert (optim.lr, optim.lr_start, optim.lr_end) == (rate, 1e-6, 1e-5)
        assert (optim.warmup_epochs, optim.betas, optim.weight_decay) == (40, (0.9, 0.95), 0.05)
        assert (optim.clip, optim.ema) == (None, None)
        assert (data.scales, data.area, data.flip) == ((1.0, 0.875, 0.75, 0.66), None, flip)
        assert (config.target.appearance, config.target.appearance_floor, config.loss.kind) == ("cube", 0.0, "mse")


def test_a_size_alone_is_kinetics_recipe():
    choices = COMMANDS["pretrain"].choices
    for size in ("small", "base", "large", "huge"):
        like = choices["k400" if size == "base" else f"k400-{size}"]
        assert replace(choices[size], run=like.run) == like


@pytest.mark.parametrize(
    ("size", "width", "depth", "heads", "decoder_width", "decoder_heads"),
    [
        ("small", 384, 12, 6, 192, 3),
        ("base", 768, 12, 12, 384, 6),
        ("large", 1024, 24, 16, 512, 8),
        ("huge", 1280, 32, 16, 640, 8),
    ],
)
def test_sizes_are_as_published(size, width, depth, heads, decoder_width, decoder_heads):
    model = SIZES[size]
    assert (model.width, model.depth, model.heads, model.mlp_ratio) == (width, depth, heads, 4.0)
    assert (model.frames, model.size, model.cube) == (16, 224, (2, 16, 16))
    assert (model.decoder.width, model.decoder.depth, model.decoder.heads) == (decoder_width, 4, decoder_heads)


@pytest.mark.parametrize(
    ("recipe", "sampling", "stride", "clips", "crops", "flip"),
    [
        ("ssv2", "uniform", 2, 2, 3, False),
        ("k400", "dense", 4, 5, 3, True),
        ("ucf101", "dense", 4, 5, 3, True),
        ("hmdb51", "dense", 2, 10, 3, True),
    ],
)
def test_fine_tuning_sees_and_is_tested_as_published(recipe, sampling, stride, clips, crops, flip):
    config = FINETUNE[recipe]
    data, views = config.data, config.views
    assert (data.sampling, data.flip, data.area, data.aspect) == (sampling, flip, (0.08, 1.0), (0.75, 4 / 3))
    assert sampling == "uniform" or data.stride == stride
    assert (views.clips, views.crops) == (clips, crops)
    assert (data.frames, data.size) == (None, None)  # those of pretraining, 16 and 224
    assert config.augment == Augment(
        layers=4, magnitude=7.0, spread=0.5, chance=0.5, erase=0.25, erase_area=(0.02, 1 / 3)
    )


@pytest.mark.parametrize(
    ("recipe", "rate", "epochs", "videos", "repeats", "decay", "drop_path", "dropout"),
    [
        ("ssv2", 5e-4, 50, 512, 1, 0.75, 0.1, 0.0),
        ("k400", 1e-3, 100, 512, 1, 0.75, 0.1, 0.0),
        ("ucf101", 5e-4, 100, 128, 2, 0.7, 0.2, 0.5),
        ("hmdb51", 1e-3, 50, 128, 1, 0.7, 0.2, 0.5),  # its dropout is not published: UCF101's
    ],
)
def test_fine_tuning_learns_as_published(recipe, rate, epochs, videos, repeats, decay, drop_path, dropout):
    """Published batches count videos and rates are for 256 of them; the run's rates are what both come to."""
    config, optim = FINETUNE[recipe], FINETUNE[recipe].optim
    assert (config.data.repeats, optim.batch) == (repeats, videos * repeats)
    scaled = [value * optim.batch / 256 for value in (optim.lr_start, optim.lr, optim.lr_end)]
    assert scaled == pytest.approx([value * videos / 256 for value in (1e-6, rate, 1e-6)])
    assert (optim.kind, optim.epochs, optim.warmup_epochs, optim.betas) == ("adamw", epochs, 5.0, (0.9, 0.999))
    assert (optim.weight_decay, optim.clip, optim.ema) == (0.05, None, None)
    assert (config.layer_decay, config.drop_path, config.dropout) == (decay, drop_path, dropout)
    assert config.mix == Mix(0.8, 1.0, 0.1)
