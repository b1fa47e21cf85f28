"""Checkpoints that survive: written aside, flushed and renamed, verified when read; a damaged one is passed over.

One safetensors file, or one folder of shards where the weights are sharded. Names in both: `model/…` the objective's
weights, `optimizer/PARAMETER/…` its state, `average/…` the weights' running mean, `scaler/…` the loss scale; beside
them stand the step, the config and the versions; `stored.py` has the checksums. The step says where the data and the
schedule are, and every step seeds the generators anew (`Runtime.seed`), so that neither has a state to keep.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from motionmae import __version__, files, stored
from motionmae.errors import MotionMAEError
from motionmae.runtime import Runtime
from motionmae.stored import SUFFIXES
from motionmae.training import shards
from motionmae.words import many

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@dataclass
class State:
    """All that a run changes: weights, the optimiser, the loss scale and, by option, the weights' running mean."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within it no other process trains in the folder, which is made. Raises MotionMAEError where one does.

    The lock, on run.lock, ends with the process, however that ends, and the loader's workers do not inherit it. On
    Windows there is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MotionMAEError(f"--run.out {folder}: cannot be written ({error.strerror})") from error
    try:
        try:
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise MotionMAEError(
                f"{folder}: another process trains in this folder; choose another --run.out"
            ) from error
        except OSError as error:
            warnings.warn(
                f"{folder}: its file system has no locks ({error}); start one run there at a time", stacklevel=3
            )
        yield
    finally:
        os.close(handle)


def save(folder: Path, step: int, state: State, told: dict[str, Any], keep: int, runtime: Runtime) -> Path:
    """Write checkpoints/step-N and remove all but the newest `keep`; 0 keeps all. Sharded weights need all ranks.

    `told` is written beside the weights: the config and the plan. Raises MotionMAEError if it cannot be written; what
    was there before is untouched then.
    """
    tensors = named(state)
    cut = sharded(state)
    about = {
        "step": str(step),
        **{name: json.dumps(value) for name, value in told.items()},
        "versions": json.dumps({"motionmae": __version__, "torch": torch.__version__}),
    }
    target = folder / "checkpoints" / f"step-{step:08d}{SUFFIXES[cut]}"
    if cut:
        shards.write(target, tensors, about, runtime)
    elif runtime.main:
        _write(target, tensors, about)
    if runtime.main and keep > 0:
        older = [file for file in found(folder) if step_of(file) < step]
        for file in older[: len(older) - keep + 1] if len(older) >= keep else []:
            files.remove(file)
    return target


def restore(folder: Path, state: State, runtime: Runtime) -> tuple[int, dict[str, Any]]:
    """Fill the state from the newest whole checkpoint, single or sharded; its step, 0 if there is none, and its plan.

    A damaged one is set aside as `….damaged` with a warning. Raises MotionMAEError where all are damaged.
    """
    content = None
    file: Path | None = None
    if runtime.main:
        file, content = newest_whole(folder)
    file = runtime.share(file)
    if file is None:
        return 0, {}
    if file.suffix == SUFFIXES[1]:
        tensors, about = shards.read(file, named(state), _parameters(state))
    else:
        tensors, about = content or _read(file)
    _fill(state, tensors, file)
    plan = files.parsed(about.get("plan", "{}"), f"{file}: its plan")
    if not isinstance(plan, dict):
        raise MotionMAEError(f"{file}: its plan is {plan!r:.80}, not one")
    return step_of(file), plan


