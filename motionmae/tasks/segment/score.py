"""Predictions and annotations to the benchmark's scores: nothing is kept between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from motionmae.config import SegmentScore, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import list_masks, list_sequences
from motionmae.evaluation.masks import VOID, read_mask
from motionmae.evaluation.metrics import mean_recall_decay, region_contour
from motionmae.files import write_json
from motionmae.progress import then

KEYS = ("J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


def run(config: SegmentScore) -> None:
    """Score a folder of predictions, print the table and, where asked for, write the JSON."""
    check(config)
    if not config.predictions:
        raise MotionMAEError("PREDICTIONS is missing: expected a folder of masks, SEQUENCE/FRAME.png")
    names = config.data.sequences or list_sequences(config.data.path, config.data.split)
    scores = score_folder(config.predictions, config.data.path, names)
    print(table(scores))
    if config.json:
        write_scores(config.json, scores)
        print(config.json)
    then("motionmae segment davis MODEL --data.path DAVIS makes such masks and a page of them")


def write_scores(path: Path | str, scores: dict[str, Any]) -> None:
    """The scores as JSON, replacing an older file."""
    write_json(path, scores)


def score_folder(predictions: Path | str, root: Path | str, names: Sequence[str]) -> dict[str, Any]:
    """Scores of PREDICTIONS/SEQUENCE/FRAME.png against the annotations, as the benchmark's scorer gives them.

    Returns `global`, `per_object` (keys SEQUENCE_NUMBER) and `per_sequence` with the means, recalls and decays of J and
    F, shares of 1; a sequence's are means over its objects. First and last frames are not scored, so sequences of fewer
    than three frames are left out and named under `not_scored`. Objects are those of the first annotation, up to its
    highest number; void (255) in an annotation is background; an object that is never predicted is an empty mask.
    Raises where a prediction is missing, differs in size, or holds a number above the sequence's objects.
    """
    per_object: dict[str, dict[str, float]] = {}
    per_sequence: dict[str, dict[str, float]] = {}
    not_scored = []
    for name in names:
        truths = list_masks(root, name)
        if len(truths) < 3:
            not_scored.append(name)
            continue
        values = _sequence_values(truths, Path(predictions) / name)
        rows = [(*mean_recall_decay(j), *mean_recall_decay(f)) for j, f in values]
        per_object |= {f"{name}_{n}": dict(zip(KEYS, row, strict=True)) for n, row in enumerate(rows, start=1)}
        if rows:
            per_sequence[name] = _overall([per_object[f"{name}_{n}"] for n in range(1, len(rows) + 1)])
    if not per_object:
        raise MotionMAEError(f"{root} has no object to score: expected a sequence of 3 frames or more with a mask")
    total = _overall(list(per_object.values()))
    return {"global": total, "per_object": per_object, "per_sequence": per_sequence, "not_scored": not_scored}


def _overall(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over objects, and the mean of J's and F's."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in KEYS}
    return {"J&F-Mean": (means["J-Mean"] + means["F-Mean"]) / 2, **means}


def _sequence_values(truths: list[Path], folder: Path) -> Float[np.ndarray, "k 2 t"]:
    """J and F of each object in each scored frame of a sequence."""
    first = read_mask(truths[0])
    count = int(first[first != VOID].max(initial=0))

    def score(path: Path) -> Float[np.ndarray, "2 k"]:
        truth, guess = read_mask(path), read_mask(folder / path.name)
        if truth.shape != guess.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (guess.shape, truth.shape)]
            raise MotionMAEError(f"{folder / path.name} is {sizes[0]} pixels, its annotation {path} is {sizes[1]}")
        if guess.max() > count:
            raise MotionMAEError(
                f"{folder / path.name} holds object {guess.max()}: the sequence has objects 1 to {count}"
            )
        return region_contour(truth, guess, count)

    return np.stack([score(path) for path in truths[1:-1]]).transpose(2, 1, 0)


def table(scores: dict[str, Any]) -> str:
    """The scores in percent as lines of text: one a sequence, and the global ones."""
    wide = max(map(len, (*scores["per_sequence"], "all objects")))
    lines = [f"{'':{wide}}   J&F     J     F"]
    for name, row in scores["per_sequence"].items():
        lines.append(f"{name:{wide}} {_percent(row, ('J&F-Mean', 'J-Mean', 'F-Mean'))}")
    total = scores["global"]
    lines.append(f"{'all objects':{wide}} {_percent(total, ('J&F-Mean', 'J-Mean', 'F-Mean'))}")
    lines.append(
        f"recall J {100 * total['J-Recall']:.1f}, F {100 * total['F-Recall']:.1f}; "
        f"decay J {100 * total['J-Decay']:.1f}, F {100 * total['F-Decay']:.1f}"
    )
    if scores["not_scored"]:
        lines.append(f"fewer than 3 frames, not scored: {', '.join(scores['not_scored'])}")
    return "\n".join(lines)


def _percent(row: dict[str, float], keys: Sequence[str]) -> str:
    return " ".join(f"{100 * row[key]:5.1f}" for key in keys)
