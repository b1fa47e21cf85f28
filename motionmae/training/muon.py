"""Muon: hidden matrices step along the orthogonalised average of their gradient, everything else by AdamW.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; for vision transformers and masked autoencoders arXiv
2605.24770. To the loop and the checkpoint it is one optimiser. torch.optim.Muon, which a test holds it equal to, cannot
skip a step on the device, takes a fused weight as one matrix, knows no sharded weights and needs PyTorch 2.9.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

STEPS = 5
COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan's coefficients: steep at zero, so that small singular values grow fast


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with all its singular values near 1 (0.7 to 1.2), by five Newton-Schulz steps: no decomposition.

    They are done in bfloat16, as published: half the time of float32 or less, on processors that have it too.
    """
    flat = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if flat else matrix).bfloat16()
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if flat else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Groups with `matrices`, the number stacked in each parameter, go by Muon; the others by fused AdamW.

    A step whose `found_inf` is 1 changes nothing, on the device, as with the fused optimisers. The rate of a matrix is
    the group's times sqrt(rows / columns) where that is above 1 (Jordan's rule). Sharded weights are gathered, one
    after the other, and each rank steps its part.
    """

    _step_supports_amp_scaling = True  # GradScaler then leaves the skipping to `step`

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], momentum: float = 0.95):
        super().__init__(groups, {"lr": lr})
        self.momentum = momentum
        # The groups and the state are the same objects in both, so that a rate set here or a state restored is AdamW's.
        rest = [group for group in self.param_groups if "matrices" not in group]
        self.rest = torch.optim.AdamW(rest, lr=lr, betas=betas, fused=True)
        self.rest.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of all groups."""
        found = getattr(self, "found_inf", None)
        self.rest.found_inf = found  # pyright: ignore[reportAttributeAccessIssue]
        self.rest.step()
        for group in self.param_groups:
            for weight in group["params"] if "matrices" in group else ():
                if weight.grad is not None:
                    good = torch.ones((), device=weight.device) if found is None else 1 - found.to(weight.device)
                    self._step_one(weight, group, good.to(weight.dtype))

    def _step_one(self, weight: Tensor, group: dict[str, Any], good: Tensor) -> None:
        """Step one parameter where `good` is 1; where it is 0 its average and the weight stay what they are."""
        if "momentum" not in self.state[weight]:
            self.state[weight]["momentum"] = torch.zeros_like(weight)
        average = _part(self.state[weight]["momentum"])
        gradient = torch.where(good > 0, _part(weight.grad), average)  # pyright: ignore[reportArgumentType]
        average.lerp_(gradient, 1 - self.momentum)
        along = _whole(gradient.lerp(average, self.momentum), weight).chunk(group["matrices"])  # Nesterov's
        rate = group["lr"] * math.sqrt(max(1.0, along[0].shape[0] / along[0].shape[1]))
        moved = _cut(torch.cat([orthogonalised(matrix) for matrix in along]), weight)
        _part(weight).mul_(1 - group["lr"] * group["weight_decay"] * good).sub_(moved * (rate * good))


def _part(value: Tensor) -> Tensor:
    """What this rank holds of it."""
    return value.to_local() if isinstance(value, DTensor) else value


def _whole(part: Tensor, like: Tensor) -> Tensor:
    """The tensor of which each rank holds a part as of `like`; all ranks take part."""
    if not isinstance(like, DTensor):
        return part
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=shape, stride=stride).full_tensor()


def _cut(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's part of it, cut as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    return (
        DTensor.from_local(whole, like.device_mesh, [Replicate()]).redistribute(placements=like.placements).to_local()
    )
