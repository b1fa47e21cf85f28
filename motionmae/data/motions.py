"""Real clips labelled by motion alone: a camera that is moved, or a time that is bent, over any videos.

Its one rule: a source gives clips of every class, and only to the training or only to the test videos; so neither the
scene nor one frame tells the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.video.reading import open_video
from motionmae.video.writing import write_video
from motionmae.words import many

CAMERA = ("pan left", "pan right", "pan up", "pan down", "zoom in", "zoom out")
TIME = ("forward", "backward", "fast")
MOTIONS = CAMERA + TIME
REACH = 0.35  # of the window's side: how far a pan goes; a zoom changes the side by the same share
FAST = 2  # frames of the source to one of the clip, in the class of that name


def camera(
    motion: str, frames: int, draws: Sequence[float], height: int, width: int
) -> list[tuple[float, float, float]]:
    """The window of each frame: centre row, centre column, side, in pixels of a frame of this size.

    What does not move is drawn from the range through which what moves sweeps; four draws in [0, 1).
    """
    sweep = np.linspace(-0.5, 0.5, frames)
    rest = [np.full(frames, draw - 0.5) for draw in draws[:3]]
    row, column, zoom = rest
    if motion in ("pan left", "pan right"):
        column = sweep if motion == "pan right" else -sweep
    elif motion in ("pan up", "pan down"):
        row = sweep if motion == "pan down" else -sweep
    elif motion in ("zoom in", "zoom out"):
        zoom = -sweep if motion == "zoom in" else sweep
    largest = min(height, width) / (1 + REACH)  # so that every window of every class lies within the frame
    side = largest * (0.55 + 0.15 * draws[3]) * (1 + REACH * zoom) / (1 + REACH / 2)
    row, column = height / 2 + REACH * side * row, width / 2 + REACH * side * column
    return list(zip(row.tolist(), column.tolist(), side.tolist(), strict=True))


def moments(motion: str, count: int, frames: int, draw: float) -> list[int]:
    """The source's frames: at its own pace from a drawn start; backwards or twice as fast in the classes of time."""
    step = FAST if motion == "fast" else 1
    free = count - FAST * (frames - 1)  # the same starts for every class
    start = int(draw * free)
    chosen = [start + step * place for place in range(frames)]
    return chosen[::-1] if motion == "backward" else chosen


def clip(source: UInt8[Tensor, "t h w c"], motion: str, seed: int, frames: int, size: int) -> UInt8[Tensor, "t2 s s c"]:
    """A clip of `frames` frames, `size` pixels wide and high, with the motion; the seed decides all the rest."""
    draws = np.random.default_rng([seed, MOTIONS.index(motion)]).random(5).tolist()
    chosen = moments(motion, len(source), frames, draws[4])
    windows = camera(motion, frames, draws[:4], source.shape[1], source.shape[2])
    made = []
    for number, (row, column, side) in zip(chosen, windows, strict=True):
        made.append(_window(source[number], row, column, side, size))
    return torch.stack(made)


def split_sources(sources: Sequence[Path], tests: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The sources to train on, and those to test on: `tests`, or where none is named every third in the order given."""
    if shared := set(sources) & set(tests):
        raise MotionMAEError(f"--test {min(shared)}: is among the sources to train on too")
    parts = (
        (list(sources), list(tests)) if tests else ([s for at, s in enumerate(sources) if at % 3 != 2], sources[2::3])
    )
    if not parts[1]:
        raise MotionMAEError(f"{len(sources)} sources were given, at least 3 are needed: every third is for the test")
    return parts[0], list(parts[1])


def write_clips(
    train: Sequence[Path], test: Sequence[Path], folder: Path, count: int, seed: int, frames: int = 16, size: int = 64
) -> None:
    """`count` clips of each motion and source as folder/train/MOTION/… and folder/test/MOTION/…; those there are kept.

    A source too short for a clip is a MotionMAEError.
    """
    for split, files in (("train", train), ("test", test)):
        for at, file in enumerate(files):
            small = _read(file, FAST * (frames - 1) + 1, 3 * size)
            for motion in MOTIONS:
                for number in range(count):
                    target = folder / split / motion / f"{at:03d}-{file.stem.replace(' ', '_')}-{number:03d}.mp4"
                    if not target.exists():
                        made = clip(small, motion, seed * 1_000_003 + at * 1009 + number, frames, size)
                        write_video(target, made, 12)


def _read(file: Path, least: int, short: int, most: int = 240) -> UInt8[Tensor, "t h w c"]:
    """At most the first `most` frames, at a short side of `short` pixels, sixteen at a time."""
    with open_video(file) as video:
        count = min(len(video), most)
        if count < least:
            raise MotionMAEError(f"{file}: has {many(count, 'frame')}, a clip needs {least}")
        parts = []
        for at in range(0, count, 16):
            part = video.read(list(range(at, min(at + 16, count))))
            scale = Fraction(short, min(part.shape[1:3]))
            size = [max(1, round(side * scale)) for side in part.shape[1:3]]
            resized = F.interpolate(part.permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
            parts.append(resized.permute(0, 2, 3, 1))
    return torch.cat(parts)


def _window(frame: UInt8[Tensor, "h w c"], row: float, column: float, side: float, size: int) -> UInt8[Tensor, "s s c"]:
    """A square of the frame by bilinear sampling, to a fraction of a pixel."""
    height, width, _ = frame.shape
    steps = (torch.arange(size) + 0.5) / size - 0.5
    y, x = (row + side * steps) * 2 / height - 1, (column + side * steps) * 2 / width - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    pixels = F.grid_sample(frame.permute(2, 0, 1)[None].float(), grid, align_corners=False, padding_mode="border")
    return pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0)
