"""Augmentation of whole batches on the device: the same for all frames of a clip, drawn from the clips' keys alone.

Clips are float [b c t h w] in [0, 255] between the operations. Statistics that an operation needs (the mean for the
contrast, the histogram to equalise) are those of the whole clip: a frame's own would make still things flicker.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from motionmae import noise
from motionmae.config import Augment

Clips = Float[Tensor, "b c t h w"]
Numbers = Float[Tensor, " b"]

FILL = (123.675, 116.28, 103.53)
"""Colour of what an operation moves in from outside: ImageNet's mean."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the luma of ITU-R BT.601."""
STREAMS = {"erase": 11, "pixels": 12, "jitter": 13, "randaugment": 100}


def augment(
    clip: UInt8[Tensor, "b c t h w"] | Float[Tensor, "b c t h w"], keys: Int[Tensor, " b"], config: Augment
) -> Float[Tensor, "b c t h w"]:
    """Clips, uint8 or float in [0, 1], after RandAugment, colour jitter and random erasing: float32 in [0, 1]."""
    made = clip.float() if clip.dtype == torch.uint8 else clip.float() * 255
    if config.layers:
        made = randaugment(made, keys, config)
    if config.brightness or config.contrast or config.saturation or config.hue:
        made = jitter(made, keys, config)
    if config.erase:
        made = erase(made, keys, config.erase, config.erase_area)
    return made / 255


def randaugment(clip: Clips, keys: Int[Tensor, " b"], config: Augment) -> Clips:
    """`layers` operations after one another, each drawn from OPERATIONS for each clip (Cubuk et al., 2020, 1909.13719).

    With magnitudes that vary, and the variants whose strength rises with the magnitude, as fine-tuning of VideoMAE has.
    """
    names, here = list(OPERATIONS), keys.cpu()
    for layer in range(config.layers):
        stream = STREAMS["randaugment"] + 2 * layer
        draws = noise.uniform(here, 3, stream)
        strength = (config.magnitude + config.spread * noise.normal(here, 1, stream + 1)[:, 0]).clamp(0, 10) / 10
        signs = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
        chosen = torch.where(draws[:, 2] < config.chance, (draws[:, 0] * len(names)).long(), -1)
        made = clip.clone()
        for number, name in enumerate(names):
            ids = (chosen == number).nonzero()[:, 0]
            if len(ids):
                there = ids.to(clip.device)
                made[there] = OPERATIONS[name](clip[there], strength[ids].to(clip), signs[ids].to(clip))
        clip = made
    return clip


def jitter(clip: Clips, keys: Int[Tensor, " b"], config: Augment) -> Clips:
    """Brightness, contrast, saturation and hue, in this order, each by a factor or angle drawn for each clip."""
    draws = noise.uniform(keys, 4, STREAMS["jitter"]) * 2 - 1
    clip = brightness(clip, 1 + config.brightness * draws[:, 0])
    clip = contrast(clip, 1 + config.contrast * draws[:, 1])
    clip = saturation(clip, 1 + config.saturation * draws[:, 2])
    return hue(clip, config.hue * draws[:, 3]) if config.hue else clip


def erase(clip: Clips, keys: Int[Tensor, " b"], chance: float, area: tuple[float, float]) -> Clips:
    """Replace a box by noise, the same in all frames (Zhong et al., 2020, 1708.04896): aspects from 0.3 to 1 / 0.3."""
    batch, channels, _, height, width = clip.shape
    draws = noise.uniform(keys, 5, STREAMS["erase"])
    size = height * width * (area[0] + draws[:, 0] * (area[1] - area[0]))
    ratio = torch.exp((draws[:, 1] * 2 - 1) * math.log(1 / 0.3))
    rows = (size / ratio).sqrt().round().clamp(1, height)
    columns = (size * ratio).sqrt().round().clamp(1, width)
    top, left = (draws[:, 2] * (height - rows + 1)).floor(), (draws[:, 3] * (width - columns + 1)).floor()
    y, x = torch.arange(height, device=clip.device), torch.arange(width, device=clip.device)
    down = (y >= top[:, None]) & (y < (top + rows)[:, None])
    across = (x >= left[:, None]) & (x < (left + columns)[:, None])
    inside = down[:, :, None] & across[:, None, :] & (draws[:, 4] < chance)[:, None, None]
    pixels = noise.uniform(keys, channels * height * width, STREAMS["pixels"]).view(batch, channels, 1, height, width)
    return torch.where(inside[:, None, None], pixels * 255, clip)


