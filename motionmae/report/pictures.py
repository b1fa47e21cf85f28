"""Clips as moving pictures that a browser plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from motionmae.files import write_image

ORDER = ("input", "masked", "predicted_appearance", "motion", "predicted_motion")


def side_by_side(clips: dict[str, Float[Tensor, "b c t h w"]], gap: int = 2) -> UInt8[Tensor, "t h2 w2 c"]:
    """One row for each clip of the batch, one column for each kind there is, in ORDER; white between them.

    Pixels are in [0, 1]. Differences are shown around grey, scaled by one factor for truth and prediction alike;
    velocities, whose channels are rows down and columns to the right, as red and green around grey.
    """
    columns = []
    strength = clips["motion"].abs().flatten(1).quantile(0.995, dim=1).clamp_min(1e-3) if "motion" in clips else None
    for name in ORDER:
        if name not in clips:
            continue
        pixels = clips[name]
        if name.endswith("motion") and strength is not None:
            pixels = 0.5 + 0.5 * pixels / strength[:, None, None, None, None]
            pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, 3 - pixels.shape[1]), value=0.5)
        columns.append(torch.nn.functional.pad(pixels.clamp(0, 1), (gap, gap, gap, gap), value=1.0))
    table = torch.cat(columns, dim=4)  # b c t h w, one wide row a clip
    return (torch.cat(list(table), dim=2) * 255).round().byte().permute(1, 2, 3, 0).cpu()


def save_animation(path: Path, frames: UInt8[Tensor, "t h w c"], stride: int = 1, rate: float = 8.0) -> None:
    """Frames as an animated WebP, `rate` frames a second, for ever."""
    images = [Image.fromarray(frame) for frame in frames.numpy()]
    more: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    write_image(path, images[0], duration=round(1000 / rate), quality=85, **more)
