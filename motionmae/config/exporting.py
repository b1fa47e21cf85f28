"""Models for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress

from motionmae.config.bounds import HEADS, PIXELS

ExportKind = Literal["hf", "onnx", "pt2", "weights"]
Written = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Export:
    """Write a model for other programs, and compare what it says there with what it says here."""

    kind: Suppress[ExportKind] = "weights"
    """`hf`: a folder for transformers; `onnx`; `pt2`: PyTorch's exported program; `weights`: safetensors alone."""
    model: Positional[str] = ""
    """A run folder of pretrain or finetune, or a checkpoint, ours or another project's."""
    out: str = ""
    """The file, or for hf the folder; it must not exist yet."""
    encoder: bool = False
    """Leave out the decoder or the head. ONNX and exported programs of a pretraining run have the encoder alone."""
    written: Written = "fp32"
    """Precision of the weights; for `weights` alone."""
    code: bool = False
    """For hf: positions that VideoMAE cannot compute are written as weights, beside a small file of code that
    transformers runs with trust_remote_code=True."""
    push: str = ""
    """USER/NAME on the Hugging Face hub, where the result is sent (needs the huggingface_hub library, and a login)."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
    size: Annotated[int | None, PIXELS] = None
    """Height and width of the clips in pixels, where a foreign file does not say."""
