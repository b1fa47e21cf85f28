"""The table of embeddings on the disk: written in parts that survive a stop, joined into one file, read back.

Its one rule: what is in a file under its final name is whole. A file says the encoder, the layers and the sampling that
made it, so that a query can be embedded alike.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from motionmae.errors import MotionMAEError
from motionmae.files import read_json, write_text
from motionmae.inference.embedding import Embedding, Row
from motionmae.library.parts import joining
from motionmae.stored import save as save_tensors

ENDINGS = (".parquet", ".npz", ".safetensors", ".npy")
COLUMNS = [column.name for column in fields(Row)]


def check_name(out: str) -> Path:
    """The file that is to be written; raises MotionMAEError for an unknown ending, or where it exists."""
    path = Path(out)
    if not out or path.suffix not in ENDINGS:
        raise MotionMAEError(f"--out {out!r}: expected a name that ends in {', '.join(ENDINGS)}")
    if path.exists():
        raise MotionMAEError(f"--out {out}: exists already; choose another name, or remove it")
    if path.suffix == ".parquet":
        arrow_of(out)
    return path


def open_parts(out: Path, about: dict[str, Any]) -> Path:
    """The folder of the parts, beside the table. Raises MotionMAEError where it holds parts of another embedding."""
    folder, note = Path(f"{out}.parts"), Path(f"{out}.parts") / "about.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        there = read_json(note) if note.exists() else None
    except MotionMAEError:
        there = {}
    if there is None:
        aside = note.with_name(f"{note.name}.{os.getpid()}")  # other jobs may begin in this very moment
        write_text(aside, json.dumps(about))
        os.replace(aside, note)
    elif there != about:
        differ = [name for name in about if there.get(name) != about[name]] or ["about.json"]
        raise MotionMAEError(
            f"{folder}: holds parts made otherwise ({', '.join(differ)} differ); remove it to start anew"
        )
    return folder


def part_of(folder: Path, number: int) -> Path:
    """Where the part of this number lies."""
    return folder / f"{number:06d}.safetensors"


def write_part(path: Path, found: Sequence[Embedding], stored: torch.dtype) -> None:
    """The rows and vectors of some videos, in their order; a row without frames has a vector of NaN."""
    rows = [row for each in found for row in each.rows]
    layers = sorted({layer for each in found for layer in each.vectors})
    vectors = {str(layer): torch.cat([each.vectors[layer] for each in found if each.vectors]) for layer in layers}
    vectors = {name: value.to(stored).contiguous() for name, value in vectors.items()}
    save_tensors(path, vectors, {"rows": json.dumps([asdict(row) for row in rows])})


def parts(folder: Path, count: int) -> Iterator[tuple[list[Row], dict[int, np.ndarray]]]:
    """The rows and vectors of each part, in order: rows that were not seen (they say why) have no vector."""
    for number in range(count):
        with safe_open(str(part_of(folder, number)), "np") as content:
            rows = [Row(**row) for row in json.loads(content.metadata()["rows"])]
            yield rows, {int(name): content.get_tensor(name) for name in content.keys()}  # noqa: SIM118


def join_table(folder: Path, count: int, out: Path, about: dict[str, Any]) -> int:
    """All parts as the table, which gets its name when it is whole; the parts go. Returns the number of rows.

    Parquet and .npy are written part by part: little memory however many rows. Raises MotionMAEError where no video
    could be read.
    """
    with joining(folder, out) as aside:
        shapes, rows = _shapes(folder, count)
        if not shapes:
            why = next((f"{row.video}: {row.reason}" for row in rows if row.reason), "there are none")
            shutil.rmtree(folder)
            raise MotionMAEError(f"none of the videos could be read, first {why}")
        about = about | {"layers": sorted(shapes), "shape": list(next(iter(shapes.values()))[0])}
        chunks = _whole(parts(folder, count), shapes)
        if out.suffix == ".parquet":
            _write_parquet(aside, chunks, about)
        elif out.suffix == ".npy":
            _write_npy(aside, chunks, shapes, len(rows))
            write_text(rows_beside(out), json.dumps({"about": about, "rows": [asdict(row) for row in rows]}))
        else:
            kept: dict[int, list[np.ndarray]] = {}
            for _, vectors in chunks:
                for layer, value in vectors.items():
                    kept.setdefault(layer, []).append(value)
            whole = {_name(layer, shapes): np.concatenate(values) for layer, values in kept.items()}
            _write_arrays(aside, out.suffix, whole, rows, about)
    return len(rows)


def rows_beside(out: Path) -> Path:
    """Where the rows of a .npy table lie."""
    return out.with_suffix(".json")


def _shapes(folder: Path, count: int) -> tuple[dict[int, tuple[tuple[int, ...], np.dtype]], list[Row]]:
    """Shape and type of one vector of each layer, and all rows."""
    shapes: dict[int, tuple[tuple[int, ...], np.dtype]] = {}
    found: list[Row] = []
    for rows, vectors in parts(folder, count):
        found += rows
        shapes |= {layer: (value.shape[1:], value.dtype) for layer, value in vectors.items()}
    return shapes, found


def _whole(chunks: Iterator[tuple[list[Row], dict[int, np.ndarray]]], shapes: dict[int, Any]) -> Iterator[Any]:
    """The parts with a vector for every row: NaN where the video could not be seen."""
    for rows, vectors in chunks:
        seen = [at for at, row in enumerate(rows) if not row.reason]
        filled = {}
        for layer, (shape, kind) in shapes.items():
            filled[layer] = np.full((len(rows), *shape), np.nan, kind)
            if seen:
                filled[layer][seen] = vectors[layer]
        yield rows, filled


def _name(layer: int, layers: Any) -> str:
    """The column's name: `vector`, or with several layers `vector_N`."""
    return "vector" if len(layers) == 1 else f"vector_{layer}"


