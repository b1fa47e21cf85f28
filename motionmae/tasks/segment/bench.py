"""How fast features and propagation are, against a full-affinity reference in the same run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def full_affinity(
    features: Sequence[Float[Tensor, "h w d"]],
    labels: Float[Tensor, "h w c"],
    *,
    context: int,
    radius: int,
    topk: int,
    temperature: float,
) -> list[Float[Tensor, "h w c"]]:
    """What `propagate` gives, the slow way of the usual scripts: every cell with every cell of every context frame, the
    exponential of them all, a mask of the neighbourhood over them all, and a sum over them all."""
    height, width, _ = features[0].shape
    rows, columns = torch.arange(height), torch.arange(width)
    near = ((rows[:, None] - rows).abs() <= radius)[:, None, :, None] & ((columns[:, None] - columns).abs() <= radius)[
        None, :, None, :
    ]
    mask = near.reshape(height * width, height * width).to(features[0])
    known = [labels.to(features[0])]
    for index in range(1, len(features)):
        recent = range(max(1, index - context), index)
        keys = torch.stack([F.normalize(features[each], dim=-1) for each in (0, *recent)]).flatten(1, 2)
        query = F.normalize(features[index], dim=-1).flatten(0, 1)
        affinity = torch.exp(query @ keys.transpose(1, 2) / temperature) * mask
        affinity = affinity.transpose(1, 2).flatten(0, 1)
        least = affinity.topk(min(topk, len(affinity)), dim=0).values[-1]
        affinity = torch.where(affinity < least, 0, affinity)
        values = torch.stack([known[each] for each in (0, *recent)]).flatten(0, 2)
        known.append((values.T @ (affinity / affinity.sum(0))).T.unflatten(0, (height, width)))
    return known[1:]
