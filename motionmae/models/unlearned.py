"""Features that nothing was learnt for: a clip's own pixels, and their changes. What a probe of an encoder must beat.

They stand in for an encoder: a clip to tokens, here one token a frame (or a pair of frames).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from motionmae.config import Model
from motionmae.models.encoder import to_unit

SIDE = 24
"""Rows and columns that frames are shrunk to: a linear classifier of more numbers only fits more noise."""


class Pixels(nn.Module):
    """The frames themselves, shrunk: a token [SIDE * SIDE * 3] a frame; with `change` the absolute differences of
    adjacent ones, a token a pair."""

    def __init__(self, frames: int, size: int, change: bool):
        super().__init__()
        self.config, self.change = Model(frames=frames, size=size, cube=(1, size, size)), change

    def forward(self, clip: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """The tokens, in the order of time; float32."""
        unit = to_unit(clip, torch.float32)
        shown = unit.diff(dim=2).abs() if self.change else unit
        return F.adaptive_avg_pool3d(shown, (shown.shape[2], SIDE, SIDE)).transpose(1, 2).flatten(2)


UNLEARNED = {"pixels": False, "energy": True}
"""Names that `motionmae probe` takes for them, and whether it is the change that is seen."""
