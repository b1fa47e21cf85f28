"""Vectors of videos: embed, search and map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from motionmae.config.bounds import COUNT, HEADS, LAYER, SEED, SOME, Bounds
from motionmae.config.recognition import Viewing
from motionmae.config.run import Compute, Spread

Pooling = Literal["mean", "time", "none"]
EmbedPool = Literal["mean", "time", "none", "attentive"]
Stored = Literal["fp32", "fp16"]
By = Literal["clip", "video"]
Engine = Literal["exact", "faiss", "hnswlib"]
Projection = Literal["pca", "umap"]


@dataclass(frozen=True)
class Embed:
    """Vectors of any videos, as a table that pandas, polars and numpy read."""

    model: Positional[str] = ""
    """A run folder or checkpoint with an encoder, ours or another project's."""
    videos: Positional[tuple[str, ...]] = ()
    """Video files; folders, searched through all their levels; manifests, lists or shards, as --data.path takes."""
    out: str = ""
    """The table: .parquet, .npz, .safetensors, or .npy (with its rows in a .json beside it). It must not exist yet."""
    every: str = "clip"
    """What a row stands for: `clip` (clips end to end), `video` (the mean of its clips), or the seconds from one row's
    start to the next, such as 2s."""
    window: str = ""
    """Seconds that a row lasts where --every gives seconds; by default as long as --every."""
    pool: EmbedPool = "mean"
    """What a vector is: the mean token; the mean token of each time slot, one after another; all tokens; or what the
    attentive probe of the model looks at, which `motionmae probe MODEL --kinds attentive` fits."""
    layers: Annotated[tuple[int, ...], LAYER] = ()
    """Blocks whose tokens are taken, counted from 1 (0: the embedding, before any); by default the last one alone."""
    stored: Stored = "fp32"
    """Precision of the stored numbers."""
    views: Viewing = field(default_factory=lambda: Viewing(clips=1, crops=1))
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    spread: Annotated[Spread, arg(name="")] = field(default_factory=Spread)
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""


@dataclass(frozen=True)
class BenchEmbed(Embed):
    """Measure how fast motionmae embed is, and the encoder's share of its time; what it writes is thrown away."""


@dataclass(frozen=True)
class Search:
    """Find the clips or videos most like a query, or those that are nearly the same, in a table of motionmae embed."""

    features: Positional[str] = ""
    """The table: what motionmae embed wrote."""
    query: Positional[tuple[str, ...]] = ()
    """Videos to find the like of: files, or names of videos in the table."""
    top: Annotated[int, COUNT] = 5
    """Hits for each query."""
    by: By = "video"
    """Tell each video once, by its best row, or every clip by itself."""
    duplicates: Annotated[float | None, Bounds(-1, 1)] = None
    """Instead of a query: list the pairs of rows of different videos whose cosine is at least this, such as 0.98."""
    centre: bool = True
    """Subtract the table's mean vector first: the common offset of all tokens would make all cosines alike."""
    layer: Annotated[int | None, LAYER] = None
    """The layer whose vectors are compared, where the table has several; by default the last."""
    engine: Engine = "exact"
    """Compare with every row, in blocks; or by an index of the faiss or hnswlib library, where it is installed."""
    model: str = ""
    """The encoder for queries that are files; by default where the table says that it was."""
    json: str = ""
    """Write the hits as JSON to this file, or with - to the screen, instead of a table."""
    html: str = ""
    """Write a page with a picture of each hit."""
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)


@dataclass(frozen=True)
class Map:
    """Draw a table of motionmae embed as a map: rows that are alike lie near each other."""

    features: Positional[str] = ""
    """The table: what motionmae embed wrote."""
    out: str = ""
    """The page; by default beside the table."""
    projection: Projection = "pca"
    """To two dimensions by the directions of most variance, or by UMAP, where umap-learn is installed."""
    layer: Annotated[int | None, LAYER] = None
    """The layer whose vectors are drawn, where the table has several; by default the last."""
    pictures: Annotated[int, SOME] = 200
    """Rows that have a picture of their clip, spread over the table; the page grows by about 2 kB with each."""
    seed: Annotated[int, SEED] = 0
    """Seed of UMAP."""
