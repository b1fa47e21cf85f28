"""What every command that trains does between its objective and the loop: plan, batches, micro-batch, replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from motionmae.config import Finetune, Pretrain
from motionmae.data.clips import Clips
from motionmae.data.loading import Order, collate, loader
from motionmae.errors import MotionMAEError
from motionmae.progress import Progress
from motionmae.runtime import Runtime
from motionmae.training import health, loop, optim, rehearsal, settling


def learn(
    config: Pretrain | Finetune,
    objective: nn.Module,
    dataset: Clips,
    here: Runtime,
    describe: Callable[[optim.Plan], str],
    inspect: loop.Inspect | None = None,
    layer_decay: float = 1.0,
) -> bool:
    """Train the objective on the clips of a data set in the run folder `config.run.out`, or go on there.

    True when the run is finished, False when the user stopped it. `describe(plan)` says what is about to happen. With
    `config.run.replay` a dump's bad steps are run again instead. What the config has open still is settled here.
    """
    asked, config = config, replace(config, open=())
    run, repeats = config.run, config.data.repeats
    plan = optim.plan(config.optim, run, len(dataset), repeats, here.ranks)

    def batches(step: int, plan: optim.Plan) -> Any:
        batch, micro = plan.batch // repeats, plan.micro // repeats
        order = Order(len(dataset), batch, micro, config.seed, here.rank, plan.ranks, step, dataset.groups)
        return loader(dataset, order, config.data, pin=here.device.type == "cuda")

    if run.replay:
        health.replay(objective, lambda step, micro: batches(step, replace(plan, micro=micro)), config, here)
        return True
    with Progress("preparing", speak=here.main) as progress:
        progress.show(0, "reading one clip")
        example = collate([dataset[(0, 0)]])  # a set that cannot be read at all is found before anything is written
        progress.show(0, "one clip forward and backward")
        found: rehearsal.Rehearsal | None = None
        if run.micro_batch == "auto" or ("run.micro_batch" in asked.open and run.parallel != "fsdp"):
            micro, found = rehearsal.fitting(objective, example, plan.micro, repeats, here)
            plan = replace(plan, micro=micro, accumulation=plan.batch // (micro * here.ranks))
            if run.micro_batch != "auto":
                config = replace(config, run=replace(run, micro_batch=micro))
        elif here.device.type == "cpu" and run.parallel != "fsdp":
            found = rehearsal.expect(objective, example, here)(plan.micro)
    expected = "" if found is None else f"one clip says: {rehearsal.expectation(found, plan, 0)}"
    if found is not None and (refused := settling.refusal(found, plan, asked, here)):
        here.say("\n".join((describe(plan), expected)))
        raise MotionMAEError(refused)
    if "data.prefetch" in asked.open:
        config = replace(config, data=settling.ahead(config.data, example["clip"][0].nbytes * plan.micro))
    with loop.open_folder(config, here):
        about = "\n".join(filter(None, (describe(plan), expected)))
        return loop.fit(objective, lambda step: batches(step, plan), plan, here, config, inspect, layer_decay, about)
