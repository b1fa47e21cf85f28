"""Linear layers by the library that multiplies faster: on AMD's processors with AVX-512, oneDNN instead of MKL.

PyTorch gives float32 products to MKL, which does not use AVX-512 there. The processor alone decides, so that the same
machine gives the same numbers; everywhere else, and under autocast, these are `torch.nn.functional.linear`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SMALL = 2**20
"""Multiplications below which calling costs more than is won."""


class Linear(nn.Linear):
    """`nn.Linear` in all but the library."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return multiply(x, self.weight, self.bias)


def multiply(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "e d"], bias: Float[Tensor, " e"] | None = None
) -> Float[Tensor, "*b e"]:
    """x weight^T + bias, with gradients."""
    if not _here(x, weight):
        return F.linear(x, weight, bias)
    return _Product.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


def _here(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to do this product."""
    return (
        type(x) is Tensor  # no parts of sharded ones, no shapes without numbers
        and x.device.type == "cpu"
        and x.ndim > 1
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= SMALL
        and faster()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


@functools.cache
def faster() -> bool:
    """Whether oneDNN's float32 products are the faster ones on this processor, as far as the system tells."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    ours = "AuthenticAMD" in told and "avx512f" in told
    return ours and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """The product and its gradients, all by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        gradient, wanted = gradient.flatten(0, -2), ctx.needs_input_grad
        return (
            _product(gradient, weight.t()).view(x.shape) if wanted[0] else None,
            _product(gradient.t(), x.flatten(0, -2).t()) if wanted[1] else None,
            gradient.sum(0) if wanted[2] else None,
        )
