"""One self-contained HTML page from parts: text, tables, charts, pictures. Pure functions to markup.

Its one rule: all markup is in the templates beside this file; what comes from elsewhere is text, and is escaped.

Charts are drawn by templates/page.js: what is needed (values under the pointer, runs to hide, a logarithmic axis,
smoothing) takes two hundred lines, while a plotting library's script would fill a page of 2 MB, or more than fill it.
"""

from __future__ import annotations

import base64
import functools
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from motionmae import provenance

COLOURS = ("#2f6fde", "#d9622b", "#2a9d63", "#8a4fd3", "#b3302f", "#627084")
Points = Sequence[tuple[float, float]]
TEMPLATES = Path(__file__).parent / "templates"
KINDS = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}


class Finding(NamedTuple):
    """A sentence of a page's verdict, and what it is."""

    kind: Literal["good", "bad", "plain"]
    words: str


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def part(name: str, *values: Any) -> Markup:
    """The macro of that name in parts.html with these values."""
    return getattr(_templates().get_template("parts.html").module, name)(*values)


def page(
    title: str,
    lead: str,
    sections: Sequence[str],
    verdict: Sequence[Finding] = (),
    about: Mapping[str, str] | None = None,
) -> str:
    """The whole document: the verdict first, then what made it, then the sections. Nothing is fetched from anywhere.

    `about` is told beside the command, version and machine of this process, and in their place where it names them.
    """
    style, script = (Markup((TEMPLATES / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    told = provenance.here() | dict(about or {})
    template = _templates().get_template("page.html")
    return template.render(
        title=title, lead=lead, sections=sections, verdict=verdict, about=told, style=style, script=script
    )


def section(title: str, *parts: str) -> Markup:
    """A heading and what stands under it."""
    return part("section", title, parts)


def text(words: str) -> Markup:
    """A paragraph."""
    return part("text", words)


def code(words: str) -> Markup:
    """Lines to be typed."""
    return part("code", words)


def charts(*drawn: str) -> Markup:
    """Charts side by side, with one log axis and one smoothing for all."""
    return part("charts", [chart for chart in drawn if chart])


def drawings(drawn: Sequence[str]) -> Markup:
    """Drawings of `dots` side by side, as many as the page is wide."""
    return part("drawings", [Markup(drawing) for drawing in drawn])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> Markup:
    """A table that sorts by the column whose head is clicked; the rows at `strong` stand out."""
    return part("table", header, rows, strong)


def picture(path: Path, caption: str, columns: Sequence[str] = ()) -> Markup:
    """An image file, moving or not, with the names of its columns above it."""
    return part("picture", inline(path), caption, columns)


def slider(pictures: Sequence[tuple[Path, str]], columns: Sequence[str] = ()) -> Markup:
    """Image files of one thing over time, each with its caption, of which one is seen; the last at first."""
    return part("slider", [(inline(path), caption) for path, caption in pictures], columns)


def film(path: Path, caption: str, page_folder: Path | None = None, plays: bool = True) -> Markup:
    """An mp4 that plays without sound, at once if `plays`; with `page_folder` it stays in its place below that."""
    address = quote(path.relative_to(page_folder).as_posix(), errors="replace") if page_folder else inline(path)
    return part("film", address, caption, plays)


def inline(path: Path) -> str:
    """A picture or film as an address that holds its bytes."""
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def chart(title: str, series: Mapping[str, Points], x_label: str = "step") -> Markup:
    """Lines over a common axis; a series whose name starts with "trivial" is dashed. Empty where there is no point.

    A value that is not finite is left out. Five digits are kept: more cannot be seen.
    """
    lines = [
        {
            "name": name,
            "x": [_digits(x) for x, _ in points],
            "y": [_digits(y) if math.isfinite(y) else None for _, y in points],
        }
        for name, points in series.items()
        if any(math.isfinite(y) for _, y in points)
    ]
    return part("chart", title, {"x_label": x_label, "series": lines}) if lines else Markup()


def _digits(value: float) -> int | float:
    short = float(f"{value:.5g}") if abs(value) < 1e5 else round(value)
    return int(short) if short == int(short) else short


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
