"""The error of a video, and the one door of reading: what goes wrong behind it is a VideoError with the file's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from motionmae.errors import MotionMAEError
from motionmae.video import remote


class VideoError(MotionMAEError):
    """A file that cannot be read as asked; `reason` is the message without the file's name."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        self.path, self.reason = os.fspath(path), reason
        path = remote.shown(self.path)
        super().__init__(f"{path if path.isprintable() else repr(path)}: {reason}")

    def __reduce__(self):
        return VideoError, (self.path, self.reason)


@contextmanager
def door(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever is raised within into a VideoError of this file: decoders raise errors of every kind."""
    try:
        yield
    except VideoError:
        raise
    except MotionMAEError as error:  # of an address that nothing here opens
        raise VideoError(path, str(error).removeprefix(f"{remote.shown(path)}: ")) from error
    except MemoryError as error:
        raise VideoError(path, "needs more memory than there is") from error
    except Exception as error:
        told = " ".join(str(error).split())
        raise VideoError(path, f"unreadable ({type(error).__name__}{': ' if told else ''}{told})") from error
