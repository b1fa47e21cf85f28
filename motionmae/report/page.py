"""One self-contained HTML page: text, tables, charts as inline SVG, pictures as data. Pure functions to strings."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path

COLOURS = ("#2f6fde", "#d9622b", "#2a9d63", "#8a4fd3", "#b3302f", "#627084")
Points = Sequence[tuple[float, float]]

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin-top:2.2rem}p.lead{opacity:.75;margin-top:0}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.3rem .9rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child{text-align:left}tr.strong td{font-weight:600;background:var(--soft)}
figure{margin:1rem 0}figcaption{opacity:.75;font-size:.9rem}
img.pixels{image-rendering:pixelated;width:100%;max-width:56rem;border:1px solid var(--line)}
svg{width:100%;max-width:29rem;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}
.charts{display:flex;flex-wrap:wrap;gap:1rem}pre{background:var(--soft);padding:.8rem;overflow-x:auto}
"""


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """The whole document; nothing in it is fetched from anywhere."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f'<p class="lead">{html.escape(lead)}</p>{"".join(sections)}</html>\n'
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(words)}</p>"


def code(words: str) -> str:
    """Lines to be typed."""
    return f"<pre>{html.escape(words)}</pre>"


def charts(*drawn: str) -> str:
    """Charts side by side."""
    return f'<div class="charts">{"".join(drawn)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> str:
    """A table; the rows at `strong` stand out."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=strong' if at in strong else ''}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for at, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def picture(path: Path, caption: str) -> str:
    """An image file, moving or not, as part of the page."""
    kind = {".webp": "webp", ".png": "png", ".jpg": "jpeg"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode()
    words = html.escape(caption)
    return (
        f'<figure><img class="pixels" alt="{words}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def chart(title: str, series: dict[str, Points], x_label: str = "step") -> str:
    """Lines over a common axis from 0; a series whose name starts with "trivial" is dashed."""
    left, top, width, height = 62.0, 30.0, 410.0, 200.0
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    most_x, most_y = max(p[0] for p in points) or 1.0, _round_up(max(p[1] for p in points))

    def place(x: float, y: float) -> tuple[float, float]:
        return left + width * x / most_x, top + height * (1 - min(y, most_y) / most_y)

    drawn = [f'<text x="{left}" y="16" font-weight="600">{html.escape(title)}</text>']
    for part in range(5):
        x, y = place(most_x * part / 4, most_y * part / 4)
        drawn.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{most_y * part / 4:.3g}</text>')
        drawn.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{most_x * part / 4:.0f}</text>')
    for at, (name, line) in enumerate(series.items()):
        colour, dash = COLOURS[at % len(COLOURS)], ' stroke-dasharray="6 4"' if name.startswith("trivial") else ""
        places = ["{:.1f},{:.1f}".format(*place(x, y)) for x, y in line if math.isfinite(y)]
        where = " ".join(places * (2 if len(places) == 1 else 1))  # with round ends, one place twice is a dot
        drawn.append(
            f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round"{dash}/>'
        )
        below = top + height + 40 + 18 * at
        drawn.append(f'<line x1="{left}" x2="{left + 24}" y1="{below - 4}" y2="{below - 4}" stroke="{colour}"{dash}/>')
        drawn.append(f'<text x="{left + 32}" y="{below}">{html.escape(name)}</text>')
    tall = top + height + 40 + 18 * len(series)
    drawn.append(f'<text x="{left + width}" y="{top + height + 40}" text-anchor="end">{html.escape(x_label)}</text>')
    return f'<svg viewBox="0 0 {left + width + 14:.0f} {tall:.0f}" role="img">{"".join(drawn)}</svg>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 4 or 8 times a power of ten: quarters of it are short numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value * 0.9999)


def dots(panels: Sequence[tuple[str, dict[str, Sequence[float]]]]) -> str:
    """Panels side by side over common rows: a dot for each value, in percent, and a stroke at each row's mean."""
    names = list(dict.fromkeys(name for _, rows in panels for name in rows))
    left, wide, gap, high, top = 170.0, 200.0, 30.0, 24.0, 40.0
    tall, total = top + high * len(names) + 30, left + (wide + gap) * len(panels)
    drawn = [
        f'<text x="{left - 10}" y="{top + high * at + 16}" text-anchor="end">{html.escape(name)}</text>'
        for at, name in enumerate(names)
    ]
    for turn, (title, rows) in enumerate(panels):
        start, most = left + turn * (wide + gap), _round_up(max(value for values in rows.values() for value in values))
        drawn.append(f'<text x="{start}" y="20" font-weight="600">{html.escape(title)}</text>')
        for part in range(5):
            x, y = start + wide * part / 4, top + high * len(names)
            drawn.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{y}" stroke="#8884"/>')
            drawn.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{most * part / 4:.3g}</text>')
        for at, name in enumerate(names):
            y, values = top + high * at + 12, rows.get(name, ())
            for value in values:
                drawn.append(f'<circle cx="{start + wide * value / most:.1f}" cy="{y}" r="3.5" fill="{COLOURS[0]}99"/>')
            if values:
                x = start + wide * sum(values) / len(values) / most
                place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}"'
                drawn.append(f'<line {place} stroke="{COLOURS[1]}" stroke-width="2"/>')
    style = "font:12px system-ui,sans-serif;fill:#667"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {tall:.0f}" role="img">'
        f"<style>text{{{style}}}</style>{''.join(drawn)}</svg>"
    )
