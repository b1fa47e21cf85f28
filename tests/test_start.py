"""How a model starts: the published initialisation, and what of it is ours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from motionmae.config import Decoder, Model
from motionmae.models.autoencoder import MotionMAE

MODEL = Model(4, 32, (2, 8, 8), 96, 2, 4, positions="learned", decoder=Decoder("separate", 64, 2, 4))


@pytest.fixture(scope="module")
def autoencoder() -> MotionMAE:
    torch.manual_seed(0)
    return MotionMAE(MODEL)


def linear_layers(autoencoder: MotionMAE) -> dict[str, nn.Linear]:
    return {name: part for name, part in autoencoder.named_modules() if isinstance(part, nn.Linear)}


def test_linear_layers_start_uniform_within_glorots_bound(autoencoder):
    """Glorot and Bengio, 2010, equation 16, as VideoMAE's modeling_pretrain.py has it: sqrt(6 / (in + out))."""
    layers = {name: layer for name, layer in linear_layers(autoencoder).items() if ".heads." not in name}
    assert len(layers) > 20
    for name, layer in layers.items():
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.98 * bound < layer.weight.abs().max().item() <= bound, name
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name


def test_prediction_layers_start_near_zero_and_biases_at_it(autoencoder):
    """Ours: with weights of 0.002 the first predictions are the mean, whose loss is the trivial baseline."""
    heads = [layer for name, layer in linear_layers(autoencoder).items() if ".heads." in name]
    assert len(heads) == 2
    for head in heads:
        assert head.weight.std().item() == pytest.approx(0.002, rel=0.05)
    assert all(not value.any() for name, value in autoencoder.named_parameters() if name.endswith("bias")
               and "norm" not in name)  # fmt: skip


def test_mask_tokens_and_learnt_positions_start_as_small_normal_noise(autoencoder):
    assert autoencoder.encoder.positions.table.std().item() == pytest.approx(0.02, rel=0.1)
    for name, value in autoencoder.named_parameters():
        if name.endswith("mask_token"):
            assert value.std().item() == pytest.approx(0.02, rel=0.3), name
