"""The pretraining objective: predict appearance and motion at masked tokens, beside what trivial predictions cost.

Yang et al., 2022, arXiv 2210.04154; without motion it is VideoMAE's objective (Tong et al., 2022, arXiv 2203.12602).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from motionmae.config import Distance, Loss, Mask, Target
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.encoder import to_unit, training_grid
from motionmae.models.tokens import clip_grid, patchify, put, unpatchify
from motionmae.objectives import masking
from motionmae.objectives.motion import difference, energy, neighbours

DISTANCES: dict[Distance, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
}


class Scale(NamedTuple):
    """What is subtracted from a target's numbers and what they are divided by: for each channel of a cube or a clip."""

    mean: Float[Tensor, "b _ 1 c"]
    std: Float[Tensor, "b _ 1 c"]


def scale_by_cube(tokens: Float[Tensor, "b m p"], floor: float) -> Scale:
    """Each cube's own mean and unbiased standard deviation + 1e-6, for each channel: VideoMAE's.

    `floor` is added to the deviation in quadrature, so that a cube with next to no variance is not blown up to noise.
    """
    variance, mean = torch.var_mean(tokens.unflatten(2, (-1, 3)), dim=2, keepdim=True)
    return Scale(mean, (variance + floor**2).sqrt() + 1e-6)


def scale_by_clip(tokens: Float[Tensor, "b m p"], floor: float, centred: bool) -> Scale:
    """One scale for each clip and channel, so that cubes keep their brightness and stillness stays small.

    Without `centred` nothing is subtracted and the scale is the root mean square: no motion stays 0.
    """
    channels = tokens.unflatten(2, (-1, 3))
    mean = channels.mean((1, 2), keepdim=True) if centred else channels.new_zeros(len(tokens), 1, 1, 3)
    variance = (channels - mean).square().mean((1, 2), keepdim=True)
    return Scale(mean, (variance + floor**2).sqrt() + 1e-6)


def normalise(tokens: Float[Tensor, "b m p"], scale: Scale) -> Float[Tensor, "b m p"]:
    """The tokens on the scale."""
    return ((tokens.unflatten(2, (-1, 3)) - scale.mean) / scale.std).flatten(2)


def denormalise(tokens: Float[Tensor, "b m p"], scale: Scale | None) -> Float[Tensor, "b m p"]:
    """The inverse of `normalise`; the tokens themselves where there is no scale."""
    return tokens if scale is None else (tokens.unflatten(2, (-1, 3)) * scale.std + scale.mean).flatten(2)


def active_targets(loss: Loss) -> tuple[str, ...]:
    """The targets with a weight above 0: the heads that the autoencoder needs."""
    for name in ("appearance", "motion"):
        if getattr(loss, name) < 0:
            raise MotionMAEError(f"loss.{name} is {getattr(loss, name)}: a weight must be 0 or more")
    targets = tuple(name for name in ("appearance", "motion") if getattr(loss, name) > 0)
    if not targets:
        raise MotionMAEError("loss.appearance and loss.motion are both 0: nothing would be learnt")
    return targets


