"""Tensors in files: written aside and renamed, checked when read.

Its one rule: no number leaves here before its checksum was compared, and nothing is ever unpickled.

A file is a safetensors file. Its metadata holds `sums`, the CRC-32 of each tensor's name, dtype, shape and bytes, and
`header`, that of everything else in the metadata. A checkpoint is one file, or a folder of them, a part from each rank,
with `about.json`, which names the parts and the `header` of each.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.files import replacing, write_text

ABOUT = "about.json"
SUFFIXES = (".safetensors", ".shards")
"""Of a checkpoint in one file, and of one in a folder of parts."""


class Damaged(ValueError):
    """What a file holds is not what was written; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Piece:
    """A tensor, or the stretch of one along `dim` from `start` on that a part holds; `shape` is the whole's."""

    start: int
    dim: int
    shape: tuple[int, ...]


def crc_of(name: str, value: Tensor) -> int:
    """CRC-32 of a tensor's name, dtype, shape and bytes."""
    found = zlib.crc32(f"{name}{value.dtype}{tuple(value.shape)}".encode())
    value = value.detach().cpu().contiguous()
    return zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found) if value.numel() else found


def header_of(metadata: Mapping[str, Any]) -> int:
    """CRC-32 of the metadata, but for the key that holds it."""
    kept = {name: value for name, value in metadata.items() if name != "header"}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def save(file: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all. Raises MotionMAEError where it cannot be written."""
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(file) as aside:
        try:
            save_file(held, aside, dict(metadata))
        except SafetensorError as error:  # its own class for a full disk
            raise OSError(str(error)) from error


def save_checked(
    file: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, str]
) -> dict[str, str]:
    """Write a file that `Stored` reads; returns its metadata."""
    sums = json.dumps({name: crc_of(name, value) for name, value in tensors.items()})
    metadata = {"format": "pt", **about, "sums": sums}
    metadata["header"] = str(header_of(metadata))
    save(file, tensors, metadata)
    return metadata


class Stored:
    """A checkpoint of ours, opened: `about` is what is told beside the tensors, `shapes` says which there are.

    Raises Damaged, from any method, for what does not agree with itself; OSError and safetensors' own errors for what
    cannot be read at all; and MotionMAEError for a folder in the format of before, which can hold code.
    """

    def __init__(self, place: str | os.PathLike[str]):
        self.place = Path(place)
        if self.place.is_dir():
            self.about, files = _about(self.place)
        else:
            self.about, files = {}, {self.place.name: None}
        self.pieces: dict[str, list[tuple[Piece, _File]]] = {}
        for name, header in files.items():
            file = _File(self.place / name if self.place.is_dir() else self.place)
            if header is not None and file.metadata.get("header") != header:
                raise Damaged(f"{name} is not of this checkpoint")
            self.about = self.about or file.metadata
            for key, piece in file.pieces().items():
                self.pieces.setdefault(key, []).append((piece, file))
        self.shapes = {name: _whole(name, held) for name, held in self.pieces.items()}
        """Of the whole tensors, known before any is read."""

    def tensor(self, name: str) -> Tensor:
        """A whole tensor on the CPU."""
        held = self.pieces[name]
        found = [file.tensor(name) for _, file in held]
        return found[0] if len(held) == 1 else torch.cat(found, held[0][0].dim)

    def stretch(self, name: str, dim: int, start: int, stop: int) -> Tensor:
        """The entries of a tensor from `start` to before `stop` along `dim`: only the parts that hold them are read."""
        found = []
        for piece, file in self.pieces[name] if self.pieces[name][0][0].dim == dim else []:
            first, last = max(start, piece.start), min(stop, piece.start + file.shape(name)[dim])
            if first < last:
                found.append(file.tensor(name).narrow(dim, first - piece.start, last - first))
        return torch.cat(found, dim) if found else self.tensor(name).narrow(dim, start, stop - start).clone()

    def verify(self) -> None:
        """Read and check all of it."""
        for name, held in self.pieces.items():
            for _, file in held:
                file.tensor(name)


class _File:
    """One file with the checksums of what is in it."""

    def __init__(self, path: Path):
        self.path = path
        self.opened = safe_open(path, "pt")
        self.metadata: dict[str, str] = self.opened.metadata() or {}
        self.names = set(self.opened.keys())
        if "checksum" in self.metadata and "header" not in self.metadata:
            self.sums = self._sums_of_before()
            return
        if "header" not in self.metadata or "sums" not in self.metadata:
            raise Damaged("its metadata has no config" if "config" not in self.metadata else "it lacks its checksums")
        if str(header_of(self.metadata)) != self.metadata["header"]:
            raise Damaged("the checksum of its metadata does not match")
        self.sums: dict[str, int] = json.loads(self.metadata["sums"])
        if self.names != self.sums.keys():
            odd = sorted(self.names ^ self.sums.keys())[0]
            raise Damaged(f"it {'has no checksum for' if odd in self.names else 'lacks'} {odd}")

    def _sums_of_before(self) -> dict[str, int]:
        """The checksums of a file of the first cut, which had one for all tensors and none for the metadata."""
        value, sums = 0, {}
        for name in sorted(self.names):
            tensor = self.opened.get_tensor(name)
            value = zlib.crc32(f"{name}{tuple(tensor.shape)}".encode(), value)
            if tensor.numel():
                value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
            sums[name] = crc_of(name, tensor)
        if str(value) != self.metadata["checksum"]:
            raise Damaged("its checksum does not match")
        return sums

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.opened.get_slice(name).get_shape())

    def pieces(self) -> dict[str, Piece]:
        """What each tensor here is of the whole one."""
        told = json.loads(self.metadata.get("pieces", "{}"))
        return {
            name: Piece(told[name][0], told[name][1], tuple(told[name][2]))
            if name in told
            else Piece(0, 0, self.shape(name))
            for name in sorted(self.names)
        }

    def tensor(self, name: str) -> Tensor:
        value = self.opened.get_tensor(name)
        if crc_of(name, value) != self.sums[name]:
            raise Damaged(f"the checksum of {name} does not match")
        return value


def write_about(folder: Path, about: Mapping[str, str], parts: Mapping[str, str]) -> None:
    """Write what is told beside the parts, and which these are: their names with their `header`."""
    told = {"about": dict(about), "parts": dict(parts)}
    write_text(folder / ABOUT, json.dumps({**told, "header": header_of(told)}))


def _about(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    if (folder / ".metadata").exists():
        raise MotionMAEError(
            f"{folder}: is a sharded checkpoint of an earlier version, whose format can hold code, and is not read: "
            "go on with the version that wrote it, or start anew"
        )
    told = json.loads((folder / ABOUT).read_text())
    if not isinstance(told, dict) or told.get("header") != header_of(told):
        raise Damaged(f"the checksum of {ABOUT} does not match")
    missing = [name for name in told["parts"] if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise Damaged(f"it lacks {missing[0]}")
    return told["about"], told["parts"]


def _whole(name: str, held: list[tuple[Piece, _File]]) -> tuple[int, ...]:
    """The shape of the whole, which its pieces, put in order here, must fill without a gap."""
    held.sort(key=lambda one: one[0].start)
    piece, end = held[0][0], 0
    for other, file in held:
        shape = list(file.shape(name))
        length = shape[piece.dim] if shape else 0
        if shape:
            shape[piece.dim] = piece.shape[piece.dim]
        if (other.shape, other.dim, other.start, tuple(shape)) != (piece.shape, piece.dim, end, piece.shape):
            raise Damaged(f"the parts of {name} do not fit together")
        end += length
    if piece.shape and end != piece.shape[piece.dim]:
        raise Damaged(f"it lacks a part of {name}")
    return piece.shape
