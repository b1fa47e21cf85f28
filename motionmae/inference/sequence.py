"""From the labels of one frame to those of all: where frames, encoder and propagation meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import Features, Propagation, SegmentDavis, SegmentVideo, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import read_images
from motionmae.evaluation.masks import VOID
from motionmae.files import read_json, write_json
from motionmae.inference.dense import check_stride, clip_times, dense_features, pixel_features
from motionmae.inference.propagation import harden, heat, peaks, propagate, soften
from motionmae.models.encoder import VideoEncoder
from motionmae.models.weights import load
from motionmae.runtime import Runtime


@dataclass(frozen=True)
class Settings:
    """The numbers of a propagation, all of them decided; what they mean is said in `config.Propagation`."""

    protocol: str
    topk: int
    context: int
    radius: int
    temperature: float
    short: int = 0
    multiple: int = 0
    size: tuple[int, int] = (0, 0)
    stretch: bool = True


# The published numbers, which given ones override. SiamMAE's are those that CropMAE (arXiv 2403.17823) evaluates with.
PROTOCOLS = {
    "dino": Settings("dino", topk=5, context=7, radius=12, temperature=0.1, short=480, multiple=64),
    "crw": Settings("crw", topk=10, context=20, radius=12, temperature=0.05),
    "siammae": Settings("siammae", topk=7, context=20, radius=20, temperature=0.7, size=(480, 880)),
}
RGB_PATCH = 16


@dataclass(frozen=True)
class Frames:
    """A video: `read` gives RGB frames uint8 [t h w c] at any indices below `count`."""

    read: Callable[[Sequence[int]], UInt8[Tensor, "t h w c"]]
    count: int
    height: int
    width: int


def open_folder(out: Path, config: SegmentDavis | SegmentVideo, settings: Settings, made: Sequence[str]) -> None:
    """A folder for results, with their config.json; what an earlier run `made` there (patterns) is removed.

    Raises MotionMAEError for a folder that holds anything, but no earlier run's config.json: its files are not ours.
    """
    about = out / "config.json"
    if out.is_dir() and any(out.iterdir()):
        try:
            ours = "resolved" in read_json(about)
        except (MotionMAEError, TypeError):
            ours = False
        if not ours:
            raise MotionMAEError(f"--out {out}: holds other files already; choose a new folder, or an earlier run's")
    for pattern in made:
        for old in out.glob(pattern):
            old.unlink()
    write_json(about, asdict(config) | {"resolved": asdict(settings)})


def image_frames(paths: Sequence[Path]) -> Frames:
    """Image files as a video; reading raises where one is broken or of another size than the first."""
    height, width = read_images(paths[:1]).shape[1:3]

    def read(times: Sequence[int]) -> UInt8[Tensor, "t h w c"]:
        return torch.from_numpy(read_images([paths[time] for time in times], (height, width)))

    return Frames(read, len(paths), height, width)


@dataclass(frozen=True)
class Source:
    """Where features come from: an encoder, or None for a baseline, whose `name` is then `rgb` or `copy`."""

    name: str
    encoder: VideoEncoder | None
    runtime: Runtime

    @property
    def cube(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels of a cube."""
        return self.encoder.config.cube if self.encoder else (1, RGB_PATCH, RGB_PATCH)

    def stride(self, features: Features) -> int:
        """Pixels from one cell to the next."""
        stride = self.cube[1] if features.stride is None else features.stride
        check_stride(self.cube, stride)
        return stride


def open_source(model: str, runtime: Runtime, heads: int | None = None, untrained: int | None = None) -> Source:
    """The baseline or the encoder that the word or path `model` stands for.

    `heads` is for foreign files that do not say them; a seed `untrained` gives the encoder random weights.
    """
    if not model:
        raise MotionMAEError("MODEL is missing: expected a run folder or checkpoint, or the word rgb or copy")
    if model in ("rgb", "copy"):
        if untrained is not None:
            raise MotionMAEError(f"--untrained is for encoders: {model} has no weights")
        return Source(model, None, runtime)
    encoder = load(model, heads=heads)
    if untrained is not None:
        torch.manual_seed(untrained)
        encoder = VideoEncoder(encoder.config).eval()
    return Source(model, encoder.to(runtime.device), runtime)


