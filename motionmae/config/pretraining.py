"""Pretraining, its demo and its clocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from tyro.conf import Positional

from motionmae.config.data import Data
from motionmae.config.model import Loss, Mask, Model, Target
from motionmae.config.run import Optim, OptimKind, Run


@dataclass(frozen=True)
class Pretrain:
    """Learn an encoder from unlabelled videos by reconstructing masked appearance and motion."""

    model: Model = field(default_factory=Model)
    mask: Mask = field(default_factory=Mask)
    target: Target = field(default_factory=Target)
    loss: Loss = field(default_factory=Loss)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)
    seed: int = 0
    """Seed of the weights, the order of the videos, the crops and the masks."""


@dataclass(frozen=True)
class Demo:
    """From nothing to a motion-aware encoder, its measurements and a report."""

    out: str = "runs/demo"
    """Folder for the videos, the run and report.html."""
    videos: int = 80
    """Videos of each motion to learn from."""
    tests: int = 40
    """Videos of each motion to test on, of other shapes and textures."""
    sequences: int = 8
    """Sequences with masks to propagate through."""
    steps: int = 1800
    """Optimiser steps of pretraining."""
    seed: int = 0
    """Seed of the weights, the order, the crops and the masks; the videos are always the same."""


@dataclass(frozen=True)
class BenchPretrain:
    """Measure a pretraining step by its stages, beside transformers' VideoMAEForPreTraining where that is installed."""

    preset: Positional[str] = "tiny"
    """A preset of motionmae pretrain."""
    batch: int = 8
    """Clips in a step."""
    steps: int = 5
    """Steps that are timed, after one that is not; the medians are shown."""
    decode_ratio: float | None = None
    """Share of the hidden tokens that is predicted; the preset's by default."""
    motion: float | None = None
    """Weight of the time head; 0 is appearance alone, which is what the reference does."""
    optimiser: OptimKind | None = None
    """AdamW or Muon; the preset's by default."""
    reference: bool = True
    """Time the reference too."""
    data: Data = field(default_factory=lambda: Data(workers=1))
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class BenchLoop:
    """Measure what the training loop costs over the same step written by hand."""

    preset: Positional[str] = "tiny"
    """A preset of motionmae pretrain."""
    batch: int = 8
    """Clips in a step."""
    turns: int = 20
    """Stretches of --run.log-every steps that are timed, after one that is not; the medians are shown."""
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class Report:
    """Make one HTML page of one or several run folders, side by side."""

    runs: Positional[tuple[str, ...]] = ()
    """Run folders, from motionmae pretrain and the other commands that train."""
    out: str = "report.html"
    """The page; nothing in it is fetched from anywhere."""
