"""The products of oneDNN are those of PyTorch's linear layers, gradients too, and are used only where they should."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from motionmae.models import linear
from motionmae.models.linear import Linear, multiply

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="built without oneDNN")


@pytest.fixture
def used(monkeypatch):
    """Every product goes by oneDNN, whatever the processor and the size; the list of its calls."""
    calls, product = [], linear._product
    monkeypatch.setattr(linear, "SMALL", 0)
    monkeypatch.setattr(linear, "faster", lambda: True)
    monkeypatch.setattr(linear, "_product", lambda *given: calls.append(1) or product(*given))
    return calls


def given(shape=(2, 5, 24), out=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, requires_grad=True)
    weight = torch.randn(out, shape[-1], generator=generator, requires_grad=True)
    return x, weight, torch.randn(out, generator=generator, requires_grad=True)


@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(used, shape, biased):
    x, weight, bias = given(shape)
    values = (x, weight, bias) if biased else (x, weight)
    ours, theirs = multiply(*values), F.linear(*values)
    torch.testing.assert_close(ours, theirs)
    along = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    for left, right in zip(
        torch.autograd.grad(ours, values, along), torch.autograd.grad(theirs, values, along), strict=True
    ):
        torch.testing.assert_close(left, right)
    assert len(used) == 3


def test_views_and_slices_are_multiplied_as_they_are(used):
    x, weight, bias = given()
    parts = weight.split((16, 24))[1], bias.split((16, 24))[1]
    turned = x.transpose(0, 1)[1:, :, :]
    torch.testing.assert_close(multiply(turned, *parts), F.linear(turned, *parts))


def test_what_is_frozen_costs_no_product(used):
    x, weight, bias = given()
    multiply(x.detach(), weight, bias).sum().backward()
    assert x.grad is None
    assert len(used) == 2


def test_recomputed_layers_have_the_same_gradients(used):
    torch.manual_seed(0)
    layer, x = Linear(24, 40), given()[0]
    plain = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    again = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), (x, layer.weight))
    assert all(torch.equal(left, right) for left, right in zip(plain, again, strict=True))


def test_other_precisions_and_small_products_are_left_to_pytorch(used, monkeypatch):
    x, weight, bias = given()
    with torch.autocast("cpu", torch.bfloat16):
        assert multiply(x, weight, bias).dtype == torch.bfloat16
    multiply(x.double(), weight.double(), bias.double())
    monkeypatch.setattr(linear, "SMALL", 2**20)
    multiply(x, weight, bias)
    monkeypatch.setattr(linear, "faster", lambda: False)
    multiply(torch.zeros(2000, 24), weight, bias)
    assert used == []
