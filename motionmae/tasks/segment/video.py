"""A video of one's own: objects and points of one frame followed to all others."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.progress import track
from torch import Tensor

from motionmae.config import SegmentVideo, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID, draw_points, draw_shapes, paint, read_mask, read_user_mask, write_mask
from motionmae.files import write_csv, write_json
from motionmae.inference.sequence import (
    Frames,
    Source,
    check_mask,
    follow,
    image_frames,
    open_folder,
    open_source,
    resolve,
)
from motionmae.report.segmentation import save_page
from motionmae.runtime import Runtime, pick_device, pick_dtype
from motionmae.video.frames import Images
from motionmae.video.reading import Video, probe, read_frames
from motionmae.video.writing import write_video

BLOCK, BLOCK_BYTES = 32, 1 << 28  # frames that are decoded at once, and no more of large ones than fit
TRAIL = 12  # frames for which the way of a point stays painted

Areas = dict[int, list[int]]
"""Pixels of each object in each frame."""


def run(config: SegmentVideo) -> None:
    """Follow, save and paint."""
    check(config)
    if not config.video:
        raise MotionMAEError("VIDEO is missing: expected a video file")
    frames, starts, rate = open_frames(config.video)
    if not 0 <= config.at < frames.count:
        raise MotionMAEError(f"--at is {config.at}: {config.video} has the frames 0 to {frames.count - 1}")
    mask, points = given_mask(config, frames), given_points(config, frames)
    if mask is None and points is None:
        raise MotionMAEError("nothing to follow: give --mask, --box, --polygon or --points")
    device, settings = pick_device(config.device), resolve(config.propagation)
    source = open_source(config.model, Runtime(device, pick_dtype(config.precision, device)), config.heads)
    source.stride(config.features)
    if source.name == "rgb":
        print("without a trained --model, raw patches of pixels are compared: expect little", flush=True)
    out = Path(config.out or f"runs/segment-video-{Path(config.video).stem}")
    open_folder(out, config, settings, ("masks/*.png", "areas.csv", "tracks.json", "overlay.mp4", "index.html"))

    areas, tracks = follow_both_ways(config, frames, mask, points, source, out / "masks")
    if areas:
        save_areas(out / "areas.csv", areas, starts, frames)
    if tracks is not None:
        save_tracks(out / "tracks.json", tracks)
    write_video(out / "overlay.mp4", painted(frames, out / "masks" if areas else None, tracks), rate)
    title, lead = Path(config.video).name, f"followed by {config.model}"
    save_page(out / "index.html", title, lead, [out / "overlay.mp4"], areas)
    print(
        f"{frames.count} frames; overlay.mp4, {'masks, areas.csv, ' if areas else ''}"
        f"{'tracks.json, ' if tracks is not None else ''}index.html are in {out}"
    )


def open_frames(path: str) -> tuple[Frames, list[float], Fraction]:
    """A video file or folder of images, each frame's start in seconds, and the frames a second on average.

    Frames are decoded in blocks, of which two stay in memory: the length of the video costs none. A video ends, with a
    warning, where its frames no longer decode. Images of differing sizes are an error, since a mask fits one size.
    """
    info = probe(path)
    if Path(path).is_dir():
        images = Images(path)
        return (
            image_frames([Path(path) / name for name in images.names]),
            [float(s) for s in images.starts()],
            info.rate,
        )
    with Video(path, math.inf) as opened:
        starts, (count, why) = [float(start) for start in opened.starts()], opened.count()
    count = min(count, len(starts))
    if why:
        print(f"{path}: {why}; only the {count} frames before it are used", file=sys.stderr, flush=True)
    size = max(1, min(BLOCK, BLOCK_BYTES // (3 * info.height * info.width)))

    @lru_cache(maxsize=2)
    def block(number: int) -> UInt8[Tensor, "t h w c"]:
        return read_frames(path, range(number * size, min((number + 1) * size, count)))

    def read(times: Sequence[int]) -> UInt8[Tensor, "t h w c"]:
        return torch.stack([block(time // size)[time % size] for time in times])

    return Frames(read, count, info.height, info.width), starts, info.rate


def numbers(text: str, option: str, pairs: int | None) -> list[tuple[float, float]]:
    """Pairs of numbers out of x,y,x,y…; `pairs` says how many there must be, None three or more."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if (
        not all(abs(value) < 1e6 for value in values)
        or len(values) % 2
        or (len(values) // 2 != pairs if pairs else len(values) < 6)
    ):
        expected = "x,y,x,y,x,y,… of three corners or more" if pairs is None else f"{2 * pairs} numbers with commas"
        raise MotionMAEError(f"--{option} {text}: expected {expected}, in pixels")
    return list(zip(values[::2], values[1::2], strict=True))


