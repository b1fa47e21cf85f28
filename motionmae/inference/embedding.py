"""Videos to vectors: an encoder's tokens, pooled, for every stretch of any videos.

Its one rule: a row says which stretch of which video its vector stands for, and a video that cannot be read is a row
that says why.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from motionmae.config import Compute, EmbedPool, Viewing
from motionmae.data.loading import watched
from motionmae.errors import MotionMAEError
from motionmae.inference import windows
from motionmae.inference.views import View, settle
from motionmae.inference.windows import Window
from motionmae.models.attentive import read_head
from motionmae.models.encoder import VideoEncoder, pooled
from motionmae.models.tokens import clip_grid
from motionmae.models.weights import read
from motionmae.runtime import Runtime, out_beside, start_for
from motionmae.video import remote
from motionmae.video.errors import VideoError
from motionmae.video.frames import Frames
from motionmae.video.origin import as_place
from motionmae.video.reading import open_video

Vectors = dict[int, Tensor]
"""For each layer, float32 on the CPU, a row a clip: [n d], or [n tokens d] where nothing is pooled."""


@dataclass(frozen=True)
class Layout:
    """What a row stands for and what its vector is: every number settled."""

    every: str
    """`clip`, `video`, or seconds."""
    window: str
    pool: EmbedPool
    layers: tuple[int, ...]
    views: View

    def windows(self, video: Frames) -> list[Window]:
        """The rows of an opened video, or the clips whose mean is its row."""
        if self.every in ("clip", "video"):
            return windows.end_to_end(video, self.views)
        return windows.spaced(video, self.every, self.window, self.views)


@dataclass(frozen=True)
class Row:
    """A vector's place: `frames` are the numbers of the frames that the encoder saw, `reason` why it saw none."""

    video: str
    start: float
    """Seconds from the first frame's start."""
    end: float
    frames: list[int]
    label: str = ""
    group: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Embedding:
    """The rows of one video and their vectors, a tensor for each layer; `reason` says why the reading broke off."""

    rows: list[Row]
    vectors: Vectors = field(default_factory=dict)
    reason: str = ""

    @property
    def vector(self) -> Tensor:
        """The vectors of the last layer there is."""
        return self.vectors[max(self.vectors)]


class Chunk(NamedTuple):
    """A few clips of the video of this number, uint8 [b crops c t s s]; or, without any, its end."""

    place: int
    windows: Sequence[Window]
    clips: UInt8[Tensor, "b crops c t s s"] | None
    reason: str = ""


class Stream(IterableDataset[Chunk]):
    """All clips of all videos, a few at a time; each worker reads its own videos, in order."""

    def __init__(self, files: Sequence[Path], layout: Layout, batch: int):
        self.files, self.layout, self.batch = list(files), layout, batch

    @property
    def nbytes(self) -> int:
        """Of the pixels of a piece, at most."""
        views = self.layout.views
        return max(self.batch, views.crops) * views.frames * 3 * views.size**2

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(first, len(self.files), step):
            reason = ""
            try:
                with open_video(self.files[index]) as video:
                    for part, clips in windows.clips(video, self.layout.windows(video), self.layout.views, self.batch):
                        yield Chunk(index, part, clips)
            except VideoError as error:
                reason = error.reason
            yield Chunk(index, [], None, reason)


def layout_of(
    path: str | Path,
    heads: int | None = None,
    every: str = "clip",
    window: str = "",
    pool: EmbedPool = "mean",
    layers: Sequence[int] = (),
    views: Viewing | None = None,
) -> tuple[VideoEncoder, Layout]:
    """The encoder of a checkpoint, in eval mode on the CPU, and the layout that its own sampling makes of the wishes.

    Raises MotionMAEError where the checkpoint cannot be read, or a wish is out of range.
    """
    from motionmae.models.weights import load

    found = read(path, heads)
    encoder = load(path, heads=heads)
    settled = settle(views or Viewing(clips=1, crops=1), found.config, found.model)
    if pool == "attentive":
        attend(encoder, path)
    return encoder, checked(encoder, Layout(every, window, pool, tuple(layers), settled))


def attend(encoder: VideoEncoder, path: str | Path) -> None:
    """Give an encoder the attentive head that a probe of the checkpoint `path` has fitted on its tokens.

    Raises MotionMAEError where there is none.
    """
    file = probed(path)
    if not file.is_file():
        raise MotionMAEError(
            f"--pool attentive: {path} has no attentive pool, there is no {file}; "
            f"motionmae probe {path} --kinds attentive makes one"
        )
    encoder.attentive = read_head(file, fingerprint(encoder))


def probed(path: str | Path) -> Path:
    """Where the attentive head of a checkpoint lies that its probe has fitted."""
    return out_beside(str(path), "probe") / "attentive.safetensors"


def checked(encoder: VideoEncoder, layout: Layout) -> Layout:
    """The layout with the layers named. Raises MotionMAEError, naming the option, for what cannot be."""
    depth = len(encoder.blocks)
    for layer in layout.layers:
        if not 0 <= layer <= depth:
            raise MotionMAEError(f"--layers {layer}: the encoder has the layers 0 to {depth}")
    if layout.every not in ("clip", "video"):
        windows.parse_seconds(layout.every, "--every")
    elif layout.window:
        raise MotionMAEError(f"--window {layout.window}: needs --every in seconds, it is {layout.every!r}")
    if layout.window:
        windows.parse_seconds(layout.window, "--window")
    if layout.pool == "attentive":
        if not hasattr(encoder, "attentive"):
            raise MotionMAEError(
                "--pool attentive: this encoder has no attentive pool; name a probed run instead of it"
            )
        if any(layer != depth for layer in layout.layers):
            raise MotionMAEError(f"--pool attentive: is fitted on the last layer, {depth}; --layers asks for others")
    if layout.every == "video" and layout.pool == "none":
        raise MotionMAEError("--pool none: keeps the tokens of clips; --every video asks for one vector a video")
    return Layout(layout.every, layout.window, layout.pool, tuple(sorted(set(layout.layers))) or (depth,), layout.views)


