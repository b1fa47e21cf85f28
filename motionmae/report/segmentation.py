"""Segmentation results as one self-contained HTML page: scores, areas over time and the painted videos."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; } video { width: 32rem; max-width: 100%; display: block; }
figure { display: inline-block; margin: 1rem 1rem 0 0; } svg { width: 100%; height: auto; }
"""
COLOURS = ("#800000", "#008000", "#808000", "#000080", "#800080", "#008080", "#808080", "#400000")


def save_page(
    folder: Path, title: str, areas: Sequence[Sequence[int]] | None = None, scores: dict[str, Any] | None = None
) -> None:
    """Write folder/index.html with the videos under the folder (overlay.mp4, overlays/*.mp4) inside it.

    `areas` holds pixels [frames][objects]; `scores` is what `score_folder` returns.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if scores:
        parts.append(_scores(scores))
    if areas:
        parts.append(f"<h2>Area over time, pixels</h2>{_chart(areas)}")
    for path in sorted([*folder.glob("overlay.mp4"), *folder.glob("overlays/*.mp4")]):
        data = base64.b64encode(path.read_bytes()).decode()
        video = f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
        parts.append(f"<figure>{video}<figcaption>{html.escape(path.stem)}</figcaption></figure>")
    page = "\n".join(parts)
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{page}</body></html>\n",
        encoding="utf-8",
    )


def _scores(scores: dict[str, Any]) -> str:
    keys = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
    head = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
    rows = {"all objects": scores["global"]}
    for name, row in scores["per_object"].items():
        rows[name] = row | {"J&F-Mean": (row["J-Mean"] + row["F-Mean"]) / 2}
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{100 * row[key]:.1f}</td>" for key in keys) + "</tr>"
        for name, row in rows.items()
    )
    return f"<h2>Scores, percent</h2><table><tr><th>object</th>{head}</tr>{body}</table>"


def _chart(areas: Sequence[Sequence[int]], width: int = 800, height: int = 200) -> str:
    """One line an object, in the colours of the masks; the frame's number runs to the right."""
    highest, last = max(1, *(max(row, default=0) for row in areas)), max(1, len(areas) - 1)
    lines = [f'<text x="4" y="14" font-size="12">{highest}</text>']
    for label in range(len(areas[0])):
        places = " ".join(
            f"{index / last * width:.1f},{height - row[label] / highest * height:.1f}"
            for index, row in enumerate(areas)
        )
        colour = COLOURS[label % len(COLOURS)]
        lines.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(
            f'<text x="{width - 70}" y="{14 + 14 * label}" font-size="12" fill="{colour}">object {label + 1}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(lines)}</svg>'
