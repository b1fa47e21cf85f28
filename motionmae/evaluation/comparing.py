"""Means, spreads and paired differences of repeated measurements. Pure functions.

Two intervals answer two questions: that over seeds, whether another run would show it; over videos, another test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Quantiles 0.975 of Student's t for 1, 2, 3, … degrees of freedom; beyond them the normal's.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)

Interval = tuple[float, float]


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation (unbiased variance); None of a single value."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def over_seeds(differences: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean of paired differences by Student's t; None of a single one."""
    spread = deviation(differences)
    if spread is None:
        return None
    freedom = len(differences) - 1
    half = (_T[freedom - 1] if freedom <= len(_T) else 1.96) * spread / math.sqrt(len(differences))
    return mean(differences) - half, mean(differences) + half


def over_videos(left: Sequence[str], right: Sequence[str], draws: int = 4000, seed: int = 0) -> Interval:
    """The 95 % interval of the difference in accuracy, left minus right, were other videos drawn: a paired bootstrap.

    Each string is of one seed's run, with a 1 for every video that it got right, in the same order of videos. The
    seeds' mean is what is compared (Efron, 1979). Videos are drawn one by one: where few people or places made many of
    them, the interval is too narrow.
    """
    gains = _share(left) - _share(right)
    rows = np.random.default_rng(seed).integers(0, len(gains), (draws, len(gains)))
    low, high = np.quantile(gains[rows].mean(1), (0.025, 0.975))
    return float(low), float(high)


def of_share(hits: Sequence[bool], groups: Sequence[int] = (), draws: int = 4000, seed: int = 0) -> Interval:
    """The 95 % interval of a share, were other videos drawn, or with the group of each video other groups: a bootstrap.

    >>> of_share([True] * 50 + [False] * 50)
    (0.4, 0.6)
    """
    places = np.unique(groups, return_inverse=True)[1] if len(groups) else np.arange(len(hits))
    counts = np.bincount(places)
    sums = np.bincount(places, weights=np.asarray(hits, float))
    random = np.random.default_rng(seed)
    # How often each group is drawn, a block of draws at a time: a table of all would not fit for many videos.
    found = []
    for _ in range(draws // 100):
        drawn = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), 100)
        found.append(drawn @ sums / (drawn @ counts))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(low), float(high)


def _share(runs: Sequence[str]) -> np.ndarray:
    return np.mean([[int(mark) for mark in run] for run in runs], axis=0)
