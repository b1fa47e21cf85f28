"""Before the first step: does a micro-batch fit, does it compile, how long does it take, how much memory is it?

A rehearsal is a forward and a backward pass whose gradient is thrown away: it changes no weight.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from motionmae.config import Run
from motionmae.errors import MotionMAEError
from motionmae.progress import clock
from motionmae.runtime import PRECISIONS, Runtime, wait
from motionmae.training import parallel
from motionmae.training.machine import now, product
from motionmae.training.optim import Plan
from motionmae.words import many

GAIN = 1.5  # how many times as fast as fp32 bf16 must be on a CPU, in each of three turns, to be chosen
QUICK = 1.0  # seconds of a pass that is worth a second one, as the first is slower
SIDE = 1024  # of the matrices whose product tells what many threads are worth
SHORT = 0.05  # seconds of a pass below which there is nothing to win and much to be mistaken in
ROOM = 0.85  # the share of the memory that a run may expect to take


@dataclass(frozen=True)
class Rehearsal:
    """Seconds of one micro-batch; bytes that a step needs at its peak, weights and optimiser included."""

    seconds: float
    memory: int


def rehearse(
    module: nn.Module, batch: dict[str, Any], runtime: Runtime, warm: bool, resumed: bool = False
) -> Rehearsal:
    """Time and memory of one micro-batch; `warm` runs it once before, where the first time is not like the others.

    `resumed` says that the optimiser's own tensors are on the device already.

    Memory is measured on CUDA; elsewhere it is what autograd keeps, and four numbers a parameter: the weight, its
    gradient and AdamW's two averages. Raises MotionMAEError where the device has not enough memory.
    """
    batch = runtime.to_device(batch)
    cuda = runtime.device.type == "cuda"
    held: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = _storage(value)
        held[storage.data_ptr()] = storage.nbytes()
        return value

    try:
        if warm:
            _pass(module, batch, runtime)
        if cuda:
            wait(runtime.device)
            torch.cuda.reset_peak_memory_stats()
        begun = now(runtime.device)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
            if not cuda
            else contextlib.nullcontext()
        ):
            _pass(module, batch, runtime)
        seconds = now(runtime.device) - begun
    except torch.OutOfMemoryError as error:
        raise MotionMAEError(
            f"--run.micro-batch: {many(_clips(batch), 'clip')} at once, for which {runtime.device} has no room; give "
            f"fewer, or auto, or --run.checkpointing ({str(error).splitlines()[0]})"
        ) from error
    finally:
        module.zero_grad(set_to_none=True)
    weights = sum(_local(value) for value in module.parameters())
    learnt = sum(_local(value) for value in module.parameters() if value.requires_grad)
    if cuda:
        return Rehearsal(seconds, torch.cuda.max_memory_allocated() + (0 if resumed else 2 * learnt))
    for value in module.parameters():
        held.pop(_storage(value).data_ptr(), None)  # kept by autograd too, and counted as weights
    return Rehearsal(seconds, sum(held.values()) + weights + 3 * learnt)


def precision(module: nn.Module, batch: dict[str, Any], run: Run, runtime: Runtime, kept: str) -> tuple[Runtime, str]:
    """The runtime in the run's precision, and a sentence where it was measured: bf16 or fp32 by `auto` on a CPU.

    `kept` is the precision that a resumed run began with. Where `run.deterministic` is set nothing is measured: a
    choice by time may be another one the next time.
    """
    if run.precision != "auto" or runtime.device.type != "cpu" or run.deterministic:
        return runtime, ""
    if kept:
        return replace(runtime, dtype=PRECISIONS[kept]), ""
    if not runtime.share(multiplies_bf16()):
        return runtime, ""
    other, few = replace(runtime, dtype=torch.bfloat16), _first(batch, 1)
    warm = [_timed(module, few, place) for place in (runtime, other)]  # the first time is not like the others
    few = _first(batch, 4 if runtime.share(min(warm)) < QUICK else 1)
    faster, short = math.inf, False
    for turn in range(3):
        full, half = (_timed(module, few, place) for place in (runtime, other))
        faster = runtime.share(min(faster, full / half))
        short = short or (turn == 0 and runtime.share(full) < SHORT)
        if short or faster <= GAIN:
            break
    module.zero_grad(set_to_none=True)
    chosen = other if faster > GAIN and not short else runtime
    return chosen, (
        f"precision auto: {chosen.precision}, as bf16 is at least {faster:.2f} times as fast here as fp32"
        f"{'' if chosen is other else f' (it must be {GAIN}, and a pass longer than {SHORT:g} s)'}"
    )


def multiplies_bf16() -> bool:
    """Whether this machine's CPU has instructions for products of bf16, as far as the system tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}.isdisjoint(flags)


