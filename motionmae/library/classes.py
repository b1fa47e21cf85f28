"""Classes: labels as numbers, and a share of each class.

Its one rule: a number means the same class however it is written, and never a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from motionmae.errors import MotionMAEError
from motionmae.words import many


def number(labels: Sequence[str], classes: Sequence[str] = ()) -> tuple[list[int], list[str]]:
    """The labels as numbers, and the classes that these number: sorted, numbers as numbers, unless given.

    Blanks around a label mean nothing, and 2, 02 and 2.0 are one class. Raises MotionMAEError for a label that is not
    among the given classes, and for labels by name where the classes are numbers, which no order makes the same.
    """
    names = list(classes) or [re.sub(r"\.0*$", "", name) if _key(name) < _WORD else name for name in _distinct(labels)]
    places = {_key(name): place for place, name in enumerate(names)}
    unknown = sorted({label for label in labels if _key(label) not in places}, key=_key)
    if unknown:
        words = _key(unknown[0]) > _WORD
        why = " (these are numbers: names cannot be matched with them)" if words and max(places) < _WORD else ""
        raise MotionMAEError(
            f"label {unknown[0]!r} is not among the {many(len(names), 'class')} known ({', '.join(names[:5])}…){why}"
        )
    return [places[_key(label)] for label in labels], names


_WORD = (1, 0, "")


def _key(label: str) -> tuple[int, int, str]:
    """What a label is compared by: numbers come first, as numbers."""
    match = re.fullmatch(r"([0-9]+)(\.0*)?", label.strip())
    return (0, int(match[1]), "") if match else (1, 0, label.strip())


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, each once, as they are written first, in order."""
    first = {_key(label): label.strip() for label in sorted(labels, reverse=True)}
    return [first[key] for key in sorted(first)]


def share(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Which videos are used: `fraction` of each class, rounded, at least one; ascending. A larger fraction under the
    same seed holds all of a smaller one's."""
    kept: list[int] = []
    for label in sorted(set(labels)):
        places = [at for at, other in enumerate(labels) if other == label]
        order = np.random.default_rng([seed, label]).permutation(len(places))
        kept += [places[at] for at in order[: max(1, round(fraction * len(places)))]]
    return sorted(kept)
