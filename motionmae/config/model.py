"""The autoencoder, its masks, targets and losses: what pretraining is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from motionmae.config.bounds import DEPTH, FRAMES, HEADS, SHARE, WEIGHT, WIDTH, Bounds

PositionsKind = Literal["sincos3d", "sincos1d", "learned"]
DecoderKind = Literal["shared", "separate"]
DecoderAttention = Literal["self", "cross"]
MaskKind = Literal["tube", "random", "frame", "motion", "motion-tube", "motion-half", "motion-half-tube"]
Normalise = Literal["cube", "clip", "none"]
MotionKind = Literal["absolute", "signed", "velocity"]
Second = Literal["none", "absolute", "signed", "velocity"]
Pairs = Literal["all", "inside", "across"]
Adjacent = Literal["clip", "video"]
Distance = Literal["mse", "l1", "smooth_l1"]


@dataclass(frozen=True)
class Decoder:
    """The light transformer that predicts the masked tokens; thrown away after pretraining."""

    kind: DecoderKind = "shared"
    """One decoder with two prediction layers, or two whole decoders, one a target (better by a little, slower)."""
    width: Annotated[int, WIDTH] = 384
    """Width of a decoder token."""
    depth: Annotated[int, DEPTH] = 4
    """Number of decoder blocks."""
    heads: Annotated[int, HEADS] = 6
    """Attention heads of a decoder block; must divide the width."""
    attention: DecoderAttention = "self"
    """What a predicted token attends to: all tokens of the decoder, or the visible ones alone (less work)."""


@dataclass(frozen=True)
class Model:
    """The encoder, a plain video vision transformer, and the decoder it is pretrained with."""

    frames: Annotated[int, FRAMES] = 16
    """Frames that the encoder sees in pretraining."""
    size: Annotated[int, Bounds(0, 16_384)] = 224
    """Height and width of those frames in pixels; 0 where a foreign checkpoint does not say."""
    cube: Annotated[tuple[int, int, int], Bounds(1, 512)] = (2, 16, 16)
    """Frames, rows and columns of pixels that make one token."""
    width: Annotated[int, WIDTH] = 768
    """Width of an encoder token."""
    depth: Annotated[int, DEPTH] = 12
    """Number of encoder blocks."""
    heads: Annotated[int, HEADS] = 12
    """Attention heads of an encoder block; must divide the width."""
    mlp_ratio: Annotated[float, Bounds(0, 64, above=True)] = 4.0
    """Hidden width of a block's perceptron over the token width, in the encoder and the decoder."""
    positions: PositionsKind = "sincos3d"
    """How positions enter: sines separable in time, row and column; VideoMAE's sines over the flattened index;
    or learned, by the encoder alone: the decoder keeps fixed sines (sincos3d)."""
    norm: bool = True
    """LayerNorm at the end of the encoder (VideoMAE's fine-tuned models pool first and normalise in the head)."""
    decoder: Decoder = field(default_factory=Decoder)


@dataclass(frozen=True)
class Mask:
    """Which tokens are hidden."""

    kind: MaskKind = "tube"
    """Tubes hide a place in all time slots, random hides single tokens, frame whole slots; motion and motion-
    tube sample tokens or tubes by how much they move; motion-half and motion-half-tube take half of the visible ones
    from moving and half from still places."""
    ratio: Annotated[float, Bounds(0, 1, above=True, below=True)] = 0.9
    """Share of the tokens that is hidden."""
    decode_ratio: Annotated[float, SHARE] = 1.0
    """Share of the hidden tokens that the decoder predicts, drawn at random; 1.0 is the paper."""
    motion_weight: Annotated[float, Bounds(-1000, 1000)] = 1.0
    """For the motion kinds: above 0 hides moving places more often, below 0 keeps them visible more often."""


@dataclass(frozen=True)
class Target:
    """What the space head and the time head predict."""

    appearance: Normalise = "cube"
    """Pixels normalised per channel over each cube (VideoMAE), over each clip, or as they are."""
    appearance_floor: Annotated[float, Bounds(0, 1000)] = 0.0
    """Added in quadrature to a cube's standard deviation of pixels in [0, 1]; 0 is VideoMAE. Keeps flat cubes
    from becoming amplified noise."""
    motion: MotionKind = "absolute"
    """The difference of adjacent frames, with or without its sign, or the velocity of each cube between them: two
    numbers, rows and columns of pixels."""
    motion_normalise: Normalise = "cube"
    """Differences normalised per channel over each cube, or divided by their root mean square over each clip, or as
    they are; velocities divided by their root mean square over each cube (their direction is left) or clip."""
    motion_floor: Annotated[float, Bounds(0, 1000)] = 0.05
    """The same as appearance_floor for differences of pixels in [0, 1], or for velocities in pixels."""
    second: Second = "none"
    """Another kind of motion, which a head of its own predicts beside `motion`."""
    second_normalise: Normalise = "clip"
    """As motion_normalise."""
    second_floor: Annotated[float, Bounds(0, 1000)] = 0.05
    """As motion_floor."""
    pairs: Pairs = "all"
    """Which of a cube's frames have their motion predicted: all; those whose later frame lies inside the cube too, so
    that the pixels say it already; or those whose later frame is across its end."""
    adjacent: Adjacent = "clip"
    """Adjacent in the (strided) clip, or in the source video; the loader then reads each frame's neighbour too."""
    gap: Annotated[int, FRAMES] = 1
    """Frames between the two that are subtracted."""


@dataclass(frozen=True)
class Loss:
    """How the predictions are compared with the targets, over masked tokens only."""

    kind: Distance = "mse"
    """Mean square, mean absolute, or smooth absolute difference."""
    appearance: Annotated[float, WEIGHT] = 1.0
    """Weight of the space head; 0 leaves it out."""
    motion: Annotated[float, WEIGHT] = 1.0
    """Weight of the time head; 0 leaves it out (VideoMAE's objective)."""
    second: Annotated[float, WEIGHT] = 0.1
    """Weight of the head of target.second, where there is one."""
