"""Clips as moving pictures that a browser plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from motionmae.files import write_image

MOTIONS = ("motion", "second")
ORDER = ("input", "masked", "predicted_appearance", *(f"{of}{name}" for name in MOTIONS for of in ("", "predicted_")))
CAPTIONS = {
    "input": "input",
    "masked": "what the encoder sees",
    "predicted_appearance": "reconstruction",
    "alone": "predicted places alone",
    "guessed": "with a guessed scale",
    "error": "error",
    "motion": "true motion",
    "predicted_motion": "predicted motion",
    "second": "true motion of the second kind",
    "predicted_second": "predicted motion of the second kind",
}
"""What a column shows, in the order of a full row."""

PAINTED = {
    "absolute": "motion",
    "signed": "motion (red: brighter, blue: darker)",
    "velocity": "velocity (hue: direction, brightness: speed)",
}
"""What each kind of motion is called where it is shown."""

Pixels = Float[Tensor, "b _ t h w"]


def coloured(clips: dict[str, Pixels]) -> dict[str, Pixels]:
    """The clips with motion as colours in [0, 1], truth and prediction on one scale, that of each clip's truth.

    Velocities: the hue is the direction, as on a wheel (right red, down green, left cyan, up violet), the brightness is
    the speed. Signed differences: brighter is red, darker is blue, the rest grey. Absolute ones: black to white.
    """
    painted = dict(clips)
    for name in MOTIONS:
        if name in clips:
            truth = clips[name]
            strength = truth.abs().flatten(1).quantile(0.995, dim=1).clamp_min(1e-3)[:, None, None, None, None]
            paint = _wheel if truth.shape[1] == 2 else _signed if (truth < 0).any() else _heat
            painted |= {kind: paint(clips[kind] / strength) for kind in (name, f"predicted_{name}") if kind in clips}
    return painted


def errors(clips: dict[str, Pixels]) -> Pixels:
    """How far the reconstruction is from the input, as a heat from black (0) to white (a quarter of brightness)."""
    return _heat((clips["predicted_appearance"] - clips["input"]).abs() * 4)


def _heat(values: Pixels) -> Float[Tensor, "b 3 t h w"]:
    level = values.mean(1, keepdim=True).clamp(0, 1) * 3
    return torch.cat((level, level - 1, level - 2), dim=1).clamp(0, 1)


def _signed(values: Pixels) -> Float[Tensor, "b 3 t h w"]:
    level = values.mean(1, keepdim=True).clamp(-1, 1)
    up, down = level.clamp_min(0), (-level).clamp_min(0)
    return torch.cat((0.5 + 0.5 * up - 0.4 * down, 0.5 - 0.35 * up - 0.15 * down, 0.5 - 0.4 * up + 0.5 * down), dim=1)


def _wheel(values: Float[Tensor, "b 2 t h w"]) -> Float[Tensor, "b 3 t h w"]:
    down, right = values[:, :1], values[:, 1:]
    angle, speed = torch.atan2(down, right), torch.hypot(down, right).clamp(0, 1)
    thirds = torch.tensor([0.0, 2.0, 4.0], device=values.device)[:, None, None, None] * torch.pi / 3
    return speed * (0.5 + 0.5 * torch.cos(angle - thirds)).clamp(0, 1)


def side_by_side(clips: dict[str, Pixels], gap: int = 2) -> UInt8[Tensor, "t h2 w2 c"]:
    """One row for each clip of the batch, one column for each kind there is, in ORDER; white between them.

    Pixels are in [0, 1]; motion is shown as `coloured` does.
    """
    painted = coloured(clips)
    columns = [F.pad(painted[name].clamp(0, 1), (gap,) * 4, value=1.0) for name in ORDER if name in painted]
    table = torch.cat(columns, dim=4)  # b c t h w, one wide row a clip
    return (torch.cat(list(table), dim=2) * 255).round().byte().permute(1, 2, 3, 0).cpu()


def captioned(clips: dict[str, Pixels], side: int, columns: int = 4) -> UInt8[Tensor, "t h2 w2 c"]:
    """One clip, every kind there is with its name above it, `side` pixels wide, in rows of `columns`: RGB frames."""
    painted = coloured(clips)
    names = [name for name in CAPTIONS if name in painted]
    line, count = 18, len(painted["input"][0, 0])
    across = min(columns, len(names))
    rows = -(-len(names) // across)
    frames = []
    for time in range(count):
        sheet = Image.new("RGB", (across * (side + 4), rows * (side + line + 4)), "white")
        draw = ImageDraw.Draw(sheet)
        for place, name in enumerate(names):
            left, top = place % across * (side + 4) + 2, place // across * (side + line + 4)
            pixels = (painted[name][0, :, time].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            draw.text((left, top + 2), CAPTIONS[name], fill="black", font=ImageFont.load_default(12))
            sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (left, top + line))
        frames.append(torch.from_numpy(np.asarray(sheet).copy()))
    return torch.stack(frames)


def save_animation(path: Path, frames: UInt8[Tensor, "t h w c"], rate: float = 8.0) -> None:
    """Frames as an animated WebP, `rate` frames a second, for ever."""
    images = [Image.fromarray(frame) for frame in frames.numpy()]
    more: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    write_image(path, images[0], duration=round(1000 / rate), quality=85, **more)
