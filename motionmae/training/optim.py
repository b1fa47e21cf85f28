"""The optimiser and its schedule: pure functions of a config and a step."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from motionmae.config import Optim, Run
from motionmae.errors import MotionMAEError


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


def plan(optim: Optim, run: Run, videos: int, repeats: int, ranks: int) -> Plan:
    """Steps from epochs (or as given), and the batch cut into micro-batches for each rank."""
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
    if steps < 1:
        raise MotionMAEError(f"the run would have {steps} steps; raise --optim.epochs or set --optim.steps")
    warmup = round(steps * optim.warmup_epochs / optim.epochs)
    return Plan(steps, warmup, optim.batch, micro, share // micro, ranks, optim.lr * optim.batch / 256, videos)


def learning_rate(step: int, plan: Plan, optim: Optim) -> float:
    """The rate of step 0 … steps - 1: a line up to the peak, then half a cosine down (Loshchilov, 2016, 1608.03983)."""
    if step < plan.warmup:
        return optim.lr_start + (plan.lr - optim.lr_start) * step / plan.warmup
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return optim.lr_end + (plan.lr - optim.lr_end) * 0.5 * (1 + math.cos(math.pi * done))


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter has weight decay: matrices have; biases, norms, positions and mask tokens have not."""
    return parameter.ndim >= 2 and not name.endswith("positions.table")


def layer_of(name: str, depth: int) -> int:
    """0 for the embedding and its positions, 1 … depth for the encoder's blocks, depth + 1 for what comes after."""
    block = re.search(r"encoder\.blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return 0 if re.search(r"encoder\.(embed|positions)\.", name) else depth + 1


def parameter_groups(module: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameters by decay and by layer; a group's `scale` multiplies the learning rate.

    layer_decay below 1 makes layer l of L learn at layer_decay ** (L - l) of the head's rate (Bao et al., 2021,
    arXiv 2106.08254).
    """
    named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    depth = 1 + max((int(m[1]) for name, _ in named if (m := re.search(r"encoder\.blocks\.(\d+)\.", name))), default=-1)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, value in named:
        layer, decay = layer_of(name, depth) if layer_decay != 1.0 else depth + 1, decays(name, value)
        scale = layer_decay ** (depth + 1 - layer)
        fresh = {"params": [], "weight_decay": weight_decay if decay else 0.0, "scale": scale}
        groups.setdefault((layer, decay), fresh)["params"].append(value)
    return list(groups.values())


def adamw(module: nn.Module, optim: Optim, layer_decay: float = 1.0) -> torch.optim.AdamW:
    """AdamW, fused (Loshchilov and Hutter, 2017, arXiv 1711.05101)."""
    groups = parameter_groups(module, optim.weight_decay, layer_decay)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def average(module: nn.Module, optim: Optim) -> dict[str, torch.Tensor]:
    """Copies of the learnt parameters, from which their running mean goes on; none where `optim.ema` is not set."""
    if optim.ema is None:
        return {}
    if not 0 < optim.ema < 1:
        raise MotionMAEError(f"--optim.ema {optim.ema}: must be between 0 and 1, for instance 0.9999")
    return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}


@torch.no_grad()
def follow(mean: dict[str, torch.Tensor], module: nn.Module, optim: Optim, step: int) -> None:
    """Move the running mean towards the parameters after step 0, 1, …: mean = d mean + (1 - d) parameter.

    d is `optim.ema`, or (1 + step) / (10 + step) while that is less, so that the first weights are soon forgotten.
    """
    if not mean or optim.ema is None:
        return
    decay = min(optim.ema, (1 + step) / (10 + step))
    parameters = dict(module.named_parameters())
    values, targets = list(mean.values()), [parameters[name].detach() for name in mean]
    torch._foreach_lerp_(values, targets, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
