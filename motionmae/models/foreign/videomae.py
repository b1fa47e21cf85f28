"""VideoMAE's layout and what grew from it: VideoMAE V2, MGMAE, SIGMA, MVD, TrackMAE; pretraining and fine-tuning.

Tong et al., 2022 (arXiv 2203.12602); Wang et al., 2023 (arXiv 2303.16727); Huang et al., 2023 (arXiv 2308.10794);
Salehi et al., 2024 (arXiv 2407.15447); Wang et al., 2023 (arXiv 2212.04500); TrackMAE. Names are facts of their files.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from motionmae.config import Decoder, Model
from motionmae.errors import MotionMAEError
from motionmae.models.foreign.files import Foreign
from motionmae.models.foreign.found import Checkpoint, Told
from motionmae.models.foreign.names import depth, encoder_heads, is_sines, renamed, side_of, unwrapped, whole_number

DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}
"""Of the published decoders, by their widths."""
TOPS = {
    r"^(encoder\.)?patch_embed\.proj\.": "encoder.embed.",
    r"^(encoder\.)?blocks\.": "encoder.blocks.",
    r"^(encoder\.)?norm\.": "encoder.norm.",
    r"^(encoder\.)?pos_embed$": "encoder.positions.table",
    r"^encoder_to_decoder\.": "decoders.0.enter.",
    r"^mask_token$": "decoders.0.mask_token",
    r"^decoder\.head\.": "decoders.0.heads.appearance.",
    r"^decoder\.": "decoders.0.",
    r"^fc_norm\.": "head.norm.",
    r"^head\.(?=weight|bias)": "head.linear.",
}
LEFT = (
    r"decoder_pos_embed",  # sines, made anew
    r"(tracker_decoder|encoder_to_tracker)\..*",  # TrackMAE's second task
    r"(decoder|down|mask_token|pos_embed)_(img|vid)(\..*)?",  # MVD's students of two teachers' features
    r"prototypes|memory|memory_pred_head\..*|head\.\d+\..*|head2\..*|(mha|key|value|query)\..*",  # SIGMA's projections
)
"""What the encoder, the decoder of pixels and the classifier do without."""


def convert(foreign: Foreign, told: Told) -> Checkpoint:
    """A file of VideoMAE's family in our names. Raises MotionMAEError for what it is not or does not say."""
    path = foreign.path
    ours = renamed(unwrapped(foreign.state), TOPS, LEFT, path, told.strict)
    kernel = ours.get("encoder.embed.weight")
    if kernel is None or kernel.ndim != 5:
        raise MotionMAEError(f"{path}: is no checkpoint that is known here: it has no patch_embed.proj.weight of cubes")
    if kernel.shape[1] != 3:
        raise MotionMAEError(f"{path}: is of clips of {kernel.shape[1]} channels; only those of 3 (RGB) can be loaded")
    if kernel.shape[3] != kernel.shape[4]:
        raise MotionMAEError(f"{path}: its patches of {kernel.shape[3]} x {kernel.shape[4]} pixels are not square")
    ours["encoder.embed.weight"] = kernel.permute(0, 2, 3, 4, 1).flatten(1)  # channel first to channel last in a cube
    width, cube = len(kernel), (kernel.shape[2], kernel.shape[3], kernel.shape[4])
    options = _options(foreign)
    heads = encoder_heads(width, told.heads or whole_number(options, "num_heads", 0), path)
    frames = whole_number(options, "num_frames", 16)
    size = told.size or whole_number(options, "input_size", 0) or (224 if cube == (2, 16, 16) else 0)
    model = Model(
        frames=frames, size=size, cube=cube, width=width, depth=depth(ours, "encoder"), heads=heads,
        mlp_ratio=_ratio(ours, "encoder", width), positions="sincos1d", norm="encoder.norm.weight" in ours,
    )  # fmt: skip
    model = _positions(model, ours, told, foreign)
    model, lacks = _decoder(model, ours, told)
    return Checkpoint(model, ours, {"model": asdict(model)}, lacks)


def _options(foreign: Foreign) -> Any:
    """The options that the file itself carries, or those that stand in the config beside it (VideoMAE V2's)."""
    beside = foreign.hub.get("model_config")
    if not isinstance(beside, dict):
        return foreign.args
    names = {"num_heads": "num_heads", "num_frames": "num_frames", "input_size": "img_size"}
    return type("Options", (), {ours: beside[theirs] for ours, theirs in names.items() if theirs in beside})


def _ratio(state: dict[str, Tensor], part: str, width: int) -> float:
    """The hidden width of the first block's perceptron over the token width."""
    bias = state.get(f"{part}.blocks.0.mlp.0.bias")
    return len(bias) / width if bias is not None and bias.ndim == 1 else 4.0


def _positions(model: Model, ours: dict[str, Tensor], told: Told, foreign: Foreign) -> Model:
    """Positions that the file holds: sines are made anew, others are a table that is kept as learned."""
    table = ours.pop("encoder.positions.table", None)
    if table is None:
        return model
    table = table.flatten(0, -2)
    slots = model.frames // model.cube[0]
    size = side_of(len(table), slots, model.cube[1], told.size, foreign.path)
    if is_sines(table):
        return replace(model, size=size)
    ours["encoder.positions.table"] = table
    return replace(model, size=size, positions="learned")


def _decoder(model: Model, ours: dict[str, Tensor], told: Told) -> tuple[Model, dict[str, str]]:
    """The model with its decoder; or the reason why the file's cannot be used, which is then left behind."""
    names = [name for name in ours if name.startswith("decoders.")]
    enter, head = ours.get("decoders.0.enter.weight"), ours.get("decoders.0.heads.appearance.weight")
    if not names:
        return model, {}
    if enter is None or head is None:
        reason = "its decoder has no encoder_to_decoder or no head"
    elif len(head) != 3 * math.prod(model.cube):
        reason = (
            f"its decoder predicts {len(head)} numbers a token, not the {3 * math.prod(model.cube)} pixels of a cube"
        )
    elif (ratio := _ratio(ours, "decoders.0", len(enter))) != model.mlp_ratio:
        reason = f"its decoder's perceptrons are {ratio:g} times as wide as a token, its encoder's {model.mlp_ratio:g}"
    elif (heads := told.decoder_heads or DECODER_HEADS.get(len(enter))) is None:
        reason = f"the number of heads of a decoder of width {len(enter)} is not known; say load(…, decoder_heads=N)"
    elif model.positions == "learned":
        reason = "its decoder's positions are not sines over the flattened index"
    else:
        ours["decoders.0.mask_token"] = ours.get("decoders.0.mask_token", enter[:, 0] * 0).flatten()
        decoder = Decoder(width=len(enter), depth=depth(ours, "decoders.0"), heads=heads)
        return replace(model, decoder=decoder), {}
    for name in names:
        del ours[name]
    return model, {"decoder": reason}