def arrow_of(path: str | Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MotionMAEError(f"{path}: parquet needs pyarrow: pip install 'motionmae[parquet]'") from error
    return pyarrow


def _write_parquet(path: Path, chunks: Iterator[Any], about: dict[str, Any]) -> None:
    arrow, writer = arrow_of(path), None
    try:
        for rows, vectors in chunks:
            columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
            columns["frames"] = arrow.array(columns["frames"], arrow.list_(arrow.int64()))
            columns |= {"model": [about["model"]] * len(rows)}
            table = arrow.table(columns | _cells(arrow, vectors))
            table = table.replace_schema_metadata({"motionmae": json.dumps(about)})
            writer = writer or arrow.parquet.ParquetWriter(str(path), table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def _cells(arrow: Any, vectors: dict[int, np.ndarray]) -> dict[str, Any]:
    return {
        _name(layer, vectors): arrow.FixedSizeListArray.from_arrays(
            arrow.array(value.reshape(-1)), int(np.prod(value.shape[1:]))
        )
        for layer, value in vectors.items()
    }


def _write_npy(path: Path, chunks: Iterator[Any], shapes: dict[int, Any], count: int) -> None:
    if len(shapes) != 1:
        raise MotionMAEError(f"--out {path.stem}: a .npy file holds one layer, {len(shapes)} were asked for")
    ((layer, (shape, kind)),) = shapes.items()
    target, at = np.lib.format.open_memmap(path, "w+", kind, (count, *shape)), 0
    for rows, vectors in chunks:
        target[at : at + len(rows)] = vectors[layer]
        at += len(rows)
    target.flush()


def _write_arrays(
    path: Path, suffix: str, vectors: dict[str, np.ndarray], rows: Sequence[Row], about: dict[str, Any]
) -> None:
    text = json.dumps({"about": about, "rows": [asdict(row) for row in rows]})
    if suffix == ".safetensors":
        save_file({name: torch.from_numpy(value) for name, value in vectors.items()}, str(path), {"features": text})
        return
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in COLUMNS if name != "frames"}
    with path.open("wb") as file:
        np.savez(file, **{"features": np.array(text), **columns, **vectors})  # pyright: ignore[reportArgumentType]