class Reconstruction(nn.Module):
    """A batch to its losses: `clip`, [b c t h w] with the frames that close the last difference, and `key`, [b]."""

    def __init__(self, autoencoder: MotionMAE, mask: Mask, target: Target, loss: Loss):
        super().__init__()
        self.autoencoder, self.mask, self.target, self.loss = autoencoder, mask, target, loss
        self.distance = DISTANCES[loss.kind]
        if grid := training_grid(autoencoder.config):
            masking.count(mask.kind, mask.ratio, grid)  # a mask that cannot be drawn is refused before any work

    def forward(self, batch: dict[str, Any]) -> dict[str, Float[Tensor, ""]]:
        """`loss`, each part, and each part over its trivial baseline (`…_ratio`): below 1 something was learnt."""
        now, after = self.frames(batch["clip"])
        visible, masked = self.draw(now, after, batch["key"])
        masked = masking.thin(masked, self.mask.decode_ratio, batch["key"])
        predictions = self.autoencoder(now, visible, masked)
        total, parts = torch.zeros((), device=now.device), {}
        for name, prediction in predictions.items():
            wanted, _ = self.wanted(name, now, after, masked)
            part = self.distance(prediction.float(), wanted)
            total = total + getattr(self.loss, name) * part
            parts |= {name: part.detach(), f"{name}_ratio": part.detach() / self.baseline(name, wanted)}
        return {"loss": total, **parts}

    def layers(self) -> list[list[nn.Parameter]]:
        """The autoencoder's parameters, layer by layer."""
        return self.autoencoder.layers()

    def undecayed(self) -> list[nn.Parameter]:
        """The autoencoder's parameters without weight decay."""
        return self.autoencoder.undecayed()

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The autoencoder's hidden matrices, and how many are stacked in each."""
        return self.autoencoder.hidden_matrices()

    def frames(self, clip: Shaped[Tensor, "b c t2 h w"]) -> tuple[Tensor, Tensor]:
        """The frames that the encoder sees, and the frame after each."""
        return neighbours(clip, self.autoencoder.config.frames, self.target)

    def draw(self, now: Tensor, after: Tensor, keys: Int[Tensor, " b"]) -> masking.Split:
        """Visible and masked indices for a batch."""
        grid, kind = clip_grid(now, self.autoencoder.config.cube), self.mask.kind
        hidden = masking.count(kind, self.mask.ratio, grid)
        moving = energy(now, after, self.autoencoder.config.cube) if kind.startswith("motion") else None
        return masking.split(masking.KINDS[kind](keys, grid, moving, self.mask.motion_weight), hidden)

    @torch.no_grad()
    def wanted(
        self, name: str, now: Tensor, after: Tensor, ids: Int[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b m p"], Scale | None]:
        """What the head called `name` should predict at `ids`, float32, and its scale. Only those cubes are touched."""
        cube, target = self.autoencoder.config.cube, self.target
        pixels = patchify(now, cube, ids)
        if name == "appearance":
            kind, floor, tokens = target.appearance, target.appearance_floor, to_unit(pixels, torch.float32)
        else:
            kind, floor = target.motion_normalise, target.motion_floor
            tokens = difference(pixels, patchify(after, cube, ids), target.motion)
        if kind == "none":
            return tokens, None
        scale = (
            scale_by_cube(tokens, floor)
            if kind == "cube"
            else scale_by_clip(tokens, floor, centred=name == "appearance")
        )
        return normalise(tokens, scale), scale

    @torch.no_grad()
    def baseline(self, name: str, wanted: Float[Tensor, "b m p"]) -> Float[Tensor, ""]:
        """What the best trivial prediction costs: the batch's mean patch for appearance, no motion (0) for motion."""
        trivial = wanted.mean((0, 1)).expand_as(wanted) if name == "appearance" else torch.zeros_like(wanted)
        return self.distance(trivial, wanted).clamp_min(1e-12)

    @torch.no_grad()
    def pictures(self, batch: dict[str, Any]) -> dict[str, Float[Tensor, "b c t h w"]]:
        """`input`, `masked` (grey where hidden) and, for each head, truth and prediction, as clips.

        Predictions at hidden tokens are put back on the true cube's scale, as a normalised target does not say it; the
        visible tokens of `appearance` are the input's, those of `motion` the true motion.
        """
        now, after = self.frames(batch["clip"])
        visible, masked = self.draw(now, after, batch["key"])
        cube, grid = self.autoencoder.config.cube, clip_grid(now, self.autoencoder.config.cube)
        original = patchify(to_unit(now, torch.float32), cube)
        hidden = put(original, masked, torch.full_like(original[:, : masked.shape[1]], 0.5))
        shown = {"input": original, "masked": hidden}
        truths = {"appearance": original}
        if "motion" in (predictions := self.autoencoder(now, visible, masked)):
            truths["motion"] = patchify(difference(now, after, self.target.motion), cube)
            shown["motion"] = truths["motion"]
        for name, prediction in predictions.items():
            _, scale = self.wanted(name, now, after, masked)
            shown[f"predicted_{name}"] = put(truths[name], masked, denormalise(prediction.float(), scale))
        return {name: unpatchify(tokens, cube, grid) for name, tokens in shown.items()}
