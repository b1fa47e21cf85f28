"""A head that looks: one learned query attends to an encoder's tokens (Bardes et al., 2024, arXiv 2404.08471)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from motionmae.models.encoder import EPS, init_linear


class AttentiveHead(nn.Module):
    """Tokens to class scores: cross-attention from one query, a perceptron added to it, a LayerNorm, a linear layer."""

    def __init__(self, width: int, heads: int, classes: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(width))
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.keys_values = nn.Linear(width, 2 * width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.linear = nn.Linear(width, classes)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        pairs = self.keys_values(self.norm1(tokens)).unflatten(-1, (2, self.heads, -1))
        keys, values = pairs.permute(2, 0, 3, 1, 4)
        query = self.query.expand(len(tokens), 1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        x = self.query + F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(1)
        x = x + self.mlp(self.norm2(x))
        return self.linear(self.norm3(x))
