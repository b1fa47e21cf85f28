"""Blocks of a transformer, which the encoder and the decoders are made of, and how their weights start.

Dosovitskiy et al., 2021, arXiv 2010.11929; biases on queries and values alone are VideoMAE's (Tong et al., 2022, arXiv
2203.12602). What differs from it: tokens may attend to those of a context in place of each other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motionmae.models.linear import Linear, multiply

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention with biases on queries and values, none on keys (they would cancel in the softmax).

    Tokens attend to each other or, where a `context` is given, to its tokens alone.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b k d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        bias, width = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias)), len(self.q_bias)
        # Cut by `split`: the backward pass joins the gradients in one copy, where slices would each pad theirs with 0.
        if context is None:
            parts = multiply(x, self.qkv.weight, bias).split(width, -1)
        else:
            sizes = (width, 2 * width)
            (query, rest), (query_bias, rest_bias) = self.qkv.weight.split(sizes), bias.split(sizes)
            parts = (multiply(x, query, query_bias), *multiply(context, rest, rest_bias).split(width, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and perceptron, each after a LayerNorm and each added to its input (or, by drop path, left out)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(Linear(width, hidden), nn.GELU(), Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b k d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """The tokens after the block; they attend to `context`, by default to themselves."""
        x = x + self._drop(self.attention(self.norm1(x), None if context is None else self.norm1(context)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The weights that map hidden features to hidden features, and how many matrices are stacked in each."""
        single = (self.attention.out, self.mlp[0], self.mlp[2])
        return [(self.attention.qkv.weight, 3), *((part.weight, 1) for part in single)]  # pyright: ignore

    def _drop(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Stochastic depth, a clip at a time (Huang et al., 2016, arXiv 1603.09382); the kept ones are scaled up."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep.to(branch.dtype) / (1 - self.drop_path)


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, recompute: bool, context: Tensor | None = None) -> Tensor:
    """The blocks in order; `recompute` trades time for memory by not keeping activations."""
    for block in blocks:
        again = recompute and torch.is_grad_enabled()
        x = checkpoint(block, x, context, use_reentrant=False) if again else block(x, context)
    return x


def vectors(module: nn.Module) -> list[nn.Parameter]:
    """The parameters with one dimension: biases, norms, mask tokens."""
    return [value for value in module.parameters() if value.ndim < 2]


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
