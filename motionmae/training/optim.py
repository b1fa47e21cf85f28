"""The optimiser and its schedule: pure functions of a config and a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from motionmae.config import Optim, OptimKind, Run, check
from motionmae.errors import MotionMAEError
from motionmae.training.muon import Muon
from motionmae.words import many

Group = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A run in numbers: batch = micro x accumulation x ranks, `videos` in an epoch."""

    steps: int
    warmup: int
    batch: int
    micro: int
    accumulation: int
    ranks: int
    lr: float
    videos: int
    precision: str = ""
    """fp32, bf16 or fp16, settled once for the whole run."""


def plan(optim: Optim, run: Run, videos: int, repeats: int, ranks: int) -> Plan:
    """Steps from epochs (or as given), and the batch cut into micro-batches for each rank."""
    check(optim, "optim")
    check(run, "run")
    if optim.batch % (ranks * repeats):
        raise MotionMAEError(f"--optim.batch {optim.batch} must be a multiple of ranks x repeats, {ranks} x {repeats}")
    if run.micro_batch == "auto" and run.parallel == "fsdp":
        raise MotionMAEError("--run.micro-batch auto measures a whole model; with --run.parallel fsdp give a number")
    share = optim.batch // ranks
    micro = share if run.micro_batch in (None, "auto") else run.micro_batch
    if micro > share or share % micro or micro % repeats:
        raise MotionMAEError(
            f"--run.micro-batch {micro} must divide the batch of a rank, {share}, and be whole repeats of {repeats}"
        )
    steps = optim.steps if optim.steps is not None else math.ceil(optim.epochs * videos * repeats / optim.batch)
    warmup = round(max(1, steps - optim.tail) * (0.1 if endless(optim) else optim.warmup_epochs / optim.epochs))
    return Plan(steps, warmup, optim.batch, micro, share // micro, ranks, optim.lr * optim.batch / 256, videos)


def endless(optim: Optim) -> bool:
    """Whether the warm-up is no shorter than the run and would never reach its peak: then a tenth is taken."""
    return 0 < optim.epochs <= optim.warmup_epochs


def in_numbers(plan: Plan) -> str:
    """The plan's steps, and what makes up the clips of each."""
    made = f"{plan.micro} x {plan.accumulation} accumulated x {many(plan.ranks, 'rank')}"
    return f"{many(plan.steps, 'step')} of {many(plan.batch, 'clip')} = {made}"


def told(plan: Plan, optim: Optim) -> str:
    """The plan's learning rates in a line, and a second one where its warm-up is not the one asked for."""
    scale = plan.batch / 256
    start, end = optim.lr_start * scale, optim.lr_end * scale
    text = (
        f"learning rate from {start:.2e} in {many(plan.warmup, 'step')} to {plan.lr:.2e}, then down to {end:.2e}: "
        f"{optim.lr_start:.2e}, {optim.lr:.2e} and {optim.lr_end:.2e} x {plan.batch} / 256"
    )
    if optim.kind == "muon":
        text += f"\nMuon for hidden matrices, to {optim.lr_hidden:.2e} (--optim.lr-hidden), AdamW for the rest"
    if endless(optim):
        text += (
            f"\nwarning: a warm-up of {many(optim.warmup_epochs, 'epoch')} (--optim.warmup-epochs) is no shorter than "
            f"the run of {optim.epochs:g}; it is shortened to a tenth of the run, {many(plan.warmup, 'step')}"
        )
    return text


def learning_rate(step: int, plan: Plan, optim: Optim) -> float:
    """The rate of step 0 … steps - 1: a line up to the peak, then half a cosine down (Loshchilov, 2016, 1608.03983),
    which ends `optim.tail` steps before the run does.

    All three rates are for 256 clips and are multiplied by batch / 256, as in VideoMAE's code (`run_mae_pretraining.py`
    and `run_class_finetuning.py`: lr, min_lr, warmup_lr).
    """
    start, end = optim.lr_start * plan.batch / 256, optim.lr_end * plan.batch / 256
    if step < plan.warmup:
        return start + (plan.lr - start) * step / plan.warmup
    done = min(1.0, (step - plan.warmup) / max(1, plan.steps - optim.tail - plan.warmup))
    return end + (plan.lr - end) * 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Give each group of parameters its share of the schedule's rate, which is given back."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def parameter_groups(module: nn.Module, optim: Optim, peak: float, layer_decay: float = 1.0) -> list[Group]:
    """Parameters by layer, decay and optimiser, as the module tells them; `scale` times the schedule's rate is theirs.

    layer_decay below 1 makes layer l of L learn at layer_decay ** (L - l) of the head's rate (Bao et al., 2021,
    arXiv 2106.08254). With `optim.kind` muon a group of hidden matrices has their number in a parameter as `matrices`,
    and a scale that makes of `peak`, the schedule's highest rate, `optim.lr_hidden`.
    """
    told: Any = module  # an objective tells its layers(), undecayed() and hidden_matrices()
    layers = told.layers()
    layer_of = {id(value): number for number, layer in enumerate(layers) for value in layer}
    undecayed = {id(value) for value in told.undecayed()}
    hidden = {id(value): count for value, count in told.hidden_matrices()} if optim.kind == "muon" else {}
    groups: dict[tuple[float, bool, int], Group] = {}
    for value in module.parameters():
        if not value.requires_grad:
            continue
        scale = layer_decay ** (len(layers) - 1 - layer_of[id(value)])
        decay, count = id(value) not in undecayed, hidden.get(id(value), 0)
        fresh = {"params": [], "weight_decay": optim.weight_decay if decay else 0.0, "scale": scale}
        if count:
            fresh |= {"scale": scale * optim.lr_hidden / peak, "matrices": count}
        groups.setdefault((scale, decay, count), fresh)["params"].append(value)
    return list(groups.values())


def adamw(groups: list[Group], optim: Optim) -> torch.optim.Optimizer:
    """AdamW, fused (Loshchilov and Hutter, 2017, arXiv 1711.05101)."""
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def muon(groups: list[Group], optim: Optim) -> torch.optim.Optimizer:
    """Muon for hidden matrices, AdamW for the rest."""
    return Muon(groups, optim.lr, optim.betas, optim.momentum)


KINDS: dict[OptimKind, Callable[[list[Group], Optim], torch.optim.Optimizer]] = {"adamw": adamw, "muon": muon}


def optimiser(module: nn.Module, optim: Optim, peak: float, layer_decay: float = 1.0) -> torch.optim.Optimizer:
    """The optimiser that `optim.kind` names, over all that the module learns; `peak` is the plan's highest rate."""
    return KINDS[optim.kind](parameter_groups(module, optim, peak, layer_decay), optim)


def average(module: nn.Module, optim: Optim) -> dict[str, torch.Tensor]:
    """Copies of the learnt parameters, from which their running mean goes on; none where `optim.ema` is not set."""
    if optim.ema is None:
        return {}
    return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}


@torch.no_grad()
def move_average(mean: dict[str, torch.Tensor], module: nn.Module, optim: Optim, step: int) -> None:
    """Move the running mean towards the parameters after step 0, 1, …: mean = d mean + (1 - d) parameter.

    d is `optim.ema`, or (1 + step) / (10 + step) while that is less, so that the first weights are soon forgotten.
    """
    if not mean or optim.ema is None:
        return
    decay = min(optim.ema, (1 + step) / (10 + step))
    parameters = dict(module.named_parameters())
    values, targets = list(mean.values()), [parameters[name].detach() for name in mean]
    torch._foreach_lerp_(values, targets, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
