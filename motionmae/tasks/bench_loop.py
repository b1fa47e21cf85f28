"""`motionmae bench loop`: what the training loop costs over the same step written by hand, in one run."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from motionmae.config import BenchLoop, Pretrain
from motionmae.data.clips import pretraining_offsets
from motionmae.errors import MotionMAEError
from motionmae.presets import COMMANDS
from motionmae.tasks.pretrain import build
from motionmae.training import loop, optim, runtime
from motionmae.training.runtime import Runtime

WARM = 3


class Clock:
    """A batch again and again; the time between its hand-outs is that of the steps between them."""

    def __init__(self, batch: dict[str, Any], steps: int, here: Runtime):
        self.batch, self.steps, self.here = batch, steps, here
        self.begun = self.ended = 0.0

    def __call__(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """`steps` batches; the clock runs from the fourth to the last."""
        for step in range(self.steps):
            if step == WARM:
                self.begun = self._now()
            if step == self.steps - 1:
                self.ended = self._now()
            yield self.batch

    def seconds(self) -> float:
        """A step's, on average."""
        return (self.ended - self.begun) / (self.steps - 1 - WARM)

    def _now(self) -> float:
        if self.here.device.type != "cuda":
            return time.process_time()  # what else the machine does leaves it alone
        torch.cuda.synchronize()
        return time.perf_counter()


def run(config: BenchLoop) -> None:
    """Time the two in turns and print their medians and the loop's overhead."""
    settings, here = _settings(config), runtime.start(config.run)
    batch = _batch(settings)
    times: dict[str, list[float]] = {"by hand": [], "the loop": []}
    for turn in range(config.turns + 1):
        found = {"by hand": by_hand(settings, batch, config.steps, here)}
        found["the loop"] = by_loop(settings, batch, config.steps, here)
        for name, seconds in found.items():
            times[name] += [seconds] if turn else []  # the first turn of all warms up
    by_turn = [ours / bare - 1 for ours, bare in zip(times["the loop"], times["by hand"], strict=True)]
    kind = "wall-clock time" if here.device.type == "cuda" else "processor time"
    print(f"pretrain {config.preset}, {config.batch} clips a step on {here.device}, {config.turns} turns, {kind}")
    for name, seconds in times.items():
        print(f"{name:9} {1e3 * statistics.median(seconds):9.3f} ms a step")
    print(f"overhead  {statistics.median(by_turn):9.2%}, from {min(by_turn):.2%} to {max(by_turn):.2%} by turn")


def by_hand(settings: Pretrain, batch: dict[str, Any], steps: int, here: Runtime) -> float:
    """Seconds of a step with nothing around it."""
    objective, clock = build(settings).to(here.device).train(), Clock(batch, steps, here)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, fused=True)
    for found in clock():
        optimizer.zero_grad(set_to_none=True)
        with here.autocast():
            loss = objective(here.to_device(found))["loss"]
        loss.backward()
        if settings.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(objective.parameters(), settings.optim.clip)
        optimizer.step()
    return clock.seconds()


def by_loop(settings: Pretrain, batch: dict[str, Any], steps: int, here: Runtime) -> float:
    """Seconds of a step of fit(), with its log and its health checks as they are by default."""
    clock = Clock(batch, steps, here)
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        settings = replace(settings, run=replace(settings.run, out=out, save_every=steps))
        plan = optim.plan(settings.optim, settings.run, steps * settings.optim.batch, 1, 1)
        loop.fit(build(settings), clock, plan, here, settings)
    return clock.seconds()


def _settings(config: BenchLoop) -> Pretrain:
    presets = COMMANDS["pretrain"].choices
    if config.preset not in presets:
        raise MotionMAEError(f"there is no preset {config.preset!r}; the presets are {', '.join(presets)}")
    if config.steps < WARM + 3 or config.turns < 1:
        raise MotionMAEError(f"--steps {config.steps} --turns {config.turns}: at least {WARM + 3} steps and one turn")
    preset: Pretrain = presets[config.preset]
    return replace(preset, optim=replace(preset.optim, batch=config.batch, steps=config.steps), run=config.run)


def _batch(settings: Pretrain) -> dict[str, Any]:
    model, target = settings.model, settings.target
    frames = len(pretraining_offsets(model.frames, settings.data.stride, target.adjacent, target.gap))
    shape = (settings.optim.batch, 3, frames, model.size, model.size)
    return {"clip": torch.randint(0, 256, shape, dtype=torch.uint8), "key": torch.arange(settings.optim.batch)}
