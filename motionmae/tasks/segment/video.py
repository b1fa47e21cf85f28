"""A video of one's own: objects and points of one frame followed to all others."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import SegmentVideo
from motionmae.data.frames import names
from motionmae.data.masks import VOID, draw_points, draw_shapes, paint, read_user_mask, write_mask
from motionmae.data.video import open_video, probe, read_frames, write_video
from motionmae.errors import MotionMAEError
from motionmae.report.segmentation import save_page
from motionmae.tasks.segment.sequence import (
    Frames,
    Source,
    check_mask,
    follow,
    image_frames,
    open_source,
    resolve,
)
from motionmae.training.runtime import Runtime, pick_device, pick_dtype

BLOCK = 32  # frames that are decoded at once
TRAIL = 12  # frames for which the way of a point stays painted


def run(config: SegmentVideo) -> None:
    """Follow, save and paint."""
    if not config.video:
        raise MotionMAEError("VIDEO is missing: expected a video file")
    frames, starts, rate = open_frames(config.video)
    if not 0 <= config.at < frames.count:
        raise MotionMAEError(f"--at is {config.at}: {config.video} has the frames 0 to {frames.count - 1}")
    mask, points = given_mask(config, frames), given_points(config, frames)
    if mask is None and points is None:
        raise MotionMAEError("nothing to follow: give --mask, --box, --polygon or --points")
    device = pick_device(config.device)
    source = open_source(config.model, Runtime(device, pick_dtype(config.precision, device)))
    if source.name == "rgb":
        print("without a trained --model, raw patches of pixels are compared: expect little", flush=True)
    out = Path(config.out or f"runs/segment-video-{Path(config.video).stem}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))

    for old in (*out.glob("masks/*.png"), out / "areas.csv", out / "tracks.json"):
        old.unlink(missing_ok=True)
    masks, tracks = follow_both_ways(config, frames, mask, points, source)
    if masks is not None:
        save_masks(out / "masks", masks)
        save_areas(out / "areas.csv", masks, starts)
    if tracks is not None:
        save_tracks(out / "tracks.json", tracks)
    write_video(out / "overlay.mp4", painted(frames, masks, tracks), rate)
    title, lead = Path(config.video).name, f"followed by {config.model}"
    save_page(out / "index.html", title, lead, [out / "overlay.mp4"], None if masks is None else areas(masks))
    print(
        f"{frames.count} frames; overlay.mp4, {'masks, areas.csv, ' if masks else ''}"
        f"{'tracks.json, ' if tracks is not None else ''}index.html are in {out}"
    )


def open_frames(path: str) -> tuple[Frames, list[float], Fraction]:
    """A video file or folder of images, each frame's start in seconds, and the frames a second on average.

    Frames are decoded in blocks, of which two stay in memory: the length of the video costs none. Images of differing
    sizes are an error, since a mask fits one size.
    """
    with open_video(path) as opened:
        starts = [float(start) for start in opened.starts()]
    info = probe(path)
    if Path(path).is_dir():
        return image_frames([Path(path) / name for name in names(path)]), starts, info.rate

    @lru_cache(maxsize=2)
    def block(number: int) -> UInt8[Tensor, "t h w c"]:
        return read_frames(path, range(number * BLOCK, min((number + 1) * BLOCK, info.frames)))

    def read(times: Sequence[int]) -> UInt8[Tensor, "t h w c"]:
        return torch.stack([block(time // BLOCK)[time % BLOCK] for time in times])

    return Frames(read, info.frames, info.height, info.width), starts, info.rate


def numbers(text: str, option: str, pairs: int | None) -> list[tuple[float, float]]:
    """Pairs of numbers out of x,y,x,y…; `pairs` says how many there must be, None three or more."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) % 2 or (len(values) // 2 != pairs if pairs else len(values) < 6):
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
) -> tuple[list[UInt8[np.ndarray, "h w"]] | None, Float[Tensor, "t p 3"] | None]:
    """The labels and the points (x, y, confidence) of all frames: forward and backward in time from the given one."""
    settings = resolve(config.propagation)
    given = mask, None if points is None else torch.cat((points, torch.ones(len(points), 1)), dim=1)
    later, earlier = (
        list(follow(frames, mask, points, order, source, config.features, settings))
        for order in (range(config.at, frames.count), range(config.at, -1, -1))
    )
    whole = [*earlier[::-1], given, *later]
    masks = [labels for labels, _ in whole if labels is not None]
    places = [each for _, each in whole if each is not None]
    return masks or None, torch.stack(places) if places else None


def areas(masks: Sequence[UInt8[np.ndarray, "h w"]]) -> list[list[int]]:
    """Pixels of each object (columns, from 1 on) in each frame (rows)."""
    count = max(int(mask[mask != VOID].max(initial=0)) for mask in masks)
    return [np.bincount(mask.ravel(), minlength=256)[1 : count + 1].tolist() for mask in masks]


def save_masks(folder: Path, masks: Sequence[UInt8[np.ndarray, "h w"]]) -> None:
    """FRAME.png for every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        write_mask(folder / f"{index:05d}.png", mask)


def save_areas(path: Path, masks: Sequence[UInt8[np.ndarray, "h w"]], starts: Sequence[float]) -> None:
    """A line for each frame and object: when the frame starts, the object's pixels, and their share of the frame."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("frame", "seconds", "object", "pixels", "share"))
        for index, row in enumerate(areas(masks)):
            for label, pixels in enumerate(row, start=1):
                lines.writerow((index, f"{starts[index]:.3f}", label, pixels, f"{pixels / masks[index].size:.6f}"))


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
    path.write_text(json.dumps({"points": points}, indent=1) + "\n")


def painted(
    frames: Frames, masks: Sequence[UInt8[np.ndarray, "h w"]] | None, tracks: Float[Tensor, "t p 3"] | None
) -> Iterator[UInt8[Tensor, "h w c"]]:
    """The frames with the masks and the points' latest ways painted on them."""
    for index in range(frames.count):
        picture = frames.read([index])[0].numpy()
        if masks is not None:
            picture = paint(picture, masks[index])
        if tracks is not None:
            picture = draw_points(picture, tracks[max(0, index - TRAIL) : index + 1, :, :2].numpy())
        yield torch.from_numpy(picture)
