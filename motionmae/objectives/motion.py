"""Motion: which frames are adjacent, how much changes between them, and where it goes. Pure functions.

The motion of the paper (arXiv 2210.04154) is the pixel-level difference of adjacent frames. A clip arrives with the
frames that close its last difference, so no frame is special.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from motionmae.config import MotionKind, Target
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import to_unit
from motionmae.models.tokens import Cube, Grid, patchify, take
from motionmae.words import many

DIAGONAL = 1e-5
"""Added to the mean squares of the gradients of pixels in [0, 1]: where they are below 0.003 a pixel nothing moves."""


def neighbours(
    clip: Shaped[Tensor, "b c t2 h w"], frames: int, target: Target
) -> tuple[Shaped[Tensor, "b c t h w"], Shaped[Tensor, "b c t h w"]]:
    """The `frames` frames that the encoder sees and, for each, the later frame it is subtracted from: two views.

    With `target.adjacent == "clip"` the clip has frames + gap frames; with "video" it has the frames and then, in the
    same order, their neighbours in the source: 2 * frames.
    """
    start, wanted = (target.gap, frames + target.gap) if target.adjacent == "clip" else (frames, 2 * frames)
    if clip.shape[2] != wanted:
        raise MotionMAEError(
            f"a clip of {many(clip.shape[2], 'frame')} cannot give {many(frames, 'difference')}: "
            f"adjacent={target.adjacent} and gap={target.gap} need {wanted}"
        )
    return clip[:, :, :frames], clip[:, :, start : start + frames]


def seamless(numbers: Int[Tensor, "b t2"], frames: int, target: Target) -> Bool[Tensor, "b t"]:
    """Where the later frame does not come before: elsewhere the video has started again between the two."""
    now, after = neighbours(numbers[:, None, :, None, None], frames, target)
    return (after >= now)[:, 0, :, 0, 0]


def predicted(
    seamless: Bool[Tensor, "b t"], ids: Int[Tensor, "b m"], grid: Grid, cube: Cube, target: Target
) -> Bool[Tensor, "b m p"]:
    """Which numbers of the motion at `ids` are of frames without a seam."""
    slots = seamless.unflatten(1, (grid[0], cube[0]))[:, :, pairs(target, cube)]
    kept = take(slots, ids // (grid[1] * grid[2]))
    return kept.repeat_interleave(outputs(target, cube) // kept.shape[2], dim=2)


def pairs(target: Target, cube: Cube) -> slice:
    """The frames of a cube whose motion to their later one is predicted. Raises MotionMAEError where there is none."""
    if target.pairs == "all":
        return slice(0, cube[0])
    if target.adjacent == "video":
        raise MotionMAEError(f"--target.pairs {target.pairs} needs --target.adjacent clip: neighbours are in no cube")
    inside = max(0, cube[0] - target.gap)
    if target.pairs == "inside" and not inside:
        raise MotionMAEError(
            f"--target.pairs inside: no two frames of a cube of {cube[0]} are {target.gap} apart, --target.gap"
        )
    return slice(0, inside) if target.pairs == "inside" else slice(inside, cube[0])


def kinds(target: Target) -> dict[str, Target]:
    """The targets of the time heads: `motion`, and `second` as if it were the only one, where it is wanted."""
    found = {"motion": target}
    if target.second != "none":
        scale = {"motion_normalise": target.second_normalise, "motion_floor": target.second_floor}
        found["second"] = replace(target, motion=target.second, **scale)
    return found


def outputs(target: Target, cube: Cube) -> int:
    """How many numbers the motion of a cube is.

    Examples:
        >>> outputs(Target(), (2, 16, 16)), outputs(Target(motion="velocity"), (2, 16, 16))
        (1536, 4)
    """
    chosen = pairs(target, cube)
    return (chosen.stop - chosen.start) * (2 if target.motion == "velocity" else cube[1] * cube[2] * 3)


def motion(
    now: Shaped[Tensor, "b c t h w"],
    after: Shaped[Tensor, "b c t h w"],
    cube: Cube,
    target: Target,
    ids: Int[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b n p"]:
    """The motion of all cubes or of those at `ids`, float32: (frame, row, column, channel), or (frame, axis).

    Examples:
        >>> now, after = torch.zeros(1, 3, 2, 16, 16), torch.full((1, 3, 2, 16, 16), 0.25)
        >>> found = motion(now, after, (2, 16, 16), Target())
        >>> found.shape, found.mean().item()
        (torch.Size([1, 1, 1536]), 0.25)
    """
    if target.motion == "velocity":
        tokens = velocity(now, after, cube)
        tokens = tokens if ids is None else take(tokens, ids)
    else:
        tokens = difference(patchify(now, cube, ids), patchify(after, cube, ids), target.motion)
    return tokens.unflatten(2, (cube[0], -1))[:, :, pairs(target, cube)].flatten(2)


def difference(
    now: Shaped[Tensor, "*shape"], after: Shaped[Tensor, "*shape"], kind: MotionKind
) -> Float[Tensor, "*shape"]:
    """after - now in units of [0, 1], float32; "absolute" without its sign.

    Examples:
        >>> now, after = torch.tensor([255], dtype=torch.uint8), torch.tensor([0], dtype=torch.uint8)
        >>> difference(now, after, "signed"), difference(now, after, "absolute")
        (tensor([-1.]), tensor([1.]))
    """
    signed = to_unit(after, torch.float32) - to_unit(now, torch.float32)
    return signed.abs() if kind == "absolute" else signed


def velocity(
    now: Shaped[Tensor, "b c t h w"], after: Shaped[Tensor, "b c t h w"], cube: Cube
) -> Float[Tensor, "b n p"]:
    """How many rows down and columns to the right each cube moves from each frame to its later one: (frame, axis).

    The one shift that explains the change of grey in a cube best, by least squares over its pixels (Lucas and Kanade,
    IJCAI 1981), with DIAGONAL against noise, so that a place without texture is still; at most a quarter of the cube's
    smaller side either way. One step and no pyramid: right for shifts that are small against the texture.
    """
    before, later = (to_unit(clip, torch.float32).mean(1) for clip in (now, after))
    down, right = torch.gradient((before + later) / 2, dim=(2, 3))
    change = later - before
    products = torch.stack((down * down, right * right, down * right, down * change, right * change), dim=1)
    sums = F.avg_pool3d(products, (1, cube[1], cube[2]))  # b 5 t rows columns
    yy, xx, yx, yt, xt = sums.unbind(1)
    yy, xx = yy + DIAGONAL, xx + DIAGONAL
    determinant = yy * xx - yx * yx
    rows, columns = (yx * xt - xx * yt) / determinant, (yx * yt - yy * xt) / determinant
    most = min(cube[1], cube[2]) / 4
    found = torch.stack((rows, columns), dim=1).clamp(-most, most)  # b 2 t rows columns
    return patchify(found, (cube[0], 1, 1))


def pixelwise(tokens: Float[Tensor, "b n p"], cube: Cube, target: Target) -> Float[Tensor, "b n q"]:
    """The motion of all frames of cubes at each of their pixels: a velocity is that of all of them."""
    if target.motion != "velocity":
        return tokens
    pixels = cube[1] * cube[2]
    return tokens.unflatten(2, (cube[0], 1, 2)).expand(-1, -1, -1, pixels, -1).flatten(2)


def energy(now: Shaped[Tensor, "b c t h w"], after: Shaped[Tensor, "b c t h w"], cube: Cube) -> Float[Tensor, "b n"]:
    """Mean absolute difference of each token, in [0, 1]: how much moves there.

    Examples:
        >>> energy(torch.zeros(1, 3, 2, 8, 8), torch.full((1, 3, 2, 8, 8), 0.25), (2, 8, 8))
        tensor([[0.2500]])
    """
    return patchify(difference(now, after, "absolute"), cube).mean(dim=2)
