"""Temporal difference: which frames are adjacent, and how much changes between them. Pure functions.

The motion of the paper (arXiv 2210.04154) is the pixel-level difference of adjacent frames. A clip arrives with the
frames that close its last difference, so no frame is special.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from motionmae.config import Difference, Target
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import to_unit
from motionmae.models.tokens import Cube, patchify


def neighbours(
    clip: Shaped[Tensor, "b c t2 h w"], frames: int, target: Target
) -> tuple[Shaped[Tensor, "b c t h w"], Shaped[Tensor, "b c t h w"]]:
    """The `frames` frames that the encoder sees and, for each, the later frame it is subtracted from: two views.

    With `target.adjacent == "clip"` the clip has frames + gap frames; with "video" it has the frames and then, in the
    same order, their neighbours in the source: 2 * frames.
    """
    start, wanted = (target.gap, frames + target.gap) if target.adjacent == "clip" else (frames, 2 * frames)
    if clip.shape[2] != wanted:
        raise MotionMAEError(
            f"a clip of {clip.shape[2]} frames cannot give {frames} differences: adjacent={target.adjacent} and "
            f"gap={target.gap} need {wanted}"
        )
    return clip[:, :, :frames], clip[:, :, start : start + frames]


def difference(
    now: Shaped[Tensor, "*shape"], after: Shaped[Tensor, "*shape"], kind: Difference
) -> Float[Tensor, "*shape"]:
    """after - now in units of [0, 1], float32; "absolute" without its sign."""
    signed = to_unit(after, torch.float32) - to_unit(now, torch.float32)
    return signed.abs() if kind == "absolute" else signed


def energy(now: Shaped[Tensor, "b c t h w"], after: Shaped[Tensor, "b c t h w"], cube: Cube) -> Float[Tensor, "b n"]:
    """Mean absolute difference of each token, in [0, 1]: how much moves there."""
    return patchify(difference(now, after, "absolute"), cube).mean(dim=2)
