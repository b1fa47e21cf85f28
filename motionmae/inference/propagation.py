"""Label propagation: what earlier frames are known to hold is carried to the next one along the affinity of features.

Pure functions on features [h w d] and labels [h w c] of frames, on one grid of cells; they know no data and no encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motionmae.errors import MotionMAEError

ROWS, COLUMNS = 8, 12  # cells of a block of queries: few waste little around the block, many multiply fast


def propagate(
    features: Iterable[Float[Tensor, "h w d"]],
    labels: Float[Tensor, "k h w c"],
    *,
    context: int,
    radius: int,
    topk: int,
    temperature: float,
) -> Iterator[Float[Tensor, "h w c"]]:
    """The labels of each frame after the first k, whose own are `labels`; c are soft labels that each cell's sum to 1.

    A frame's labels are those of its nearest cells in the first k frames and the `context` frames before it: the
    `topk` cells of highest cosine within `radius` cells in each direction, weighted by the softmax of cosine /
    temperature (Jabri et al., 2020, arXiv 2006.14613; Caron et al., 2021, arXiv 2104.14294). Memory is that of
    context + k frames.

    Examples:
        >>> first = torch.eye(4).view(2, 2, 4)  # four cells, each unlike the others; then left and right change places
        >>> labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 2, 2, 2)
        >>> (second,) = propagate([first, first.flip(1)], labels, context=1, radius=1, topk=1, temperature=0.1)
        >>> second.argmax(-1)
        tensor([[1, 0],
                [1, 0]])
    """
    given = len(labels)
    known: tuple[Tensor, Tensor] | None = None
    for index, frame in enumerate(features):
        query = F.normalize(frame, dim=-1)
        if known is None:
            if query.shape[:2] != labels.shape[1:3]:
                raise MotionMAEError(
                    f"the features' grid is {tuple(query.shape[:2])}, the labels' {tuple(labels.shape[1:3])}"
                )
            known = query.new_empty(given + context, *query.shape), query.new_empty(given + context, *labels.shape[1:])
        if index < given:
            found = labels[index].to(query)
        else:
            count = min(index, given + context)
            scores, places = match(query, known[0][:count], radius, topk)
            found = carry(known[1][:count], scores, places, temperature)
            yield found
        slot = index if index < given else given + (index - given) % context if context else None
        if slot is not None:
            known[0][slot], known[1][slot] = query, found


def match(
    query: Float[Tensor, "h w d"], keys: Float[Tensor, "m h w d"], radius: int, topk: int
) -> tuple[Float[Tensor, "h w {topk}"], Int[Tensor, "h w {topk}"]]:
    """The `topk` highest dot products of each cell with the cells of m frames at most `radius` rows and columns away.

    Returns them with their places in the flattened (m h w). Where there are fewer cells, the scores left are -inf.
    The affinity is made for one block of queries and its surroundings at a time, never whole.
    """
    height, width, _ = query.shape
    scores = query.new_full((height, width, topk), -torch.inf)
    places = torch.zeros((height, width, topk), dtype=torch.int64, device=query.device)
    for left in range(0, width, COLUMNS):
        columns = slice(left, min(left + COLUMNS, width))
        wide = slice(max(left - radius, 0), columns.stop + radius)
        strip = keys[:, :, wide].contiguous()
        across = _far(columns, strip.shape[2], wide.start, radius, keys)
        for top in range(0, height, ROWS):
            rows = slice(top, min(top + ROWS, height))
            high = slice(max(top - radius, 0), rows.stop + radius)
            around = strip[:, high]
            down = _far(rows, around.shape[1], high.start, radius, keys)
            block = query[rows, columns]
            found, frame, cell = _best(block, around, down[:, None, :, None] | across[:, None, :], topk)
            row, column = cell // around.shape[2] + high.start, cell % around.shape[2] + wide.start
            place, target = (frame * height + row) * width + column, (rows, columns, slice(found.shape[1]))
            scores[target], places[target] = (each.unflatten(0, block.shape[:2]) for each in (found, place))
    return scores, places


def _best(
    block: Float[Tensor, "r c d"], around: Float[Tensor, "m ar ac d"], far: Bool[Tensor, "r c ar ac"], topk: int
) -> tuple[Float[Tensor, "rc k"], Int[Tensor, "rc k"], Int[Tensor, "rc k"]]:
    """The best scores of a block's cells among those around it, their frames, and their places in (ar ac).

    The `topk` best lie at the `topk` places whose best frame is best: only those are masked, gathered and sorted.
    """
    affinity = block.flatten(0, 1) @ around.flatten(1, 2).mT
    heights = affinity.amax(0).masked_fill(far.flatten(2).flatten(0, 1), -torch.inf)
    heights, cells = heights.topk(min(topk, heights.shape[1]), dim=1)
    few = affinity.gather(2, cells.expand(len(around), -1, -1)).masked_fill(heights == -torch.inf, -torch.inf)
    scores, ids = few.transpose(0, 1).flatten(1).topk(min(topk, len(around) * cells.shape[1]), dim=1)
    return scores, ids // cells.shape[1], cells.gather(1, ids % cells.shape[1])


def _far(own: slice, count: int, start: int, radius: int, like: Tensor) -> Bool[Tensor, "own {count}"]:
    """Whether the places `own` of an axis lie further than the radius from the `count` ones that begin at `start`."""
    mine = torch.arange(own.start, own.stop, device=like.device)
    return (mine[:, None] - torch.arange(start, start + count, device=like.device)).abs() > radius


def carry(
    labels: Float[Tensor, "m h w c"],
    scores: Float[Tensor, "h w k"],
    places: Int[Tensor, "h w k"],
    temperature: float,
) -> Float[Tensor, "h w c"]:
    """The labels at `places` in the flattened (m h w), averaged with the softmax of scores / temperature as weights."""
    weights = (scores / temperature).softmax(-1)
    return (labels.flatten(0, 2)[places] * weights[..., None]).sum(-2)


def soften(mask: Int[Tensor, "y x"], count: int, grid: tuple[int, int]) -> Float[Tensor, "h w c"]:
    """Labels of the background and the objects 1 to `count` (c = count + 1): the shares of each cell's pixels.

    Examples:
        >>> soften(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]), 1, (1, 2))[..., 1]
        tensor([[0.0000, 0.7500]])
    """
    shares = [F.adaptive_avg_pool2d((mask == label).float()[None], grid)[0] for label in range(count + 1)]
    return torch.stack(shares, dim=-1)


def harden(labels: Float[Tensor, "h w c"], size: tuple[int, int], stretch: bool) -> Int[Tensor, "y x"]:
    """The most likely label of each pixel of a frame of `size` (rows, columns), interpolated between the cells.

    `stretch` first maps each label's values in the frame to [0, 1], as Caron et al. do (2021, arXiv 2104.14294): small
    objects keep their size, but an object that is left with any trace never quite vanishes.

    Examples:
        >>> harden(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), (2, 4), stretch=False)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1]])
    """
    maps = F.interpolate(labels.permute(2, 0, 1)[None], size, mode="bilinear")[0]
    if stretch:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        maps = torch.where(high > 0, (maps - low) / (high - low).clamp(min=1e-12), maps)
    return maps.argmax(0)


def heat(points: Float[Tensor, "p 2"], grid: tuple[int, int]) -> Float[Tensor, "h w p"]:
    """Points (row, column in cells, whole at the centres) as labels: each is shared by the four cells around it."""
    rows, columns = (torch.arange(side, device=points.device, dtype=points.dtype) for side in grid)
    row, column = (points[:, axis].clamp(0, grid[axis] - 1) for axis in (0, 1))
    down = (1 - (rows[:, None] - row).abs()).clamp(min=0)
    across = (1 - (columns[:, None] - column).abs()).clamp(min=0)
    return down[:, None] * across[None]


def peaks(labels: Float[Tensor, "h w p"], reach: int = 2) -> tuple[Float[Tensor, "p 2"], Float[Tensor, " p"]]:
    """Where each label is highest (row, column in cells) and how high; NaN and 0 where it is nowhere above 0.

    The place is the label's mean place within `reach` cells of the highest.
    """
    height, width, _ = labels.shape
    best, place = labels.flatten(0, 1).max(0)
    rows = torch.arange(height, device=labels.device)[:, None, None]
    columns = torch.arange(width, device=labels.device)[None, :, None]
    near = ((rows - place // width).abs() <= reach) & ((columns - place % width).abs() <= reach)
    weights = labels * near
    total = weights.sum((0, 1)).clamp(min=torch.finfo(labels.dtype).tiny)
    found = torch.stack(((weights * rows).sum((0, 1)) / total, (weights * columns).sum((0, 1)) / total), dim=-1)
    lost = best <= 0
    return torch.where(lost[:, None], torch.nan, found), best
