"""`motionmae bench sizes`: a step of one clip over sizes, frames and pixels, as a table in Markdown."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from motionmae import runtime
from motionmae.config import BenchSizes, Pretrain
from motionmae.data.clips import pretraining_offsets
from motionmae.errors import MotionMAEError
from motionmae.models.linear import multiply
from motionmae.models.tokens import grid_of
from motionmae.presets import COMMANDS
from motionmae.progress import Progress
from motionmae.runtime import Runtime
from motionmae.tasks.pretrain import build
from motionmae.training import machine, rehearsal


def run(config: BenchSizes) -> None:
    """Print the table, a row as soon as it is measured."""
    presets, here = COMMANDS["pretrain"].choices, runtime.start(config.run)
    for name in config.presets:
        if name not in presets:
            raise MotionMAEError(f"--presets: there is no preset {name!r}; the presets are {', '.join(presets)}")
    print("| preset | frames | pixels | tokens | GFLOP | clips/s | GiB | % of the product's rate | % in attention |")
    print("|---|---|---|---|---|---|---|---|---|")
    wanted = list(itertools.product(config.presets, config.frames, config.sizes))
    with Progress("rows", len(wanted), alike=False) as progress:
        for done, (name, frames, size) in enumerate(wanted):
            progress.show(done, f"{name}, {frames} x {size} x {size}")
            preset = presets[name]
            print(row(name, replace(preset, model=replace(preset.model, frames=frames, size=size)), here), flush=True)


def row(name: str, config: Pretrain, here: Runtime) -> str:
    """Speed without the optimiser, memory with it, of one clip; attention's share of the counted operations."""
    model, target = config.model, config.target
    frames = len(pretraining_offsets(model.frames, config.data.stride, target.adjacent, target.gap))
    clip = torch.randint(0, 256, (1, 3, frames, model.size, model.size), dtype=torch.uint8)
    batch = here.to_device({"clip": clip, "key": torch.arange(1)})
    objective = build(config).to(here.device).train()
    with FlopCounterMode(display=False, custom_mapping=machine.COUNTED) as counter, here.autocast():
        objective(batch)["loss"].backward()
    memory = rehearsal.rehearse(objective, batch, here, warm=False).memory
    begun = machine.now(here.device)
    with here.autocast():
        loss = objective(batch)["loss"]
    loss.backward()
    seconds = machine.now(here.device) - begun
    rate = machine.product(here.device, here.dtype or torch.float32, multiply)()
    attention = sum(
        flops for operator, flops in counter.get_flop_counts()["Global"].items() if "attention" in str(operator)
    )
    whole = counter.get_total_flops()
    tokens = math.prod(grid_of(model.frames, model.size, model.size, model.cube))
    return (
        f"| {name} | {model.frames} | {model.size} | {tokens} | {whole / 1e9:.1f} | {1 / seconds:.2f} | "
        f"{memory / 2**30:.2f} | {whole / seconds / rate:.0%} | {100 * attention / whole:.0f} % |"
    )
