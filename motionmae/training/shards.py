"""Sharded checkpoints: a folder into which each rank writes its own part, readable on any number of ranks and on one.

What a part is, and how it is checked, `stored.py` says.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from motionmae import files, stored
from motionmae.errors import MotionMAEError
from motionmae.runtime import Runtime


def write(target: Path, tensors: dict[str, Tensor], about: dict[str, str], runtime: Runtime) -> None:
    """Write the folder, by all ranks together; it gets its name when all of it is on the disk.

    Raises MotionMAEError, on every rank, if any of them cannot.
    """
    aside = target.with_name(f"{target.name}.part")
    problem, name, header = None, f"part-{runtime.rank:05d}.safetensors", ""
    if runtime.main:
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        except OSError as error:
            problem = str(error)
    problem = runtime.share(problem)
    if problem is None:
        try:
            held, pieces = _own(tensors, runtime)
            header = stored.save_checked(aside / name, held, {"pieces": json.dumps(pieces)})["header"]
        except Exception as error:  # whatever it is: the other ranks wait for this word
            problem = f"rank {runtime.rank}: {str(error).splitlines()[0]}"
    found = runtime.gather((problem, name, header))
    problem = next((told for told, _, _ in found if told), None)
    if runtime.main and problem is None:
        try:
            stored.write_about(aside, about, {part: header for _, part, header in found})
            files.flush(aside)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(aside, target)
            files.flush(target.parent)
        except (OSError, MotionMAEError) as error:
            problem = str(error)
    problem = runtime.share(problem)
    if problem is not None:
        if runtime.main:
            shutil.rmtree(aside, ignore_errors=True)
        raise MotionMAEError(f"{target}: the checkpoint could not be written ({problem}); earlier ones are whole")


def _own(tensors: dict[str, Tensor], runtime: Runtime) -> tuple[dict[str, Tensor], dict[str, list[object]]]:
    """What this rank writes, and of which stretch of the whole each is: its shards; rank 0 what every rank has."""
    held: dict[str, Tensor] = {}
    pieces: dict[str, list[object]] = {}
    for name, value in tensors.items():
        sharding = _sharding(value)
        if sharding is not None:
            assert isinstance(value, DTensor)
            start, stop = _stretch(value, sharding)
            if start < stop or runtime.main:  # the last ranks have nothing of what is short
                held[name], pieces[name] = value.to_local(), [start, sharding, list(value.shape)]
        elif runtime.main:
            held[name] = value.to_local() if isinstance(value, DTensor) else value
    return held, pieces


def _sharding(value: Tensor) -> int | None:
    """The dimension along which a tensor is cut, if it is."""
    if not isinstance(value, DTensor):
        return None
    (placement,) = value.placements  # the mesh of `parallel.place` has one dimension
    return placement.dim if isinstance(placement, Shard) else None


def _stretch(value: DTensor, dim: int) -> tuple[int, int]:
    """Where this rank's shard starts and stops: as torch.chunk cuts, so that the last ones may be short or empty."""
    size = value.shape[dim]
    each = -(-size // value.device_mesh.size())
    start = min(size, each * value.device_mesh.get_local_rank())
    return start, min(size, start + each)


def read(
    folder: Path, state: dict[str, Tensor], parameters: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The folder's tensors, and what is told beside them.

    The tensors are whole, or cut like those of `state` and, for the optimiser, like its parameters: of these a rank
    reads the parts that its own shard lies in.
    """
    opened = stored.Stored(folder)
    tensors: dict[str, Tensor] = {}
    for name, shape in opened.shapes.items():
        like = state.get(name)
        if like is None and name.startswith("optimizer/"):
            like = parameters.get(name.split("/", 1)[1].rsplit("/", 1)[0])
        sharding = None if like is None else _sharding(like)
        if sharding is None or like is None or tuple(like.shape) != shape:
            tensors[name] = opened.tensor(name)
            continue
        assert isinstance(like, DTensor)
        local = opened.stretch(name, sharding, *_stretch(like, sharding)).to(like.device)
        tensors[name] = DTensor.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
    return tensors, opened.about
