"""The pretraining objective: predict appearance and motion at masked tokens, beside what trivial predictions cost.

Yang et al., 2022, arXiv 2210.04154; without motion it is VideoMAE's objective (Tong et al., 2022, arXiv 2203.12602).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from motionmae.config import Distance, Loss, Mask, Target, check
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.encoder import to_unit, training_grid
from motionmae.models.tokens import Cube, clip_grid, patchify, put, take, unpatchify
from motionmae.objectives import masking
from motionmae.objectives.motion import (
    energy,
    kinds,
    motion,
    neighbours,
    outputs,
    pairs,
    pixelwise,
    predicted,
    seamless,
)
from motionmae.objectives.scales import Scale, denormalise, normalise, scale_by_clip, scale_by_cube

DISTANCES: dict[Distance, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def heads_of(loss: Loss, target: Target, cube: Cube) -> dict[str, int]:
    """The targets with a weight above 0, and how many numbers of a cube each is: the heads that are needed."""
    sizes = {"appearance": math.prod(cube) * 3}
    sizes |= {name: outputs(kind, cube) for name, kind in kinds(target).items()}
    return {name: size for name, size in sizes.items() if getattr(loss, name) > 0}


class Reconstruction(nn.Module):
    """A batch to its losses: `clip`, [b c t h w] with the frames that close the last difference, and `key`, [b].

    Where `numbers`, [b t], say that a video starts again within a clip, no motion is wanted across that seam.
    """

    def __init__(self, autoencoder: MotionMAE, mask: Mask, target: Target, loss: Loss):
        super().__init__()
        for name, section in (("mask", mask), ("target", target), ("loss", loss)):
            check(section, name)
        self.autoencoder, self.mask, self.target, self.loss = autoencoder, mask, target, loss
        self.distance, self.motions = DISTANCES[loss.kind], kinds(target)
        if grid := training_grid(autoencoder.config):
            masking.count(mask.kind, mask.ratio, grid)  # a mask that cannot be drawn is refused before any work

    def forward(
        self,
        batch: dict[str, Any] | None = None,
        *,
        clip: Shaped[Tensor, "b c t2 h w"] | None = None,
        key: Int[Tensor, " b"] | None = None,
        numbers: Int[Tensor, "b t2"] | None = None,
        labels: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss`, each part, and each part over its trivial baseline (`…_ratio`): below 1 something was learnt.

        The batch is one dict, or its tensors by name. Without a `key` the masks are drawn anew in every call, from
        PyTorch's generator. `labels`, which transformers' Trainer hands on where classes are known, are not looked at.
        """
        if batch is None:
            if clip is None:
                raise MotionMAEError("a batch has a clip, [b, c, t, h, w]: none was given")
            key = torch.randint(2**32, (len(clip),)).to(clip.device) if key is None else key
            batch = {"clip": clip, "key": key} | ({} if numbers is None else {"numbers": numbers})
        now, after, whole = self.pairs(batch)
        visible, masked = self.draw(now, after, batch["key"])
        masked = masking.thin(masked, self.mask.decode_ratio, batch["key"])
        predictions = self.autoencoder(now, visible, masked)
        total, parts = torch.zeros((), device=now.device), {}
        for name, prediction in predictions.items():
            wanted, _ = self.wanted(name, now, after, masked)
            prediction = prediction.float()
            if name in self.motions and whole is not None:
                cube = self.autoencoder.config.cube
                kept = predicted(whole, masked, clip_grid(now, cube), cube, self.motions[name])
                prediction, wanted = prediction * kept, wanted * kept
            part = self.distance(prediction, wanted)
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

    def pairs(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Bool[Tensor, "b t"] | None]:
        """`frames` of the batch, and which have no seam before the later one, None where no clip has any.

        A frame before a seam stands still: it is its own later frame.
        """
        now, after = self.frames(batch["clip"])
        if "numbers" not in batch:
            return now, after, None
        whole = seamless(batch["numbers"], self.autoencoder.config.frames, self.target)
        return now, torch.where(whole[:, None, :, None, None], after, now), whole

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
        """What the head called `name` should predict at `ids`, float32, and its scale.

        Only those cubes are touched, unless the scale is that of the clip.
        """
        target = self.motions.get(name, self.target)
        if name == "appearance":
            kind, floor, centred, channels = target.appearance, target.appearance_floor, True, 3
        else:
            kind, floor, speed = target.motion_normalise, target.motion_floor, target.motion == "velocity"
            centred, channels = kind == "cube" and not speed, 1 if speed else 3
        if kind == "clip":
            every = self.numbers(name, now, after)
            tokens, scale = take(every, ids), scale_by_clip(every, floor, centred, channels)
        else:
            tokens = self.numbers(name, now, after, ids)
            scale = scale_by_cube(tokens, floor, centred, channels) if kind == "cube" else None
        return normalise(tokens, scale), scale

    def numbers(
        self, name: str, now: Tensor, after: Tensor, ids: Int[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b n p"]:
        """The target of the head called `name` on its own scale, for all tokens or for those at `ids`."""
        cube = self.autoencoder.config.cube
        if name == "appearance":
            return to_unit(patchify(now, cube, ids), torch.float32)
        return motion(now, after, cube, self.motions[name], ids)

    @torch.no_grad()
    def baseline(self, name: str, wanted: Float[Tensor, "b m p"]) -> Float[Tensor, ""]:
        """What the best trivial prediction costs: the batch's mean patch for appearance, no motion (0) for motion."""
        trivial = wanted.mean((0, 1)).expand_as(wanted) if name == "appearance" else torch.zeros_like(wanted)
        return self.distance(trivial, wanted).clamp_min(1e-12)

    @torch.no_grad()
    def pictures(self, batch: dict[str, Any]) -> dict[str, Float[Tensor, "b c t h w"]]:
        """`input`, `masked` (grey where hidden), and for each head truth and prediction, as clips.

        Motion keeps its sign; velocities have two channels, rows down and columns to the right in pixels, the same for
        a whole cube. Predictions at hidden tokens are put back on the true cube's scale, as a normalised target does
        not say it; what is visible, and motion that is not predicted, is the truth. `alone` has no more than was
        predicted of appearance, on grey. Where its target is normalised cube by cube, `guessed` puts predictions on the
        mean scale of the visible cubes instead: what the model knows without being told.
        """
        now, after, _ = self.pairs(batch)
        visible, masked = self.draw(now, after, batch["key"])
        cube, grid = self.autoencoder.config.cube, clip_grid(now, self.autoencoder.config.cube)
        original = patchify(to_unit(now, torch.float32), cube)
        hidden = put(original, masked, torch.full_like(original[:, : masked.shape[1]], 0.5))
        shown = {"input": original, "masked": hidden}
        for name, prediction in self.autoencoder(now, visible, masked).items():
            _, scale = self.wanted(name, now, after, masked)
            found = denormalise(prediction.float(), scale)
            if target := self.motions.get(name):
                truth = motion(now, after, cube, replace(target, pairs="all"))
                whole = take(truth, masked).unflatten(2, (cube[0], -1))
                whole[:, :, pairs(target, cube)] = found.unflatten(2, (-1, whole.shape[3]))
                shown[name] = pixelwise(truth, cube, target)
                shown[f"predicted_{name}"] = pixelwise(put(truth, masked, whole.flatten(2)), cube, target)
            else:
                shown["predicted_appearance"] = put(original, masked, found)
                shown["alone"] = put(torch.full_like(original, 0.5), masked, found)
                if scale is not None and self.target.appearance == "cube":
                    _, seen = self.wanted(name, now, after, visible)
                    assert seen is not None
                    typical = Scale(seen.mean.mean(1, keepdim=True), seen.std.mean(1, keepdim=True))
                    shown["guessed"] = put(original, masked, denormalise(prediction.float(), typical))
        return {name: unpatchify(tokens, cube, grid) for name, tokens in shown.items()}