def resolve(propagation: Propagation) -> Settings:
    """The given numbers, else the protocol's. A given `short` takes the place of the protocol's `size`."""
    check(propagation)
    given = {each.name: getattr(propagation, each.name) for each in fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    if "short" in given:
        given = {"size": (0, 0)} | given
    return replace(PROTOCOLS[propagation.protocol], **given)


def input_size(height: int, width: int, settings: Settings, patch: int) -> tuple[int, int]:
    """The height and width in pixels that frames are resized to: multiples of `patch`."""
    if all(settings.size):
        sides = settings.size if width >= height else settings.size[::-1]
    else:
        short, long = sorted((height, width))
        if settings.short:
            short, long = settings.short, settings.short * long / short
        if settings.multiple and long >= settings.multiple:
            long = long // settings.multiple * settings.multiple
        sides = (short, long) if width >= height else (long, short)
    rows, columns = (max(patch, round(side / patch) * patch) for side in sides)
    return rows, columns


@torch.inference_mode()
def features_of(
    frames: Frames, order: Sequence[int], size: tuple[int, int], source: Source, features: Features
) -> Iterator[Float[Tensor, "h w d"]]:
    """The features of the frames `order`, read and encoded a few at a time."""
    check(features, "features")
    stride, window = source.stride(features), source.encoder.config.frames if source.encoder else 1
    kept: dict[int, Tensor] = {}
    for start in range(0, len(order), features.batch):
        chunk = order[start : start + features.batch]
        clips = [clip_times(features.entry, time, frames.count, source.cube[0], window) for time in chunk]
        needed = sorted({time for times, _ in clips for time in times})
        missing = [time for time in needed if time not in kept]
        if missing:
            fresh = frames.read(missing).permute(0, 3, 1, 2)
            fresh = F.interpolate(fresh, size, mode="bilinear", antialias=True)  # of bytes, which only the CPU can
            kept |= dict(zip(missing, fresh.to(source.runtime.device), strict=True))
        kept = {time: kept[time] for time in needed}
        batch = torch.stack([torch.stack([kept[time] for time in times], dim=1) for times, _ in clips])
        if source.encoder is None:
            yield from pixel_features(batch[:, :, 0], RGB_PATCH, stride)
            continue
        with source.runtime.autocast():
            grids = dense_features(source.encoder, batch, clips[0][1], stride, features.layer)
        yield from grids.float()


def check_mask(mask: UInt8[np.ndarray, "h w"], frames: Frames, name: str) -> int:
    """The number of objects of a mask; raises where it differs from the frames in size or holds no object."""
    if mask.shape != (frames.height, frames.width):
        raise MotionMAEError(
            f"{name} is {mask.shape[1]}x{mask.shape[0]} pixels, the frames are {frames.width}x{frames.height}"
        )
    count = int(mask[mask != VOID].max(initial=0))
    if not count:
        raise MotionMAEError(f"{name} holds no object: all of its pixels are background")
    return count


@torch.inference_mode()
def follow(
    frames: Frames,
    mask: UInt8[np.ndarray, "h w"] | None,
    points: Float[Tensor, "p 2"] | None,
    order: Sequence[int],
    source: Source,
    features: Features,
    settings: Settings,
) -> Iterator[tuple[UInt8[np.ndarray, "h w"] | None, Float[Tensor, "p 3"] | None]]:
    """The labels and the points of the frames `order[1:]`, one after the other, from those of frame `order[0]`.

    Points are x, y in pixels; they return with a confidence in [0, 1], and as NaN where all trace of them is lost. They
    are labels like any other, each spread over the cells around it (Jabri et al., 2020, arXiv 2006.14613); confidence
    is how high its peak still is, its first one being 1. `order` may run forward or backward in time.
    """
    if source.name == "copy":
        still = None if points is None else torch.cat((points, torch.ones(len(points), 1)), dim=1)
        yield from ((mask, still) for _ in order[1:])
        return
    size = input_size(frames.height, frames.width, settings, source.cube[1])
    rows, columns = (side // source.stride(features) for side in size)
    cell = torch.tensor([frames.width / columns, frames.height / rows])  # pixels of the video in a cell, x and y
    first = [torch.zeros(rows, columns, 0)]
    numbers = np.zeros(1, dtype=np.uint8)
    if mask is not None:
        numbers = np.union1d(numbers, mask[mask != VOID])  # the objects' own may have gaps
        labels = np.searchsorted(numbers, np.where(mask == VOID, 0, mask))
        first.append(soften(torch.from_numpy(labels), len(numbers) - 1, (rows, columns)))
    if points is not None:
        first.append(heat(((points + 0.5) / cell - 0.5).flip(1), (rows, columns)))
    for labels in propagate(
        features_of(frames, order, size, source, features),
        torch.cat(first, dim=-1).to(source.runtime.device),
        context=settings.context,
        radius=settings.radius,
        topk=settings.topk,
        temperature=settings.temperature,
    ):
        hard, places = None, None
        if mask is not None:
            maps = labels[..., : first[1].shape[-1]]
            hard = numbers[harden(maps, (frames.height, frames.width), settings.stretch).cpu().numpy()]
        if points is not None:
            found, heights = peaks(labels[..., -len(points) :].cpu())
            sure = (heights / first[-1].amax((0, 1))).clamp(max=1)
            places = torch.cat(((found.flip(1) + 0.5) * cell - 0.5, sure[:, None]), dim=1)
        yield hard, places
