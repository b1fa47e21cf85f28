"""Weights of image transformers (timm's ViT, DeiT, DINO; MAE, He et al., 2022, arXiv 2111.06377) inflated to cubes.

A patch's weights are spread evenly over the frames of a cube, and the positions are repeated in every slot (Carreira
and Zisserman, 2017, arXiv 1705.07750): a clip that stands still gives the image's tokens, as without class token.
"""

from __future__ import annotations

import math
from dataclasses import asdict

from motionmae.config import Model
from motionmae.errors import MotionMAEError
from motionmae.models.foreign.files import Foreign
from motionmae.models.foreign.found import Checkpoint, Told
from motionmae.models.foreign.names import depth, encoder_heads, renamed, side_of, unwrapped

FRAMES, SLOTS = 16, 8
TOPS = {
    r"^patch_embed\.proj\.": "encoder.embed.",
    r"^blocks\.": "encoder.blocks.",
    r"^norm\.": "encoder.norm.",
    r"^pos_embed$": "encoder.positions.table",
}
LEFT = (
    r"cls_token|dist_token|reg_token|register_tokens|mask_token",  # our encoder has no tokens but cubes
    r"fc_norm\..*|head\..*|head_dist\..*|pre_logits\..*",
    r"decoder_(embed|blocks|norm|pred|pos_embed)(\..*)?",  # MAE's, of images
)


def is_of_images(foreign: Foreign) -> bool:
    """Whether a file is of an image transformer: its patches have no time."""
    kernel = unwrapped(foreign.state).get("patch_embed.proj.weight")
    return kernel is not None and kernel.ndim == 4


def convert(foreign: Foreign, told: Told) -> Checkpoint:
    """The encoder for clips of 16 frames, in cubes of two. Raises MotionMAEError for what our encoder cannot be."""
    path, state = foreign.path, unwrapped(foreign.state)
    ours = renamed(state, TOPS, LEFT, path, told.strict)
    kernel, table = ours["encoder.embed.weight"], ours.pop("encoder.positions.table", None)
    if kernel.shape[1] != 3 or kernel.shape[2] != kernel.shape[3]:
        raise MotionMAEError(f"{path}: is not of square patches of RGB: {tuple(kernel.shape)}")
    if table is None:
        raise MotionMAEError(f"{path}: has no pos_embed")
    width, side = len(kernel), kernel.shape[2]
    cube = (FRAMES // SLOTS, side, side)
    frames = kernel.permute(0, 2, 3, 1)[:, None].expand(-1, cube[0], -1, -1, -1)
    ours["encoder.embed.weight"] = frames.flatten(1) / cube[0]
    table = table.flatten(0, -2)
    extra = sum(state[name].flatten(0, -2).shape[0] for name in ("cls_token", "dist_token") if name in state)
    extra = extra if math.isqrt(len(table) - extra) ** 2 == len(table) - extra else 0  # tokens without positions
    size = side_of(len(table) - extra, 1, side, told.size, path)
    ours["encoder.positions.table"] = table[extra:].repeat(SLOTS, 1)
    hidden = ours.get("encoder.blocks.0.mlp.0.bias")
    model = Model(
        frames=FRAMES, size=size, cube=cube, width=width, depth=depth(ours, "encoder"),
        heads=encoder_heads(width, told.heads, path), mlp_ratio=len(hidden) / width if hidden is not None else 4.0,
        positions="learned", norm="encoder.norm.weight" in ours,
    )  # fmt: skip
    return Checkpoint(model, ours, {"model": asdict(model)}, {"decoder": "it is of images, inflated to an encoder"})