def brightness(clip: Clips, factor: Numbers) -> Clips:
    """Away from black (factor > 1) or towards it."""
    return _blend(torch.zeros_like(clip), clip, factor)


def contrast(clip: Clips, factor: Numbers) -> Clips:
    """Away from the clip's mean luma or towards it."""
    return _blend(grey(clip).mean(dim=(1, 2, 3, 4), keepdim=True), clip, factor)


def saturation(clip: Clips, factor: Numbers) -> Clips:
    """Away from grey or towards it."""
    return _blend(grey(clip), clip, factor)


def sharpness(clip: Clips, factor: Numbers) -> Clips:
    """Away from a smoothed clip (3 x 3, the middle weighs 5 of 13; the border stays) or towards it."""
    batch, channels, frames, height, width = clip.shape
    if min(height, width) < 3:
        return clip
    kernel = torch.ones(1, 1, 3, 3, dtype=clip.dtype, device=clip.device)
    kernel[0, 0, 1, 1] = 5
    flat = clip.reshape(-1, 1, height, width)
    smooth = flat.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(flat, kernel / 13)
    return _blend(smooth.view(batch, channels, frames, height, width), clip, factor)


def hue(clip: Clips, turn: Numbers) -> Clips:
    """Turn the hue by a share of the circle, value and saturation (HSV) staying as they are."""
    top, low = clip.amax(1), clip.amin(1)
    spread = (top - low).clamp(min=1e-6)
    red, green, blue = clip.unbind(1)
    angle = torch.where(
        top == red,
        (green - blue) / spread,
        torch.where(top == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    angle = angle + 6 * turn[:, None, None, None]
    parts = [(angle + shift) % 6 for shift in (5, 3, 1)]
    made = [top - (top - low) * torch.minimum(part, 4 - part).clamp(0, 1) for part in parts]
    return torch.stack(made, 1)


def posterize(clip: Clips, bits: Numbers) -> Clips:
    """Keep the highest bits of each value."""
    step = 2.0 ** (8 - bits)[:, None, None, None, None]
    return (clip / step).floor() * step


def solarize(clip: Clips, threshold: Numbers) -> Clips:
    """Invert the values from the threshold on."""
    return torch.where(clip < threshold[:, None, None, None, None], clip, 255 - clip)


def solarize_add(clip: Clips, amount: Numbers) -> Clips:
    """Brighten the values below 128."""
    return torch.where(clip < 128, (clip + amount[:, None, None, None, None]).clamp(max=255), clip)


def autocontrast(clip: Clips) -> Clips:
    """Stretch each channel of the clip to 0 … 255; a channel of one value stays."""
    low, high = clip.amin((2, 3, 4), keepdim=True), clip.amax((2, 3, 4), keepdim=True)
    return torch.where(high > low, (clip - low) * (255 / (high - low).clamp(min=1e-6)), clip)


def equalize(clip: Clips) -> Clips:
    """Make the histogram of each channel of the clip as flat as a table of 256 values can."""
    batch, channels = clip.shape[:2]
    values = clip.round().clamp(0, 255).long().flatten(2)
    counts = torch.zeros(batch, channels, 256, device=clip.device).scatter_add_(
        2, values, torch.ones_like(values).float()
    )
    last = counts.gather(2, values.amax(2, keepdim=True))
    step = ((counts.sum(2, keepdim=True) - last) / 255).floor()
    below = counts.cumsum(2) - counts
    table = ((below + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=clip.device).float())
    return table.gather(2, values).view_as(clip)


def affine(clip: Clips, matrix: Float[Tensor, "b 2 3"]) -> Clips:
    """Take each pixel from where the matrix sends it (pixels from the middle of the frame), bilinear, FILL outside."""
    batch, channels, _, height, width = clip.shape
    scale = torch.tensor([width / 2, height / 2], device=clip.device)
    unit = torch.cat([matrix[:, :, :2] * scale / scale[:, None], matrix[:, :, 2:] / scale[:, None]], 2)
    grid = F.affine_grid(unit, [batch, 1, height, width], align_corners=False)
    fill = torch.tensor(FILL, device=clip.device)[:channels].view(1, channels, 1, 1, 1)
    moved = F.grid_sample((clip - fill).reshape(batch, -1, height, width), grid, align_corners=False)
    return moved.view_as(clip) + fill


def grey(clip: Clips) -> Float[Tensor, "b 1 t h w"]:
    """The clip's luma."""
    return (clip * torch.tensor(GREY, device=clip.device).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)


def _blend(base: Tensor, clip: Clips, factor: Numbers) -> Clips:
    return (base + (clip - base) * factor[:, None, None, None, None]).clamp(0, 255)


def _matrix(a: Numbers, b: Numbers, x: Numbers, c: Numbers, d: Numbers, y: Numbers) -> Float[Tensor, "b 2 3"]:
    return torch.stack([torch.stack([a, b, x], 1), torch.stack([c, d, y], 1)], 1)


def _sheared(clip: Clips, across: Numbers, down: Numbers) -> Clips:
    one, none = torch.ones_like(across), torch.zeros_like(across)
    return affine(clip, _matrix(one, across, none, down, one, none))


def _shifted(clip: Clips, across: Numbers, down: Numbers) -> Clips:
    one, none = torch.ones_like(across), torch.zeros_like(across)
    return affine(clip, _matrix(one, none, across * clip.shape[4], none, one, down * clip.shape[3]))


def _turned(clip: Clips, degrees: Numbers) -> Clips:
    cos, sin, none = torch.cos(degrees.deg2rad()), torch.sin(degrees.deg2rad()), torch.zeros_like(degrees)
    return affine(clip, _matrix(cos, -sin, none, sin, cos, none))


Operation = Callable[[Shaped[Tensor, "b c t h w"], Tensor, Tensor], Tensor]
# Each from clips, strengths in [0, 1] and signs. Ranges are those of timm's "rand-…-inc1" (Wightman, 2019).
OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda clip, m, s: autocontrast(clip),
    "equalize": lambda clip, m, s: equalize(clip),
    "invert": lambda clip, m, s: 255 - clip,
    "rotate": lambda clip, m, s: _turned(clip, 30 * m * s),
    "posterize": lambda clip, m, s: posterize(clip, (4 - (4 * m).floor()).clamp(min=1)),
    "solarize": lambda clip, m, s: solarize(clip, 256 - (256 * m).floor()),
    "solarize_add": lambda clip, m, s: solarize_add(clip, (110 * m).floor()),
    "saturation": lambda clip, m, s: saturation(clip, 1 + 0.9 * m * s),
    "contrast": lambda clip, m, s: contrast(clip, 1 + 0.9 * m * s),
    "brightness": lambda clip, m, s: brightness(clip, 1 + 0.9 * m * s),
    "sharpness": lambda clip, m, s: sharpness(clip, 1 + 0.9 * m * s),
    "shear_x": lambda clip, m, s: _sheared(clip, 0.3 * m * s, torch.zeros_like(m)),
    "shear_y": lambda clip, m, s: _sheared(clip, torch.zeros_like(m), 0.3 * m * s),
    "translate_x": lambda clip, m, s: _shifted(clip, 0.45 * m * s, torch.zeros_like(m)),
    "translate_y": lambda clip, m, s: _shifted(clip, torch.zeros_like(m), 0.45 * m * s),
}
