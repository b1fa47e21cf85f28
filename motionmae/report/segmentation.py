"""Segmentation results as one page: the painted videos, scores with the worst first, areas and confidence over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from motionmae.files import write_text
from motionmae.report.page import Finding, Points, chart, charts, film, page, section, table, text
from motionmae.words import many

KEYS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
WITHIN = 1_300_000
"""Bytes of videos that a page holds itself; others stay beside it and are read from there."""
LOST = 0.1
"""Below this confidence a point is as good as lost."""


def save_page(
    path: Path,
    title: str,
    lead: str,
    films: Sequence[Path],
    areas: Mapping[int, Sequence[int]] | None = None,
    scores: dict[str, Any] | None = None,
    names: Sequence[str] = (),
    tracks: Float[Tensor, "t p 3"] | None = None,
) -> None:
    """Write the page, with the videos `films` (mp4, below its folder) inside it as far as they fit.

    `areas` are pixels of each object in each frame, `names` what the objects 1, 2, … are called; `scores` are what
    `score_folder` gives; `tracks` are the points' x, y and confidence.
    """
    called = dict(enumerate(names, start=1))
    named = {called.get(label, f"object {label}"): row for label, row in (areas or {}).items()}
    order = _worst_first(scores, [film.stem for film in films])
    sections = [_films(path.parent, sorted(films, key=lambda film: order.index(film.stem)))] if films else []
    if scores:
        sections.append(section("Scores, percent, the worst first", _scores(scores)))
    drawn = []
    if named:
        drawn.append(chart("area, pixels", {name: _over_time(row) for name, row in named.items()}, "frame"))
    if tracks is not None:
        ways = {f"point {at}": _over_time(way) for at, way in enumerate(tracks[:, :, 2].T.tolist(), start=1)}
        drawn.append(chart("confidence of the points", ways, "frame"))
    if drawn:
        sections.append(section("Along time", charts(*drawn)))
    write_text(path, page(title, lead, sections, _verdict(scores, named, tracks)), "replace")


def _films(folder: Path, films: Sequence[Path]) -> str:
    """The videos; the first ones in the page, all others from beside it."""
    shown, spent = [], 0
    for each in films:
        spent += each.stat().st_size * 4 // 3
        own = spent <= WITHIN
        shown.append(film(each, each.stem, None if own else folder, len(films) <= 4))
    words = [] if spent <= WITHIN else [text("The page holds the first of these; the rest it reads from beside it.")]
    return section("Overlays", *words, *shown)


def _worst_first(scores: dict[str, Any] | None, names: Sequence[str]) -> list[str]:
    found = (scores or {}).get("per_sequence", {})
    return sorted(names, key=lambda name: found.get(name, {}).get("J&F-Mean", 0.0))


def _scores(scores: dict[str, Any]) -> str:
    objects = {
        name: row | {"J&F-Mean": (row["J-Mean"] + row["F-Mean"]) / 2} for name, row in scores["per_object"].items()
    }
    several = len(objects) > len(scores["per_sequence"])
    parts = [("sequence", scores["per_sequence"])] * several + [("object", objects)]
    rows = [["all objects", "", *_cells(scores["global"])]]
    for kind, found in parts:
        ordered = sorted(found.items(), key=lambda item: item[1]["J&F-Mean"])
        rows += [[name, kind, *_cells(row)] for name, row in ordered]
    return table(("", "what", *KEYS), rows, strong=(0,))


def _cells(row: Mapping[str, float]) -> list[str]:
    return [f"{100 * row[key]:.1f}" for key in KEYS]


def _over_time(values: Sequence[float] | Sequence[int]) -> Points:
    return [(float(time), float(value)) for time, value in enumerate(values)]


def _verdict(
    scores: dict[str, Any] | None, areas: Mapping[str, Sequence[int]], tracks: Float[Tensor, "t p 3"] | None
) -> list[Finding]:
    """The mean score and the worst sequence; objects and points that are lost."""
    found = []
    if scores:
        worst = _worst_first(scores, list(scores["per_sequence"]))
        words = f"J&F {100 * scores['global']['J&F-Mean']:.1f} over {many(len(scores['per_object']), 'object')}"
        if len(worst) > 1:
            words += f"; the worst sequence is {worst[0]}, {100 * scores['per_sequence'][worst[0]]['J&F-Mean']:.1f}"
        found.append(Finding("plain", words))
    for name, row in areas.items():
        if row and not row[-1]:
            last = max((time for time, pixels in enumerate(row) if pixels), default=-1)
            found.append(Finding("bad", f"{name} is not seen after frame {last} of {len(row)}"))
    for at, way in enumerate([] if tracks is None else tracks[:, :, 2].T.tolist(), start=1):
        weak = sum(not value >= LOST for value in way)
        if weak:
            found.append(Finding("bad", f"point {at} is as good as lost in {weak} of {many(len(way), 'frame')}"))
    return found or [Finding("good", "every object and point is followed to the end")]