def newest_whole(folder: Path) -> tuple[Path | None, tuple[dict[str, Tensor], dict[str, str]] | None]:
    """The newest checkpoint that passes its check and, of a single file, its content."""
    for part in folder.glob("checkpoints/*.part"):
        files.remove(part)  # what a killed save has left
    kept = found(folder)
    for file in reversed(kept):
        try:
            if file.suffix != SUFFIXES[1]:
                return file, _read(file)
            stored.Stored(file).verify()
            return file, None
        except MotionMAEError:  # of a kind that is not read at all: it is not damaged
            raise
        except PermissionError as error:
            raise MotionMAEError(f"{file}: cannot be read ({error})") from error
        except Exception as error:  # any damage, from a short header to a flipped bit
            warnings.warn(f"{file} is damaged and passed over: {error}", stacklevel=2)
            aside = file.with_name(f"{file.name}.damaged")
            files.remove(aside)
            os.replace(file, aside)
    if kept:
        raise MotionMAEError(
            f"{folder}: of its {many(len(kept), 'checkpoint')} none is whole (they are kept as *.damaged); repeat the "
            f"command to start again from step 0"
        )
    return None, None


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    named = (file for file in folder.glob("checkpoints/step-*") if file.suffix in SUFFIXES)
    return sorted((file for file in named if file.stem.removeprefix("step-").isdecimal()), key=step_of)


def step_of(file: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(file.stem.removeprefix("step-"))


def sharded(state: State) -> bool:
    """Whether each rank has its part of the weights alone."""
    return any(isinstance(value, DTensor) for value in state.objective.parameters())


def named(state: State) -> dict[str, Tensor]:
    """The state's tensors under the names that a checkpoint gives them."""
    tensors = {f"model/{name}": value for name, value in state.objective.state_dict().items()}
    for name, parameter in state.objective.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    tensors |= {f"average/{name}": value for name, value in state.average.items()}
    if state.scaler.is_enabled():
        scale = state.scaler.state_dict()
        tensors["scaler/scale"] = torch.tensor(scale["scale"], dtype=torch.float64)
        tensors["scaler/growth"] = torch.tensor(scale["_growth_tracker"])
    return tensors


def _parameters(state: State) -> dict[str, Tensor]:
    return dict(state.objective.named_parameters())


@torch.no_grad()
def _fill(state: State, tensors: dict[str, Tensor], file: Path) -> None:
    """Put whole tensors, or shards cut like the state's own, where they belong."""
    weights, parameters = state.objective.state_dict(), _parameters(state)
    lacking = [name for name in weights if f"model/{name}" not in tensors]
    if lacking:
        raise MotionMAEError(f"{file}: lacks {lacking[0]}: it is of another model than this run's config says")
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        parameter, _, key = rest.rpartition("/")
        known = {"model": weights, "average": state.average, "optimizer": parameters}.get(kind, {})
        target = known.get(parameter if kind == "optimizer" else rest)
        if target is None and kind in ("model", "optimizer"):
            raise MotionMAEError(f"{file}: holds {name}, which the model of this run's config has not")
        if target is None:
            continue
        if kind == "optimizer":
            if not value.is_floating_point() or (value.shape != target.shape and value.numel() != 1):
                raise MotionMAEError(f"{file}: {name} is {value.dtype} of shape {tuple(value.shape)}, no optimiser's")
            value = _like(value, target) if value.shape == target.shape else value
            state.optimizer.state[parameters[parameter]][key] = value.to(target.device)
        elif value.shape != target.shape:
            raise MotionMAEError(
                f"{file}: {rest} has the shape {tuple(value.shape)}; this run's config says {tuple(target.shape)}"
            )
        else:
            target.copy_(_like(value, target))
    if "scaler/scale" in tensors and state.scaler.is_enabled():
        kept = {"scale": tensors["scaler/scale"].item(), "_growth_tracker": int(tensors["scaler/growth"])}
        state.scaler.load_state_dict(state.scaler.state_dict() | kept)


def _like(value: Tensor, target: Tensor) -> Tensor:
    """The value cut as the target is, where that is sharded; all ranks take part then."""
    if not isinstance(target, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def _write(target: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    try:
        stored.save_checked(target, tensors, about)
    except MotionMAEError as error:
        raise MotionMAEError(f"{error}; earlier checkpoints are whole") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    opened = stored.Stored(file)
    return {name: opened.tensor(name) for name in opened.shapes}, opened.about
