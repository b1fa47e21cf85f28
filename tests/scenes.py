"""A small video of a moving square whose masks are known, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from motionmae.evaluation.masks import write_mask
from motionmae.video.writing import write_video

SIDE, SMALL = 64, ("--short", "64", "--multiple", "0", "--features.stride", "8")


def scene(time: int, hidden: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A textured background and, unless hidden, a bright square that moves right by two pixels a frame."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if not hidden:
        left = 8 + 2 * time % (SIDE - 32)
        frame[24:40, left : left + 16] = random.integers(160, 255, (16, 16, 3))
        labels[24:40, left : left + 16] = 1
    return frame, labels


def davis_folder(root: Path, frames: int, name: str = "square", hidden: tuple[int, ...] = ()) -> Path:
    for part in ("JPEGImages/480p", "Annotations/480p"):
        (root / part / name).mkdir(parents=True)
    for time in range(frames):
        frame, labels = scene(time, time in hidden)
        Image.fromarray(frame).save(root / f"JPEGImages/480p/{name}/{time:05d}.jpg", quality=95)
        write_mask(root / f"Annotations/480p/{name}/{time:05d}.png", labels)
    (root / "ImageSets/2017").mkdir(parents=True, exist_ok=True)
    with (root / "ImageSets/2017/val.txt").open("a") as file:
        file.write(f"{name}\n")
    return root


def clip_file(path: Path, frames: int = 6) -> str:
    write_video(path, torch.from_numpy(np.stack([scene(time)[0] for time in range(frames)])), 12.0)
    return str(path)
