"""What `import motionmae` offers: every name is there, says what it is, and does what its docs say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from dataclasses import replace

import pytest
import torch

import motionmae
from motionmae import MotionMAEError
from motionmae.config import Model

SMALL = {"frames": 4, "size": 16, "cube": (2, 8, 8), "width": 24, "depth": 3, "heads": 2}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return motionmae.VideoEncoder(Model(**SMALL)).eval()


def clip(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 4, 16, 16), generator=torch.Generator().manual_seed(1)).byte()


def test_dir_lists_the_public_names_and_each_is_there_with_its_docs():
    assert set(motionmae.__all__) <= set(dir(motionmae))
    assert sorted(motionmae.__all__) == sorted(motionmae._HOME)
    for name in motionmae.__all__:
        assert inspect.getdoc(getattr(motionmae, name)), name


@torch.no_grad()
def test_layers_are_the_tokens_after_each_block_under_the_norm_in_the_order_asked(encoder):
    slow, x = [], encoder.tokens(clip())
    for block in [None, *encoder.blocks]:
        x = x if block is None else block(x)
        slow.append(encoder.norm(x))
    found = encoder(clip(), layers=(3, 0, 2, 3))
    assert all(torch.equal(a, slow[layer]) for a, layer in zip(found, (3, 0, 2, 3), strict=True))
    assert torch.equal(found[0], encoder(clip()))
    visible = torch.tensor([[0, 5], [2, 7]])
    assert torch.equal(encoder(clip(), visible, layers=[3])[0], encoder(clip(), visible))
    assert encoder(clip(), layers=()) == ()
    for wrong in (-1, 4):
        with pytest.raises(MotionMAEError, match=rf"layers has {wrong}: the encoder has the layers 0 to 3"):
            encoder(clip(), layers=(1, wrong))


def test_no_block_above_the_highest_layer_is_run(encoder, monkeypatch):
    monkeypatch.setattr(encoder.blocks[2], "forward", lambda *_: pytest.fail("the third block was run"))
    encoder(clip(), layers=(2,))


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_encoders_by_name_are_those_of_the_presets(size):
    from motionmae.presets import SIZES

    with torch.device("meta"):
        encoder = getattr(motionmae, f"vit_{size}")(drop_path=0.1, frames=4)
    assert encoder.config == replace(SIZES[size], frames=4)
    assert encoder.blocks[-1].drop_path == pytest.approx(0.1)
    with pytest.raises(MotionMAEError, match=f"vit_{size}: a model has no field 'frame'"):
        getattr(motionmae, f"vit_{size}")(frame=4)


@pytest.mark.parametrize("module", ["models.sizes"])
def test_examples_in_docs_run(module):
    assert doctest.testmod(importlib.import_module(f"motionmae.{module}")).failed == 0
