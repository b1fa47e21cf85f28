"""Is the run well? Steps that are not finite are counted and, past a budget, dumped; idle parts are named."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from motionmae import stored
from motionmae.errors import MotionMAEError
from motionmae.runtime import PRECISIONS, Runtime
from motionmae.training import parallel
from motionmae.training.folder import completed, plain, same_config
from motionmae.training.log import Log
from motionmae.training.meter import Bad
from motionmae.words import many

WINDOW = 100  # steps over which skipped ones are counted
LEARNT = 0.97  # below this share of the trivial prediction's cost, a part has learnt something


class Budget:
    """How many of the last 100 steps may be skipped as not finite."""

    def __init__(self, allowed: int):
        self.allowed = allowed
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.bad: deque[Bad] = deque(maxlen=WINDOW)

    def spent(self, sound: list[bool], bad: list[Bad]) -> bool:
        """Count the steps of a reading; whether there were too many bad ones. The same on all ranks."""
        self.recent.extend(sound)
        self.bad.extend(bad)
        return self.recent.count(False) > self.allowed

    def hold(
        self, step: int, sound: list[bool], bad: list[Bad], objective: nn.Module, told: dict[str, Any], log: Log
    ) -> None:
        """Count the steps of the reading after `step`; dump the bad ones and raise MotionMAEError if too many were."""
        if self.spent(sound, bad):
            file = dump(log.folder / "dumps" / f"step-{step:08d}.safetensors", self.bad, objective, told, log.runtime)
            raise MotionMAEError(
                f"{len(self.bad)} of the last {many(len(self.recent), 'step')} had a loss or gradient that is not "
                f"finite, --run.bad-steps allows {self.allowed}; the weights are those before them. The same command "
                f"with --run.replay {file} runs them again and says where it begins"
            )


class Plateaus:
    """Names the parts whose cost, over that of a trivial prediction, has stayed at about 1 for so many steps."""

    def __init__(self, steps: int):
        self.steps = steps
        self.begun: int | None = None
        self.readings: dict[str, list[float]] = {}

    def look(self, step: int, shown: dict[str, float]) -> list[str]:
        """A sentence for each such part, every `steps` steps."""
        self.begun = step if self.begun is None else self.begun
        for name, value in shown.items():
            if name.endswith("_ratio"):
                self.readings.setdefault(name[:-6], []).append(value)
        if not self.steps or step - self.begun < self.steps:
            return []
        means = {name: sum(values) / len(values) for name, values in self.readings.items()}
        told = [
            f"step {step}: {name} is on a plateau: over the last {many(step - self.begun, 'step')} its loss was "
            f"{mean:.3f} of a trivial prediction's, so it has learnt nothing yet; try another learning rate, or look "
            f"at its pictures"
            for name, mean in means.items()
            if mean >= LEARNT
        ]
        self.begun, self.readings = step, {}
        return told


def dump(file: Path, bad: Iterable[Bad], objective: nn.Module, told: dict[str, Any], runtime: Runtime) -> Path:
    """Write the weights as they are, and of each bad step its batches, losses and norm.

    `told` has the run's config and plan. All ranks take part.
    """
    ranks = runtime.gather([asdict(step) for step in bad])
    steps = [
        {
            "step": same[0]["step"],
            "norm": same[0]["norm"],
            "ranks": [{k: b[k] for k in ("batches", "losses")} for b in same],
        }
        for same in zip(*ranks, strict=True)
    ]
    tensors = {
        f"model/{name}": parallel.full(value).cpu().contiguous() for name, value in objective.state_dict().items()
    }
    if runtime.main:
        about = {"config": json.dumps(told["config"]), "dump": json.dumps({"plan": told["plan"], "steps": steps})}
        stored.save_checked(file, tensors, about)
    return file


def read_dump(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights of a dump, and what it tells: the run's config, its plan, and the bad steps."""
    try:
        content = stored.Stored(file)
        told = json.loads(content.about["dump"]) | {"config": json.loads(content.about["config"])}
        return {name[6:]: content.tensor(name) for name in content.shapes}, told
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MotionMAEError(f"--run.replay {file}: is not a dump of bad steps ({error})") from error


