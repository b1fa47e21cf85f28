"""The fine-tuning recipes are the published ones, and a number outside its range is refused before a run is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionmae.config import Augment, Labelled, Mix
from motionmae.errors import MotionMAEError
from motionmae.presets import FINETUNE
from motionmae.tasks import finetune


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("mix.mixup", {"mix": Mix(mixup=-1.0)}),
        ("mix.smoothing", {"mix": Mix(smoothing=1.5)}),
        ("drop-path", {"drop_path": 1.0}),
        ("dropout", {"dropout": 1.5}),
        ("layer-decay", {"layer_decay": 0.0}),
        ("augment.erase", {"augment": Augment(erase=2.0)}),
        ("data.repeats", {"data": Labelled(repeats=0)}),
        ("data.scales", {"data": Labelled(scales=(2.0,))}),
        ("data.area", {"data": Labelled(area=(0.5, 0.1))}),
        ("data.size 30", {"data": Labelled(size=30)}),
        ("data.frames 5", {"data": Labelled(frames=5)}),
    ],
)
def test_a_number_outside_its_range_is_refused_by_its_options_name(option, changes):
    with pytest.raises(MotionMAEError, match=f"--{option}"):
        finetune.settle(replace(FINETUNE["tiny"], init="none", **changes), ("left", "right"))


def test_directions_are_not_mirrored_where_they_are_classes():
    assert not FINETUNE["ssv2"].data.flip
    assert not FINETUNE["custom"].data.flip
    assert not FINETUNE["tiny"].data.flip


@pytest.mark.parametrize(
    ("recipe", "views"), [("ssv2", (2, 3)), ("k400", (5, 3)), ("ucf101", (5, 3)), ("hmdb51", (10, 3))]
)
def test_recipes_are_tested_with_the_published_views(recipe, views):
    assert (FINETUNE[recipe].views.clips, FINETUNE[recipe].views.crops) == views


@pytest.mark.parametrize(
    ("recipe", "rate", "epochs", "videos", "decay", "drop_path", "dropout"),
    [
        ("ssv2", 5e-4, 50, 512, 0.75, 0.1, 0.0),
        ("k400", 1e-3, 100, 512, 0.75, 0.1, 0.0),
        ("ucf101", 5e-4, 100, 128, 0.7, 0.2, 0.5),
        ("hmdb51", 1e-3, 50, 128, 0.7, 0.2, 0.5),
    ],
)
def test_recipes_learn_as_published(recipe, rate, epochs, videos, decay, drop_path, dropout):
    """Published batches count videos and rates are for 256 of them; the run's peak is what both come to."""
    config = FINETUNE[recipe]
    assert config.optim.batch == videos * config.data.repeats
    assert config.optim.lr * config.optim.batch / 256 == pytest.approx(rate * videos / 256)
    assert (config.optim.epochs, config.optim.warmup_epochs, config.optim.betas) == (epochs, 5.0, (0.9, 0.999))
    assert (config.layer_decay, config.drop_path, config.dropout) == (decay, drop_path, dropout)
    assert config.mix == Mix(0.8, 1.0, 0.1)
    assert (config.augment.layers, config.augment.magnitude, config.augment.spread) == (4, 7.0, 0.5)
