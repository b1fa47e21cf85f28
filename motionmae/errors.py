"""The one error class for mistakes that a user can mend: its message is a sentence that names the thing."""

from __future__ import annotations


class MotionMAEError(ValueError):
    """A wrong file, option or configuration; the command line shows the message alone and exits with code 2."""
