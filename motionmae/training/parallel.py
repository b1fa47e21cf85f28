"""One module as the ranks run it: compiled, replicated (DDP) or sharded (FSDP2). It knows no model.

A sharded run keeps the whole objective beside its shards, for inspections: `refresh` brings it up to date.
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from motionmae.config import Run
from motionmae.errors import MotionMAEError
from motionmae.runtime import SEEN, Runtime

SHARDS_ON_CPU = SEEN
"""On a CPU 2.6 cannot shard, and 2.7 adds up the ranks' gradients where it should average them
(https://github.com/pytorch/pytorch/issues/162338); what is between was not tried."""


def place(objective: nn.Module, run: Run, runtime: Runtime) -> nn.Module:
    """The objective on the device, or a sharded copy of it: what is optimised and saved.

    Sharded are the entries of each ModuleList (a transformer's blocks) one by one, then what is left
    (Zhao et al., 2023, arXiv 2304.11277). Raises MotionMAEError where this PyTorch cannot.
    """
    if run.parallel == "ddp":
        return objective.to(runtime.device)
    if runtime.ranks == 1:
        raise MotionMAEError("--run.parallel fsdp: needs several ranks (torchrun); this run has one")
    if runtime.device.type == "cpu" and not SHARDS_ON_CPU:
        raise MotionMAEError(
            f"--run.parallel fsdp: on a CPU it needs PyTorch 2.13 or later, this is {torch.__version__}; take ddp"
        )
    module = copy.deepcopy(objective)
    mesh = init_device_mesh(runtime.device.type, (runtime.ranks,), mesh_dim_names=("ranks",))
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    for block in [block for part in reversed(lists) for block in part]:  # inner ones first
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    if runtime.main:
        objective.to(runtime.device)
    return module


def replicate(module: nn.Module, runtime: Runtime) -> nn.Module:
    """The module with gradients averaged over the ranks; a sharded one averages its own."""
    if runtime.ranks == 1 or any(isinstance(value, DTensor) for value in module.parameters()):
        return module
    ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids)  # pyright: ignore[reportArgumentType]


def synchronise(module: nn.Module, now: bool) -> None:
    """Whether the next backward pass exchanges gradients: only that of the last micro-batch needs to."""
    if isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = now
    inner = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
    if isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(now)


def refresh(objective: nn.Module, module: nn.Module, runtime: Runtime) -> None:
    """Bring the whole objective of rank 0 up to date with its shards; all ranks take part."""
    if objective is module:
        return
    whole = objective.state_dict()
    for name, value in module.state_dict().items():
        value = full(value)
        if runtime.main:
            whole[name].copy_(value)


def full(value: Tensor) -> Tensor:
    """A tensor without its sharding; all ranks take part."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def smallest(value: int, runtime: Runtime) -> int:
    """The smallest of the ranks' values."""
    if runtime.ranks == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)
