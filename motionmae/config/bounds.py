"""Bounds stand beside the fields: `ratio: Annotated[float, Bounds(0, 1)]`. They are asked in `config.check` alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """The range of a number, or of each number of a tuple; both ends belong to it unless said otherwise.

    `above` leaves the lower end out, `below` the upper one. A tuple holds at least `least` numbers, and in a `rising`
    one none is less than the one before. Nothing that is not finite is ever within.
    """

    low: int | float
    high: int | float
    above: bool = False
    below: bool = False
    least: int = 0
    rising: bool = False

    def hold(self, value: Any) -> bool:
        """Whether a number or a tuple of numbers is within.

        >>> Bounds(0, 1, above=True).hold(0.0), Bounds(0, 1).hold((0.2, 1)), Bounds(0, 1).hold(float("nan"))
        (False, True, False)
        """
        numbers = value if isinstance(value, tuple) else (value,)
        within = all(
            math.isfinite(number)
            and (number > self.low if self.above else number >= self.low)
            and (number < self.high if self.below else number <= self.high)
            for number in numbers
        )
        rising = not self.rising or list(numbers) == sorted(numbers)
        return within and rising and (not isinstance(value, tuple) or len(value) >= self.least)

    def told(self, value: Any) -> str:
        """The range in words, as what `value` must be."""
        one = "be " if not isinstance(value, tuple) else "hold at least one number, each " if self.least else "each be "
        low = f"above {_number(self.low)}" if self.above else f"at least {_number(self.low)}"
        high = f"below {_number(self.high)}" if self.below else f"at most {_number(self.high)}"
        span = f"{low} and {high}"
        if not self.above and not self.below:
            span = f"between {_number(self.low)} and {_number(self.high)}"
        return f"{one}{span}{', rising' if self.rising else ''}"


def _number(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


SEED = Bounds(0, 2**63 - 1)
SHARE = Bounds(0, 1, above=True)
"""Of something, not nothing of it."""
RATE = Bounds(0.001, 10_000)
"""Frames a second."""
FRAMES = Bounds(1, 4096)
PIXELS = Bounds(1, 16_384)
"""A side of a picture."""
WIDTH = Bounds(1, 16_384)
DEPTH = Bounds(1, 256)
LAYER = Bounds(0, 256)
HEADS = Bounds(1, 1024)
COUNT = Bounds(1, 1_000_000_000)
SOME = Bounds(0, 1_000_000_000)
"""A count that may be 0."""
PROCESSES = Bounds(1, 4096)
WORKERS = Bounds(0, 4096)
WEIGHT = Bounds(0, 1_000_000)
