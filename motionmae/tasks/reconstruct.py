"""`motionmae reconstruct MODEL VIDEO`: what the model sees, guesses and misses, as a video and a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motionmae import noise, runtime
from motionmae.config import Loss, Mask, Pretrain, Reconstruct, Target, from_dict
from motionmae.data.sampling import crop, pretraining_offsets, square_boxes
from motionmae.errors import MotionMAEError
from motionmae.files import write_text
from motionmae.inference.windows import parse_seconds
from motionmae.models import weights
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.progress import Progress, then
from motionmae.report import page
from motionmae.report.pictures import captioned, errors
from motionmae.runtime import Runtime
from motionmae.video.origin import as_place
from motionmae.video.reading import open_video
from motionmae.video.writing import write_video
from motionmae.words import many

SHARPEST = 8.0
"""Frames a second of the result at most: slower than life, so that single frames can be looked at."""


@dataclass(frozen=True)
class Look:
    """One clip looked at: its pictures, pixels in [0, 1], and its figures."""

    pictures: dict[str, Float[Tensor, "1 c t h w"]]
    figures: dict[str, float]


def run(config: Reconstruct) -> None:
    """Write the video and the page, print the figures."""
    here = runtime.start_for(config.compute)
    out = Path(config.out)
    if not config.model or not config.video:
        raise MotionMAEError("say which model and which video: motionmae reconstruct RUN VIDEO --out r.mp4")
    if out.suffix != ".mp4":
        raise MotionMAEError(f"--out {config.out!r}: expected a name that ends in .mp4")
    beside = out.with_suffix(".html")
    there = next((file for file in (out, beside) if file.exists()), None)
    if there is not None:
        raise MotionMAEError(f"--out {config.out}: {there} exists already; choose another name, or remove it")
    pretrain, objective = opened(config)
    objective.to(here.device).eval()
    figures: list[dict[str, float]] = []

    def frames() -> Iterator[Tensor]:
        with Progress("clips", config.clips or None, speak=here.main) as progress:
            for look in looks(config, pretrain, objective, here):
                figures.append(look.figures)
                yield from captioned(look.pictures, config.side)
                progress.step()

    with open_video(as_place(config.video)) as video:
        rate = min(SHARPEST, float(video.rate) / pretrain.data.stride)
    write_video(out, frames(), Fraction(rate).limit_denominator(1001))
    table = {name: sum(found[name] for found in figures) / len(figures) for name in figures[0]}
    write_text(beside, write_page(config, objective, len(figures), table, out))
    print(told(table, len(figures)))
    print(f"{out}\n{beside}")
    then(f"open {beside} in a browser")


def opened(config: Reconstruct) -> tuple[Pretrain, Reconstruction]:
    """The run's config with the wishes for this look, and its objective; a foreign file is taken as VideoMAE's."""
    found = weights.read(config.model, config.heads)
    autoencoder = weights.load(config.model, train=True, heads=config.heads)
    own = {name: found.config[name] for name in ("mask", "target", "loss", "data") if name in found.config}
    if "mask" not in own:
        own = {"loss": {"motion": 0.0}, "data": {"stride": 4}}
    pretrain = replace(from_dict(Pretrain, own), model=found.model)
    mask = pretrain.mask
    mask = mask if config.ratio is None else replace(mask, ratio=config.ratio)
    mask = mask if config.mask is None else replace(mask, kind=config.mask)
    return replace(pretrain, mask=mask), objective_of(autoencoder, mask, pretrain.target, pretrain.loss)


def objective_of(autoencoder: Any, mask: Mask, target: Target, loss: Loss) -> Reconstruction:
    """The objective that predicts all masked tokens, not a share of them."""
    return Reconstruction(autoencoder, replace(mask, decode_ratio=1.0), target, loss)


def looks(config: Reconstruct, pretrain: Pretrain, objective: Reconstruction, here: Runtime) -> Iterator[Look]:
    """The clips one after another, each under a mask of its own."""
    model, data, target = pretrain.model, pretrain.data, pretrain.target
    if not model.size:
        raise MotionMAEError(f"{config.model}: does not say the size of its frames")
    offsets = pretraining_offsets(model.frames, data.stride, target.adjacent, target.gap)
    with open_video(as_place(config.video)) as video:
        start = Fraction(0) if config.at.strip().removesuffix("s") in ("0", "0.0") else parse_seconds(config.at, "--at")
        if start >= video.duration:
            raise MotionMAEError(f"--at {config.at}: the video lasts {float(video.duration):.1f} s")
        (first,), last, span = video.at([start]), len(video) - 1, data.stride * model.frames
        count = config.clips or max(1, -(-(len(video) - first) // span))
        for number in range(count):
            if number and first + number * span > last:
                return
            numbers = [min(first + number * span + offset, last) for offset in offsets]
            pixels = video.read(sorted(set(numbers)))
            places = {name: place for place, name in enumerate(sorted(set(numbers)))}
            (box,) = square_boxes(pixels.shape[1], pixels.shape[2], 1)
            clip = crop(pixels[[places[name] for name in numbers]], box, model.size, False)[None]
            key = torch.tensor([noise.key(config.seed, number)])
            yield look(objective, here.to_device({"clip": clip, "key": key}))


@torch.no_grad()
def look(objective: Reconstruction, batch: dict[str, Any]) -> Look:
    """The pictures and the figures of one clip."""
    shown = objective.pictures(batch)
    if "predicted_appearance" in shown:
        shown["error"] = errors(shown)
    figures = {name: value.item() for name, value in objective(batch).items() if name != "loss"}
    return Look({name: value.cpu() for name, value in shown.items()}, figures)


def told(table: dict[str, float], clips: int) -> str:
    """The figures in words: each part's loss, and what share it is of the best trivial prediction's."""
    names = [name for name in ("appearance", "motion") if name in table]
    trivial = {"appearance": "the mean patch", "motion": "no motion"}
    lines = [
        f"{name}: {table[name]:.4f}, {table[f'{name}_ratio']:.2f} of what {trivial[name]} costs"
        + ("" if table[f"{name}_ratio"] < 0.99 else ": nothing is learnt")
        for name in names
    ]
    return "\n".join((f"mean of {many(clips, 'clip')}", *lines))


def write_page(config: Reconstruct, objective: Reconstruction, clips: int, table: dict[str, float], video: Path) -> str:
    """The page, with the video inside it."""
    mask, target = objective.mask, objective.target
    words = {
        "velocity": "Motion is where each cube goes: hue is direction (right red, down green, left cyan, up violet).",
        "signed": "Motion is the difference of adjacent frames: red becomes brighter, blue darker, grey stays.",
        "absolute": "Motion is the size of the difference of adjacent frames: black stays, white changes most.",
    }[target.motion]
    scale = (
        "The targets of appearance are normalised cube by cube, so the model says nothing of a cube's brightness and "
        "contrast: the reconstruction has the true ones, the next picture those of the visible cubes on average."
        if target.appearance == "cube"
        else ""
    )
    rows = [
        (name, f"{table[name]:.4f}", f"{table[f'{name}_ratio']:.2f}")
        for name in ("appearance", "motion")
        if name in table
    ]
    lead = f"{config.video}, {many(clips, 'clip')}, {mask.ratio:.0%} hidden ({mask.kind}), by {config.model}"
    figures = page.table(("head", "loss", "share of the trivial loss"), rows)
    note = page.text("Below 1 something is learnt: 1 is the mean patch for appearance, and no motion for motion.")
    player = page.film(video, f"{words} {scale}".strip())
    return page.page("Reconstruction", lead, [player, page.section("Figures", figures, note)])
