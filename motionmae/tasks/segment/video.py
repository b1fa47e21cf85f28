"""A video of one's own: objects and points of some frames followed to all others."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae import runtime
from motionmae.config import SegmentVideo, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID, draw_points, paint, read_mask, write_mask
from motionmae.files import write_csv, write_json
from motionmae.inference.following import follow, pace
from motionmae.inference.sequence import (
    ImageSequence,
    Source,
    claim_folder,
    image_frames,
    input_size,
    open_source,
    resolve,
)
from motionmae.progress import Progress, clock, then
from motionmae.report.segmentation import save_page
from motionmae.tasks.segment.given import Given, read_given
from motionmae.video import remote
from motionmae.video.frames import Images
from motionmae.video.origin import as_place
from motionmae.video.reading import Video, probe, read_frames
from motionmae.video.writing import write_video
from motionmae.words import many

BLOCK, BLOCK_BYTES = 32, 1 << 28  # frames that are decoded at once, and no more of large ones than fit
TRAIL = 12  # frames for which the way of a point stays painted
FEW = 8  # frames of a video that are followed sooner than the time is measured
PATIENCE, SHORTS = 120.0, (360, 240, 160, 120)  # seconds that need no advice; short sides that are advised
LONGEST = 3.0  # seconds of a frame that is measured where a smaller one tells as much
MADE = ("masks/*.png", "areas.csv", "tracks.json", "overlay.mp4", "index.html")

Areas = dict[int, list[int]]
"""Pixels of each object in each frame."""


def run(config: SegmentVideo) -> None:
    """Say how long it will take; follow, save and paint."""
    check(config)
    if not config.video:
        raise MotionMAEError("VIDEO is missing: expected a video file")
    footage = open_footage(config.video)
    given, source = read_given(config, footage.frames), source_of(config)
    foretell(config, footage.frames, given, source)
    out = folder_of(config)
    with Progress("working", 2 * footage.frames.count) as progress:
        made = segment(config, footage, given, source, out, progress.show)
    print(f"{many(footage.frames.count, 'frame')}; {', '.join(made)} are in {out}")
    then(f"open {out / 'index.html'} in a browser; --pick draws and corrects there")


def source_of(config: SegmentVideo) -> Source:
    """Where the features come from; what is asked of it is checked."""
    source = open_source(config.model, runtime.single(config.compute), config.heads)
    source.stride(config.features)
    if source.name == "rgb":
        print("without a trained --model, raw patches of pixels are compared: expect little", flush=True)
    return source


def folder_of(config: SegmentVideo) -> Path:
    """Where the results go."""
    return Path(config.out or f"runs/segment-video-{Path(config.video).stem}")


def segment(
    config: SegmentVideo, footage: Footage, given: Given, source: Source, out: Path, tell: Callable[[int, str], None]
) -> list[str]:
    """Follow what is given through the footage; leaves all results in `out` and returns their names.

    `tell` hears of each frame that is followed, then of each that is painted: how many of twice their number are done.
    What it raises ends the work.
    """
    frames, settings = footage.frames, resolve(config.propagation)
    if len(config.names) > (
        most := max((int(mask[mask != VOID].max(initial=0)) for mask in given.masks.values()), default=0)
    ):
        raise MotionMAEError(f"--names {' '.join(config.names)}: {len(config.names)}, for objects up to {most}")
    claim_folder(out, config, settings, MADE)
    areas, tracks = follow_all(config, frames, given, source, out / "masks", tell)
    if areas:
        save_areas(out / "areas.csv", areas, footage, config.names)
    if tracks is not None:
        save_tracks(out / "tracks.json", tracks)
    shown = painted(frames, out / "masks" if areas else None, tracks, tell)
    write_video(out / "overlay.mp4", shown, footage.rate)
    title, lead = Path(config.video).name, f"followed by {config.model}"
    save_page(out / "index.html", title, lead, [out / "overlay.mp4"], areas, names=config.names, tracks=tracks)
    made = {"overlay.mp4": True, "masks": areas, "areas.csv": areas, "tracks.json": tracks is not None}
    return [*(name for name, there in made.items() if there), "index.html"]


def foretell(config: SegmentVideo, frames: ImageSequence, given: Given, source: Source) -> None:
    """Say how long the work will take, as measured on one frame, and which size would fit where that is long.

    Small sizes are measured first: one that would itself take long is told from how the time grew until there.
    """
    if frames.count < FEW:
        return
    settings = resolve(config.propagation)
    groups = [next(iter(labels.values())) for labels, _ in given.groups()]
    rows, columns = input_size(frames.height, frames.width, settings, source.cube[1])
    whole = settings.short if settings.short and not all(settings.size) else min(rows, columns)
    known: dict[int, float] = {}

    def needed(short: int) -> float:
        """Seconds for the whole video at this short side."""
        if short in known:
            return known[short]
        if len(known) > 1 and (guess := grown(known, short)) > LONGEST * frames.count:
            return known.setdefault(short, guess)
        asked = settings if short == whole else resolve(replace(config.propagation, short=short))
        each = sum(pace(frames, labels, source, config.features, asked) for labels in groups)
        return known.setdefault(short, each * frames.count)

    smaller = [short for short in SHORTS if short < 0.8 * whole]
    with Progress("measuring one frame"):
        if smaller and grown({smaller[-1]: needed(smaller[-1])}, whole) > LONGEST * frames.count:
            for short in smaller[-2::-1]:
                needed(short)
        seconds = needed(whole)
        fitting = [short for short in smaller if seconds > PATIENCE and needed(short) <= PATIENCE]
    line = f"{many(frames.count, 'frame')}, followed at {columns}x{rows} pixels on {source.runtime.device}: "
    line += f"about {clock(seconds)}"
    if seconds > PATIENCE and smaller:
        short = max(fitting, default=smaller[-1])
        line += f"; --short {short} would take about {clock(needed(short))}"
    print(line, flush=True)


def grown(known: dict[int, float], short: int) -> float:
    """Seconds at a short side from those at smaller ones: by the growth between the largest two, or at most by its
    fourth power, as tokens that all attend to each other."""
    *others, last = sorted(known)
    power = 4.0
    if others:
        before = others[-1]
        power = min(4.0, max(1.0, math.log(known[last] / max(1e-9, known[before])) / math.log(last / before)))
    return known[last] * (short / last) ** power


@dataclass(frozen=True)
class Footage:
    """A video or a folder of images: its frames, the start of each in seconds, and frames a second on average."""

    frames: ImageSequence
    starts: list[float]
    rate: Fraction


def open_footage(path: str) -> Footage:
    """A video file, its address, or a folder of images.

    Frames are decoded in blocks, of which two stay in memory: the length of the video costs none. A video ends, with a
    warning, where its frames no longer decode. Images of differing sizes are an error, since a mask fits one size.
    """
    path = as_place(path)
    info = probe(path)
    if Path(path).is_dir():
        images = Images(path)
        frames = image_frames([Path(path) / name for name in images.names])
        return Footage(frames, [float(start) for start in images.starts()], info.rate)
    with Video(path, math.inf) as opened:
        starts, (count, why) = [float(start) for start in opened.starts()], opened.count()
    count = min(count, len(starts))
    if why:
        print(
            f"{remote.shown(path)}: {why}; used is only what comes before, {many(count, 'frame')}",
            file=sys.stderr,
            flush=True,
        )
    size = max(1, min(BLOCK, BLOCK_BYTES // (3 * info.height * info.width)))

    @lru_cache(maxsize=2)
    def block(number: int) -> UInt8[Tensor, "t h w c"]:
        return read_frames(path, range(number * size, min((number + 1) * size, count)))

    def read(times: Sequence[int]) -> UInt8[Tensor, "t h w c"]:
        return torch.stack([block(time // size)[time % size] for time in times])

    return Footage(ImageSequence(read, count, info.height, info.width), starts, info.rate)


def follow_all(
    config: SegmentVideo,
    frames: ImageSequence,
    given: Given,
    source: Source,
    folder: Path,
    tell: Callable[[int, str], None],
) -> tuple[Areas, Float[Tensor, "t p 3"] | None]:
    """Both ways in time from what is given: the masks to `folder`/FRAME.png, one after the other.

    Returns the areas and, in order of time, the points' x, y and confidence.
    """
    settings, groups = resolve(config.propagation), list(given.groups())
    labels = sorted({int(label) for mask in given.masks.values() for label in np.unique(mask[mask != VOID]) if label})
    areas: Areas = {label: [0] * frames.count for label in labels}
    tracks = torch.full((frames.count, len(given.points), 3), torch.nan)
    done = 0
    for start, chosen in groups:
        for found in follow(frames, start, source, config.features, settings):
            if found.mask is not None:
                write_mask(folder / f"{found.time:05d}.png", found.mask)
                pixels = np.bincount(found.mask.ravel(), minlength=256)
                for label, row in areas.items():
                    row[found.time] = int(pixels[label])
            if found.points is not None:
                tracks[found.time, chosen] = found.points
            done += 1
            tell(done // len(groups), "frames followed")
    return areas, tracks if given.points else None


def save_areas(path: Path, areas: Areas, footage: Footage, names: Sequence[str]) -> None:
    """A line for each frame and object: when the frame starts, the object's pixels, and their share of the frame."""
    frames, called = footage.frames, dict(enumerate(names, start=1))
    rows: list[Sequence[object]] = [("frame", "seconds", "object", "name", "pixels", "share")]
    for number in range(frames.count):
        for label, row in areas.items():
            share = row[number] / (frames.height * frames.width)
            rows.append(
                (number, f"{footage.starts[number]:.3f}", label, called.get(label, ""), row[number], f"{share:.6f}")
            )
    write_csv(path, rows)


def save_tracks(path: Path, tracks: Float[Tensor, "t p 3"]) -> None:
    """For each point its frames: x and y in pixels, null where it is lost, and the confidence in [0, 1]."""
    points = [
        [
            {
                "frame": t,
                "x": None if x != x else round(x, 2),
                "y": None if y != y else round(y, 2),
                "confidence": round(c, 4),
            }
            for t, (x, y, c) in enumerate(way)
        ]
        for way in tracks.transpose(0, 1).tolist()
    ]
    write_json(path, {"points": points})


def painted(
    frames: ImageSequence, masks: Path | None, tracks: Float[Tensor, "t p 3"] | None, tell: Callable[[int, str], None]
) -> Iterator[UInt8[Tensor, "h w c"]]:
    """The frames with the masks of a folder and the points' latest ways painted on them."""
    for index in range(frames.count):
        picture = frames.read([index])[0].numpy()
        if masks is not None:
            picture = paint(picture, read_mask(masks / f"{index:05d}.png"))
        if tracks is not None:
            picture = draw_points(picture, tracks[max(0, index - TRAIL) : index + 1, :, :2].numpy())
        yield torch.from_numpy(picture)
        tell(frames.count + index + 1, "frames followed and painted")
