"""What a checkpoint holds, in our names, and what its user has to say where it does not say it itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from motionmae.config import Model


@dataclass(frozen=True)
class Told:
    """What the user says of a file that does not say it."""

    heads: int | None = None
    """Attention heads of the encoder."""
    size: int | None = None
    """Height and width in pixels of the clips that it was made for."""
    decoder_heads: int | None = None
    """Attention heads of the decoder."""
    strict: bool = True
    """Whether a tensor that no layout has is an error; else it is left behind with a warning."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, in our names: the model's config, the weights, and the metadata of our own files."""

    model: Model
    state: dict[str, Tensor]
    config: dict[str, Any]
    lacks: dict[str, str] = field(default_factory=dict)
    """Why there is no `decoder` or no `head`, where the file holds one that cannot be used."""
