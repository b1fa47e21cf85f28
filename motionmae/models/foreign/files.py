"""The tensors of other projects' files: .pth, .bin and .pt of PyTorch, safetensors, folders of parts.

Its one rule: of a pickle nothing but tensors, plain values and argparse's Namespace is ever made.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.files import unpressed

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Of transformers' weights in a folder, whole or an index of parts; the first that is there is taken."""
DEEPSPEED = "mp_rank_00_model_states.pt"
"""Of DeepSpeed's weights in a folder."""
KEYS = ("model", "module", "state_dict", "model_state_dict")
"""Under which the weights stand in a file of PyTorch."""


@dataclass(frozen=True)
class Foreign:
    """A file's tensors under its own names, the options of the program that wrote it, and transformers' config."""

    path: Path
    state: dict[str, Tensor]
    args: Any = None
    hub: dict[str, Any] = field(default_factory=dict)


def is_foreign_folder(path: Path) -> bool:
    """Whether a folder holds weights as transformers or DeepSpeed writes them."""
    return any((path / name).is_file() for name in (*NAMES, DEEPSPEED))


def open_foreign(path: Path) -> Foreign:
    """A file or folder of another project. Raises MotionMAEError where it has no weights; others if it is broken."""
    if path.is_dir():
        path = path / next(name for name in (*NAMES, DEEPSPEED) if (path / name).is_file())
    args: Any = None
    if path.name.endswith(".index.json"):
        state = _parts(path)
    elif path.suffix == ".safetensors":
        state = load_file(path)
    else:
        content = _unpickled(path)
        found = next((content[key] for key in KEYS if isinstance(content.get(key), Mapping)), content)
        state, args = dict(found), content.get("args")
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(state) / 2:
        raise MotionMAEError(
            f"{path}: holds no weights: none of {', '.join(KEYS)} is in it, nor tensors by their names"
        )
    _whole(path, tensors)
    about = path.parent / "config.json"
    hub = json.loads(about.read_text()) if path.name in NAMES and about.is_file() else {}
    return Foreign(path, tensors, args, hub if isinstance(hub, dict) else {})


def _parts(index: Path) -> dict[str, Tensor]:
    places: dict[str, str] = json.loads(index.read_text())["weight_map"]
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise MotionMAEError(f"{index}: names {name}, which is not a file beside it")
        if not (index.parent / name).is_file():
            raise MotionMAEError(f"{index}: lacks {name}, which it names")
        part = load_file(index.parent / name) if name.endswith(".safetensors") else _unpickled(index.parent / name)
        state |= {key: value for key, value in part.items() if isinstance(value, Tensor)}
    lacking = sorted(places.keys() - state.keys())
    if lacking:
        raise MotionMAEError(f"{index}: lacks {lacking[0]}, which it names")
    return state


def _unpickled(path: Path) -> Mapping[str, Any]:
    """A file of PyTorch, of which nothing but tensors, plain values and a Namespace is made."""
    _grown(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # pickle's own class; the message names what was refused
            raise
        raise MotionMAEError(f"{path}: holds more than tensors and is not read ({str(error)[:200]})") from error
    if not isinstance(content, Mapping):
        raise MotionMAEError(f"{path}: is not a checkpoint: it holds a {type(content).__name__}")
    return content


def _grown(path: Path) -> None:
    """Refuse a file that is larger in memory than on the disk: one that was pressed, as PyTorch presses nothing, and a
    pickle that makes an empty array of any length, which PyTorch allows."""
    if zipfile.is_zipfile(path):
        records = unpressed(path)
        with zipfile.ZipFile(path) as file:
            pickles = [file.read(record) for record in records if record.filename.endswith(".pkl")]
    else:
        pickles = [path.read_bytes()]
    if any(b"bytearray" in content for content in pickles):
        raise MotionMAEError(f"{path}: holds more than tensors and is not read (it asks for memory)")


def _whole(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse a tensor that says it is larger than what the file holds for it: copied, it would fill the memory."""
    for name, value in tensors.items():
        if (
            value.is_sparse
            or value.is_quantized
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise MotionMAEError(
                f"{path}: {name} of shape {tuple(value.shape)} is larger than what the file holds for it"
            )
