"""Masks as two index tensors, visible and masked, each ascending. Every kind is: score the tokens, hide the highest.

All randomness comes from the samples' keys, on the keys' device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motionmae import noise
from motionmae.config import MaskKind
from motionmae.errors import MotionMAEError
from motionmae.words import many

Grid = tuple[int, int, int]
Scores = Float[Tensor, "b n"]
Split = tuple[Int[Tensor, "b k"], Int[Tensor, "b m"]]

MASK_STREAM, THIN_STREAM = 1, 2


def random(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Every token alone (He et al., 2021, arXiv 2111.06377)."""
    return noise.uniform(keys, math.prod(grid), MASK_STREAM)


def tube(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """The same places in all time slots (Tong et al., 2022, arXiv 2203.12602).

    Examples:
        >>> split(tube(torch.tensor([0]), (2, 2, 2), None, 1.0), 4)  # what is visible and what is masked
        (tensor([[1, 3, 5, 7]]), tensor([[0, 2, 4, 6]]))
    """
    return _ranks(noise.uniform(keys, grid[1] * grid[2], MASK_STREAM)).repeat(1, grid[0])


def frame(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Whole time slots."""
    return _ranks(noise.uniform(keys, grid[0], MASK_STREAM)).repeat_interleave(grid[1] * grid[2], dim=1)


def moving(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Tokens drawn without replacement with probability proportional to energy ** weight.

    Gumbel noise on log-weights, the highest taken (Efraimidis and Spirakis, 2006, doi 10.1016/j.ipl.2005.11.003).
    """
    return _weighted(noise.uniform(keys, math.prod(grid), MASK_STREAM), _given(energy), weight)


def motion_tube(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Tubes drawn as in `motion`, with the energy averaged over the time slots."""
    drawn = _weighted(noise.uniform(keys, grid[1] * grid[2], MASK_STREAM), _places(_given(energy), grid), weight)
    return _ranks(drawn).repeat(1, grid[0])


def motion_half(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Half of the visible tokens from the moving ones, those above their clip's mean energy, half from the others.

    Which of them is drawn at random; where one kind has too few, the other gives the rest.
    """
    return _halves(noise.uniform(keys, math.prod(grid), MASK_STREAM), _given(energy))


def motion_half_tube(keys: Int[Tensor, " b"], grid: Grid, energy: Scores | None, weight: float) -> Scores:
    """Tubes drawn as in `motion_half`: TrackMAE's mask (arXiv 2603.27268), which tells moving places by a tracker."""
    drawn = noise.uniform(keys, grid[1] * grid[2], MASK_STREAM)
    return _ranks(_halves(drawn, _places(_given(energy), grid))).repeat(1, grid[0])


KINDS: dict[MaskKind, Callable[[Int[Tensor, " b"], Grid, Scores | None, float], Scores]] = {
    "tube": tube,
    "random": random,
    "frame": frame,
    "motion": moving,
    "motion-tube": motion_tube,
    "motion-half": motion_half,
    "motion-half-tube": motion_half_tube,
}


def count(kind: MaskKind, ratio: float, grid: Grid) -> int:
    """How many tokens are hidden: whole tubes and whole slots, rounded down. Raises where that is none or all.

    Examples:
        >>> count("tube", 0.9, (8, 14, 14))
        1408
    """
    slots, places = grid[0], grid[1] * grid[2]
    if kind.endswith("tube"):
        hidden = int(ratio * places) * slots
    elif kind == "frame":
        hidden = int(ratio * slots) * places
    else:
        hidden = int(ratio * slots * places)
    if not 0 < hidden < slots * places:
        raise MotionMAEError(
            f"mask.ratio={ratio} hides {hidden} of {many(slots * places, 'token')} ({kind}): none or all"
        )
    return hidden


def split(scores: Scores, hidden: int) -> Split:
    """The indices of the visible and of the `hidden` highest-scored tokens, each ascending.

    Examples:
        >>> split(torch.tensor([[0.3, 0.9, 0.1, 0.6]]), 2)
        (tensor([[0, 2]]), tensor([[1, 3]]))
    """
    order = scores.argsort(dim=1, stable=True)
    cut = scores.shape[1] - hidden
    return order[:, :cut].sort(dim=1).values, order[:, cut:].sort(dim=1).values


def thin(masked: Int[Tensor, "b m"], ratio: float, keys: Int[Tensor, " b"]) -> Int[Tensor, "b p"]:
    """A random share of the masked indices, at least one, ascending; all of them at ratio 1.

    Examples:
        >>> thin(torch.tensor([[1, 3, 5, 7]]), 0.5, torch.tensor([0]))
        tensor([[3, 7]])
    """
    if ratio == 1.0:
        return masked
    wanted = max(1, int(ratio * masked.shape[1]))
    return masked.gather(1, split(noise.uniform(keys, masked.shape[1], THIN_STREAM), wanted)[1])


def _ranks(scores: Scores) -> Scores:
    """Distinct ranks, so that no tie can split a tube or a slot."""
    return scores.argsort(dim=1, stable=True).argsort(dim=1).float()


def _given(energy: Scores | None) -> Scores:
    if energy is None:
        raise ValueError("the motion masks need each token's energy")
    return energy


def _places(energy: Scores, grid: Grid) -> Float[Tensor, "b places"]:
    """The mean energy of each place over the time slots."""
    return energy.unflatten(1, (grid[0], -1)).mean(1)


def _halves(uniform: Scores, energy: Scores) -> Scores:
    """Scores by which tokens above the mean energy and the others take turns, each in random order."""
    still = (energy <= energy.mean(dim=1, keepdim=True)).float()
    moving = energy.shape[1] - still.sum(dim=1, keepdim=True)
    return 2 * (_ranks(uniform + still) - still * moving) + still  # uniform is below 1: the moving ones rank first


def _weighted(uniform: Scores, energy: Scores, weight: float) -> Scores:
    relative = energy / energy.mean(dim=1, keepdim=True).clamp_min(1e-12)
    gumbel = -torch.log(-torch.log(uniform.clamp(2.0**-24, 1 - 2.0**-24)))
    return weight * torch.log(relative + 1e-3) + gumbel  # the small term keeps still tokens possible