@torch.inference_mode()
def vectors_of(
    encoder: VideoEncoder, clips: UInt8[Tensor, "b crops c t s s"], layout: Layout, here: Runtime
) -> dict[int, Float[Tensor, "b ..."]]:
    """For each layer a vector a clip, the mean over its crops; each layer's tokens pass the encoder's last norm."""
    crops = clips.shape[1]
    batch = clips.flatten(0, 1).to(here.device)
    slots = clip_grid(batch, encoder.config.cube)[0]
    with here.autocast():
        found = [
            _pooled(encoder, tokens.float(), layout.pool, slots) for tokens in encoder(batch, layers=layout.layers)
        ]
    means = (value.unflatten(0, (-1, crops)).mean(1).cpu() for value in found)
    return dict(zip(layout.layers, means, strict=True))


def _pooled(encoder: VideoEncoder, tokens: Float[Tensor, "b n d"], pool: EmbedPool, slots: int) -> Tensor:
    return encoder.attentive.pool(tokens) if pool == "attentive" else pooled(tokens, pool, slots)  # pyright: ignore


def stream(
    encoder: VideoEncoder, files: Sequence[Path], layout: Layout, compute: Compute, here: Runtime
) -> Iterator[tuple[int, Embedding]]:
    """The videos' rows and vectors, each video when it is done, with its number. Videos are decoded ahead."""
    workers = min(compute.workers, len(files))
    pieces = watched(Stream(files, layout, compute.batch), workers, 2, 1, "--workers", batch_size=None)
    open_: dict[int, tuple[list[Window], dict[int, list[Tensor]]]] = {}
    for piece in pieces:
        seen, parts = open_.setdefault(piece.place, ([], {layer: [] for layer in layout.layers}))
        if piece.clips is not None:
            for layer, value in vectors_of(encoder, piece.clips, layout, here).items():
                parts[layer].append(value)
            seen += piece.windows
            continue
        del open_[piece.place]
        vectors = {layer: torch.cat(values) for layer, values in parts.items() if values}
        yield piece.place, _joined(remote.shown(files[piece.place]), seen, vectors, layout, piece.reason)


def embed_all(files: Sequence[Path], encoder: VideoEncoder, layout: Layout, compute: Compute) -> list[Embedding]:
    """The embeddings of some videos in their order, on the device that `compute` chooses on this machine."""
    here = start_for(compute)
    found = dict(stream(encoder.to(here.device), files, layout, compute, here))
    return [found[place] for place in range(len(files))]


def _joined(video: str, seen: list[Window], vectors: Vectors, layout: Layout, reason: str) -> Embedding:
    if seen and layout.every == "video":
        numbers = sorted({number for window in seen for number in window.frames})
        row = Row(video, float(seen[0].start), float(seen[-1].end), numbers)
        return Embedding([row], {layer: value.mean(0, keepdim=True) for layer, value in vectors.items()}, reason)
    rows = [Row(video, float(window.start), float(window.end), window.frames) for window in seen]
    return Embedding(rows, vectors, reason)


def embed(
    encoder: VideoEncoder | str | os.PathLike[str],
    path: str | os.PathLike[str],
    every: str = "clip",
    *,
    window: str = "",
    pool: EmbedPool = "mean",
    layers: Sequence[int] = (),
    views: Viewing | None = None,
    batch: int = 8,
) -> Embedding:
    """The vectors of one video, a file or its address: `rows` say which stretch each stands for, `vector` is [rows, d].

    `encoder` is one of `motionmae.load`, on any device, or a path to load: both cut clips as the run did that made it.
    `every` is `clip` (clips end to end), `video`, or seconds such as "1s"; see `motionmae.config.Embed` for the rest.
    An encoder that was built by hand has no such run: frames follow each other at a stride of 4, unless `views` says
    otherwise.
    Raises VideoError where the video cannot be read to its end.

    Examples:
        >>> from motionmae.data.synthetic import write_videos
        >>> path, _ = next(write_videos(Path("videos"), "train", 1, seed=0))
        >>> found = embed("tiny", path, every="1s")
        >>> found.vector.shape, [(row.start, row.end) for row in found.rows]
        (torch.Size([2, 128]), [(0.0, 1.0), (1.0, 2.0)])
    """
    if not isinstance(encoder, VideoEncoder):
        encoder, layout = layout_of(os.fspath(encoder), None, every, window, pool, layers, views)
    else:
        settled = settle(views or Viewing(clips=1, crops=1), encoder.made_with, encoder.config)
        layout = checked(encoder, Layout(every, window, pool, tuple(layers), settled))
    here, path = Runtime(encoder.pixel_mean.device, None), as_place(os.fspath(path))
    _, found = next(stream(encoder, [Path(path)], layout, Compute(batch=batch, workers=0), here))
    if found.reason:
        raise VideoError(path, found.reason)
    return found


def fingerprint(encoder: VideoEncoder) -> str:
    """Sixteen hex digits that tell an encoder's weights from any others: BLAKE2b over names, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(encoder.state_dict().items()):
        if name.startswith("attentive."):  # not the encoder's own
            continue
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
