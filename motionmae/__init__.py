"""MotionMAE: masked autoencoders for video that reconstruct appearance and motion (arXiv 2210.04154)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from motionmae import models

__version__ = "0.1.0"

if TYPE_CHECKING:
    from motionmae.data.clips import Clips
    from motionmae.data.dataset import Epochs, open_clips
    from motionmae.errors import MotionMAEError
    from motionmae.inference.embedding import embed
    from motionmae.inference.opened import open_video
    from motionmae.models.autoencoder import MotionMAE
    from motionmae.models.classifier import Classifier, load_classifier
    from motionmae.models.encoder import VideoEncoder
    from motionmae.models.sizes import vit_base, vit_huge, vit_large, vit_small, vit_tiny
    from motionmae.models.weights import load, load_autoencoder, save
    from motionmae.objectives.reconstruction import Reconstruction

__all__ = [
    "Classifier",
    "Clips",
    "Epochs",
    "MotionMAE",
    "MotionMAEError",
    "Reconstruction",
    "VideoEncoder",
    "embed",
    "load",
    "load_autoencoder",
    "load_classifier",
    "open_clips",
    "open_video",
    "save",
    "vit_base",
    "vit_huge",
    "vit_large",
    "vit_small",
    "vit_tiny",
]

_HOME = {
    "Classifier": "motionmae.models.classifier",
    "load_autoencoder": "motionmae.models.weights",
    "load_classifier": "motionmae.models.classifier",
    "open_video": "motionmae.inference.opened",
    "save": "motionmae.models.weights",
    "Clips": "motionmae.data.clips",
    "Epochs": "motionmae.data.dataset",
    "MotionMAE": "motionmae.models.autoencoder",
    "MotionMAEError": "motionmae.errors",
    "Reconstruction": "motionmae.objectives.reconstruction",
    "VideoEncoder": "motionmae.models.encoder",
    "embed": "motionmae.inference.embedding",
    "load": "motionmae.models.weights",
    "open_clips": "motionmae.data.dataset",
    **{f"vit_{size}": "motionmae.models.sizes" for size in ("tiny", "small", "base", "large", "huge")},
}


def __getattr__(name: str):  # loaded on first use, so that `motionmae --help` need not import torch
    if name not in _HOME:
        raise AttributeError(f"module 'motionmae' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def _embed(*asked: Any, **more: Any) -> Any:
    return __getattr__("embed")(*asked, **more)


models.embed = _embed


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
