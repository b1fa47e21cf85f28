"""Checkpoints that survive: one safetensors file, written aside, flushed and renamed, and verified when read.

Names in the file: `model/…` the objective's weights, `optimizer/PARAMETER/…` its state, `rng/…` the generators; the
metadata holds the step, the config, the versions and a checksum.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from motionmae import __version__
from motionmae.errors import MotionMAEError


def save(
    folder: Path, step: int, objective: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], keep: int
) -> Path:
    """Write checkpoints/step-N.safetensors and remove all but the newest `keep`. Raises MotionMAEError if it cannot."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _gather(objective, optimizer).items()}
    metadata = {
        "format": "pt",
        "step": str(step),
        "config": json.dumps(config),
        "versions": json.dumps({"motionmae": __version__, "torch": torch.__version__}),
        "checksum": str(checksum(tensors)),
    }
    target = folder / "checkpoints" / f"step-{step:08d}.safetensors"
    aside = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(aside), metadata)
        _flush(aside)
        os.replace(aside, target)
        _flush(target.parent)
    except Exception as error:  # safetensors raises its own classes for a full disk
        aside.unlink(missing_ok=True)
        raise MotionMAEError(
            f"{target}: the checkpoint could not be written ({error}); earlier ones are whole"
        ) from error
    for old in found(folder)[:-keep] if keep > 0 else []:
        old.unlink(missing_ok=True)
    return target


def restore(folder: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Fill the objective, the optimiser and the generators from the newest whole checkpoint; its step, 0 if none.

    A damaged one is passed over with a warning.
    """
    for file in reversed(found(folder)):
        try:
            with safe_open(str(file), "pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                metadata = content.metadata()
            if checksum(tensors) != int(metadata["checksum"]):
                raise ValueError("its checksum does not match")
        except Exception as error:  # any damage, from a short header to a flipped bit
            warnings.warn(f"{file} is damaged and passed over: {error}", stacklevel=2)
            continue
        _scatter(tensors, objective, optimizer)
        return int(metadata["step"])
    return 0


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted(folder.glob("checkpoints/step-*.safetensors"))


def checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 over names and bytes, in the order of the names."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        if tensors[name].numel():
            value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _gather(objective: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in objective.state_dict().items()}
    for name, parameter in objective.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    return tensors


def _scatter(tensors: dict[str, Tensor], objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}
    objective.load_state_dict(weights)
    parameters = dict(objective.named_parameters())
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            parameter, key = name[10:].rsplit("/", 1)
            optimizer.state[parameters[parameter]][key] = value.to(parameters[parameter].device)
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
