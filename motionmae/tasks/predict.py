"""`motionmae predict`: the classes of any video, as a whole or along its time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from motionmae import runtime
from motionmae.config import Compute, Predict, check
from motionmae.errors import MotionMAEError
from motionmae.files import write_json
from motionmae.inference import windows
from motionmae.inference.views import View, as_views, settle
from motionmae.inference.windows import Window
from motionmae.library.sources import collect
from motionmae.models.classifier import Classifier, read_classifier
from motionmae.progress import Progress, then
from motionmae.runtime import Runtime
from motionmae.video import remote
from motionmae.video.frames import Frames
from motionmae.video.reading import VideoError, open_video
from motionmae.video.writing import write_video
from motionmae.words import many


@dataclass(frozen=True)
class Prediction:
    """A part of a video, in seconds, and each class's probability in it."""

    start: float
    end: float
    probabilities: Float[Tensor, " classes"]


def run(config: Predict) -> None:
    """Tell the classes of each video; one that cannot be read is told on stderr and passed over, unless none can."""
    check(config)
    here = runtime.start_for(config.compute)
    with runtime.leaving(here):
        classifier, made_with = read_classifier(config.model, config.heads)
        view = settle(config.views, made_with, classifier.encoder.config)
        classifier.to(here.device)
        files = collect(config.videos).paths
        if config.render and len(files) != 1:
            raise MotionMAEError(f"--render writes one video, {len(files)} were named")
        if (
            config.render
            and os.path.exists(files[0])
            and os.path.exists(config.render)
            and os.path.samefile(config.render, files[0])
        ):
            raise MotionMAEError(f"--render {config.render}: is the video itself, which is only read")
        found: dict[Path, list[Prediction]] = {}
        with Progress("videos", len(files), speak=here.main) as progress:
            for at, file in enumerate(files):
                progress.show(at, file.name)
                try:
                    found[file] = windows_of(classifier, file, config, view, here)
                except VideoError as error:
                    print(f"motionmae: skipped {error}", file=sys.stderr, flush=True)
                    continue
                if not config.json:
                    here.say(table(file, found[file], classifier.names, config.top))
        if not found:
            raise MotionMAEError(f"of {many(len(files), 'video')} none could be read")
        if config.json:
            write_found(config.json, found, classifier.names, config.top)
        if config.render:
            with_classes(files[0], found[files[0]], classifier.names, config.render)
            print(config.render, file=sys.stderr)
        if config.json not in ("", "-") and here.main:
            print(f"the likeliest {many(config.top, 'class')} of {many(len(found), 'video')}: {config.json}")
        along = "--every 1s tells the classes along time" if not config.every else "--render FILE.mp4 shows them"
        then(along, aside=config.json == "-")


def windows_of(classifier: Classifier, file: Path, config: Predict, view: View, here: Runtime) -> list[Prediction]:
    """The whole video as one window, seen by all views; or, with --every, windows along it, each seen by its crops."""
    with open_video(file) as video:
        duration = Fraction(video.duration)
        if config.every:
            wishes = windows.spaced(video, config.every, config.window, view)
            rows = along(classifier, video, wishes, view, config.compute, here)
            pairs = zip(wishes, rows, strict=True)
            return [Prediction(float(wish.start), float(wish.end), row) for wish, row in pairs]
    with torch.inference_mode(), here.autocast():
        clips = torch.stack([view["clip"] for view in as_views([file], view)[0]])
        scores = [classifier(part.to(here.device)).double().softmax(1) for part in clips.split(config.compute.batch)]
    return [Prediction(0.0, float(duration), torch.cat(scores).mean(0).cpu())]


@torch.inference_mode()
def along(
    classifier: Classifier, video: Frames, wishes: Sequence[Window], view: View, compute: Compute, here: Runtime
) -> Iterator[Float[Tensor, " classes"]]:
    """The probabilities in each window, a few windows at a time: little memory however long the video."""
    for some, clip in windows.clips(video, wishes, view, compute.batch):
        with here.autocast():
            scores = classifier(clip.flatten(0, 1).to(here.device)).double().softmax(1).cpu()
        yield from scores.unflatten(0, (len(some), -1)).mean(1)


def best(window: Prediction, names: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    """The likeliest classes of a window and their probabilities, the first first."""
    values, places = window.probabilities.topk(min(top, len(names)))
    return [(names[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]


def table(file: Path, windows: Sequence[Prediction], names: tuple[str, ...], top: int) -> str:
    """A line for the video, and one for each window."""
    lines = [remote.shown(file)]
    for window in windows:
        told = "  ".join(f"{name} {value:.1%}" for name, value in best(window, names, top))
        lines.append(f"  {moment(window.start)} to {moment(window.end)}  {told}")
    return "\n".join(lines)


def moment(seconds: float) -> str:
    """Minutes, seconds and tenths, such as 1:02.5."""
    minutes, rest = divmod(round(seconds * 10), 600)
    return f"{minutes}:{rest / 10:04.1f}"


def write_found(where: str, found: dict[Path, list[Prediction]], names: tuple[str, ...], top: int) -> None:
    """[{video, windows: [{start, end, classes: [{name, probability}]}]}], seconds and shares of 1."""
    content = [
        {
            "video": remote.shown(file),
            "windows": [
                {
                    "start": window.start,
                    "end": window.end,
                    "classes": [{"name": name, "probability": value} for name, value in best(window, names, top)],
                }
                for window in windows
            ],
        }
        for file, windows in found.items()
    ]
    if where == "-":
        print(json.dumps(content, indent=1))
    else:
        write_json(where, content)


def with_classes(file: Path, windows: Sequence[Prediction], names: tuple[str, ...], out: str) -> None:
    """The video at its mean rate, with the three likeliest classes of the latest window that has begun."""

    def frames() -> Iterator[UInt8[Tensor, "h w c"]]:
        with open_video(file) as video:
            shown = list(range(len(video)))
            if not getattr(video, "constant", True):  # at a constant rate some frames are shown longer, some not at all
                shown = video.at([number / Fraction(video.rate) for number in shown])
            begun = np.searchsorted(video.at([Fraction(window.start) for window in windows]), shown, "right")
            for at in range(0, len(shown), 16):  # a few at a time: little memory however long the video
                few = slice(at, at + 16)
                for picture, window in zip(video.read(shown[few]), begun[few].tolist(), strict=True):
                    yield annotated(picture, best(windows[max(0, window - 1)], names, 3))

    with open_video(file) as video:
        rate = video.rate
    write_video(out, frames(), rate)


def annotated(picture: UInt8[Tensor, "h w c"], told: Sequence[tuple[str, float]]) -> UInt8[Tensor, "h w c"]:
    """The picture with a line for each class at its bottom, on a bar as long as its probability."""
    height, width, _ = picture.shape
    image = Image.fromarray(picture.numpy())
    draw = ImageDraw.Draw(image, "RGBA")
    line = max(10, height // 16)
    font = ImageFont.load_default(size=line * 0.75)
    for at, (name, value) in enumerate(told):
        top = height - line * (len(told) - at)
        draw.rectangle((0, top, width, top + line), fill=(0, 0, 0, 130))
        draw.rectangle((0, top, round(width * value), top + line), fill=(47, 111, 222, 170))
        draw.text((line * 0.3, top), f"{value:.0%} {name}", font=font, fill=(255, 255, 255, 255))
    return torch.from_numpy(np.asarray(image).copy())
