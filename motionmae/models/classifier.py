"""An encoder with a head that tells classes: mean pool, LayerNorm, dropout, linear.

Tong et al., 2022, arXiv 2203.12602; as in VideoMAE's code the encoder then has no last LayerNorm of its own. What
differs: the classes' names belong to the model, and an encoder from scratch starts with Xavier-uniform layers, not with
a normal of 0.02.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from motionmae.config import Model
from motionmae.errors import MotionMAEError
from motionmae.models import weights
from motionmae.models.blocks import EPS
from motionmae.models.encoder import VideoEncoder
from motionmae.words import many

HEAD_SCALE = 0.001  # what a new head's weights are multiplied by: all classes start equally likely


class Head(nn.Module):
    """Tokens to class scores: their mean, a LayerNorm, dropout, one linear layer."""

    def __init__(self, width: int, classes: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02 * HEAD_SCALE)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        return self.linear(self.dropout(self.norm(tokens.mean(1))))


class Classifier(nn.Module):
    """Clips, uint8 or float in [0, 1], to one score (logit) for each of `names`, the classes."""

    def __init__(self, config: Model, names: tuple[str, ...], drop_path: float = 0.0, dropout: float = 0.0):
        super().__init__()
        if len(names) < 2:
            raise MotionMAEError(f"a classifier needs at least two classes, there are {len(names)}: {names}")
        self.names = names
        self.encoder = VideoEncoder(replace(config, norm=False), drop_path)
        self.head = Head(config.width, len(names), dropout)

    def forward(self, clip: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.encoder(clip))

    def start_from(self, found: weights.Checkpoint, path: str | Path) -> None:
        """Take a checkpoint's encoder; its last LayerNorm, its decoders and its head are left behind."""
        state = {name[8:]: value for name, value in found.state.items() if name.startswith("encoder.")}
        kept = {name: value for name, value in state.items() if not name.startswith("norm.")}
        weights.fill(self.encoder, kept, path)


def read_classifier(
    path: str | Path, heads: int | None = None, size: int | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """A fine-tuned model in eval mode on the CPU, float32, and the config of the run that made it.

    Reads what `weights.read` reads. A foreign file's config holds the model alone; classes that a file does not name
    are called by their numbers. Raises MotionMAEError where there is no head, naming the path.
    """
    if not str(path):
        raise MotionMAEError("say which model: a run folder of motionmae finetune, or a checkpoint with a head")
    found = weights.read(path, heads, size)
    if "head.linear.weight" not in found.state:
        why = found.lacks.get("head", "holds an encoder without a classifier")
        raise MotionMAEError(f"{path}: {why}; make one with motionmae finetune")
    count = len(found.state["head.linear.weight"])
    names = tuple(found.config.get("classes") or (str(number) for number in range(count)))
    if len(names) != count:
        raise MotionMAEError(f"{path}: names {many(len(names), 'class')} but its head tells {count}")
    classifier = Classifier(found.model, names)
    weights.fill(classifier, {n: v for n, v in found.state.items() if n.startswith(("encoder.", "head."))}, path)
    return classifier.eval(), found.config


def load_classifier(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **told: Any
) -> Classifier:
    """A fine-tuned model in eval mode; `names` are its classes, in the order of its scores (logits).

    `path` and `told` (heads, size) are those of `motionmae.load`. Raises MotionMAEError where there is no head.
    """
    return read_classifier(path, **told)[0].to(device, dtype)
