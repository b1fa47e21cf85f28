"""fit(): the one loop, for pretraining, fine-tuning and probing. It knows no model, no objective and no data set.

An objective is a module from a batch to {"loss": …, parts}; batches come from an iterator that can start at any step.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motionmae.config import Run
from motionmae.errors import MotionMAEError
from motionmae.runtime import Agreement, Interrupts, Runtime, lost
from motionmae.training import checkpoint, health, parallel, rehearsal
from motionmae.training.checkpoint import State
from motionmae.training.log import Log, open_folder, plain
from motionmae.training.meter import Meter
from motionmae.training.optim import Plan, average, follow, learning_rate, optimiser

__all__ = ["fit", "open_folder", "train_step"]

Batches = Callable[[int], Iterable[dict[str, Any]]]
Inspect = Callable[[int], dict[str, float]]


def fit(
    objective: nn.Module,
    batches: Batches,
    plan: Plan,
    runtime: Runtime,
    config: Any,
    inspect: Inspect | None = None,
    layer_decay: float = 1.0,
    about: str = "",
) -> bool:
    """Train to the plan's end in the run folder `config.run.out`, from its newest checkpoint; True when it is finished.

    The caller has the folder to itself (`open_folder`).

    Of the config it reads `optim`, `run` and `seed`. `batches(step)` yields micro-batches from an optimiser step on.
    `inspect(step)` is called on rank 0 at its interval with the objective in eval mode and gives numbers to log.
    `about` is said before the plan. False is returned when the user stopped the run (saved before). Raises
    MotionMAEError where it cannot go on.
    """
    run, optim, folder = config.run, config.optim, Path(config.run.out)
    module = parallel.place(objective, run, runtime)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
    state = State(module, optimiser(module, optim, plan.lr, layer_decay), scaler, average(module, optim))
    first, before = checkpoint.restore(folder, state, runtime)
    if first >= plan.steps:
        parallel.refresh(objective, module, runtime)
        runtime.say(f"{folder}: already finished, {first} steps")
        return True
    log = Log(folder, first, plan.steps, config, runtime)
    with contextlib.closing(log), Interrupts() as interrupts:
        for sentence in (about, _resumed(folder, first, before, plan)):
            log.say(sentence)
        stream = iter(batches(first))
        try:
            batch = next(stream)
            runtime, sentence = rehearsal.precision(module, batch, run, runtime, before.get("precision", ""))
            log.say(sentence)
            plan = replace(plan, precision=runtime.precision)
            wrapped = _ready(state, batch, plan, first, run, runtime, log)
            course = Course(objective, state, wrapped, plan, config, runtime, log, inspect)
            return course.go(itertools.chain([batch], stream), first, interrupts)
        finally:
            getattr(stream, "close", lambda: None)()


def _resumed(folder: Path, first: int, before: dict[str, Any], plan: Plan) -> str:
    """What is said of a run that goes on; empty for a new one."""
    if not first:
        return ""
    videos = before.get("videos", plan.videos)
    changed = f"; it had {videos} videos and now has {plan.videos}, so their order is another one"
    return f"{folder}: going on from step {first}{changed if videos != plan.videos else ''}"


@dataclass(frozen=True)
class Course:
    """A run under way: all that stays the same from its first step to its last."""

    objective: nn.Module
    state: State
    wrapped: nn.Module
    plan: Plan
    config: Any
    runtime: Runtime
    log: Log
    inspect: Inspect | None

    def go(self, stream: Iterator[dict[str, Any]], first: int, interrupts: Interrupts) -> bool:
        """Step from `first` to the plan's end, or until the ranks agree to stop; whether the end was reached."""
        plan, runtime, state = self.plan, self.runtime, self.state
        run, optim = self.config.run, self.config.optim
        meter, agreement = Meter(), Agreement(runtime)
        budget, plateaus = health.Budget(run), health.Plateaus(run)
        state.objective.train()
        self.log.progress.start()
        done = first
        for step in range(first, plan.steps):
            rate = learning_rate(step, plan, optim)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            with self.saving(done, first, interrupts):
                micro = meter.wait(stream, plan.accumulation)
                runtime.seed(self.config.seed, step)
                parts, norm = train_step(self.wrapped, state.optimizer, state.scaler, micro, runtime, optim.clip)
            follow(state.average, state.objective, optim, step)
            meter.add(step, micro, parts, norm, plan.batch)
            done = step + 1
            stop = agreement.reached(interrupts.asked)
            last = stop or done == plan.steps
            if last or done % run.log_every == 0:
                self.read(done, meter, rate, budget, plateaus)
            else:
                self.log.beat(done)
            if last or done % run.inspect_every == 0:
                self.examine(done)
                meter.resume()
            if last or done % run.save_every == 0:
                self.save(done)
                meter.resume()
            if stop:
                break
        agreement.settle()
        return done == plan.steps

    def save(self, done: int) -> None:
        """A checkpoint of the state after `done` steps."""
        self.log.check()
        run, told = self.config.run, {"config": plain(self.config), "plan": asdict(self.plan)}
        checkpoint.save(Path(run.out), done, self.state, told, run.keep, self.runtime)

    @contextlib.contextmanager
    def saving(self, done: int, first: int, interrupts: Interrupts) -> Iterator[None]:
        """Within it a failure of the data, or the loss of another rank, ends the run no sooner than it is saved.

        An update is all or nothing, so the weights are those after `done` steps. Sharded weights need all ranks, and
        are lost back to the last checkpoint where one of several has failed.
        """
        try:
            yield
        except (MotionMAEError, RuntimeError) as error:
            known = isinstance(error, MotionMAEError) or lost(error, self.runtime)
            if known and done > first and self.runtime.main and not checkpoint.sharded(self.state):
                self.save(done)
                self.log.say(f"saved at step {done}, as the run cannot go on")
                if interrupts.asked and self.runtime.ranks == 1:  # a worker that took the stop for its own
                    raise KeyboardInterrupt from error
            raise

    def read(self, done: int, meter: Meter, rate: float, budget: health.Budget, plateaus: health.Plateaus) -> None:
        """Write and show what the meter has; stop the run where too many steps were not finite."""
        shown, sound, bad = meter.read(self.runtime)
        shown["lr"] = rate
        self.log.write(done, shown)
        self.log.show(done, shown)
        for sentence in plateaus.look(done, shown):
            self.log.say(sentence)
        if budget.spent(sound, bad):
            file = health.dump(done, budget, self.state.objective, self.plan, self.config, self.runtime)
            raise MotionMAEError(
                f"{len(budget.bad)} of the last {len(budget.recent)} steps had a loss or gradient that is not finite, "
                f"--run.bad-steps allows {budget.allowed}; the weights are those before them. The same command with "
                f"--run.replay {file} runs them again and says where it begins"
            )

    def examine(self, done: int) -> None:
        """Inspect the objective in eval mode, on rank 0."""
        self.log.check()
        parallel.refresh(self.objective, self.state.objective, self.runtime)
        if self.inspect is not None and self.runtime.main:
            self.objective.eval()
            try:
                found = self.inspect(done)
            except OSError as error:
                raise MotionMAEError(
                    f"{self.config.run.out}: the inspection of step {done} failed ({error})"
                ) from error
            self.log.write(done, found)
            self.log.picture(done)
            self.objective.train()


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: list[dict[str, Any]],
    runtime: Runtime,
    clip: float | None,
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """One optimiser step over micro-batches: the parts of each, and the gradient's norm before clipping.

    Where the loss or the norm is not finite the update is skipped, on the device, without waiting for it.
    """
    optimizer.zero_grad(set_to_none=True)
    parts = []
    for at, batch in enumerate(micro_batches):
        parallel.synchronise(objective, at == len(micro_batches) - 1)
        parts.append(forward_backward(objective, runtime.to_device(batch), runtime, scaler, len(micro_batches)))
    scaler.unscale_(optimizer)
    parameters = [value for group in optimizer.param_groups for value in group["params"] if value.grad is not None]
    norm = torch.nn.utils.get_total_norm([value.grad for value in parameters])
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    norm = parallel.full(norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        # Fused AdamW and our Muon skip the step where found_inf is 1: the same door that GradScaler uses.
        optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
    return parts, norm


def forward_backward(
    objective: nn.Module, batch: dict[str, Any], runtime: Runtime, scaler: torch.amp.GradScaler, count: int
) -> dict[str, Tensor]:
    """Losses of one micro-batch, and the gradient of its loss divided by `count`.

    A loss that is not finite makes the whole gradient so: through it every rank learns of one rank's bad loss.
    """
    with runtime.autocast():
        parts = objective(batch)
    loss = scaler.scale(parts["loss"] / count)
    loss.backward(gradient=torch.where(parts["loss"].detach().isfinite(), 1.0, float("nan")).to(loss.dtype))
    return {name: value.detach() for name, value in parts.items()}


def _ready(
    state: State, batch: dict[str, Any], plan: Plan, first: int, run: Run, runtime: Runtime, log: Log
) -> nn.Module:
    """Rehearse one micro-batch, say what the run will take, and give the module as it will be stepped."""
    module, resumed = state.objective.train(), bool(state.optimizer.state)
    warm = run.compile or runtime.device.type == "cuda"
    if run.compile:
        compiled: Any = torch.compile(module)
        try:
            found = rehearsal.rehearse(compiled, batch, runtime, warm, resumed)
            module = compiled
        except MotionMAEError:
            raise
        except Exception as error:  # the compiler's many classes, and those of the C++ compiler that it calls
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            log.say(f"--run.compile: goes on without, as compiling failed: {type(error).__name__}: {reason[:300]}")
            found = rehearsal.rehearse(module, batch, runtime, warm, resumed)
    else:
        found = rehearsal.rehearse(module, batch, runtime, warm, resumed)
    log.say(rehearsal.expectation(found, plan, first))
    return parallel.replicate(module, runtime)
