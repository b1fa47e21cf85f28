"""Procedural videos whose motion, class and masks are known: a textured shape on a slowly drifting background.

The class of a video is how the shape moves and nothing else: shape, textures, place, speed and drift are drawn alike
for every class. Textures have energy falling with frequency, as natural images have (Field, 1987, doi
10.1364/JOSAA.4.002379).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from motionmae.video.writing import write_video

MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink")


@dataclass(frozen=True)
class Rendered:
    """One video: frames uint8 [t h w c], the shape's mask bool [t h w], and its motion's name."""

    frames: UInt8[Tensor, "t h w c"]
    masks: Bool[Tensor, "t h w"]
    motion: str


def texture(random: np.random.Generator, side: int, exponent: float = 1.6) -> Float[Tensor, "1 3 {side} {side}"]:
    """A periodic colour texture in [0, 1] whose amplitude falls with frequency ** exponent."""
    spectrum = np.fft.rfft2(random.standard_normal((3, side, side)))
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    falloff = np.maximum(np.hypot(rows, columns), 1 / side) ** -exponent
    falloff[0, 0] = 0
    field = np.fft.irfft2(spectrum * falloff, s=(side, side))
    field = field / field.std() * 0.22 + random.uniform(0.3, 0.7, (3, 1, 1))
    return torch.from_numpy(np.clip(field, 0, 1)).float()[None]


def path(random: np.random.Generator, motion: str, frames: int, size: int) -> Float[Tensor, "{frames} 4"]:
    """The shape's centre (x, y, pixels), angle (radians) and scale in each frame.

    What moves sweeps a range through the video; what rests is drawn from the same range. So one frame tells nothing of
    the motion: its x, y, angle and scale are spread alike in every class.
    """
    sweep = torch.linspace(-1, 1, frames) * (1 if motion in ("right", "down", "clockwise", "grow") else -1)
    x, y, scale = (float(rest) + torch.zeros(frames) for rest in random.uniform(-1, 1, 3))
    turn = torch.zeros(frames)
    if motion in ("left", "right"):
        x = sweep
    elif motion in ("up", "down"):
        y = sweep
    elif motion in ("clockwise", "anticlockwise"):
        turn = sweep
    else:
        scale = sweep
    speed = random.uniform(0.7, 1.3)
    centre = size * (0.5 + random.uniform(-0.1, 0.1, 2))
    reach = speed * 0.25 * size
    angle = random.uniform(0, 2 * math.pi) + speed * 1.6 * turn
    return torch.stack((centre[0] + reach * x, centre[1] + reach * y, angle, torch.exp(speed * 0.45 * scale)), dim=1)


def render(seed: int, motion: str, frames: int = 24, size: int = 64) -> Rendered:
    """The video of `seed` with the given motion; equal arguments give equal pixels."""
    random = np.random.default_rng([seed, MOTIONS.index(motion)])
    shape, scene = texture(random, size), texture(random, 2 * size)
    way = path(random, motion, frames, size)
    drift = torch.from_numpy(random.uniform(-0.004, 0.004, 2) * size).float() * torch.arange(frames)[:, None]
    bumps = torch.from_numpy(random.uniform(-1, 1, (3, 2))).float() * torch.tensor([[0.16], [0.12], [0.08]])
    radius = float(random.uniform(0.17, 0.24)) * size

    axis = torch.arange(size) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx, dy = x - way[:, 0, None, None], y - way[:, 1, None, None]
    cos, sin = way[:, 2].cos()[:, None, None], way[:, 2].sin()[:, None, None]
    u, v = (dx * cos + dy * sin) / way[:, 3, None, None], (dy * cos - dx * sin) / way[:, 3, None, None]
    theta = torch.atan2(v, u)
    outline = 1 + sum(
        bumps[k, 0] * torch.cos((k + 2) * theta) + bumps[k, 1] * torch.sin((k + 2) * theta) for k in range(3)
    )
    inside = (radius * outline - torch.hypot(u, v)) * way[:, 3, None, None]  # pixels from the edge, roughly
    alpha = (inside + 0.5).clamp(0, 1)[:, None]

    front = _sample(shape, u + size / 2, v + size / 2)
    back = _sample(scene, x + drift[:, 0, None, None], y + drift[:, 1, None, None]) * 0.6 + 0.2
    pixels = (alpha * front + (1 - alpha) * back).clamp(0, 1) * 255
    return Rendered(pixels.round().byte().permute(0, 2, 3, 1), alpha[:, 0] > 0.5, motion)


def write_videos(
    folder: Path, split: str, count: int, seed: int, frames: int = 24, size: int = 64
) -> Iterator[tuple[Path, int]]:
    """`count` videos for each motion as H.264 files folder/split/MOTION/NNNN.mp4, yielded as (path, class).

    Existing files are kept; the motions alternate.
    """
    for index in range(count):
        for label, motion in enumerate(MOTIONS):
            target = folder / split / motion / f"{index:04d}.mp4"
            if not target.exists():
                write_video(target, render(seed * 100_003 + index, motion, frames, size).frames, rate=12)
            yield target, label


def sequences(count: int, seed: int, frames: int = 24, size: int = 128) -> Iterator[tuple[str, Rendered]]:
    """`count` videos, the motions in turn, whose shape is the one object to follow, with their names."""
    for index in range(count):
        motion = MOTIONS[index % len(MOTIONS)]
        yield f"{motion}-{index:02d}", render(seed * 100_003 + index, motion, frames, size)


def _sample(
    texture: Float[Tensor, "1 3 s s"], x: Float[Tensor, "t h w"], y: Float[Tensor, "t h w"]
) -> Float[Tensor, "t 3 h w"]:
    """Bilinear look-up at pixel coordinates; the texture repeats."""
    side = texture.shape[-1]
    padded = F.pad(texture, (0, 1, 0, 1), mode="circular")
    grid = torch.stack(((x - 0.5) % side, (y - 0.5) % side), dim=-1) * (2 / side) - 1
    return F.grid_sample(padded.expand(len(x), -1, -1, -1), grid, mode="bilinear", align_corners=True)