def given_mask(config: SegmentVideo, frames: Frames) -> UInt8[np.ndarray, "h w"] | None:
    """The objects as the mask file, the boxes or the polygons give them, or None where there are none."""
    ways = [name for name in ("mask", "box", "polygon") if getattr(config, name)]
    if len(ways) > 1:
        raise MotionMAEError(f"--{ways[0]} and --{ways[1]} are both given: expected one of --mask, --box and --polygon")
    if not ways:
        return None
    if config.mask:
        mask = read_user_mask(config.mask)
        check_mask(mask, frames, config.mask)
        return mask
    shapes = [numbers(text, "polygon", None) for text in config.polygon]
    for text in config.box:
        (left, top), (right, bottom) = numbers(text, "box", 2)
        if right <= left or bottom <= top:
            raise MotionMAEError(f"--box {text}: expected left,top,right,bottom with left < right and top < bottom")
        shapes.append([(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)])
    mask = draw_shapes(shapes, frames.height, frames.width)
    for label, text in enumerate(config.box or config.polygon, start=1):
        if not (mask == label).any():
            raise MotionMAEError(
                f"--{ways[0]} {text}: covers no pixel of its own in frames of {frames.width}x{frames.height} pixels"
            )
    return mask


def given_points(config: SegmentVideo, frames: Frames) -> Float[Tensor, "p 2"] | None:
    """The points' x, y, or None where there are none."""
    points = [numbers(text, "points", 1)[0] for text in config.points]
    for text, (x, y) in zip(config.points, points, strict=True):
        if not (0 <= x < frames.width and 0 <= y < frames.height):
            raise MotionMAEError(f"--points {text}: lies outside frames of {frames.width}x{frames.height} pixels")
    return torch.tensor(points) if points else None


def follow_both_ways(
    config: SegmentVideo,
    frames: Frames,
    mask: UInt8[np.ndarray, "h w"] | None,
    points: Float[Tensor, "p 2"] | None,
    source: Source,
    folder: Path,
) -> tuple[Areas, Float[Tensor, "t p 3"] | None]:
    """Forward and backward in time from the given frame: the masks to `folder`/FRAME.png, one after the other.

    Returns the areas and, in order of time, the points' x, y and confidence.
    """
    settings, objects = resolve(config.propagation), [] if mask is None else np.unique(mask[mask != VOID]).tolist()
    areas: Areas = {label: [0] * frames.count for label in objects if label}
    ways: dict[int, Tensor] = {}

    def keep(time: int, labels: UInt8[np.ndarray, "h w"] | None, places: Float[Tensor, "p 3"] | None) -> None:
        if labels is not None:
            write_mask(folder / f"{time:05d}.png", labels)
            pixels = np.bincount(labels.ravel(), minlength=256)
            for label, row in areas.items():
                row[time] = int(pixels[label])
        if places is not None:
            ways[time] = places

    keep(config.at, mask, None if points is None else torch.cat((points, torch.ones(len(points), 1)), dim=1))
    for name, order in (("later", range(config.at, frames.count)), ("earlier", range(config.at, -1, -1))):
        if len(order) > 1:
            found = follow(frames, mask, points, order, source, config.features, settings)
            for time, (labels, places) in track(zip(order[1:], found, strict=True), f"{name} frames", len(order) - 1):
                keep(time, labels, places)
    return areas, torch.stack([ways[time] for time in range(frames.count)]) if ways else None


def save_areas(path: Path, areas: Areas, starts: Sequence[float], frames: Frames) -> None:
    """A line for each frame and object: when the frame starts, the object's pixels, and their share of the frame."""
    rows: list[Sequence[object]] = [("frame", "seconds", "object", "pixels", "share")]
    for time in range(frames.count):
        for label, row in areas.items():
            share = row[time] / (frames.height * frames.width)
            rows.append((time, f"{starts[time]:.3f}", label, row[time], f"{share:.6f}"))
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
    frames: Frames, masks: Path | None, tracks: Float[Tensor, "t p 3"] | None
) -> Iterator[UInt8[Tensor, "h w c"]]:
    """The frames with the masks of a folder and the points' latest ways painted on them."""
    for index in range(frames.count):
        picture = frames.read([index])[0].numpy()
        if masks is not None:
            picture = paint(picture, read_mask(masks / f"{index:05d}.png"))
        if tracks is not None:
            picture = draw_points(picture, tracks[max(0, index - TRAIL) : index + 1, :, :2].numpy())
        yield torch.from_numpy(picture)
