"""Pretraining, its demo and its clocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, Suppress, arg

from motionmae.config.bounds import COUNT, HEADS, PIXELS, SEED, SOME, Bounds
from motionmae.config.data import Data
from motionmae.config.model import Loss, Mask, MaskKind, Model, Target
from motionmae.config.run import Compute, Optim, Run


@dataclass(frozen=True)
class Pretrain:
    """Learn an encoder from unlabelled videos by reconstructing masked appearance and motion."""

    init: str = ""
    """A run folder or checkpoint to start from: ours, VideoMAE's, transformers', or an encoder alone. It brings its own
    model; heads that it lacks, or that predict other numbers, start anew. By default all starts anew."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign --init does not say."""
    decoder_heads: Annotated[int | None, HEADS] = None
    """Attention heads of its decoder, where a foreign --init does not say."""
    model: Model = field(default_factory=Model)
    mask: Mask = field(default_factory=Mask)
    target: Target = field(default_factory=Target)
    loss: Loss = field(default_factory=Loss)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)
    seed: Annotated[int, SEED] = 0
    """Seed of the weights, the order of the videos, the crops and the masks."""
    open: Annotated[tuple[str, ...], Suppress] = ()
    """Options that suit themselves to the videos and the machine; one that is typed is none of them."""


@dataclass(frozen=True)
class Demo:
    """From nothing to a motion-aware encoder, its measurements and a report."""

    out: str = "runs/demo"
    """Folder for the videos, the run and report.html."""
    videos: Annotated[int, COUNT] = 80
    """Videos of each motion to learn from."""
    tests: Annotated[int, COUNT] = 40
    """Videos of each motion to test on, of other shapes and textures."""
    sequences: Annotated[int, COUNT] = 8
    """Sequences with masks to propagate through."""
    steps: Annotated[int, COUNT] = 1800
    """Optimiser steps of pretraining."""
    seed: Annotated[int, SEED] = 0
    """Seed of the weights, the order, the crops and the masks; the videos are always the same."""


@dataclass(frozen=True)
class Reconstruct:
    """What a pretrained model sees of a video, guesses and misses."""

    model: Positional[str] = ""
    """A run folder or checkpoint of pretrain, or another project's with its decoder."""
    video: Positional[str] = ""
    """A video file, or a folder of images."""
    out: str = ""
    """The video to write, an .mp4; a page with the same name and .html is written beside it."""
    at: str = "0s"
    """Seconds from the start at which the first clip begins."""
    clips: Annotated[int, SOME] = 4
    """Clips, one after another; 0 goes on to the video's end."""
    ratio: Annotated[float | None, Bounds(0, 1, above=True, below=True)] = None
    """Share of the tokens that is hidden; by default as in the run."""
    mask: MaskKind | None = None
    """Which tokens are hidden; by default as in the run."""
    side: Annotated[int, PIXELS] = 192
    """Width and height in pixels of each picture."""
    seed: Annotated[int, SEED] = 0
    """Seed of the masks."""
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""


@dataclass(frozen=True)
class BenchPretrain(Pretrain):
    """Measure a step of a pretraining preset against the machine's own limits, by its parts, and beside transformers'
    VideoMAEForPreTraining where that is installed."""

    turns: Annotated[int, COUNT] = 5
    """Steps of each kind that are timed, in turns, after one that is not."""
    reference: bool = True
    """Time the reference too."""
    alternatives: bool = True
    """Time the other precision too, and the step compiled (compiling takes a minute or more)."""


@dataclass(frozen=True)
class BenchRun(Pretrain):
    """Measure a whole pretraining run, from files to gradients: clips per second and the wait for data."""

    turns: Annotated[int, COUNT] = 3
    """Stretches of --run.log-every steps that are timed, after one that is not; at least 1."""


@dataclass(frozen=True)
class BenchSizes:
    """Measure a step of one clip of several sizes, lengths and resolutions: a table."""

    presets: tuple[str, ...] = ("tiny", "small", "base")
    """Presets of motionmae pretrain."""
    frames: Annotated[tuple[int, ...], Bounds(1, 4096, least=1)] = (8, 16, 32)
    """Frames of a clip."""
    sizes: Annotated[tuple[int, ...], Bounds(1, 16_384, least=1)] = (112, 224)
    """Height and width in pixels."""
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class Planned(Pretrain):
    """Tell what a pretraining run would take, before there is a machine for it: steps, memory and hours."""

    gpus: Annotated[int, COUNT] = 8
    """Ranks that train together."""
    videos: Annotated[int, COUNT] = 100_000
    """Videos of the data set."""
    epochs: Annotated[float | None, Bounds(0, 1e9, above=True)] = None
    """Passes over the videos; the preset's by default."""
    rate: Annotated[float | None, Bounds(0, 1e9, above=True)] = None
    """TFLOP/s that a rank reaches in a step; by default what this machine reaches in a step of the preset, measured."""


@dataclass(frozen=True)
class Report:
    """Make one HTML page of one or several run folders, side by side."""

    runs: Positional[tuple[str, ...]] = ()
    """Run folders, from motionmae pretrain and the other commands that train."""
    out: str = "report.html"
    """The page; nothing in it is fetched from anywhere."""
