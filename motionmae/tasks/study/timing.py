"""What a step of each arm costs, in turns and in the process's own time: other work on the machine tells less."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from motionmae import runtime
from motionmae.config import Hardware, Pretrain, Study
from motionmae.data.loading import collate
from motionmae.files import read_json, write_json
from motionmae.library.sources import find
from motionmae.tasks import pretrain
from motionmae.tasks.study import cells
from motionmae.training.loop import train_step
from motionmae.training.optim import optimiser, plan


def measure(config: Study, path: Path) -> None:
    """Time a step of each arm of the grid that `path` does not hold yet, beside the first one, and add it there.

    A figure is the median over turns of an arm's time over the reference's in the same turn; loading is left out, as it
    is the same for all.
    """
    found: dict[str, float] = read_json(path) if path.exists() else {}
    arms = {cell.arm: cell.config for cell in cells.of_grid(config) if cell.learns}
    wanted = [arm for arm in arms if arm not in found]
    if not wanted:
        return
    reference = "appearance" if "appearance" in arms else next(iter(arms))
    steps = {arm: _step(arms[arm]) for arm in dict.fromkeys((reference, *wanted))}
    turns: dict[str, list[float]] = {arm: [] for arm in steps}
    for _ in range(config.timed + 1):
        for arm, step in steps.items():
            turns[arm].append(step())
    base = turns[reference][1:]
    for arm in wanted:
        ratios = [value / other for value, other in zip(turns[arm][1:], base, strict=True)]
        found[arm] = round(statistics.median(ratios), 3)
    found.setdefault(f"{reference}, seconds", round(statistics.median(base), 4))
    write_json(path, found)


def _step(config: Pretrain):
    """A function that makes one training step on the same batch, and says how long it took."""
    here = runtime.single(Hardware(config.run.device, config.run.precision))
    device = here.device
    dataset = pretrain.clips_of(config, find(config.data).paths)
    count = plan(config.optim, config.run, len(dataset), 1, 1).micro
    batch = collate([dataset[(0, at % len(dataset))][:1] for at in range(count)])
    objective = pretrain.build(config).to(device).train()
    optimizer = optimiser(objective, config.optim, config.optim.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=here.dtype == torch.float16)
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def step() -> float:
        begun = clock()
        train_step(objective, optimizer, scaler, [batch], here, config.optim.clip)
        runtime.wait(device)
        return clock() - begun

    return step
