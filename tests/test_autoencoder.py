"""The decoder's attention: what a prediction depends on, and that leaving work out changes no number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from motionmae.config import Decoder, Model
from motionmae.models.autoencoder import MotionMAE, TokenDecoder

GRID = (2, 4, 4)
SMALL = Model(
    frames=4, size=32, cube=(2, 8, 8), width=32, depth=1, heads=2, decoder=Decoder(width=24, depth=3, heads=2)
)


def model_of(attention):
    torch.manual_seed(0)
    config = replace(SMALL, decoder=replace(SMALL.decoder, attention=attention))
    autoencoder = MotionMAE(config)
    with torch.no_grad():
        for value in autoencoder.parameters():
            value.add_(0.1 * torch.randn_like(value))  # biases and heads start at or near zero
    return autoencoder


def clip_of(count=2):
    return torch.rand(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def places(count=2, visible=8):
    generator = torch.Generator().manual_seed(2)
    order = torch.stack([torch.randperm(32, generator=generator) for _ in range(count)])
    return order[:, :visible].sort(1).values, order[:, visible:].sort(1).values


def plainly(decoder: TokenDecoder, encoded, visible, masked):
    """The decoder with attention among all its tokens in every block, written out."""
    positions = decoder.positions(GRID)
    x = torch.cat((decoder.enter(encoded) + positions[visible], decoder.mask_token + positions[masked]), 1)
    for block in decoder.blocks:
        attention, y = block.attention, block.norm1(x)
        q, k, v = torch.nn.functional.linear(y, attention.qkv.weight).chunk(3, -1)
        heads = [
            part.unflatten(-1, (2, 12)).transpose(1, 2) for part in (q + attention.q_bias, k, v + attention.v_bias)
        ]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / 12**0.5).softmax(-1)
        x = x + attention.out((weights @ heads[2]).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    x = decoder.norm(x[:, visible.shape[1] :])
    return {name: head(x) for name, head in decoder.heads.items()}


def test_a_last_block_for_predicted_tokens_alone_gives_the_numbers_and_gradients_of_a_whole_one():
    autoencoder, (visible, masked) = model_of("self"), places()
    encoded = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(3))
    (decoder,) = autoencoder.decoders
    gradients = []
    outputs = [decoder(encoded, visible, masked, GRID), plainly(decoder, encoded, visible, masked)]
    for found in outputs:
        loss = sum(value.square().mean() for value in found.values())
        gradients.append(torch.autograd.grad(loss, list(decoder.parameters())))
    for name, value in outputs[0].items():
        torch.testing.assert_close(value, outputs[1][name], atol=1e-6, rtol=1e-5)
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_a_prediction_depends_on_the_other_predicted_places_only_where_they_attend_to_each_other(attention):
    autoencoder, clip, (visible, masked) = model_of(attention).eval(), clip_of(), places()
    whole = autoencoder(clip, visible, masked)
    few = autoencoder(clip, visible, masked[:, ::3])
    turned = autoencoder(clip, visible, masked.flip(1))
    for name, value in whole.items():
        torch.testing.assert_close(turned[name].flip(1), value, atol=1e-5, rtol=1e-4)
        alike = torch.allclose(few[name], value[:, ::3], atol=1e-5, rtol=1e-4)
        assert alike == (attention == "cross")


def test_cross_attention_reaches_every_visible_token_and_tells_places_apart():
    autoencoder, (visible, masked) = model_of("cross"), places()
    encoded = torch.randn(2, 8, 32, requires_grad=True)
    found = autoencoder.decoders[0](encoded, visible, masked, GRID)["motion"]
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3
    (reached,) = torch.autograd.grad(found[:, 0].square().sum(), encoded)
    assert (reached.abs().amax(2) > 0).all()


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_recomputing_gives_the_same_gradients(attention):
    autoencoder, clip, (visible, masked) = model_of(attention), clip_of(), places()
    found = []
    for on in (False, True):
        autoencoder.recompute(on)
        loss = sum(value.square().mean() for value in autoencoder(clip, visible, masked).values())
        found.append(torch.autograd.grad(loss, list(autoencoder.parameters())))
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))
