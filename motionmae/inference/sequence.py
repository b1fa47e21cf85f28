"""A sequence of images, where its features come from, and the numbers of a propagation: what `following` works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from motionmae.config import Features, Propagation, SegmentDavis, SegmentVideo, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import read_images
from motionmae.files import read_json, write_json
from motionmae.inference.dense import check_stride, clip_times, dense_features, pixel_features
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
class ImageSequence:
    """Numbered pictures of one size: `read` gives RGB frames uint8 [t h w c] at any indices below `count`.

    Not `Frames`, which know when each is on screen: a sequence of DAVIS has no times, and masks are followed by number.
    """

    read: Callable[[Sequence[int]], UInt8[Tensor, "t h w c"]]
    count: int
    height: int
    width: int


def claim_folder(out: Path, config: SegmentDavis | SegmentVideo, settings: Settings, made: Sequence[str]) -> None:
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


def image_frames(paths: Sequence[Path]) -> ImageSequence:
    """Image files as a sequence; reading raises where one is broken or of another size than the first."""
    height, width = read_images(paths[:1]).shape[1:3]

    def read(times: Sequence[int]) -> UInt8[Tensor, "t h w c"]:
        return torch.from_numpy(read_images([paths[time] for time in times], (height, width)))

    return ImageSequence(read, len(paths), height, width)


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
    frames: ImageSequence, order: Sequence[int], size: tuple[int, int], source: Source, features: Features
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
