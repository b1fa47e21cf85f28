"""`motionmae map`: a table of motionmae embed in two dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from motionmae.config import Map, check
from motionmae.errors import MotionMAEError
from motionmae.inference.nearest import blocks, mean_of
from motionmae.inference.table import read_features
from motionmae.progress import then
from motionmae.report.gallery import Shown, write_map
from motionmae.words import many


def run(config: Map) -> None:
    """Write the page."""
    check(config)
    table = read_features(config.features)
    vectors = table.of(config.layer)
    if len(vectors) < 3:
        raise MotionMAEError(f"{config.features}: a map needs at least three rows, it has {len(vectors)}")
    points, told = umap(vectors, config.seed) if config.projection == "umap" else pca(vectors)
    out = Path(config.out) if config.out else Path(config.features).with_suffix(".map.html")
    shown = [
        Shown(f"{row.label} {row.video} {row.start:.1f} to {row.end:.1f} s".strip(), row.video, row.frames)
        for row in table.rows
    ]
    lead = f"{many(len(table.rows), 'row')} of {config.features}, {told}"
    write_map(out, lead, points, shown, [row.label for row in table.rows], config.pictures)
    print(out)
    then(f"open {out} in a browser")


def pca(vectors: Shaped[np.ndarray, "n ..."]) -> tuple[Float[Tensor, "n 2"], str]:
    """The two directions of most variance, from the covariance, in blocks; and what share of the variance they hold."""
    mean = mean_of(vectors).double()
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for _, block in blocks(vectors):
        covariance += (block.double() - mean).T @ (block.double() - mean)
    values, directions = torch.linalg.eigh(covariance)
    first = directions[:, -2:].flip(1)
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()  # equal tables give equal maps
    points = torch.cat([(block.double() - mean) @ first for _, block in blocks(vectors)]).float()
    share = (values[-2:].sum() / values.sum().clamp_min(1e-12)).item()
    return points, f"principal components, which hold {share:.0%} of the variance"


def umap(vectors: Shaped[np.ndarray, "n ..."], seed: int) -> tuple[Float[Tensor, "n 2"], str]:
    """By UMAP (McInnes et al., 2018, arXiv 1802.03426), with the library's own settings."""
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MotionMAEError("--projection umap: needs the library: pip install umap-learn") from error
    rows = np.array(vectors, np.float32).reshape(len(vectors), -1)
    return torch.from_numpy(np.array(UMAP(random_state=seed).fit_transform(rows), np.float32)), "by UMAP"
