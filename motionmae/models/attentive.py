"""A head that looks: one learned query attends to an encoder's tokens.

Bardes et al., 2024, arXiv 2404.08471. What differs from V-JEPA's code: the query is not projected, as it is learned
itself; what the heads of the attention saw is not mixed by another linear layer; a LayerNorm stands before the classes'
scores; and linear layers start Xavier-uniform, not from a normal of 0.02.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from motionmae import stored
from motionmae.errors import MotionMAEError
from motionmae.models.blocks import EPS, init_linear


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
        return self.linear(self.pool(tokens))

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """What the query saw, and the linear layer tells classes by: one vector a clip."""
        pairs = self.keys_values(self.norm1(tokens)).unflatten(-1, (2, self.heads, -1))
        keys, values = pairs.permute(2, 0, 3, 1, 4)
        query = self.query.expand(len(tokens), 1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        x = self.query + F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(1)
        x = x + self.mlp(self.norm2(x))
        return self.norm3(x)


def save_head(path: Path, head: AttentiveHead, encoder: str) -> None:
    """Write a head that was fitted on the tokens of the encoder of this fingerprint."""
    about = {"encoder": encoder, "heads": str(head.heads)}
    stored.save_checked(path, head.state_dict(), about)


def read_head(path: Path, encoder: str) -> AttentiveHead:
    """A head that `save_head` wrote, in eval mode. Raises MotionMAEError where it is damaged, or another encoder's."""
    try:
        found = stored.Stored(path)
        if found.about["encoder"] != encoder:
            raise MotionMAEError(f"{path}: was fitted on an encoder of other weights; fit it again")
        classes, width = found.shapes["linear.weight"]
        head = AttentiveHead(width, int(found.about["heads"]), classes)
        head.load_state_dict({name: found.tensor(name) for name in found.shapes})
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, MotionMAEError):
            raise
        raise MotionMAEError(f"{path}: cannot be read as an attentive head ({error})") from error
    return head.eval()
