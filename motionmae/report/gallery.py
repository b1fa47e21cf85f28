"""Pages of clips: those that a search found, and a map of many. Pictures are read when a page is made."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from PIL import Image

from motionmae.files import write_text
from motionmae.report import page
from motionmae.video.errors import VideoError
from motionmae.video.reading import open_video

COLOURS = (*page.COLOURS, "#c2a500", "#0e8a9e", "#c0438f", "#7a5230", "#5a7d1a", "#33415c")


@dataclass(frozen=True)
class Shown:
    """One clip on a page: what is said of it, and the frames of a video whose pictures stand for it."""

    words: str
    video: str
    frames: list[int]


def write_gallery(path: Path, title: str, lead: str, shown: dict[str, list[Shown]]) -> None:
    """A page with a section for each name and a strip of four frames for each clip. A video that has gone is told."""
    sections = [page.section(name, *(_entry(each) for each in some)) for name, some in shown.items()]
    write_text(path, page.page(title, lead, sections), "replace")


def _entry(shown: Shown) -> Markup:
    return page.part("strip", strip(shown.video, shown.frames, 4, 96), shown.words)


def strip(video: str, frames: Sequence[int], count: int, height: int) -> str:
    """`count` of the frames side by side, `height` pixels high, as the address of an inline JPEG; "" if unreadable."""
    places = np.linspace(0, len(frames) - 1, count + 2)[1:-1] if count < len(frames) else np.arange(len(frames))
    wanted = [frames[round(float(place))] for place in places]
    if not wanted:
        return ""
    try:
        with open_video(video) as opened:
            pictures = opened.read(wanted)
    except VideoError:
        return ""
    joined = Image.fromarray(np.concatenate(list(pictures.numpy()), axis=1))
    joined = joined.resize((max(1, joined.width * height // joined.height), height), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    joined.save(stream, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_map(
    path: Path, lead: str, points: Float[torch.Tensor, "n 2"], shown: Sequence[Shown], labels: Sequence[str], most: int
) -> None:
    """A page with a dot for each row, coloured by its class; pointing at one tells what it is and shows its picture.

    At most `most` rows, spread over the table, have pictures.
    """
    pictured = set(np.linspace(0, len(shown) - 1, min(most, len(shown))).round().astype(int).tolist())
    low, high = points.min(0).values, points.max(0).values
    places = ((points - low) / (high - low).clamp_min(1e-9)).tolist()
    names = sorted(set(labels))
    dots = []
    for at, ((x, y), each, label) in enumerate(zip(places, shown, labels, strict=True)):
        picture = strip(each.video, each.frames, 1, 64) if at in pictured else ""
        colour = COLOURS[names.index(label) % len(COLOURS)]
        dots.append((f"{12 + 776 * x:.1f}", f"{588 - 576 * y:.1f}", colour, picture, each.words))
    legend = [(COLOURS[at % len(COLOURS)], name or "no class") for at, name in enumerate(names[:60])]
    write_text(path, page.page("Map of embeddings", lead, [page.part("map", dots, legend)]), "replace")
