from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from motionmae.evaluation.metrics import (
    calibration,
    class_accuracy,
    confusion,
    mean_recall_decay,
    region_contour,
    top_k,
)


def reference(truth: np.ndarray, guess: np.ndarray) -> tuple[float, float]:
    """J and F of two binary masks with every distance between contour pixels written out."""

    def contour(mask: np.ndarray) -> np.ndarray:
        height, width = mask.shape
        at = lambda y, x: mask[min(y, height - 1), min(x, width - 1)]  # noqa: E731
        return np.array(
            [
                (y, x)
                for y in range(height)
                for x in range(width)
                if len({at(y, x), at(y + 1, x), at(y, x + 1), at(y + 1, x + 1)}) > 1
            ]
        ).reshape(-1, 2)

    union = (truth | guess).sum()
    region = (truth & guess).sum() / union if union else 1.0
    ours, others = contour(truth), contour(guess)
    if not len(ours) or not len(others):
        return region, float(len(ours) == len(others))
    near = ((ours[:, None] - others) ** 2).sum(-1) <= math.ceil(0.008 * math.hypot(*truth.shape)) ** 2
    recall, precision = near.any(1).mean(), near.any(0).mean()
    return region, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blobs(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    labels = np.zeros((height, width), dtype=np.uint8)
    for label in range(1, count + 1):
        y, x, h, w = rng.integers(0, height), rng.integers(0, width), rng.integers(1, 40), rng.integers(1, 40)
        labels[y : y + h, x : x + w] = label
    return labels


@pytest.mark.parametrize("shape", [(60, 90), (200, 240), (300, 30)])
def test_region_and_contour_equal_every_distance_written_out(shape):
    rng = np.random.default_rng(0)
    for _ in range(3):
        truth, guess = blobs(rng, *shape, 3), blobs(rng, *shape, 3)
        scores = region_contour(truth, guess, 4)
        for index in range(4):
            expected = reference(truth == index + 1, guess == index + 1)
            assert scores[:, index].tolist() == pytest.approx(expected, abs=1e-12)


def test_noise_up_to_the_border_equals_every_distance_written_out():
    rng = np.random.default_rng(1)
    truth, guess = ((rng.random((40, 50)) > share).astype(np.uint8) for share in (0.97, 0.99))
    assert region_contour(truth, guess, 1)[:, 0].tolist() == pytest.approx(reference(truth == 1, guess == 1), abs=1e-12)


def test_equal_maps_score_one_and_disjoint_maps_zero():
    left, right = np.zeros((2, 100, 100), dtype=np.uint8)
    left[20:40, 10:30], right[20:40, 70:90] = 1, 1
    assert region_contour(left, left, 1).tolist() == [[1.0], [1.0]]
    assert region_contour(left, right, 1).tolist() == [[0.0], [0.0]]


def test_an_object_in_neither_map_scores_one_and_in_one_map_zero():
    empty, full = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.uint8)
    full[5:9, 5:9] = 1
    assert region_contour(empty, empty, 1).tolist() == [[1.0], [1.0]]
    assert region_contour(full, empty, 1).tolist() == [[0.0], [0.0]]
    assert region_contour(empty, full, 1).tolist() == [[0.0], [0.0]]


def test_decay_of_a_ramp_is_the_difference_of_its_quarters():
    mean, recall, decay = mean_recall_decay(np.linspace(1, 0, 401))
    assert mean == pytest.approx(0.5)
    assert recall == pytest.approx(200 / 401)
    assert decay == pytest.approx(0.75)


def test_one_frame_has_no_decay():
    assert mean_recall_decay(np.array([0.7])) == (0.7, 1.0, 0.0)


def test_masks_that_fill_the_image_have_no_contour_and_agree():
    full = np.ones((6, 8), np.uint8)
    assert region_contour(full, full, 1).tolist() == [[1.0], [1.0]]


def test_rows_of_a_confusion_are_true_and_columns_are_guessed():
    table = confusion(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 0, 1]), 3)
    assert table.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert class_accuracy(table)[:2].tolist() == [1 / 3, 1.0]
    assert class_accuracy(table)[2].isnan()


def test_bins_of_the_calibration_end_at_their_upper_edge():
    """Guo et al., 2017: bin m of M is ((m - 1) / M, m / M]."""
    sure = torch.tensor([0.5, 0.55, 0.7, 0.75, 0.9], dtype=torch.float64)
    found = calibration(torch.stack((sure, 1 - sure), 1), torch.tensor([0, 0, 1, 1, 0]), bins=4)
    assert [count for _, _, count in found[1]] == [1, 3, 1]
    assert [true for _, true, _ in found[1]] == [1.0, pytest.approx(1 / 3), 1.0]
    assert found[0] == pytest.approx((0.5 + abs(2.0 - 1.0) + 0.1) / 5)


def test_the_k_best_hold_the_label_or_not():
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert [top_k(scores, torch.tensor([1, 0]), k) for k in (1, 2, 3, 9)] == [0.0, 0.5, 1.0, 1.0]
