"""fit(): the one loop, for pretraining, fine-tuning and probing. It knows no model, no objective and no data set.

An objective is a module from a batch to {"loss": …, parts}; batches come from an iterator that can start at any step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from motionmae.config import Optim, Run
from motionmae.errors import MotionMAEError
from motionmae.training import checkpoint
from motionmae.training.optim import Plan, adamw, learning_rate
from motionmae.training.runtime import Interrupts, Progress, Runtime

Batches = Callable[[int], Iterable[dict[str, Any]]]
Inspect = Callable[[int], dict[str, float]]

# What may change between a run and its resumption without changing what is learnt.
FREE = ("run.", "data.workers", "data.prefetch", "data.cache", "data.path")


def fit(
    objective: nn.Module,
    batches: Batches,
    plan: Plan,
    optim: Optim,
    run: Run,
    runtime: Runtime,
    config: Any,
    inspect: Inspect | None = None,
    layer_decay: float = 1.0,
) -> bool:
    """Train to the end of the plan in the run folder `run.out`, from its newest checkpoint; True when it is finished.

    `batches(step)` yields micro-batches from an optimiser step on. `inspect(step)` is called at its interval with the
    objective in eval mode and gives numbers to log. False is returned when the user stopped the run (saved before).
    """
    folder, settings = Path(run.out), _plain(asdict(config))
    objective.to(runtime.device)
    optimizer = adamw(objective, optim, layer_decay)
    first = checkpoint.restore(folder, objective, optimizer)
    log = Log(folder, first, runtime)
    step_module = _wrap(objective, run, runtime)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
    if first >= plan.steps:
        runtime.say(f"{folder}: already finished, {first} steps")
        return True
    if first:
        runtime.say(f"{folder}: going on from step {first}")
    stream, meter = iter(batches(first)), Meter(runtime.device)
    progress = Progress(plan.steps, first, runtime.main)
    objective.train()
    with Interrupts() as interrupts:
        for step in range(first, plan.steps):
            rate = learning_rate(step, plan, optim)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            micro = meter.wait(stream, plan.accumulation)
            meter.add(*train_step(step_module, optimizer, scaler, micro, runtime, optim.clip), plan.batch)
            done = step + 1
            last = done == plan.steps or interrupts.asked
            if last or done % run.log_every == 0:
                shown = meter.read(runtime) | {"lr": rate}
                log.write(done, shown)
                progress.show(done, summary(shown))
            if inspect is not None and (last or done % run.inspect_every == 0):
                objective.eval()
                log.write(done, inspect(done))
                objective.train()
                meter.resume()
            if runtime.main and (last or done % run.save_every == 0):
                checkpoint.save(folder, done, objective, optimizer, settings, run.keep)
                meter.resume()
            if interrupts.asked:
                break
    progress.close()
    log.close()
    return not interrupts.asked


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: list[dict[str, Any]],
    runtime: Runtime,
    clip: float | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """One optimiser step over micro-batches: the mean of each part, and the gradient's norm before clipping.

    Where the norm is not finite the update is skipped, on the device, without waiting for it.
    """
    optimizer.zero_grad(set_to_none=True)
    parts: dict[str, Tensor] = {}
    for at, batch in enumerate(micro_batches):
        if isinstance(objective, DistributedDataParallel):
            objective.require_backward_grad_sync = at == len(micro_batches) - 1
        found = forward_backward(objective, runtime.to_device(batch), runtime, scaler, len(micro_batches))
        parts = {name: parts[name] + value if parts else value for name, value in found.items()}
    scaler.unscale_(optimizer)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip is not None else float("inf"))
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        # The fused optimisers skip the step where found_inf is 1: the same door that GradScaler uses.
        optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
    return parts, norm


def forward_backward(
    objective: nn.Module, batch: dict[str, Any], runtime: Runtime, scaler: torch.amp.GradScaler, count: int
) -> dict[str, Tensor]:
    """Losses of one micro-batch, each divided by `count`, and their gradient."""
    with runtime.autocast():
        parts = objective(batch)
    scaler.scale(parts["loss"] / count).backward()
    return {name: value.detach() / count for name, value in parts.items()}


class Meter:
    """Sums on the device between two readings: nothing waits for the device until it is read."""

    def __init__(self, device: torch.device):
        self.device = device
        self._restart()

    def _restart(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.clips = self.skipped_time = 0
        self.waited = 0.0
        self.begun = time.perf_counter()

    def wait(self, stream: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
        """The next micro-batches, and the time that they took to come."""
        begun = time.perf_counter()
        micro = [next(stream) for _ in range(count)]
        self.waited += time.perf_counter() - begun
        self.paused = time.perf_counter()
        return micro

    def add(self, parts: dict[str, Tensor], norm: Tensor, clips: int) -> None:
        """Count one step."""
        finite = norm.isfinite()
        found = parts | {"gradient_norm": norm}
        found = {name: torch.where(finite, value.float(), 0.0) for name, value in found.items()}
        found["finite"] = finite.float()
        self.sums = {name: self.sums[name] + value if self.sums else value for name, value in found.items()}
        self.steps, self.clips = self.steps + 1, self.clips + clips
        self.paused = time.perf_counter()

    def resume(self) -> None:
        """Leave the time since the last step out of the rates: it went into saving or inspecting."""
        self.begun += time.perf_counter() - self.paused

    def read(self, runtime: Runtime) -> dict[str, float]:
        """Means since the last reading, over all ranks; waits for the device."""
        values = runtime.mean(torch.stack(list(self.sums.values()))).tolist()
        shown = dict(zip(self.sums, values, strict=True))
        finite = shown.pop("finite")
        shown = {name: value / finite if finite else float("nan") for name, value in shown.items()}
        shown["skipped"] = self.steps - finite
        spent = time.perf_counter() - self.begun
        shown |= {"clips_per_second": self.clips / spent, "data_wait": self.waited / spent}
        self._restart()
        return shown


class Log:
    """metrics.jsonl and TensorBoard events of a run folder; lines of steps that a resumed run repeats are dropped."""

    def __init__(self, folder: Path, first: int, runtime: Runtime):
        self.file = None
        if not runtime.main:
            return
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= first]
        path.write_text("".join(f"{line}\n" for line in kept))
        self.file = path.open("a")
        self.board = SummaryWriter(str(folder), purge_step=first + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, and one point a curve."""
        if self.file is None or not values:
            return
        print(json.dumps({"step": step, **values}), file=self.file, flush=True)
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush everything."""
        if self.file is not None:
            self.file.close()
            self.board.close()


def summary(shown: dict[str, float]) -> str:
    """The numbers that a person follows: the loss, each part over its trivial baseline, speed, and waiting."""
    ratios = "  ".join(f"{name[:-6]} {value:.3f}x" for name, value in shown.items() if name.endswith("_ratio"))
    skipped = f"  {shown['skipped']:.0f} SKIPPED (not finite)" if shown["skipped"] else ""
    return (
        f"loss {shown['loss']:.4f}  {ratios}  {shown['clips_per_second']:.1f} clips/s  "
        f"data {shown['data_wait']:.0%}{skipped}"
    )


def open_folder(run: Run, config: Any, runtime: Runtime) -> None:
    """Make the run folder and write config.json, or check that the folder's own config is this one."""
    folder, settings = Path(run.out), _plain(asdict(config))
    file = folder / "config.json"
    if file.exists():
        try:
            before = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise MotionMAEError(f"{file}: is not readable as JSON ({error})") from error
        differing = [name for name in _differing(before, settings) if not name.startswith(FREE)]
        if differing:
            told = ", ".join(f"{name} ({_at(before, name)} there, {_at(settings, name)} here)" for name in differing)
            raise MotionMAEError(f"{folder} holds a run of another config: {told}; choose another --run.out")
    if runtime.main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings, indent=2) + "\n")
        except OSError as error:
            raise MotionMAEError(f"--run.out {folder}: cannot be written ({error})") from error


def _wrap(objective: nn.Module, run: Run, runtime: Runtime) -> nn.Module:
    module = torch.compile(objective) if run.compile else objective
    if runtime.ranks > 1:
        ids = [runtime.device.index] if runtime.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)  # pyright: ignore[reportArgumentType]
    return module  # pyright: ignore[reportReturnType]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _differing(left: Any, right: Any, name: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [
            f for key in sorted({*left, *right}) for f in _differing(left.get(key), right.get(key), f"{name}.{key}")
        ]
    return [] if left == right else [name[1:]]


def _at(settings: Any, name: str) -> Any:
    for key in name.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings
