"""`motionmae search`: the clips or videos most like a query, and near-duplicates, in a table of motionmae embed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from motionmae import files, runtime
from motionmae.config import Embed, Search, Viewing, check, from_dict
from motionmae.errors import MotionMAEError
from motionmae.files import one_line
from motionmae.inference.embedding import Layout, Row, attend, checked, fingerprint, stream
from motionmae.inference.nearest import duplicates, mean_of, nearest
from motionmae.inference.table import Embeddings, read_features
from motionmae.inference.views import settle
from motionmae.models import hub
from motionmae.models.weights import load
from motionmae.progress import then
from motionmae.report.gallery import Shown, write_gallery
from motionmae.runtime import Runtime
from motionmae.video.errors import VideoError
from motionmae.video.origin import as_place
from motionmae.words import many

MOST = 10_000
"""Pairs of near-duplicates that are listed."""


@dataclass(frozen=True)
class Hit:
    """A row that is like a query, or like another row; `score` is their cosine, in [-1, 1]."""

    score: float
    row: Row


def run(config: Search) -> None:
    """Print, or write, what is alike."""
    check(config)
    if config.duplicates is None and not config.query:
        raise MotionMAEError(
            "say what to search for: QUERY.mp4, the name of a video in the table, or --duplicates 0.98"
        )
    if config.duplicates is not None and config.query:
        raise MotionMAEError("--duplicates compares the table with itself: leave the query out")
    here = runtime.start_for(config.compute)
    table = read_features(config.features)
    vectors = table.of(config.layer)
    mean = mean_of(vectors) if config.centre else None
    if config.duplicates is not None:
        found = {"near-duplicates": near_duplicates(table, vectors, config.duplicates, mean)}
    else:
        found = {name: hits(table, vectors, name, config, mean, here) for name in config.query}
    if config.json != "-":
        print(told(found))
    if config.json:
        save_hits(config.json, found)
    if config.html:
        title = "Near-duplicates" if config.duplicates is not None else "Most alike"
        shown = {
            name: [Shown(in_words(hit), hit.row.video, hit.row.frames) for hit in some] for name, some in found.items()
        }
        write_gallery(Path(config.html), title, f"{many(len(table.rows), 'row')} of {config.features}", shown)
        print(config.html, file=sys.stderr)
    if config.json not in ("", "-"):
        print(f"{many(sum(map(len, found.values())), 'hit')}: {config.json}")
    then(
        f"open {config.html} in a browser" if config.html else "--html hits.html shows the hits as pictures",
        aside=config.json == "-",
    )


def hits(
    table: Embeddings,
    vectors: Shaped[np.ndarray, "n ..."],
    name: str,
    config: Search,
    mean: Tensor | None,
    here: Runtime,
) -> list[Hit]:
    """The rows most like any row of the query, the likest first; rows of the query itself are left out."""
    same = {os.path.abspath(name), name}
    own = [at for at, row in enumerate(table.rows) if row.video in same or os.path.basename(row.video) == name]
    rows = torch.from_numpy(np.array(vectors[own], np.float32)).flatten(1)
    query = rows if own else embedded(table, name, config, here)
    # Every video may hide behind the rows of others: by video, and beside the query's own rows, all rows are ranked.
    wanted = len(vectors) if config.by == "video" and config.engine == "exact" else config.top + len(own)
    scores, places = nearest(vectors, query, wanted if config.engine == "exact" else 10 * wanted, mean, config.engine)
    best: dict[Any, Hit] = {}
    mine = {table.rows[at].video for at in own} | same
    for score, at in zip(scores.flatten().tolist(), places.flatten().tolist(), strict=True):
        row = table.rows[at]
        key = row.video if config.by == "video" else at
        if row.video not in mine and (key not in best or best[key].score < score):
            best[key] = Hit(score, row)
    return sorted(best.values(), key=lambda hit: -hit.score)[: config.top]


def embedded(table: Embeddings, name: str, config: Search, here: Runtime) -> Float[Tensor, "q d"]:
    """The vectors of a file, made as those of the table were."""
    place = as_place(name)
    if place == name and not os.path.exists(name):
        raise MotionMAEError(f"{name}: there is no such file, and no video of that name in {config.features}")
    made = made_by(table, config)
    encoder = load(made.model, heads=made.heads)
    if fingerprint(encoder) != table.about.get("model"):
        raise MotionMAEError(f"{made.model}: is not the encoder that made {config.features}; --model names that one")
    if made.pool == "attentive":
        attend(encoder, made.model)
    layer = max(table.vectors) if config.layer is None else config.layer
    view = settle(made.views, {}, encoder.config)
    layout = checked(encoder, Layout(made.every, made.window, made.pool, (layer,), view))
    _, found = next(stream(encoder.to(here.device), [Path(place)], layout, config.compute, here))
    if found.reason:
        raise VideoError(place, found.reason)
    query, wide = found.vectors[layer].flatten(1), table.vectors[layer][0].size
    if query.shape[1] != wide:
        raise MotionMAEError(
            f"{config.features}: its rows have {wide} numbers, what it says of itself makes {query.shape[1]}"
        )
    return query


def made_by(table: Embeddings, config: Search) -> Embed:
    """How the table was made, by its own words, which are asked as a user's are; the model is what `config` names, or
    a file on this machine: no table names an address."""
    about = table.about
    try:
        made = Embed(
            model=about["path"], every=about["every"], window=about["window"], pool=about["pool"],
            heads=about["heads"], views=from_dict(Viewing, about["views"]),
        )  # fmt: skip
        check(made)
    except (KeyError, TypeError, MotionMAEError) as error:
        raise MotionMAEError(f"{config.features}: does not say how it was made ({error})") from error
    if not config.model and made.model.startswith(hub.SCHEME):
        raise MotionMAEError(f"{config.features}: was made by {made.model}: only you name an address, as --model")
    return replace(made, model=config.model or made.model)


def near_duplicates(
    table: Embeddings, vectors: Shaped[np.ndarray, "n ..."], least: float, mean: Tensor | None
) -> list[Hit]:
    """Rows of different videos that are nearly the same, two by two, the likest first; each pair of videos once."""
    best: dict[tuple[str, str], tuple[float, Row, Row]] = {}
    for a, b, score in duplicates(vectors, least, mean):
        left, right = table.rows[a], table.rows[b]
        key = (left.video, right.video)
        if left.video != right.video and (key not in best or best[key][0] < score):
            best[key] = (score, left, right)
            if len(best) > MOST:
                raise MotionMAEError(f"--duplicates {least:g}: more than {MOST} pairs; a higher cosine tells fewer")
    ordered = sorted(best.values(), key=lambda pair: -pair[0])
    return [Hit(score, row) for score, *rows in ordered for row in rows]


def in_words(hit: Hit) -> str:
    """One hit in words."""
    row = hit.row
    label = f"  {row.label}" if row.label else ""
    return one_line(f"{hit.score:.3f}  {row.video}  {row.start:.1f} to {row.end:.1f} s{label}")


def told(found: dict[str, list[Hit]]) -> str:
    """The hits as lines below each query."""
    return "\n".join("\n".join((name, *(f"  {in_words(hit)}" for hit in some or ()))) for name, some in found.items())


def save_hits(where: str, found: dict[str, list[Hit]]) -> None:
    """{query: [{score, video, start, end, frames, label}]}."""
    content = {
        name: [
            {"score": hit.score, **{key: getattr(hit.row, key) for key in ("video", "start", "end", "frames", "label")}}
            for hit in some
        ]
        for name, some in found.items()
    }
    if where == "-":
        print(json.dumps(content, indent=1))
    else:
        files.write_json(where, content)
