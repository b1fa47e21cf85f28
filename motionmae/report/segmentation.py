"""Segmentation results as one page: scores, areas over time and the painted videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motionmae.files import write_text
from motionmae.report.page import Points, chart, film, page, section, table

KEYS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


def save_page(
    path: Path,
    title: str,
    lead: str,
    films: Sequence[Path],
    areas: Mapping[int, Sequence[int]] | None = None,
    scores: dict[str, Any] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write the page with the videos `films` (mp4) inside it.

    `areas` are pixels of each object in each frame, `names` what the objects 1, 2, … are called; `scores` are what
    `score_folder` gives.
    """
    sections = []
    if scores:
        rows = {"all objects": scores["global"]}
        if len(scores["per_object"]) > len(scores["per_sequence"]):
            rows |= scores["per_sequence"]
        for name, row in scores["per_object"].items():
            rows[name] = row | {"J&F-Mean": (row["J-Mean"] + row["F-Mean"]) / 2}
        cells = [[name, *(f"{100 * row[key]:.1f}" for key in KEYS)] for name, row in rows.items()]
        sections.append(section("Scores, percent", table(("", *KEYS), cells, strong=(0,))))
    if areas:
        called = dict(enumerate(names, start=1))
        lines: dict[str, Points] = {
            called.get(label, f"object {label}"): [(float(time), float(pixels)) for time, pixels in enumerate(row)]
            for label, row in areas.items()
        }
        sections.append(section("Areas", chart("pixels", lines, "frame")))
    if films:
        sections.append(section("Overlays", *(film(each, each.stem) for each in films)))
    write_text(path, page(title, lead, sections), "replace")
