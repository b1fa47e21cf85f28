"""Encoders by the names of their sizes, new: `motionmae.load` gives a pretrained one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from motionmae.config import Model
from motionmae.config.sizes import SIZES
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder


def vit_tiny(*, drop_path: float = 0.0, **changes: Any) -> VideoEncoder:
    """Width 128, 4 blocks: for clips of 8 x 64 x 64 in cubes of 2 x 8 x 8, 0.84 million parameters."""
    return _vit("tiny", drop_path, changes)


def vit_small(*, drop_path: float = 0.0, **changes: Any) -> VideoEncoder:
    """Width 384, 12 blocks: for clips of 16 x 224 x 224 in cubes of 2 x 16 x 16, 21.9 million parameters."""
    return _vit("small", drop_path, changes)


def vit_base(*, drop_path: float = 0.0, **changes: Any) -> VideoEncoder:
    """Width 768, 12 blocks: for clips of 16 x 224 x 224 in cubes of 2 x 16 x 16, 86.2 million parameters.

    `changes` are fields of `motionmae.config.Model`; a field that is unknown, or out of its bounds, is a
    MotionMAEError. The weights are drawn from PyTorch's generator, and the module is in training mode.

    >>> import motionmae
    >>> encoder = motionmae.vit_base(frames=8, size=112, depth=2)
    >>> encoder.config.frames, len(encoder.blocks), encoder.training
    (8, 2, True)
    """
    return _vit("base", drop_path, changes)


def vit_large(*, drop_path: float = 0.0, **changes: Any) -> VideoEncoder:
    """Width 1024, 24 blocks: for clips of 16 x 224 x 224 in cubes of 2 x 16 x 16, 303.9 million parameters."""
    return _vit("large", drop_path, changes)


def vit_huge(*, drop_path: float = 0.0, **changes: Any) -> VideoEncoder:
    """Width 1280, 32 blocks: for clips of 16 x 224 x 224 in cubes of 2 x 16 x 16, 631.6 million parameters."""
    return _vit("huge", drop_path, changes)


def _vit(size: str, drop_path: float, changes: dict[str, Any]) -> VideoEncoder:
    for name in sorted(changes.keys() - {item.name for item in fields(Model)}):
        raise MotionMAEError(f"vit_{size}: a model has no field {name!r}: see motionmae.config.Model")
    return VideoEncoder(replace(SIZES[size], **changes), drop_path)
