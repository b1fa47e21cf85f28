"""A table of embeddings as it is read back, whoever made it.

Its one rule: nothing in it is believed before it was asked: it may have come from anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open

from motionmae.errors import MotionMAEError
from motionmae.files import parsed, read_json, unpressed
from motionmae.inference.embedding import Row
from motionmae.inference.features import COLUMNS, ENDINGS, arrow_of, rows_beside
from motionmae.words import many

KINDS = dict.fromkeys(COLUMNS, (str,)) | {"start": (int, float), "end": (int, float), "frames": (list,)}
"""What each column of a row holds."""


@dataclass(frozen=True)
class Embeddings:
    """A table: `vectors` of each layer, [n d] or [n tokens d], beside their `rows`; `about` says what made them."""

    about: dict[str, Any]
    rows: list[Row]
    vectors: dict[int, Shaped[np.ndarray, "n ..."]]

    def of(self, layer: int | None) -> Shaped[np.ndarray, "n ..."]:
        """The vectors of a layer, by default the last; raises MotionMAEError where the table has no such layer."""
        if layer is None:
            return self.vectors[max(self.vectors)]
        if layer not in self.vectors:
            raise MotionMAEError(f"--layer {layer}: the table has the layers {sorted(self.vectors)}")
        return self.vectors[layer]


def read_features(path: str | os.PathLike[str]) -> Embeddings:
    """A table of motionmae embed, of any of its kinds; rows without vectors (they say why) are left out.

    Raises MotionMAEError where the file is none.
    """
    file = Path(path)
    if not file.is_file():
        raise MotionMAEError(f"{file}: there is no such table; motionmae embed makes one")
    if file.suffix not in _READ:
        raise MotionMAEError(f"{file}: is no table of motionmae embed ({', '.join(ENDINGS)})")
    try:
        found = _READ[file.suffix](file)
        _check(found)
    except KeyError as error:
        raise MotionMAEError(f"{file}: is no table of motionmae embed (it has no {error})") from error
    except (OSError, ValueError, LookupError, TypeError, BadZipFile, MemoryError, SafetensorError) as error:
        told = str(error) or type(error).__name__
        raise MotionMAEError(f"{file}: cannot be read as a table of motionmae embed ({told[:300]})") from error
    seen = [at for at, row in enumerate(found.rows) if not row.reason]
    if len(seen) == len(found.rows):
        return found
    return replace(
        found, rows=[found.rows[at] for at in seen], vectors={n: value[seen] for n, value in found.vectors.items()}
    )


def _row(number: int, values: dict[str, Any]) -> Row:
    """A row as a file tells it. Raises ValueError, naming its number, for a value that is not of its column's kind."""
    for name, kind in KINDS.items():
        if name in values and type(values[name]) not in kind:
            raise ValueError(f"row {number} has {values[name]!r:.80} for {name!r}")
    if any(type(frame) is not int for frame in values["frames"]):
        raise ValueError(f"row {number} has frames that are no numbers")
    return Row(**values)


def _check(found: Embeddings) -> None:
    """Raise ValueError where not every row has a vector of numbers in every layer."""
    if not found.vectors:
        raise ValueError("it has no vectors")
    for layer, value in found.vectors.items():
        if value.dtype.kind != "f" or value.ndim < 2 or not value[:1].size or len(value) != len(found.rows):
            raise ValueError(f"layer {layer}: {value.dtype} of shape {value.shape} for {many(len(found.rows), 'row')}")


def _layer(name: str, about: dict[str, Any]) -> int:
    return int(name.removeprefix("vector_")) if name != "vector" else int(about["layers"][0])


def _read_parquet(path: Path) -> Embeddings:
    arrow = arrow_of(path)
    try:
        with arrow.parquet.ParquetFile(str(path)) as file:
            if file.metadata.num_rows > path.stat().st_size:  # the same row over and over: no table says so
                raise ValueError(f"it says that it has {many(file.metadata.num_rows, 'row')}")
            table = file.read()
    except arrow.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    about = parsed((table.schema.metadata or {})[b"motionmae"], "what it says of itself")
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    cells = enumerate(zip(*columns.values(), strict=True), 1)
    rows = [_row(number, dict(zip(columns, values, strict=True))) for number, values in cells]
    vectors = {}
    for name in table.column_names:
        if name.startswith("vector"):
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors[_layer(name, about)] = flat.reshape(len(rows), *about["shape"])
    return Embeddings(about, rows, vectors)


def _read_npz(path: Path) -> Embeddings:
    unpressed(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        found = parsed(str(content["features"]), "what it says of itself")
        vectors = {name: content[name] for name in content.files if name.startswith("vector")}
    return _features(found, vectors)


def _read_safetensors(path: Path) -> Embeddings:
    with safe_open(str(path), "np") as content:
        found = parsed((content.metadata() or {})["features"], "what it says of itself")
        return _features(found, {name: content.get_tensor(name) for name in content.keys()})  # noqa: SIM118


def _read_npy(path: Path) -> Embeddings:
    found = read_json(rows_beside(path))
    return _features(found, {"vector": np.load(path, mmap_mode="r", allow_pickle=False)})


def _features(found: dict[str, Any], vectors: dict[str, np.ndarray]) -> Embeddings:
    about, rows = found["about"], [_row(number, row) for number, row in enumerate(found["rows"], 1)]
    return Embeddings(about, rows, {_layer(name, about): value for name, value in vectors.items()})


_READ = {".parquet": _read_parquet, ".npz": _read_npz, ".safetensors": _read_safetensors, ".npy": _read_npy}
