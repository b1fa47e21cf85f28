"""Names of a plain vision transformer, as timm has them and those that grew from it, and ours.

Its one rule: what is not known is an error that names it, never passed over.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, zeros_like

from motionmae.errors import MotionMAEError
from motionmae.models.tokens import sincos1d

# Heads of the published widths: VideoMAE's S, B, L, H (arXiv 2203.12602), VideoMAE V2's g (arXiv 2303.16727), ViT's.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
BLOCK = {
    "attn.qkv.weight": "attention.qkv.weight",
    "attn.q_bias": "attention.q_bias",
    "attn.v_bias": "attention.v_bias",
    "attn.proj.weight": "attention.out.weight",
    "attn.proj.bias": "attention.out.bias",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc1.bias": "mlp.0.bias",
    "mlp.fc2.weight": "mlp.2.weight",
    "mlp.fc2.bias": "mlp.2.bias",
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
}
"""What stands in a block: their names and ours."""
SCALES = {"gamma_1": "attention.out", "ls1.gamma": "attention.out", "gamma_2": "mlp.2", "ls2.gamma": "mlp.2"}
"""A branch's scale (LayerScale, Touvron et al., 2021, arXiv 2103.17239) is part of its last linear layer."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.")
"""Before all names: of DDP, of torch.compile, and of classes that hold the model."""


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without what a wrapper has put before all names."""
    found = dict(state)
    while prefix := next((one for one in WRAPPERS if found and all(name.startswith(one) for name in found)), ""):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def renamed(
    state: Mapping[str, Tensor], tops: Mapping[str, str], left: Iterable[str], path: Path, strict: bool
) -> dict[str, Tensor]:
    """The state in our names, in float32.

    `tops` are patterns of names outside the blocks, or of the blocks' list (which end in a dot), and what they become;
    `left` are patterns of what is left behind. A name that is neither is an error or, if not `strict`, a warning.
    """
    found: dict[str, Tensor] = {}
    scales: list[tuple[str, Tensor]] = []
    unknown: list[str] = []
    for name, value in state.items():
        if any(re.fullmatch(pattern, name) for pattern in left):
            continue
        match = next((hit for pattern in tops if (hit := re.match(pattern, name))), None)
        place = re.fullmatch(r"(.*?blocks\.\d+\.)(.+)", name)
        top = "" if match is None else tops[match.re.pattern] + name[match.end() :]
        if match is None:
            unknown.append(name)
        elif not place:
            found[top] = value.float()
        elif place[2] == "attn.qkv.bias":  # the key's part adds the same to all scores of a query: softmax drops it
            stem = top.removesuffix(place[2])
            query, _, values = value.float().chunk(3)
            found[f"{stem}attention.q_bias"], found[f"{stem}attention.v_bias"] = query.clone(), values.clone()
        elif place[2] in SCALES:
            scales.append((top.removesuffix(place[2]) + SCALES[place[2]], value.float()))
        elif place[2] in BLOCK:
            found[top.removesuffix(place[2]) + BLOCK[place[2]]] = value.float()
        elif place[2] != "attn.k_bias":
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        told = f"{path}: holds {', '.join(unknown[:3])}{more}, which no layout that is known here has"
        if strict:
            raise MotionMAEError(f"{told}; load(…, strict=False) leaves them behind")
        warnings.warn(f"{told}: left behind", stacklevel=2)
    for stem, scale in scales:
        if f"{stem}.weight" not in found or found[f"{stem}.weight"].ndim != 2 or scale.ndim != 1:
            raise MotionMAEError(f"{path}: holds a scale for {stem}, but not the layer that it scales")
        if len(found[f"{stem}.weight"]) != len(scale):
            raise MotionMAEError(f"{path}: a scale of {len(scale)} does not fit {stem}")
        found[f"{stem}.weight"] = found[f"{stem}.weight"] * scale[:, None]
        if f"{stem}.bias" in found:
            found[f"{stem}.bias"] = found[f"{stem}.bias"] * scale
    for name in [name for name in found if name.endswith("attention.qkv.weight")]:  # trained without these biases
        for part in ("q_bias", "v_bias"):
            found.setdefault(name.replace("qkv.weight", part), zeros_like(found[name][: len(found[name]) // 3, 0]))
    return found


def depth(state: Mapping[str, Tensor], part: str) -> int:
    """Blocks that the state holds below `part`; at least one."""
    found = {match[1] for name in state if (match := re.match(rf"{re.escape(part)}\.blocks\.(\d+)\.", name))}
    return max(1, len(found))


def encoder_heads(width: int, told: int | None, path: Path) -> int:
    """The encoder's heads as told, or of a published width. Raises MotionMAEError where they are not known."""
    heads = told or HEADS.get(width)
    if heads is None:
        raise MotionMAEError(
            f"{path}: the number of heads of a width of {width} is not known; say --heads N, or load(…, heads=N)"
        )
    return heads


def whole_number(args: Any, name: str, default: int) -> int:
    """A whole number among a program's options."""
    value = getattr(args, name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20 else default


def is_sines(table: Tensor) -> bool:
    """Whether a table [n, d] of positions is VideoMAE's sines over the flattened index."""
    return bool((table - sincos1d(len(table), table.shape[1])).abs().max() < 1e-4)


def side_of(tokens: int, slots: int, rows: int, told: int | None, path: Path) -> int:
    """Height and width in pixels of the square frames whose positions a table of `tokens` is, by slots in time."""
    side = math.isqrt(tokens // slots) if slots else 0
    if not side or slots * side * side != tokens or (told and told != side * rows):
        raise MotionMAEError(
            f"{path}: its {tokens} learned positions are not those of {slots} slots of square frames"
            f"{f' of {told} pixels' if told else ''}"
        )
    return side * rows
