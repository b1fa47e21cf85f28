"""What videos a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from motionmae.errors import MotionMAEError

SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".gif",
    ".3gp", ".ogv", ".vob", ".mxf", ".asf",
}  # fmt: skip


def find_videos(folder: str | Path) -> list[Path]:
    """All files under the folder whose ending is a video's, at any depth, sorted by path."""
    root = Path(folder)
    if not str(folder) or not root.is_dir():
        raise MotionMAEError(f"--data.path {str(folder)!r}: there is no such folder")
    found = [
        Path(place) / name
        for place, _, names in os.walk(root, followlinks=False)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    ]
    if not found:
        raise MotionMAEError(f"--data.path {folder}: no video file under this folder ({', '.join(sorted(SUFFIXES))})")
    return sorted(found)
