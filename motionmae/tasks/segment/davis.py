"""The benchmark: every sequence of a DAVIS folder propagated, saved, painted and scored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from motionmae import runtime
from motionmae.config import Davis, Features, Propagation, SegmentDavis, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import list_frames, list_masks, list_sequences, read_images
from motionmae.evaluation.masks import paint, read_mask, write_mask
from motionmae.inference.following import Labels, check_mask, follow
from motionmae.inference.sequence import (
    ImageSequence,
    Settings,
    Source,
    claim_folder,
    image_frames,
    open_source,
    resolve,
)
from motionmae.models.encoder import VideoEncoder
from motionmae.progress import Progress, then
from motionmae.report.segmentation import save_page
from motionmae.runtime import Runtime
from motionmae.tasks.segment.score import score_folder, table, write_scores
from motionmae.video.writing import write_video
from motionmae.words import many

RATE = 24.0  # frames a second of the DAVIS videos


def run(config: SegmentDavis) -> None:
    """Propagate, save, score and report."""
    check(config)
    seed = config.seed if config.untrained else None
    source = open_source(config.model, runtime.single(config.compute), config.heads, seed)
    settings, names = resolve(config.propagation), sequences_of(config.data)
    out = Path(config.out or f"runs/segment-davis-{Path(config.model).stem}{'-untrained' * config.untrained}")
    claim_folder(out, config, settings, ("predictions/*/*.png", "overlays/*.mp4", "scores.json", "index.html"))
    save_masks(source, config.data.path, names, out, config.features, settings, config.overlays)
    scores = None
    if any(len(list_masks(config.data.path, name)) >= 3 for name in names):
        scores = score_folder(out / "predictions", config.data.path, names)
        write_scores(out / "scores.json", scores)
    name = f"{config.model}{', untrained' * config.untrained}"
    lead = f"{name}, protocol {settings.protocol}, frames enter by {config.features.entry}"
    films = [out / "overlays" / f"{name}.mp4" for name in names] if config.overlays else []
    save_page(out / "index.html", f"DAVIS 2017 {config.data.split}", lead, films, scores=scores)
    print(table(scores) if scores else "no sequence has annotations of 3 frames or more: there is nothing to score")
    print(f"predictions, {'overlays, ' * bool(films)}{'scores.json, ' * bool(scores)}index.html are in {out}")
    then(f"open {out / 'index.html'} in a browser")


def score_encoder(
    encoder: VideoEncoder,
    root: Path | str,
    out: Path | str,
    propagation: Propagation | None = None,
    features: Features | None = None,
) -> dict[str, Any]:
    """The scores (see `score_folder`) of a frozen encoder on the val list of a DAVIS folder; masks are left in `out`.

    The encoder is used where it is, in float32; the default protocol is DINO's.
    """
    source = Source("encoder", encoder.eval(), Runtime(next(encoder.parameters()).device, None))
    return segment_davis(
        source, Davis(str(root)), Path(out), features or Features(), propagation or Propagation(), False
    )


def segment_davis(
    source: Source, data: Davis, out: Path, features: Features, propagation: Propagation, overlays: bool
) -> dict[str, Any]:
    """Masks to `out`/predictions, overlay videos to `out`/overlays, and the scores."""
    names = sequences_of(data)
    save_masks(source, data.path, names, out, features, resolve(propagation), overlays)
    return score_folder(out / "predictions", data.path, names)


def sequences_of(data: Davis) -> list[str]:
    """The sequences, each once; raises where one has no frames, or no annotation of its first frame."""
    names = list(dict.fromkeys(data.sequences or list_sequences(data.path, data.split)))
    for name in names:
        frame, mask = list_frames(data.path, name)[0], list_masks(data.path, name)[0]
        if mask.stem != frame.stem:
            raise MotionMAEError(f"{mask} is the first annotation of {name}: expected one of its frame {frame.name}")
    return names


def save_masks(
    source: Source,
    root: Path | str,
    names: Sequence[str],
    out: Path,
    features: Features,
    settings: Settings,
    overlays: bool,
) -> None:
    """The masks of each sequence's frames, from those of its first one, as files, and painted on a video."""
    with Progress("frames", sum(len(list_frames(root, name)) for name in names)) as progress:
        for name in names:
            begun = time.perf_counter()
            paths = list_frames(root, name)
            annotation = list_masks(root, name)[0]
            frames, mask = image_frames(paths), read_mask(annotation)
            check_mask(mask, frames, str(annotation))
            masks = []
            for path, labels in zip(paths, _masks(frames, mask, source, features, settings), strict=True):
                write_mask(out / "predictions" / name / f"{path.stem}.png", labels)
                masks.append(labels)
                progress.step(name)
            print(
                f"{name}: {many(len(paths), 'frame')}, {len(paths) / (time.perf_counter() - begun):.1f} a second",
                flush=True,
            )
            if overlays:
                save_overlay(out / "overlays" / f"{name}.mp4", paths, masks)


def _masks(
    frames: ImageSequence, mask: UInt8[np.ndarray, "h w"], source: Source, features: Features, settings: Settings
) -> Iterator[UInt8[np.ndarray, "h w"]]:
    for found in follow(frames, {0: Labels(mask)}, source, features, settings):
        assert found.mask is not None
        yield found.mask


def save_overlay(target: Path, paths: Sequence[Path], masks: Sequence[np.ndarray]) -> None:
    """The frames with their masks painted on them, as a video."""
    pictures = (torch.from_numpy(paint(read_images([path])[0], mask)) for path, mask in zip(paths, masks, strict=True))
    write_video(target, pictures, RATE)
