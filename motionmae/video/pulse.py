"""A sign of life of whatever reads: someone else may want to know that this process has not got stuck.

Its one rule: whoever takes long beats at least every few seconds in which something happens, be it a packet.
"""

from __future__ import annotations

from collections.abc import Callable

_listeners: list[Callable[[], None]] = []


def beat() -> None:
    """Something has been read."""
    for listener in _listeners:
        listener()


def listen(listener: Callable[[], None]) -> None:
    """Call this at every beat of this process from now on."""
    _listeners.append(listener)
