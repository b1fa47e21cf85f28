"""fit(): the one loop, for pretraining, fine-tuning and probing. It knows no model, no objective and no data set.

An objective is a module from a batch to {"loss": …, parts}; batches come from an iterator that can start at any step.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motionmae.config import Optim, Run
from motionmae.errors import MotionMAEError
from motionmae.runtime import Agreement, Interrupts, Runtime, lost
from motionmae.training import checkpoint, health, parallel, rehearsal
from motionmae.training.checkpoint import State
from motionmae.training.folder import open_folder, plain
from motionmae.training.log import Log
from motionmae.training.meter import Meter
from motionmae.training.optim import Plan, average, learning_rate, move_average, optimiser, set_rate
from motionmae.words import many

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

    The caller has the folder to itself (`open_folder`). Of the config it reads `optim`, `run` and `seed`; all of it is
    kept beside the weights. `batches(step)` yields micro-batches from an optimiser step on. `inspect(step)` is called
    on rank 0 at its interval with the objective in eval mode and gives numbers to log. `about` is said before the plan.
    False is returned when the user stopped the run (saved before). Raises MotionMAEError where it cannot go on.
    """
    run, optim, folder = config.run, config.optim, Path(config.run.out)
    state = _place(objective, plan, optim, run, runtime, layer_decay)
    first, before = checkpoint.restore(folder, state, runtime)
    if first >= plan.steps:
        parallel.refresh(objective, state.objective, runtime)
        runtime.say(f"{folder}: already finished, {many(first, 'step')}")
        return True
    log, done, last = Log(folder, first, plan.steps, config, runtime), first, False
    with contextlib.closing(log), Interrupts() as interrupts, _closing(batches(first)) as coming:
        log.say(about)
        log.say(_resumed(folder, first, before, plan))
        log.stage("reading the first batch")
        batch = next(coming)
        stepped, plan, runtime = _ready(state, batch, plan, first, before, run, runtime, log)
        stream, told = itertools.chain([batch], coming), {"config": plain(config), "plan": asdict(plan)}
        save = functools.partial(_save, state=state, told=told, keep=run.keep, log=log)
        meter, agreement = Meter(), Agreement(runtime)
        budget, plateaus = health.Budget(run.bad_steps), health.Plateaus(run.plateau_steps)
        log.stage("the first step")
        while not last:
            rate = set_rate(state.optimizer, learning_rate(done, plan, optim))
            with _saving(save, done, first, state, interrupts, log):
                micro = meter.wait(stream, plan.accumulation)
                runtime.seed(config.seed, done)
                parts, norm = train_step(stepped, state.optimizer, state.scaler, micro, runtime, optim.clip)
            move_average(state.average, state.objective, optim, done)
            meter.add(done, micro, parts, norm, plan.batch)
            done += 1
            last = agreement.reached(interrupts.asked) or done == plan.steps
            if last or done % run.log_every == 0:
                shown, sound, bad = meter.read(runtime)
                log.read(done, shown | {"lr": rate}, plateaus.look(done, shown))
                budget.hold(done, sound, bad, state.objective, told, log)
            else:
                log.progress.show(done, log.progress.text)
            if last or done % run.inspect_every == 0:
                _examine(done, objective, state.objective, inspect, log)
                meter.resume()
            if last or done % run.save_every == 0:
                save(done)
                meter.resume()
        agreement.settle()
    return done == plan.steps


def _place(objective: nn.Module, plan: Plan, optim: Optim, run: Run, runtime: Runtime, layer_decay: float) -> State:
    """The objective on its devices with a fresh optimiser: all that a run changes."""
    module = parallel.place(objective, run, runtime)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
    return State(module, optimiser(module, optim, plan.lr, layer_decay), scaler, average(module, optim))


@contextlib.contextmanager
def _closing(batches: Iterable[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """The batches one by one; whoever makes them is told when no more are wanted, however that comes."""
    stream = iter(batches)
    try:
        yield stream
    finally:
        getattr(stream, "close", lambda: None)()


def _resumed(folder: Path, first: int, before: dict[str, Any], plan: Plan) -> str:
    """What is said of a run that goes on; empty for a new one."""
    if not first:
        return ""
    videos = before.get("videos", plan.videos)
    changed = f"; it had {many(videos, 'video')} and now has {plan.videos}, so their order is another one"
    return f"{folder}: going on from step {first}{changed if videos != plan.videos else ''}"


def _save(done: int, state: State, told: dict[str, Any], keep: int, log: Log) -> None:
    """A checkpoint of the state after `done` steps."""
    log.check()
    checkpoint.save(log.folder, done, state, told, keep, log.runtime)


@contextlib.contextmanager
def _saving(
    save: Callable[[int], None], done: int, first: int, state: State, interrupts: Interrupts, log: Log
) -> Iterator[None]:
    """Within it a failure of the data, or the loss of another rank, ends the run no sooner than it is saved.

    An update is all or nothing, so the weights are those after `done` steps. Sharded weights need all ranks, and
    are lost back to the last checkpoint where one of several has failed.
    """
    try:
        yield
    except (MotionMAEError, RuntimeError) as error:
        known = isinstance(error, MotionMAEError) or lost(error, log.runtime)
        if known and done > first and log.runtime.main and not checkpoint.sharded(state):
            save(done)
            log.say(f"saved at step {done}, as the run cannot go on")
            if interrupts.asked and log.runtime.ranks == 1:  # a worker that took the stop for its own
                raise KeyboardInterrupt from error
        raise


def _examine(done: int, objective: nn.Module, module: nn.Module, inspect: Inspect | None, log: Log) -> None:
    """Inspect the objective, brought up to date with the module that learns, in eval mode on rank 0."""
    log.check()
    parallel.refresh(objective, module, log.runtime)
    if inspect is not None and log.runtime.main:
        objective.eval()
        try:
            found = inspect(done)
        except OSError as error:
            raise MotionMAEError(f"{log.folder}: the inspection of step {done} failed ({error})") from error
        log.write(done, found)
        log.picture(done)
        objective.train()


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
    state: State,
    batch: dict[str, Any],
    plan: Plan,
    first: int,
    before: dict[str, Any],
    run: Run,
    runtime: Runtime,
    log: Log,
) -> tuple[nn.Module, Plan, Runtime]:
    """Settle the precision, rehearse one micro-batch and say what the run will take: the module as it is stepped.

    On a CPU without a compiler none is rehearsed: that may take minutes, and `learn` has told from one clip.
    """
    module = state.objective.train()
    log.stage("bf16 against fp32, how fast?")
    runtime, sentence = rehearsal.precision(module, batch, run, runtime, before.get("precision", ""))
    log.say(sentence)
    plan = replace(plan, precision=runtime.precision)
    if runtime.device.type == "cpu" and not run.compile:
        return parallel.replicate(module, runtime), plan, runtime
    warm, resumed = run.compile or runtime.device.type == "cuda", bool(state.optimizer.state)
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
    return parallel.replicate(module, runtime), plan, runtime
