"""Dense features: one grid of cells for one frame of a video, from an encoder whose cubes span several frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import Entry
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder, to_unit
from motionmae.models.tokens import clip_grid, patchify


def clip_times(entry: Entry, time: int, count: int, cube: int, frames: int) -> tuple[list[int], int]:
    """How frame `time` of `count` enters cubes of `cube` frames: the frames of its clip, and the slot of its tokens.

    `repeat` is the frame again and again, `pair` the frame after those before it, and `window` a clip of `frames`
    frames in whose middle slot the frame is the last. Beyond the ends the first and the last frame stand still.
    """
    if entry == "repeat":
        times, slot = [time] * cube, 0
    elif entry == "pair":
        times, slot = list(range(time - cube + 1, time + 1)), 0
    else:
        slot = frames // cube // 2
        start = time + 1 - (slot + 1) * cube
        times = list(range(start, start + frames))
    return [min(max(each, 0), count - 1) for each in times], slot


def dense_features(
    encoder: VideoEncoder, clips: UInt8[Tensor, "b c t h w"], slot: int, stride: int, layer: int | None
) -> Float[Tensor, "b h2 w2 d"]:
    """The tokens of time slot `slot`, one a cell of `stride` x `stride` pixels; they are not normalised in length.

    A stride below the cube's side takes one pass for each shift of the image by a multiple of it, and interleaves them:
    finer cells, each of which still sees a whole cube (Amir et al., 2021, arXiv 2112.05814, take overlapping patches).
    `layer` is the block whose output is taken, from 1, 0 the embedding; None is the middle one, `depth` // 2, which
    carries labels better than the last where it was measured (docs/segmentation.md). All pass the encoder's norm.
    """
    depth = len(encoder.blocks)
    if layer is not None and not 0 <= layer <= depth:
        raise MotionMAEError(f"--features.layer is {layer}: the encoder has the layers 0 to {depth}")
    passes = [
        _tokens(encoder, shifted, slot, max(1, depth // 2) if layer is None else layer)
        for shifted in _shifts(clips, encoder.config.cube, stride)
    ]
    return _interleave(passes)


def _tokens(
    encoder: VideoEncoder, clips: UInt8[Tensor, "b c t h w"], slot: int, layer: int
) -> Float[Tensor, "b h2 w2 d"]:
    (tokens,) = encoder(clips, layers=(layer,))
    grid = clip_grid(clips, encoder.config.cube)
    return rearrange(tokens, "b (t h w) d -> t b h w d", t=grid[0], h=grid[1])[slot]


def pixel_features(frames: UInt8[Tensor, "b c h w"], patch: int, stride: int) -> Float[Tensor, "b h2 w2 d"]:
    """The trivial baseline's features: the pixels of a patch around each cell, in [-0.5, 0.5].

    Centred they make the strongest such baseline: cosines of pixels in [0, 1] are all near 1."""
    pixels = to_unit(frames, torch.float32) - 0.5
    cube = (1, patch, patch)
    passes = []
    for shifted in _shifts(pixels[:, :, None], cube, stride):
        grid = clip_grid(shifted, cube)
        passes.append(rearrange(patchify(shifted, cube), "b (h w) d -> b h w d", h=grid[1]))
    return _interleave(passes)


def check_stride(cube: tuple[int, int, int], stride: int) -> int:
    """The side of the cube in pixels; raises where it is no square, or not a multiple of `stride`."""
    _, rows, columns = cube
    if rows != columns or stride < 1 or rows % stride:
        raise MotionMAEError(f"--features.stride is {stride}: it must divide the cube's side, {rows}x{columns}")
    return rows


def _shifts(clips: Tensor, cube: tuple[int, int, int], stride: int) -> list[Tensor]:
    """The clips shifted so that the cubes of all passes together lie centred on cells of `stride` pixels."""
    rows = check_stride(cube, stride)
    margin = (rows - stride) // 2
    if not margin:
        return [clips]
    height, width = clips.shape[-2:]
    flat = F.pad(clips.flatten(1, 2).float(), (margin,) * 4, mode="replicate").to(clips.dtype)
    wide = flat.unflatten(1, clips.shape[1:3])
    steps = range(0, rows, stride)
    return [wide[..., y : y + height, x : x + width] for y in steps for x in steps]


def _interleave(passes: Sequence[Float[Tensor, "b h w d"]]) -> Float[Tensor, "b h2 w2 d"]:
    side = round(len(passes) ** 0.5)
    return rearrange(torch.stack(list(passes)), "(y x) b h w d -> b (h y) (w x) d", y=side)
