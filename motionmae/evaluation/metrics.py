"""Measures as pure functions of arrays: J and F of masks; accuracies and calibration of scores."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

TOLERANCE = 0.008  # of the image's diagonal: how far apart two contours may lie and still agree


def region_contour(
    truth: UInt8[np.ndarray, "h w"], guess: UInt8[np.ndarray, "h w"], count: int
) -> Float[np.ndarray, "2 {count}"]:
    """J (row 0) and F (row 1), each in [0, 1], of the objects 1 to `count` of one frame; 0 is the background.

    J is intersection over union, F the harmonic mean of the contours' precision and recall (Perazzi et al., CVPR 2016;
    Pont-Tuset et al., 2017, arXiv 1704.00675). An object that is in neither map scores 1 in both.

    Examples:
        >>> truth = np.array([[1, 1], [1, 1], [0, 0]], dtype=np.uint8)
        >>> guess = np.array([[1, 1], [0, 0], [0, 0]], dtype=np.uint8)
        >>> region_contour(truth, guess, 1).tolist()  # half of it is found, and contours agree within a pixel
        [[0.5], [1.0]]
    """
    if truth.shape != guess.shape:
        raise ValueError(f"the truth is {truth.shape}, the guess is {guess.shape}")
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    scores = np.ones((2, count))
    everything = _box((truth | guess) > 0)
    if everything is None:
        return scores
    truth, guess = truth[everything], guess[everything]
    for index in range(count):
        mine, theirs = truth == index + 1, guess == index + 1
        box = _box(mine | theirs)
        if box is not None:
            mine, theirs = mine[box], theirs[box]
            scores[0, index] = np.count_nonzero(mine & theirs) / np.count_nonzero(mine | theirs)
            scores[1, index] = _contour(mine, theirs, radius)
    return scores


def mean_recall_decay(values: Float[np.ndarray, " t"]) -> tuple[float, float, float]:
    """Mean over the frames, share of the frames above 0.5, and the first quarter's mean less the last quarter's.

    The quarters overlap by a frame, as in the benchmark's own scorer (Pont-Tuset et al., 2017, arXiv 1704.00675). That
    scorer keeps frame numbers in 8 bits, so it gives other decays for sequences of more than 257 frames.

    Examples:
        >>> mean_recall_decay(np.array([1.0, 0.75, 0.5, 0.25]))
        (0.625, 0.5, 0.5)
    """
    if not len(values):
        raise ValueError("there is no frame to score")
    ends = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())


def _box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice] | None:
    """The smallest box around a mask with one more pixel on each side, where the image has one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _contour(mine: Bool[np.ndarray, "h w"], theirs: Bool[np.ndarray, "h w"], radius: int) -> float:
    """F of two masks: a contour pixel agrees if the other contour passes within `radius` pixels (Euclidean)."""
    width = mine.shape[1] + 2 * radius
    ours, others = _edges(mine, radius), _edges(theirs, radius)
    if not len(ours) or not len(others):
        return 1.0 if len(ours) == len(others) else 0.0
    recall = _near(ours, others, radius, width) / len(ours)
    precision = _near(others, ours, radius, width) / len(others)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _edges(mask: Bool[np.ndarray, "h w"], margin: int) -> Int[np.ndarray, " n"]:
    """Pixels that differ from the one to the right, below, or diagonally below, ascending.

    They are numbered row by row in the mask with an empty margin all around, so that no row runs into the next.
    """
    height, width = mask.shape
    edges = np.zeros((height + 2 * margin, width + 2 * margin), dtype=bool)
    inside = edges[margin : margin + height, margin : margin + width]
    inside[:, :-1] = mask[:, :-1] != mask[:, 1:]
    inside[:-1] |= mask[:-1] != mask[1:]
    inside[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return np.flatnonzero(edges)


def _near(points: Int[np.ndarray, " n"], targets: Int[np.ndarray, " m"], radius: int, width: int) -> int:
    """How many points have a target within `radius`, exactly as after dilating the targets by a disk.

    A disk is a stack of row intervals that widen towards its middle. So the targets grow sideways, a pixel at a time,
    while the points look up and down at ever nearer rows. Both are numbered as `_edges` numbers them.
    """
    reach = radius * width
    grown = np.zeros(max(points[-1], targets[-1]) + reach + radius + 1, dtype=bool)
    grown[targets] = True
    near, half = np.zeros(len(points), dtype=bool), 0
    for row in range(radius, -1, -1):
        while (half + 1) ** 2 + row**2 <= radius**2:
            half += 1
            grown[targets - half] = True
            grown[targets + half] = True
        near |= grown[points - row * width]
        near |= grown[points + row * width]
    return int(np.count_nonzero(near))


def top_k(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"], k: int) -> float:
    """The share of rows, in [0, 1], whose label is among the k best scores; k above the classes counts as all.

    Examples:
        >>> scores, labels = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]]), torch.tensor([0, 1])
        >>> top_k(scores, labels, 1), top_k(scores, 1 - labels, 1), top_k(scores, 1 - labels, 2)
        (1.0, 0.0, 1.0)
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).double().mean().item()


def confusion(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> Int[Tensor, "true predicted"]:
    """How often each class (row) was taken for each class (column).

    Examples:
        >>> confusion(predicted=torch.tensor([0, 1, 1]), labels=torch.tensor([0, 0, 1]), classes=2)
        tensor([[1, 1],
                [0, 1]])
    """
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_accuracy(table: Int[Tensor, "true predicted"]) -> Float[Tensor, " true"]:
    """The share of each class, in [0, 1], that was recognised; NaN for a class without examples.

    Examples:
        >>> class_accuracy(torch.tensor([[1, 1], [0, 1]]))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return table.diagonal().double() / table.sum(1)


def calibration(
    probabilities: Float[Tensor, "n classes"], labels: Int[Tensor, " n"], bins: int = 15
) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error in [0, 1], and (mean confidence, accuracy, count) of each bin that is not empty.

    Bins are equal parts of the confidence, the greatest probability; the error is the mean distance of confidence and
    accuracy, weighted by count (Guo et al., 2017, arXiv 1706.04599, equation 3).

    Examples:
        >>> calibration(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
        (0.25, [(0.75, 0.5, 2)])
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double()
    places = (confidence * bins).ceil().long().clamp(1, bins) - 1
    found = []
    for place in places.unique():
        inside = places == place
        found.append((confidence[inside].mean().item(), right[inside].mean().item(), int(inside.sum())))
    return sum(count * abs(sure - true) for sure, true, count in found) / len(labels), found
