"""Frozen features to accuracies, and to their rank. Pure functions of cached features; no data, no loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from motionmae.models.attentive import AttentiveHead

Setting = TypeVar("Setting")
Features = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]

CHUNK = 2**25
"""Similarities of k-NN that are in memory at once: 128 MB of float32."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a table that may lie on the disk: only those asked for are read."""

    table: Shaped[Tensor, "all k d"]
    rows: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Int[Tensor, " m"]) -> Shaped[Tensor, "m k d"]:
        return self.table[self.rows[at].to(self.table.device)]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.table.shape[1:])


def standardise(train: Features, test: Float[Tensor, "m d"]) -> tuple[Features, Float[Tensor, "m d"]]:
    """Both with the training set's mean and standard deviation taken out, column by column."""
    std, mean = torch.std_mean(train, dim=0)
    std = std.clamp_min(1e-6)
    return (train - mean) / std, (test - mean) / std


def knn(
    train: Features, labels: Labels, test: Float[Tensor, "m d"], k: int = 20, temperature: float = 0.07
) -> Float[Tensor, "m classes"]:
    """Votes of the k nearest training features by cosine, each weighted by exp(cosine / temperature).

    Wu et al., 2018, arXiv 1805.01978, section 3.4. The class of a row is its argmax. Of the similarities no more than
    CHUNK are in memory at once.
    """
    train, classes, votes = F.normalize(train, dim=1), int(labels.max()) + 1, []
    for part in F.normalize(test, dim=1).split(max(1, CHUNK // len(train))):
        nearest = (part @ train.T).topk(min(k, len(train)), dim=1)
        weight = (nearest.values / temperature).exp()
        votes.append(weight.new_zeros(len(part), classes).scatter_add_(1, labels[nearest.indices], weight))
    return torch.cat(votes)


def linear(
    train: Features, labels: Labels, test: Float[Tensor, "m d"], penalty: float = 1e-2, steps: int = 100
) -> Float[Tensor, "m classes"]:
    """Scores of a softmax regression fitted by L-BFGS on the standardised features, from zero weights: no seed.

    Minimises the mean cross-entropy + penalty * the sum of squared weights.
    """
    train, test = standardise(train, test)
    probe = torch.nn.Linear(train.shape[1], int(labels.max()) + 1).to(train.device)
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


def linear_sweep(
    train: Features,
    labels: Labels,
    test: Float[Tensor, "m d"],
    rates: Sequence[float],
    batch_norm: bool,
    epochs: int,
    seed: int,
    batch: int = 256,
) -> dict[float, Float[Tensor, "m classes"]]:
    """Scores of linear probes trained by SGD with each of the learning rates, all in the same passes over the features.

    Momentum 0.9, cosine decay to 0, no weight decay; with `batch_norm` the features are first normalised by each
    batch's mean and deviation without an affine part, and by their running averages in the test (He et al., 2021,
    arXiv 2111.06377, appendix A). The gradient of a softmax regression is written out, so nothing is differentiated.
    """
    random = torch.Generator().manual_seed(seed)
    classes, (count, width) = int(labels.max()) + 1, train.shape
    weight = torch.randn(width, classes, generator=random).mul(0.01).repeat(len(rates), 1, 1)
    weight = torch.cat((weight, torch.zeros(len(rates), 1, classes)), dim=1)  # the last row is the bias
    weight, rate = weight.to(train.device), torch.tensor(list(rates), device=train.device)[:, None, None]
    speed = torch.zeros_like(weight)
    mean, variance = train.mean(0), train.var(0, correction=0)
    wanted, steps = F.one_hot(labels, classes).float(), max(1, count // batch) * epochs
    order, at = torch.empty(0, dtype=torch.int64), 0
    for step in range(steps):
        if at + min(batch, count) > len(order):
            order, at = torch.randperm(count, generator=random), 0
        chosen, at = order[at : at + batch], at + batch
        x = train[chosen]
        if batch_norm:
            var, middle = torch.var_mean(x, dim=0, correction=0)
            mean, variance = torch.lerp(mean, middle, 0.1), torch.lerp(variance, var, 0.1)
            x = _scaled(x, middle, var)
        x = F.pad(x, (0, 1), value=1.0)
        error = (x @ weight).softmax(2) - wanted[chosen]
        speed = 0.9 * speed + x.T @ error / len(x)
        weight = weight - rate * 0.5 * (1 + math.cos(math.pi * step / steps)) * speed
    if batch_norm:
        test = _scaled(test, mean, variance)
    scores = F.pad(test, (0, 1), value=1.0) @ weight
    return dict(zip(rates, scores.unbind(0), strict=True))


def attentive_sweep(
    train: Float[Tensor, "n k d"] | Rows,
    labels: Labels,
    test: Float[Tensor, "m k d"] | Rows,
    heads: int,
    rates: Sequence[float],
    epochs: int,
    seed: int,
    batch: int = 64,
    fitted: dict[float, AttentiveHead] | None = None,
) -> dict[float, Float[Tensor, "m classes"]]:
    """Scores of attentive probes (see `AttentiveHead`) trained with each of the learning rates in the same passes. The
    probes themselves are put into `fitted`, where that is given.

    AdamW with weight decay 0.01 and cosine decay to 0; tokens may be float16 and on the disk, and are read and brought
    to float32, and to the labels' device, batch by batch.
    """
    classes, count, device = int(labels.max()) + 1, len(train), labels.device
    steps = max(1, count // batch) * epochs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = AttentiveHead(train.shape[2], heads, classes)
    probes = [copy.deepcopy(first).to(device) for _ in rates]
    groups = [
        {"params": probe.parameters(), "lr": rate, "peak": rate} for probe, rate in zip(probes, rates, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    random = torch.Generator().manual_seed(seed)
    order, at = torch.empty(0, dtype=torch.int64), 0
    with torch.enable_grad():
        for step in range(steps):
            if at + min(batch, count) > len(order):
                order, at = torch.randperm(count, generator=random), 0
            chosen, at = order[at : at + batch], at + batch
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / steps))
            x = train[chosen].to(device).float()
            optimizer.zero_grad()
            torch.stack([F.cross_entropy(probe(x), labels[chosen]) for probe in probes]).sum().backward()
            optimizer.step()
    if fitted is not None:
        fitted |= dict(zip(rates, probes, strict=True))
    scores: list[list[Tensor]] = [[] for _ in probes]
    with torch.no_grad():
        for some in torch.arange(len(test)).split(batch):
            x = test[some].to(device).float()
            for found, probe in zip(scores, probes, strict=True):
                found.append(probe(x))
    return {rate: torch.cat(found) for rate, found in zip(rates, scores, strict=True)}


def held_out(labels: Labels, share: float, seed: int) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """Rows to fit on and rows to choose by: `share` of each class of at least two rows is held out, at least one."""
    random, kept, held = torch.Generator().manual_seed(seed), [], []
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=random)]
        cut = min(max(1, round(share * len(rows))), len(rows) - 1)
        held.append(rows[:cut])
        kept.append(rows[cut:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def choose(scores: dict[Setting, Float[Tensor, "m classes"]], labels: Int[Tensor, " m"]) -> Setting:
    """The setting with the best accuracy; of equally good ones that whose scores lose least, then the first."""
    loss = {setting: F.cross_entropy(found.float(), labels).item() for setting, found in scores.items()}
    return max(scores, key=lambda setting: (accuracy(scores[setting], labels), -loss[setting]))


def _scaled(x: Features, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> Features:
    return (x - mean) / (variance + 1e-6).sqrt()


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
