"""Counts in sentences: a number and its noun, which agrees with it."""

from __future__ import annotations


def many(count: int | float, noun: str) -> str:
    """So many of what the noun names, which is given in the singular.

    Examples:
        >>> many(1, "video"), many(0, "class"), many(0.5, "epoch"), many(1200, "step")
        ('1 video', '0 classes', '0.5 epochs', '1200 steps')
    """
    if count != 1:
        noun += "es" if noun.endswith(("s", "tch")) else "s"
    return f"{count:g} {noun}" if isinstance(count, float) else f"{count} {noun}"
