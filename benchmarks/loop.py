"""`python benchmarks/loop.py [PRESET] [--turns N] [options of bench run]`: what the training loop costs.

The same step written by hand is timed in the same run: the loop asks for a batch; before it gets one the hand-written
step is taken and timed, then the loop's own, so that whatever else the machine does falls on both. Times are summed
over the steps from one log line to the next.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from motionmae import cli, runtime
from motionmae.config import Pretrain
from motionmae.data.clips import pretraining_offsets
from motionmae.runtime import Runtime
from motionmae.tasks.pretrain import build
from motionmae.training import loop, optim


class Turns:
    """A batch again and again for the loop, with a hand-written step before each; the seconds of both, by clock.

    On a GPU they take turns of a whole stretch, as waiting for the device after every step would be a cost of its own.
    """

    def __init__(self, batch: dict[str, Any], step: Callable[[], None], stretch: int, here: Runtime):
        self.batch, self.step, self.stretch, self.here = batch, step, stretch, here
        cuda = here.device.type == "cuda"
        self.clocks = {"wall clock": time.perf_counter} | ({} if cuda else {"processor": time.process_time})
        self.turn = stretch if cuda else 1
        self.seconds: dict[str, dict[str, list[float]]] = {
            name: {"by hand": [], "the loop": []} for name in self.clocks
        }

    def __call__(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Batches without end."""
        while True:
            for at in range(0, self.stretch, self.turn):
                begun = self._now()
                for _ in range(self.turn):
                    self.step()
                between = self._now()
                for _ in range(self.turn):
                    yield self.batch
                self._count("by hand", begun, between, fresh=at == 0)
                self._count("the loop", between, self._now(), fresh=at == 0)

    def _now(self) -> list[float]:
        runtime.wait(self.here.device)
        return [clock() for clock in self.clocks.values()]

    def _count(self, whose: str, begun: list[float], ended: list[float], fresh: bool) -> None:
        for name, start, end in zip(self.clocks, begun, ended, strict=True):
            stretches = self.seconds[name][whose]
            if fresh:
                stretches.append(0.0)
            stretches[-1] += (end - start) / self.stretch


def main(argv: list[str]) -> None:
    """Time the two side by side; print the medians over the stretches, and the middle half of what they say."""
    _, config = cli.parse(["bench", "run", *(argv or ["tiny"])])
    here, count = runtime.start(config.run), max(2, config.turns)
    turns = measure(config, count, here)
    print(
        f"pretraining, {config.optim.batch} clips a step on {here.device}, {count} stretches of "
        f"{config.run.log_every} steps"
    )
    for name, seconds in turns.seconds.items():
        bare, ours = (values[1:][:count] for values in seconds.values())  # the first stretch warms up
        own = [1e3 * (loop - hand) for hand, loop in zip(bare, ours, strict=True)]
        share = [loop / hand - 1 for hand, loop in zip(bare, ours, strict=True)]
        print(
            f"{name:10}  by hand {1e3 * statistics.median(bare):.2f} ms a step, the loop's own {_spread(own, '.2f')} "
            f"ms, overhead {_spread(share, '.2%')}"
        )


def measure(settings: Pretrain, stretches: int, here: Runtime) -> Turns:
    """Run fit(), with its log and its health checks as they are by default, beside the same step by hand."""
    batch, stretch = _batch(settings), settings.run.log_every
    turns = Turns(batch, _by_hand(settings, batch, here), stretch, here)
    steps = (stretches + 1) * stretch + 1  # a stretch ends where the loop asks for the next batch
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        once = replace(settings.run, out=out, save_every=steps, inspect_every=steps)
        settings = replace(settings, optim=replace(settings.optim, steps=steps), run=once)
        plan = optim.plan(settings.optim, settings.run, steps * settings.optim.batch, 1, 1)
        loop.fit(build(settings), turns, plan, here, settings)
    return turns


def _by_hand(settings: Pretrain, batch: dict[str, Any], here: Runtime) -> Callable[[], None]:
    """A step with nothing around it."""
    objective = build(settings).to(here.device).train()
    optimizer = optim.optimiser(objective, settings.optim, settings.optim.lr)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with here.autocast():
            loss = objective(here.to_device(batch))["loss"]
        loss.backward()
        if settings.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(objective.parameters(), settings.optim.clip)
        optimizer.step()

    return step


def _spread(values: list[float], form: str) -> str:
    """The median, and between which two values the middle half lies."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _batch(settings: Pretrain) -> dict[str, Any]:
    model, target = settings.model, settings.target
    frames = len(pretraining_offsets(model.frames, settings.data.stride, target.adjacent, target.gap))
    shape = (settings.optim.batch, 3, frames, model.size, model.size)
    return {"clip": torch.randint(0, 256, shape, dtype=torch.uint8), "key": torch.arange(settings.optim.batch)}


if __name__ == "__main__":
    main(sys.argv[1:])
