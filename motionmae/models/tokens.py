"""Clips as tokens: pure functions. The legend of dimensions for the whole project stands here.

b clips, c channels, t frames, h w pixels; n tokens, k visible, m masked (or predicted), d width, p numbers in a cube.
A cube (tubelet) is the pixels of one token; the grid is tokens in (time, rows, columns), flattened in that order. The
numbers in a cube are ordered (frame, row, column, channel), as in VideoMAE (Tong et al., 2022, arXiv 2203.12602);
what differs are the positions: its sines over the flattened index are a choice, and any table fits other grids.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from motionmae.config import PositionsKind
from motionmae.errors import MotionMAEError

Cube = tuple[int, int, int]
Grid = tuple[int, int, int]


def grid_of(frames: int, height: int, width: int, cube: Cube) -> Grid:
    """Tokens in time, rows and columns of a clip; raises if a side is not a multiple of the cube's.

    Examples:
        >>> grid_of(16, 224, 224, (2, 16, 16))
        (8, 14, 14)
    """
    for name, side, part in zip(("frames", "height", "width"), (frames, height, width), cube, strict=True):
        if side % part or side < part:
            raise MotionMAEError(f"the clip's {name}, {side}, must be a positive multiple of the cube's, {part}")
    return frames // cube[0], height // cube[1], width // cube[2]


def clip_grid(clip: Shaped[Tensor, "b c t h w"], cube: Cube) -> Grid:
    """Tokens in time, rows and columns of a batch of clips."""
    return grid_of(clip.shape[2], clip.shape[3], clip.shape[4], cube)


def cubes(clip: Shaped[Tensor, "b c t h w"], cube: Cube) -> Shaped[Tensor, "b tn hn wn tp hp wp c"]:
    """The clip cut into cubes, as a view: nothing is copied."""
    tp, hp, wp = cube
    clip_grid(clip, cube)
    return rearrange(clip, "b c (tn tp) (hn hp) (wn wp) -> b tn hn wn tp hp wp c", tp=tp, hp=hp, wp=wp)


def patchify(
    clip: Shaped[Tensor, "b c t h w"], cube: Cube, ids: Int[Tensor, "b k"] | None = None
) -> Shaped[Tensor, "b n p"]:
    """The pixels of all tokens, or of the tokens `ids` alone: only those are copied. Keeps the dtype.

    Examples:
        >>> clip = torch.arange(32).view(1, 1, 2, 4, 4)
        >>> patchify(clip, (2, 2, 2)).shape
        torch.Size([1, 4, 8])
        >>> patchify(clip, (2, 2, 2), torch.tensor([[3]])).tolist()
        [[[10, 11, 14, 15, 26, 27, 30, 31]]]
    """
    pieces = cubes(clip, cube)
    if ids is None:
        return rearrange(pieces, "b tn hn wn tp hp wp c -> b (tn hn wn) (tp hp wp c)")
    _, _, rows, columns = pieces.shape[:4]
    batch = torch.arange(len(clip), device=clip.device)[:, None]
    taken = pieces[batch, ids // (rows * columns), ids // columns % rows, ids % columns]
    return taken.flatten(2)


def unpatchify(tokens: Shaped[Tensor, "b n p"], cube: Cube, grid: Grid) -> Shaped[Tensor, "b c t h w"]:
    """The clip whose `patchify` is `tokens`.

    Examples:
        >>> clip = torch.arange(32).view(1, 1, 2, 4, 4)
        >>> unpatchify(patchify(clip, (2, 2, 2)), (2, 2, 2), (1, 2, 2)).equal(clip)
        True
    """
    (tn, hn, wn), (tp, hp, wp) = grid, cube
    pattern = "b (tn hn wn) (tp hp wp c) -> b c (tn tp) (hn hp) (wn wp)"
    return rearrange(tokens, pattern, tn=tn, hn=hn, wn=wn, tp=tp, hp=hp, wp=wp)


def take(tokens: Shaped[Tensor, "b n d"], ids: Int[Tensor, "b k"]) -> Shaped[Tensor, "b k d"]:
    """The tokens at `ids`, clip by clip.

    Examples:
        >>> take(torch.tensor([[[0.0], [0.1], [0.2]]]), torch.tensor([[2, 0]])).flatten()
        tensor([0.2000, 0.0000])
    """
    return tokens.gather(1, ids[:, :, None].expand(-1, -1, tokens.shape[-1]))


def put(
    base: Shaped[Tensor, "b n d"], ids: Int[Tensor, "b k"], values: Shaped[Tensor, "b k d"]
) -> Shaped[Tensor, "b n d"]:
    """A copy of `base` with `values` at `ids`; the inverse of `take`.

    Examples:
        >>> put(torch.zeros(1, 3, 1), torch.tensor([[2, 0]]), torch.tensor([[[0.2], [0.1]]])).flatten()
        tensor([0.1000, 0.0000, 0.2000])
    """
    return base.scatter(1, ids[:, :, None].expand(-1, -1, base.shape[-1]), values.to(base.dtype))


def sincos1d(count: int, width: int) -> Float[Tensor, "{count} {width}"]:
    """Sines (even columns) and cosines (odd) of 0 … count - 1 (Vaswani et al., 2017, arXiv 1706.03762, section 3.5).

    Examples:
        >>> sincos1d(2, 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    columns = torch.arange(width, dtype=torch.float64)
    rates = 10000.0 ** (-2 * (columns // 2) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()


def sincos3d(grid: Grid, width: int) -> Float[Tensor, "n {width}"]:
    """Sines separable in time, row and column: each axis has its own share of the columns, time what is left over.

    Examples:
        >>> sincos3d((8, 14, 14), 768).shape
        torch.Size([1568, 768])
    """
    share = width // 3 // 2 * 2
    shares = (width - 2 * share, share, share)
    axes = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    parts = [sincos1d(side, part)[axis.flatten()] for side, part, axis in zip(grid, shares, axes, strict=True)]
    return torch.cat(parts, dim=1)


def positions_table(kind: PositionsKind, grid: Grid, width: int) -> Float[Tensor, "n {width}"]:
    """The table of positions to start from; `learned` starts as small normal noise (std 0.02)."""
    if kind == "sincos3d":
        return sincos3d(grid, width)
    if kind == "sincos1d":
        return sincos1d(math.prod(grid), width)
    return torch.nn.init.trunc_normal_(torch.empty(math.prod(grid), width), std=0.02)


class Positions(nn.Module):
    """The positions of a grid of tokens: a table made for one grid, interpolated (trilinear) to any other.

    Sines over the flattened index are computed anew for another grid, as VideoMAE's own code does: interpolated, their
    fast columns would fade. Without a grid (fixed sines of a model whose training size is unknown) the table is made
    for the grid at hand.
    """

    def __init__(self, kind: PositionsKind, grid: Grid | None, width: int):
        super().__init__()
        if grid is None and kind == "learned":
            raise MotionMAEError("learned positions need the frames and the size that the model was made for")
        self.kind: PositionsKind = kind
        self.grid, self.width = grid, width
        table = positions_table(kind, grid, width) if grid else torch.empty(0)
        if kind == "learned":
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table, persistent=False)

    def forward(self, grid: Grid) -> Float[Tensor, "n d"]:
        if self.grid is None or (self.kind == "sincos1d" and grid != self.grid):
            return positions_table(self.kind, grid, self.width).to(self.table)
        if grid == self.grid:
            return self.table
        volume = rearrange(self.table, "(t h w) d -> 1 d t h w", t=self.grid[0], h=self.grid[1])
        return rearrange(F.interpolate(volume, grid, mode="trilinear"), "1 d t h w -> (t h w) d")
