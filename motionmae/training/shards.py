"""Sharded checkpoints: a folder into which each rank writes its own part, readable on any number of ranks and on one.

torch.distributed.checkpoint's format, with `about.json` beside it: step, config, versions and every file's CRC-32.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from motionmae.errors import MotionMAEError
from motionmae.runtime import Runtime


def write(target: Path, tensors: dict[str, Tensor], about: dict[str, str], runtime: Runtime) -> None:
    """Write the folder, by all ranks together; it gets its name when all of it is on the disk.

    Raises MotionMAEError, on every rank, if any of them cannot.
    """
    aside = target.with_name(f"{target.name}.part")
    problem, sums = None, {}
    if runtime.main:
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        except OSError as error:
            problem = str(error)
    problem = runtime.share(problem)
    if problem is None:
        try:
            save(dict(tensors), storage_writer=FileSystemWriter(aside))
            sums = {file.name: crc(file) for file in sorted(aside.glob(f"__{runtime.rank}_*"))}
        except Exception as error:  # a rank's own, or that of another which it was told of
            problem = f"rank {runtime.rank}: {str(error).splitlines()[0]}"
    found = runtime.gather((problem, sums))
    problem = next((told for told, _ in found if told), None)
    if runtime.main and problem is None:
        try:
            files = {name: value for _, part in found for name, value in part.items()}
            files[".metadata"] = crc(aside / ".metadata")
            (aside / "about.json").write_text(json.dumps({**about, "files": files}))
            flush(aside / "about.json")
            flush(aside)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(aside, target)
            flush(target.parent)
        except OSError as error:
            problem = str(error)
    problem = runtime.share(problem)
    if problem is not None:
        if runtime.main:
            shutil.rmtree(aside, ignore_errors=True)
        raise MotionMAEError(f"{target}: the checkpoint could not be written ({problem}); earlier ones are whole")


def verify(folder: Path) -> None:
    """Raise ValueError where a file of the folder is missing or is not what was written."""
    for name, value in json.loads((folder / "about.json").read_text())["files"].items():
        if not (folder / name).exists():
            raise ValueError(f"it lacks {name}")
        if crc(folder / name) != value:
            raise ValueError(f"the checksum of {name} does not match")


def read(
    folder: Path, state: dict[str, Tensor], parameters: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The folder's tensors, and what is told beside them.

    The tensors are whole, or cut like those of `state` and, for the optimiser, like its parameters.
    """
    reader = FileSystemReader(folder)
    tensors: dict[str, Tensor] = {}
    for name, saved in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(saved, TensorStorageMetadata), name
        like = state.get(name)
        if like is None and name.startswith("optimizer/"):
            like = parameters.get(name.split("/", 1)[1].rsplit("/", 1)[0])
        if like is not None and like.shape == saved.size:
            tensors[name] = torch.empty_like(like, dtype=saved.properties.dtype, requires_grad=False)
        else:
            tensors[name] = torch.empty(saved.size, dtype=saved.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one rank is meant
        load(tensors, storage_reader=reader)
    return tensors, json.loads((folder / "about.json").read_text())


def crc(file: Path) -> int:
    """CRC-32 of a file's bytes."""
    value = 0
    with file.open("rb") as content:
        while block := content.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
