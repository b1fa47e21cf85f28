"""Frozen features to accuracies, and to their rank. Pure functions of cached features; no data, no loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Features = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]


def standardise(train: Features, test: Float[Tensor, "m d"]) -> tuple[Features, Float[Tensor, "m d"]]:
    """Both with the training set's mean and standard deviation taken out, column by column."""
    std, mean = torch.std_mean(train, dim=0)
    std = std.clamp_min(1e-6)
    return (train - mean) / std, (test - mean) / std


def knn(
    train: Features, labels: Labels, test: Float[Tensor, "m d"], k: int = 20, temperature: float = 0.07
) -> Float[Tensor, "m classes"]:
    """Votes of the k nearest training features by cosine, each weighted by exp(cosine / temperature).

    Wu et al., 2018, arXiv 1805.01978, section 3.4. The class of a row is its argmax.
    """
    nearest = (F.normalize(test, dim=1) @ F.normalize(train, dim=1).T).topk(min(k, len(train)), dim=1)
    votes = F.one_hot(labels[nearest.indices], int(labels.max()) + 1) * (nearest.values / temperature).exp()[:, :, None]
    return votes.sum(1)


def linear(
    train: Features, labels: Labels, test: Float[Tensor, "m d"], penalty: float = 1e-2, steps: int = 100
) -> Float[Tensor, "m classes"]:
    """Scores of a softmax regression fitted by L-BFGS on the standardised features, from zero weights: no seed.

    Minimises the mean cross-entropy + penalty * the sum of squared weights.
    """
    train, test = standardise(train, test)
    probe = torch.nn.Linear(train.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(probe.weight)
    torch.nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(train), labels) + penalty * probe.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return probe(test)


def accuracy(scores: Float[Tensor, "m classes"], labels: Int[Tensor, " m"]) -> float:
    """The share of rows whose highest score is at the label, in [0, 1]."""
    return (scores.argmax(1) == labels).float().mean().item()


def effective_rank(features: Features) -> float:
    """How many directions the centred features fill, in [1, min(n, d)]; near 1 they have collapsed.

    The exponential of the entropy of the singular values over their sum (Roy and Vetterli, 2007, EUSIPCO). Centring is
    ours: a large common offset would hide all else. 1.0 where all rows are equal.
    """
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    total = values.sum()
    if total <= 1e-12:
        return 1.0
    return float(torch.special.entr(values / total).sum().exp())