def fitting(
    module: nn.Module, example: dict[str, Any], share: int, repeats: int, runtime: Runtime
) -> tuple[int, Rehearsal]:
    """The largest micro-batch that fits, and what one will take: it divides `share`, a rank's batch, and is a multiple
    of `repeats`.

    On CUDA sizes are tried upwards; elsewhere one clip tells what more would need. All ranks take the smallest found.
    """
    module = module.to(runtime.device).train()
    sizes = [size for size in range(repeats, share + 1, repeats) if share % size == 0]
    limit, best = free_memory(runtime.device) * ROOM, sizes[0]
    if runtime.device.type != "cuda":
        expected = expect(module, _times(example, repeats), runtime)
        best = max([best, *(size for size in sizes if expected(size).memory <= limit)])
        best = parallel.smallest(best, runtime)
        return best, expected(best)
    needed: list[tuple[int, Rehearsal]] = []
    for size in sizes:
        try:
            needed.append((size, rehearse(module, _times(example, size), runtime, warm=False)))
        except MotionMAEError:
            break
        if needed[-1][1].memory > limit:
            break
        best = size
    torch.cuda.empty_cache()
    best = parallel.smallest(best, runtime)
    if not needed:
        return best, Rehearsal(0.0, 0)
    (first, one), (last, many) = needed[0], needed[-1]
    each = (many.memory - one.memory) / max(1, last - first)
    return best, Rehearsal(many.seconds / last * best, round(one.memory + each * (best - first)))


def expect(module: nn.Module, batch: dict[str, Any], runtime: Runtime) -> Callable[[int], Rehearsal]:
    """What micro-batches of any size would take, from the few clips of this batch: seconds and bytes a clip are equal.

    On a CPU they pass on one thread, whose time nothing else on the machine lengthens; all threads together are as many
    times as fast as they are with a product of matrices at that moment. A busy machine is told at once so.
    """
    threads = torch.get_num_threads()
    module = module.to(runtime.device).train()
    try:
        torch.set_num_threads(1 if runtime.device.type == "cpu" else threads)
        found, alone = rehearse(module, batch, runtime, warm=False), product(runtime.device, torch.float32, side=SIDE)()
        if found.seconds < QUICK:
            found = rehearse(module, batch, runtime, warm=False)
    finally:
        torch.set_num_threads(threads)
    faster = product(runtime.device, torch.float32, side=SIDE)() / alone if threads > 1 else 1.0
    fixed = sum(_local(value) * (4 if value.requires_grad else 1) for value in module.parameters())
    clips = _clips(batch)

    def of(size: int) -> Rehearsal:
        grown = (found.memory - fixed) * size / clips
        return Rehearsal(found.seconds / faster * size / clips, round(fixed + grown))

    return of


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on the device; on CPUs, what the system could give."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    try:
        with open("/proc/meminfo") as lines:
            return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def expectation(found: Rehearsal, plan: Plan, first: int) -> str:
    """The sentence of the plan that says what the run will take, without loading."""
    step = found.seconds * plan.accumulation
    return (
        f"about {found.memory / 2**30:.2f} GiB of memory for each rank, {step:.3g} s a step, "
        f"{clock(step * (plan.steps - first))} for {many(plan.steps - first, 'step')} if the data keep up"
    )


def _timed(module: nn.Module, batch: dict[str, Any], runtime: Runtime) -> float:
    begun = now(runtime.device)
    _pass(module, batch, runtime)
    return now(runtime.device) - begun


def _pass(module: nn.Module, batch: dict[str, Any], runtime: Runtime) -> None:
    with runtime.autocast():
        loss = module(batch)["loss"]
    loss.backward()


def _first(batch: dict[str, Any], count: int) -> dict[str, Any]:
    return {name: value[:count] if torch.is_tensor(value) else value for name, value in batch.items()}


def _times(example: dict[str, Any], size: int) -> dict[str, Any]:
    """The first clip of the example, `size` times."""
    return {
        name: value[:1].expand(size, *value.shape[1:]).contiguous() if torch.is_tensor(value) else value
        for name, value in example.items()
    }


def _clips(batch: dict[str, Any]) -> int:
    return max((len(value) for value in batch.values() if torch.is_tensor(value) and value.ndim), default=0)


def _storage(value: Tensor) -> torch.UntypedStorage:
    return (value.to_local() if isinstance(value, DTensor) else value).untyped_storage()


def _local(value: Tensor) -> int:
    part = value.to_local() if isinstance(value, DTensor) else value
    return part.numel() * part.element_size()
