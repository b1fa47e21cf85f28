"""On which scale a target is predicted: of its cube, of its clip, or its own. Pure functions.

The statistics are those of the whole cube or clip, whatever of it is masked or predicted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Scale(NamedTuple):
    """What is subtracted from a target's numbers and what they are divided by: for each channel of a cube or a clip."""

    mean: Float[Tensor, "b _ 1 c"]
    std: Float[Tensor, "b _ 1 c"]


def scale_by_cube(tokens: Float[Tensor, "b m p"], floor: float, centred: bool = True, channels: int = 3) -> Scale:
    """Each cube's own mean and unbiased standard deviation + 1e-6, for each channel: VideoMAE's.

    `floor` is added to the deviation in quadrature, so that a cube with next to no variance is not blown up to noise.
    Without `centred` nothing is subtracted and the scale is the root mean square.
    """
    numbers = tokens.unflatten(2, (-1, channels))
    if not centred:
        return _around_zero(numbers, (2,), floor)
    return _around_mean(numbers, (2,), floor, count=numbers.shape[2] - 1)


def scale_by_clip(tokens: Float[Tensor, "b n p"], floor: float, centred: bool = True, channels: int = 3) -> Scale:
    """One scale for each clip, of which these are all tokens, and channel: cubes keep their brightness.

    Without `centred` nothing is subtracted and the scale is the root mean square: no motion stays 0.
    """
    numbers = tokens.unflatten(2, (-1, channels))
    if not centred:
        return _around_zero(numbers, (1, 2), floor)
    return _around_mean(numbers, (1, 2), floor, count=numbers.shape[1] * numbers.shape[2])


def _around_mean(numbers: Float[Tensor, "b m q c"], axes: tuple[int, ...], floor: float, count: int) -> Scale:
    """In two passes: on a processor a fifth of the time of torch.var_mean, which goes number by number."""
    mean = numbers.mean(axes, keepdim=True)
    variance = (numbers - mean).square().sum(axes, keepdim=True) / count
    return Scale(mean, (variance + floor**2).sqrt() + 1e-6)


def _around_zero(numbers: Float[Tensor, "b m q c"], axes: tuple[int, ...], floor: float) -> Scale:
    square = numbers.square().mean(axes, keepdim=True)
    return Scale(torch.zeros_like(square), (square + floor**2).sqrt() + 1e-6)


def normalise(tokens: Float[Tensor, "b m p"], scale: Scale | None) -> Float[Tensor, "b m p"]:
    """The tokens on the scale; the tokens themselves where there is none."""
    if scale is None:
        return tokens
    return ((tokens.unflatten(2, (-1, scale.std.shape[3])) - scale.mean) / scale.std).flatten(2)


def denormalise(tokens: Float[Tensor, "b m p"], scale: Scale | None) -> Float[Tensor, "b m p"]:
    """The inverse of `normalise`."""
    if scale is None:
        return tokens
    return (tokens.unflatten(2, (-1, scale.std.shape[3])) * scale.std + scale.mean).flatten(2)
