"""`motionmae demo`: from nothing to a motion-aware encoder, its measurements and a report, in minutes on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from motionmae.config import Davis, Demo, Features, Pretrain, Propagation, Run, check
from motionmae.data.synthetic import MOTIONS, sequences, write_videos
from motionmae.evaluation.davis import write_sequence
from motionmae.evaluation.probing import accuracy, knn, linear, standardise
from motionmae.files import write_text
from motionmae.inference.sequence import Source
from motionmae.library.sources import Videos
from motionmae.models.encoder import VideoEncoder
from motionmae.models.weights import load
from motionmae.presets import TINY
from motionmae.report import page
from motionmae.report.run import columns, last_picture, loss_charts
from motionmae.runtime import Runtime, clock
from motionmae.tasks.pretrain import build, fit_videos
from motionmae.tasks.segment.davis import segment_davis
from motionmae.video.reading import read_frames

Labelled = Sequence[tuple[Path, int]]
Row = tuple[str, list[float]]
COLUMNS = ("linear probe, by time", "linear probe, pooled", "k-NN, by time", "J&F", "J", "F")


def run(config: Demo) -> None:
    """Render, pretrain, measure beside the untrained encoder, report."""
    check(config)
    begun, out = time.perf_counter(), Path(config.out)
    train = _all(write_videos(out / "videos", "train", config.videos, seed=1), config.videos, "rendering train")
    test = _all(write_videos(out / "videos", "test", config.tests, seed=2), config.tests, "rendering test ")
    for name, made in track(sequences(config.sequences, seed=3), "sequences      ", config.sequences):
        write_sequence(out / "davis", "val", name, made.frames.numpy(), made.masks.numpy().astype("uint8"))
    settings = replace(
        TINY,
        data=replace(TINY.data, path=str(out / "videos" / "train")),
        optim=replace(TINY.optim, steps=config.steps),
        run=Run(out=str(out / "pretrain"), log_every=25, inspect_every=config.steps, save_every=200, device="cpu"),
        seed=config.seed,
    )
    if not fit_videos(settings, Videos([path for path, _ in train], [], [])):
        raise KeyboardInterrupt
    rows = measure(settings, train, test, out)
    elapsed = clock(time.perf_counter() - begun)
    write_text(out / "report.html", report(config, settings, rows, elapsed))
    print(as_text(rows))
    print(f"\n{elapsed} in all. The report: {out / 'report.html'}")


def measure(settings: Pretrain, train: Labelled, test: Labelled, out: Path) -> list[Row]:
    """Accuracies and region scores in percent: chance, the first mask copied, the encoder untrained and trained."""
    here = Runtime(torch.device("cpu"), None)

    def score(name: str, encoder: VideoEncoder | None) -> list[float]:
        source, protocol = Source(name, encoder, here), Propagation(short=0, multiple=0)
        fine = Features(entry="repeat", stride=settings.model.cube[1] // 2, layer=settings.model.depth)
        found = segment_davis(source, Davis(str(out / "davis")), out / "masks" / name, fine, protocol, False)
        return [100 * found["global"][key] for key in ("J&F-Mean", "J-Mean", "F-Mean")]

    rows: list[Row] = [("chance, first mask copied", [100 / len(MOTIONS)] * 3 + score("copy", None))]
    for name, encoder in (
        ("untrained", build(settings).autoencoder.encoder.eval()),
        ("pretrained", load(settings.run.out)),
    ):
        rows.append((name, probe(encoder, train, test, settings.data.stride, name) + score(name, encoder)))
    return rows


def probe(encoder: VideoEncoder, train: Labelled, test: Labelled, stride: int, name: str) -> list[float]:
    """Accuracies in percent of frozen features, in the order of COLUMNS.

    Three clips of each training video, the middle one of each test video. "By time" keeps the time slots apart,
    "pooled" averages over them; neighbours are those whose features change alike from slot to slot.
    """
    span = encoder.config.frames * stride
    known = torch.tensor([label for _, label in train] * 3)
    wanted = torch.tensor([label for _, label in test])
    slots = [[], [], []]
    for path, _ in track(train, f"features {name:11}"):
        for kept, start in zip(slots, (0.0, 0.5, 1.0), strict=True):
            kept.append(features(encoder, path, stride, span, start))
    seen = torch.stack([row for kept in slots for row in kept])
    shown = track(test, f"features {name:11}")
    unseen = torch.stack([features(encoder, path, stride, span, 0.5) for path, _ in shown])
    by_time = accuracy(linear(seen.flatten(1), known, unseen.flatten(1)), wanted)
    pooled = accuracy(linear(seen.mean(1), known, unseen.mean(1)), wanted)
    change, unseen_change = standardise(seen.diff(dim=1).flatten(1), unseen.diff(dim=1).flatten(1))
    nearest = accuracy(knn(change, known, unseen_change), wanted)
    return [100 * by_time, 100 * pooled, 100 * nearest]


@torch.no_grad()
def features(encoder: VideoEncoder, path: Path, stride: int, span: int, start: float) -> Float[Tensor, "t d"]:
    """The tokens of one clip, averaged over each time slot's places; `start` in [0, 1] is where the clip lies."""
    frames = read_frames(path)
    first = round(start * max(0, len(frames) - span))
    clip = frames[first : first + span : stride].permute(3, 0, 1, 2)[None]
    return encoder(clip).unflatten(1, (clip.shape[2] // encoder.config.cube[0], -1))[0].mean(1)


def report(config: Demo, settings: Pretrain, rows: list[Row], elapsed: str) -> str:
    """The page."""
    folder = Path(settings.run.out)
    cells = [[name, *(f"{number:.1f}" for number in numbers)] for name, numbers in rows]
    parts = [
        page.section(
            "What the frozen encoder knows",
            page.table(("in percent", *COLUMNS), cells, strong=[len(rows) - 1]),
            page.text(
                f"Accuracy over {len(MOTIONS)} motions ({', '.join(MOTIONS)}) on {config.tests} unseen videos of each; "
                f"region J and contour F of first-frame masks propagated through {config.sequences} sequences, where "
                "colour alone tells the shape from the background, so that an untrained encoder does well too. "
                f"One seed ({config.seed}): differences of a few points are within what the seed moves."
            ),
        ),
        page.section(
            "Is the loss normal?",
            page.text("A head has learnt something where its line is below the dashed one."),
            loss_charts(folder),
        ),
    ]
    picture = last_picture(folder)
    if picture:
        parts.append(page.section("What the two heads predict", page.picture(picture, "", columns(folder))))
    lines = (
        "motionmae pretrain small --data.path YOUR_VIDEOS      # an encoder of your own",
        f"motionmae segment video MY.mp4 --model {folder} --box 10,20,80,90",
        "motionmae pretrain --help                             # presets and recipes",
    )
    parts.append(page.section("What to run next", page.code("\n".join(lines))))
    videos = config.videos * len(MOTIONS)
    lead = f"{config.steps} steps of {settings.optim.batch} clips on {videos} videos; {elapsed} in all."
    return page.page("MotionMAE demo", lead, parts)


def as_text(rows: list[Row]) -> str:
    """The table for a terminal."""
    wide = max(len(name) for name, _ in rows)
    lines = [" " * wide + "".join(f"  {column:>{max(5, len(column))}}" for column in COLUMNS)]
    for name, numbers in rows:
        cells = "".join(f"  {n:>{max(5, len(c))}.1f}" for n, c in zip(numbers, COLUMNS, strict=True))
        lines.append(f"{name:{wide}}{cells}")
    return "\n".join(lines)


def _all(made: object, each: int, words: str) -> list[tuple[Path, int]]:
    return list(track(made, words, each * len(MOTIONS)))  # pyright: ignore[reportArgumentType]
