"""A video of one's own: objects and points of one frame followed to all others."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import SegmentVideo
from motionmae.data.masks import VOID, draw_points, draw_shapes, paint, read_user_mask, write_mask
from motionmae.data.video import read_frames, write_video
from motionmae.errors import MotionMAEError
from motionmae.report.segmentation import save_page
from motionmae.tasks.segment.sequence import Frames, Source, check_mask, open_source, resolve, segment, track
from motionmae.training.runtime import Runtime, pick_device, pick_dtype

RATE = 25.0


def run(config: SegmentVideo) -> None:
    """Follow, save and paint."""
    frames = open_video(config.video)
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

    masks = None if mask is None else follow_mask(config, frames, mask, source)
    tracks = None if points is None else follow_points(config, frames, points, source)
    if masks is not None:
        save_masks(out / "masks", masks)
        save_areas(out / "areas.csv", masks)
    if tracks is not None:
        save_tracks(out / "tracks.json", tracks)
    save_overlay(out / "overlay.mp4", frames, masks, tracks)
    save_page(out, Path(config.video).name, None if masks is None else areas(masks))
    print(
        f"{frames.count} frames; overlay.mp4, {'masks, areas.csv, ' if masks else ''}"
        f"{'tracks.json, ' if tracks is not None else ''}index.html are in {out}"
    )


def open_video(path: str) -> Frames:
    """A video file, whole in memory."""
    pixels = read_frames(path)
    return Frames(lambda times: pixels[list(times)], len(pixels), pixels.shape[1], pixels.shape[2])


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


def follow_mask(
    config: SegmentVideo, frames: Frames, mask: UInt8[np.ndarray, "h w"], source: Source
) -> list[UInt8[np.ndarray, "h w"]]:
    """The labels of all frames, in order: forward and backward in time from the given one."""
    settings = resolve(config.propagation)
    ahead, back = range(config.at, frames.count), range(config.at, -1, -1)
    later = list(segment(frames, mask, ahead, source, config.features, settings))
    earlier = list(segment(frames, mask, back, source, config.features, settings))
    return [*earlier[::-1], mask, *later]


def follow_points(
    config: SegmentVideo, frames: Frames, points: Float[Tensor, "p 2"], source: Source
) -> Float[Tensor, "t p 3"]:
    """x, y and confidence of the points in all frames."""
    settings = resolve(config.propagation)
    ahead, back = range(config.at, frames.count), range(config.at, -1, -1)
    given = torch.cat((points, torch.ones(len(points), 1)), dim=1)
    later = list(track(frames, points, ahead, source, config.features, settings))
    earlier = list(track(frames, points, back, source, config.features, settings))
    return torch.stack([*earlier[::-1], given, *later])


def areas(masks: Sequence[UInt8[np.ndarray, "h w"]]) -> list[list[int]]:
    """Pixels of each object (columns, from 1 on) in each frame (rows)."""
    count = max(int(mask[mask != VOID].max(initial=0)) for mask in masks)
    return [np.bincount(mask.ravel(), minlength=256)[1 : count + 1].tolist() for mask in masks]


def save_masks(folder: Path, masks: Sequence[UInt8[np.ndarray, "h w"]]) -> None:
    """FRAME.png for every frame; masks of an earlier, longer video in the folder are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for index, mask in enumerate(masks):
        write_mask(folder / f"{index:05d}.png", mask)


def save_areas(path: Path, masks: Sequence[UInt8[np.ndarray, "h w"]]) -> None:
    """A line for each frame and object: its pixels, and their share of the frame."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("frame", "object", "pixels", "share"))
        for index, row in enumerate(areas(masks)):
            for label, pixels in enumerate(row, start=1):
                lines.writerow((index, label, pixels, f"{pixels / masks[index].size:.6f}"))


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


def save_overlay(
    path: Path,
    frames: Frames,
    masks: Sequence[UInt8[np.ndarray, "h w"]] | None,
    tracks: Float[Tensor, "t p 3"] | None,
) -> None:
    """The video with masks and the points' last half second painted on it."""
    painted = []
    for index in range(frames.count):
        picture = frames.read([index])[0].numpy()
        if masks is not None:
            picture = paint(picture, masks[index])
        if tracks is not None:
            picture = draw_points(picture, tracks[max(0, index - int(RATE / 2)) : index + 1, :, :2].numpy())
        painted.append(torch.from_numpy(picture))
    write_video(path, torch.stack(painted), RATE)
