"""The fine-tuning objective: labelled clips, mixed and smoothed by numbers from their keys, to a cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from motionmae import noise
from motionmae.config import Mix, check
from motionmae.models.blocks import vectors
from motionmae.models.classifier import Classifier
from motionmae.models.encoder import to_unit

MIX_STREAM = 20
KNOTS = 2048  # of the table that beta() interpolates

Clip = Float[Tensor, "b c t h w"]
AugmentClips = Callable[[Shaped[Tensor, "b c t h w"], Int[Tensor, " b"]], Shaped[Tensor, "b c t h w"]]


def beta(draws: Float[Tensor, " b"], alpha: float) -> Float[Tensor, " b"]:
    """Numbers of the Beta(alpha, alpha) distribution from uniform ones in [0, 1), by its inverse, tabulated.

    With u = x ** alpha the density over [0, 1/2] is (1 - u ** (1 / alpha)) ** (alpha - 1), smooth for every alpha > 0;
    the other half mirrors it.
    """
    knots = torch.linspace(0, 0.5**alpha, KNOTS, device=draws.device)
    density = (1 - knots ** (1 / alpha)) ** (alpha - 1)
    area = F.pad(torch.cumulative_trapezoid(density, knots), (1, 0))
    area = area / area[-1] / 2
    half = torch.minimum(draws, 1 - draws)
    at = torch.searchsorted(area, half).clamp(1, KNOTS - 1)
    share = (half - area[at - 1]) / (area[at] - area[at - 1])
    x = torch.lerp(knots[at - 1], knots[at], share.clamp(0, 1)) ** (1 / alpha)
    return torch.where(draws < 0.5, x, 1 - x)


def smooth(labels: Int[Tensor, " b"], classes: int, smoothing: float) -> Float[Tensor, "b {classes}"]:
    """Targets with `smoothing` of their weight spread over all classes (Szegedy et al., 2015, arXiv 1512.00567)."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def boxes(
    draws: Float[Tensor, "b 2"], share: Float[Tensor, " b"], height: int, width: int
) -> Bool[Tensor, "b {height} {width}"]:
    """For each clip a box of the frame's shape around a drawn centre, cut at the border; uncut it has `share` of the
    frame's area (Yun et al., 2019, arXiv 1905.04899)."""
    inside = []
    for axis, side in enumerate((height, width)):
        half = (side * share.sqrt() / 2).floor()
        centre = (draws[:, axis] * side).floor()
        place = torch.arange(side, device=draws.device)
        inside.append((place >= (centre - half)[:, None]) & (place < (centre + half)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def partners(count: int, repeats: int) -> Int[Tensor, " {count}"]:
    """The place of the clip that each of `count` clips is mixed with: of two neighbouring videos' clips, `repeats` of
    each, the mirrored one. So a batch cut into whole such groups is mixed as the batch itself. Of a last group that is
    not whole the clips have their partners among themselves, a single one in itself."""
    place = torch.arange(count)
    first = place - place % (2 * repeats)
    return first + (first + 2 * repeats).clamp(max=count) - 1 - place


def mix(
    clip: Clip, targets: Float[Tensor, "b classes"], keys: Int[Tensor, " b"], config: Mix, repeats: int = 1
) -> tuple[Clip, Float[Tensor, "b classes"]]:
    """Each clip mixed with its partner, and its target alike.

    Mixup (Zhang et al., 2017, arXiv 1710.09412) blends all pixels, cutmix puts a box of the other clip into all frames;
    with both on, each clip has one of them, with equal chance. How much and where comes from the clip's own key.
    """
    partner = partners(len(clip), repeats).to(clip.device)
    draws = noise.uniform(keys, 4, MIX_STREAM)
    cut = draws[:, 0] < {(True, True): 0.5, (False, True): 1.0}.get((config.mixup > 0, config.cutmix > 0), 0.0)
    own = torch.ones_like(draws[:, 1])  # the share of a clip that stays its own
    if config.mixup > 0:
        own = beta(draws[:, 1], config.mixup)
    blend = torch.where(cut, 1.0, own)[:, None, None, None, None]
    other = clip[partner]
    mixed = torch.lerp(other, clip, blend)
    if config.cutmix > 0:
        box = boxes(draws[:, 2:], 1 - beta(draws[:, 1], config.cutmix), *clip.shape[3:]) & cut[:, None, None]
        mixed = torch.where(box[:, None, None], other, mixed)
        own = torch.where(cut, 1 - box.float().mean((1, 2)), own)
    return mixed, torch.lerp(targets[partner], targets, own[:, None])


class Classification(nn.Module):
    """A batch to its loss: `clip`, [b c t h w], uint8 or float in [0, 1], its `label` and its `key`, both [b].

    In training mode clips pass through `augment` (from clips and keys to clips) and are mixed; every `repeats` clips
    after one another are of one video.
    """

    def __init__(self, classifier: Classifier, config: Mix, augment: AugmentClips | None = None, repeats: int = 1):
        check(config, "mix")
        super().__init__()
        # The parts and not the classifier: their names in a checkpoint are then those of every other checkpoint.
        self.encoder, self.head = classifier.encoder, classifier.head
        self.encoder.check_range = False  # these clips are made here
        self.classes, self.config, self.augment, self.repeats = len(classifier.names), config, augment, repeats

    def forward(self, batch: dict[str, Any]) -> dict[str, Float[Tensor, ""]]:
        """`loss`; `cross_entropy_ratio`, the loss over that of equal scores; `top1`, the share of clips in [0, 1] whose
        best score is at the greatest target."""
        clip, targets = batch["clip"], smooth(batch["label"], self.classes, self.config.smoothing)
        if self.training:
            if self.augment is not None:
                clip = self.augment(clip, batch["key"])
            if self.config.mixup > 0 or self.config.cutmix > 0:
                clip, targets = mix(to_unit(clip, torch.float32), targets, batch["key"], self.config, self.repeats)
        scores = self.logits(clip).float()
        loss = F.cross_entropy(scores, targets)
        right = (scores.argmax(1) == targets.argmax(1)).float().mean()
        return {"loss": loss, "cross_entropy_ratio": loss.detach() / math.log(self.classes), "top1": right}

    def layers(self) -> list[list[nn.Parameter]]:
        """The encoder's layers; the head belongs to the last."""
        *below, last = self.encoder.layers()
        return [*below, [*last, *self.head.parameters()]]

    def undecayed(self) -> list[nn.Parameter]:
        """The parameters without weight decay: biases, norms and positions."""
        return [*self.encoder.undecayed(), *vectors(self.head)]

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The encoder's hidden matrices, and how many are stacked in each; the head's is none, it meets classes."""
        return self.encoder.hidden_matrices()

    def logits(self, clip: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"]:
        """The class scores of clips."""
        return self.head(self.encoder(clip))
