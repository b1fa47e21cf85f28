"""What is alike among many vectors, by cosine: exact, a block of rows at a time. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from motionmae.config import Engine
from motionmae.errors import MotionMAEError

BLOCK = 8192
"""Rows that are compared at once: what bounds the memory."""


def mean_of(vectors: Shaped[np.ndarray, "n ..."]) -> Float[Tensor, " d"]:
    """The mean row, float32, read in blocks."""
    total = sum(block.double().sum(0) for _, block in blocks(vectors))
    return (torch.as_tensor(total) / len(vectors)).float()


def blocks(vectors: Shaped[np.ndarray, "n ..."]) -> Iterator[tuple[int, Float[Tensor, "b d"]]]:
    """BLOCK rows at a time, flat, in float32, each with the number of its first row. Raises MotionMAEError for a row
    that is not of finite numbers: whatever it is compared with would be neither like nor unlike."""
    for at in range(0, len(vectors), BLOCK):
        part = torch.from_numpy(np.array(vectors[at : at + BLOCK], dtype=np.float32)).flatten(1)
        bad = (~part.isfinite().all(1)).nonzero()
        if len(bad):
            raise MotionMAEError(f"row {at + bad[0].item() + 1} of the table holds numbers that are not finite")
        yield at, part


def unit(rows: Float[Tensor, "n d"], mean: Float[Tensor, " d"] | None) -> Float[Tensor, "n d"]:
    """The rows at length 1, after the mean is subtracted where one is given; a row of zeros stays zero."""
    rows = rows if mean is None else rows - mean
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def nearest(
    vectors: Shaped[np.ndarray, "n ..."],
    queries: Float[Tensor, "q d"],
    top: int,
    mean: Float[Tensor, " d"] | None = None,
    engine: Engine = "exact",
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The cosines and numbers of the `top` rows nearest each query, the nearest first; k is at most n."""
    top, queries = min(top, len(vectors)), unit(queries.float().flatten(1), mean)
    if engine != "exact":
        return _indexed(vectors, queries, top, mean, engine)
    best = torch.full((len(queries), 0), -2.0)
    where = torch.empty(len(queries), 0, dtype=torch.int64)
    for at, block in blocks(vectors):
        scores = queries @ unit(block, mean).T
        numbers = torch.arange(at, at + len(block)).expand_as(scores)
        best, order = torch.cat((best, scores), 1).topk(min(top, best.shape[1] + scores.shape[1]), 1)
        where = torch.cat((where, numbers), 1).gather(1, order)
    return best, where


def duplicates(
    vectors: Shaped[np.ndarray, "n ..."], least: float, mean: Float[Tensor, " d"] | None = None
) -> Iterator[tuple[int, int, float]]:
    """All pairs of rows a < b whose cosine is at least `least`, with it; two blocks of rows in memory at a time."""
    for first, left in blocks(vectors):
        left = unit(left, mean)
        for second, right in blocks(vectors[first:]):
            scores = left @ unit(right, mean).T
            for a, b in (scores >= least).nonzero().tolist():
                if first + a < first + second + b:
                    yield first + a, first + second + b, scores[a, b].item()


def _indexed(
    vectors: Shaped[np.ndarray, "n ..."], queries: Tensor, top: int, mean: Tensor | None, engine: Engine
) -> tuple[Tensor, Tensor]:
    """By a library's index of inner products; faiss's is exact too, hnswlib's is approximate."""
    index: Any
    width = queries.shape[1]
    try:
        if engine == "faiss":
            import faiss  # pyright: ignore[reportMissingImports]

            index = faiss.IndexFlatIP(width)
            for _, block in blocks(vectors):
                index.add(unit(block, mean).numpy())
            scores, numbers = index.search(queries.numpy(), top)
            return torch.from_numpy(scores), torch.from_numpy(numbers)
        import hnswlib  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError as error:
        raise MotionMAEError(
            f"--engine {engine}: the library is not installed: pip install {_PACKAGE[engine]}"
        ) from error
    index = hnswlib.Index("ip", width)
    index.init_index(len(vectors), ef_construction=200, M=32, random_seed=0)
    for at, block in blocks(vectors):
        index.add_items(unit(block, mean).numpy(), np.arange(at, at + len(block)))
    index.set_ef(max(200, 2 * top))
    numbers, distances = index.knn_query(queries.numpy(), top)
    return 1 - torch.from_numpy(distances), torch.from_numpy(numbers.astype(np.int64))


_PACKAGE = {"faiss": "faiss-cpu", "hnswlib": "hnswlib"}