def replay(objective: nn.Module, batches: Any, config: Any, runtime: Runtime) -> list[dict[str, Any]]:
    """Run a dump's bad steps again on one rank, as the run did and in float32, and say where numbers stop being finite.

    `batches(step, micro)` yields the whole batch of a step, and what follows, in micro-batches of that size. Each
    micro-batch of each step gives a dict: step, micro, precision, loss, norm, the first module whose output is not
    finite, and the parameters whose gradient is not. Nothing is written or updated. The weights are those at the stop.
    Raises MotionMAEError where `config.run.replay` is no dump of a run of this config.
    """
    file = Path(config.run.replay)
    if runtime.ranks > 1:
        raise MotionMAEError(f"--run.replay {file}: runs on one process, this run has {many(runtime.ranks, 'rank')}")
    weights, told = read_dump(file)
    same_config(
        completed(config, told["config"]),
        plain(config),
        f"--run.replay {file} is of a run",
        "repeat that run's command",
    )
    runtime = replace(runtime, dtype=PRECISIONS[told["plan"]["precision"]])
    objective.to(runtime.device).load_state_dict(weights)
    objective.train()
    found: list[dict[str, Any]] = []
    for bad in told["steps"]:
        stream = iter(batches(bad["step"], told["plan"]["micro"]))
        for rank, part in enumerate(bad["ranks"]):
            micro = [_checked(next(stream), wanted, bad["step"], file) for wanted in part["batches"]]
            for plain_numbers in (False, True) if runtime.dtype is not None else (True,):
                replace(runtime, rank=rank).seed(config.seed, bad["step"])  # once a step, as the run does
                for at, batch in enumerate(micro):
                    result = _examine(objective, runtime.to_device(batch), runtime, plain_numbers)
                    found.append({"step": bad["step"], "rank": rank, "micro": at, **result})
                    runtime.say(describe(found[-1]))
    return found


def _checked(batch: dict[str, Any], wanted: dict[str, list[int]], step: int, file: Path) -> dict[str, Any]:
    """The batch, if its numbers are those that the dump has of it."""
    for name, numbers in wanted.items():
        if batch[name].tolist() != numbers:
            raise MotionMAEError(
                f"--run.replay {file}: {name} of step {step} was {numbers[:4]}…, here it is "
                f"{batch[name].tolist()[:4]}…; the videos are not those of the run"
            )
    return batch


def describe(result: dict[str, Any]) -> str:
    """One line about a replayed micro-batch."""
    where = f"first not finite: {result['module']}" if result["module"] else "every module's output is finite"
    gradients = result["gradients"]
    which = f", {len(gradients)} gradients are not finite ({', '.join(gradients[:3])})" if gradients else ""
    return (
        f"step {result['step']} rank {result['rank']} micro-batch {result['micro']} in {result['precision']}: loss "
        f"{result['loss']:.6g}, gradient norm {result['norm']:.6g}; {where}{which}"
    )


def _examine(objective: nn.Module, batch: dict[str, Any], runtime: Runtime, plain: bool) -> dict[str, Any]:
    culprits: list[str] = []
    hooks = [module.register_forward_hook(_watch(name, culprits)) for name, module in objective.named_modules() if name]
    objective.zero_grad(set_to_none=True)
    with torch.autocast(runtime.device.type, enabled=False) if plain else runtime.autocast():
        loss = objective(batch)["loss"]
    for hook in hooks:
        hook.remove()
    loss.backward()
    gradients = {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    bad = [name for name, value in gradients.items() if not value.isfinite().all()]
    objective.zero_grad(set_to_none=True)
    precision = "float32" if plain else str(runtime.dtype).removeprefix("torch.")
    return {
        "precision": precision, "loss": loss.item(), "norm": norm.item(),
        "module": culprits[0] if culprits else "", "gradients": bad,
    }  # fmt: skip


def _watch(name: str, culprits: list[str]):
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if not all(value.isfinite().all() for value in _tensors(output) if value.is_floating_point()):
            culprits.append(name)

    return hook


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
