"""What a preset leaves open, settled by the videos and the machine: steps, batch, micro-batch, workers, prefetch.

Its one rule: an option that was typed is never changed. What is settled is a plain value, written down in config.json,
and a run that goes on takes it from there.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from motionmae.config import Data, Finetune, Optim, Pretrain
from motionmae.files import read_json
from motionmae.library.processes import available
from motionmae.progress import clock
from motionmae.runtime import Runtime
from motionmae.training.optim import Plan
from motionmae.training.rehearsal import Rehearsal
from motionmae.words import many

FEW = 32
"""Clips that a batch has at least: several of each video, each cut and masked otherwise, where videos are fewer."""
MANY = 4
"""Batches that the videos must fill for a published batch to be kept."""
LEAST = {Pretrain: 10_000, Finetune: 500}
"""Steps below which a published recipe learns nothing worth having. Ours, not measured: the published runs on the
smallest sets, UCF101 and HMDB51, take about 90,000 and more."""
AHEAD = 2e9
"""Bytes of batches that a rank's workers prepare ahead together."""
LONG = 48 * 3600
"""Seconds on a CPU for which no run is begun that nobody asked for."""

Trained = TypeVar("Trained", Pretrain, Finetune)


def settle(config: Trained, videos: int, ranks: int) -> tuple[Trained, str]:
    """The config with the open ones among batch, steps and workers settled, and what is said of it.

    Where the run folder holds a run, its values are taken. The micro-batch and the prefetch stay open: `learn` knows
    what a clip takes.
    """
    data, optim, run = config.data, config.optim, config.run
    if "data.workers" in config.open:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        data = replace(data, workers=min(8, max(1, available() // here)))
    before = _kept(Path(run.out)) if run.out else None
    if before:
        taken = {name: before["optim"][name] for name in ("batch", "steps") if f"optim.{name}" in config.open}
        left = config.open
        if "run.micro_batch" in left and isinstance(before["run"]["micro_batch"], int):
            run = replace(run, micro_batch=before["run"]["micro_batch"])
            left = tuple(name for name in left if name != "run.micro_batch")
        return replace(config, data=data, optim=replace(optim, **taken), run=run, open=left), ""
    clips = videos * data.repeats
    if "optim.batch" in config.open and clips < MANY * optim.batch:
        least = max(FEW, 2 ** int(math.log2(max(1, clips // MANY))))
        whole = ranks * data.repeats
        optim = replace(optim, batch=min(optim.batch, math.ceil(least / whole) * whole))
    least_steps = LEAST[Finetune if isinstance(config, Finetune) else Pretrain]
    if "optim.steps" in config.open and _steps(optim, clips) < least_steps:
        optim = replace(optim, steps=least_steps)
    said = ""
    if optim != config.optim:
        said = (
            f"{many(videos, 'video')}, few for this recipe: {many(_steps(optim, clips), 'step')} of "
            f"{many(optim.batch, 'clip')} in place of {_steps(config.optim, clips)} of {config.optim.batch} "
            f"(--optim.steps, --optim.batch)"
        )
    return replace(config, data=data, optim=optim), said


def ahead(data: Data, batch: int) -> Data:
    """The data's options with no more batches of so many bytes prepared ahead than AHEAD has room for."""
    most = int(AHEAD // (batch * max(1, data.workers))) - 1
    return replace(data, prefetch=max(1, min(data.prefetch, most)))


def refusal(found: Rehearsal, plan: Plan, config: Pretrain | Finetune, here: Runtime) -> str:
    """Why a run is not begun: on a CPU it would take days of which nobody has said that they are meant; else empty."""
    seconds = found.seconds * plan.accumulation * plan.steps
    if here.device.type != "cpu" or "optim.steps" not in config.open or seconds <= LONG or _kept(Path(config.run.out)):
        return ""
    other = (
        "motionmae pretrain tiny is made for a CPU" if isinstance(config, Pretrain) else "a smaller --init is faster"
    )
    return (
        f"{many(plan.steps, 'step')} of {many(plan.batch, 'clip')} of this size would take about {clock(seconds)} on "
        f"this CPU ({found.seconds / plan.micro:.2g} s a clip); {other}, and --optim.steps N says how many steps you "
        f"mean"
    )


def _steps(optim: Optim, clips: int) -> int:
    return optim.steps or math.ceil(optim.epochs * clips / optim.batch)


def _kept(folder: Path) -> dict[str, Any] | None:
    """The config of the run that the folder holds."""
    file = folder / "config.json"
    return read_json(file) if file.is_file() and any(folder.glob("checkpoints/step-*")) else None
