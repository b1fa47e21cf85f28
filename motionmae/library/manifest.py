"""Manifests: a table with one line for each video, usable or not, as CSV or Parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.files import replacing, write_csv
from motionmae.library.tables import header, lines
from motionmae.video import remote
from motionmae.words import many


@dataclass(frozen=True)
class Entry:
    """One video of a manifest. Where the file could not be read, numbers are 0 and words empty."""

    path: str
    """The file, or the folder of images."""
    status: str
    """`ok`, or why the video is quarantined."""
    label: str = ""
    """The class, from the folder's name or a list."""
    frames: int = 0
    """Frames that decode, where `checked` is `full`; else those that the container holds."""
    checked: str = "quick"
    """`full` where every frame was decoded."""
    rate: Fraction = Fraction(0)
    """Frames per second, on average."""
    constant: bool = True
    """Whether all frames last equally long."""
    duration: float = 0.0
    """Seconds."""
    height: int = 0
    """Rows, after rotation and the sample aspect ratio."""
    width: int = 0
    """Columns."""
    codec: str = ""
    """FFmpeg's name of the codec; `images` for a folder of frames."""
    keyframe_spacing: int = 0
    """Largest number of frames between key frames: what decoding one frame may cost."""
    audio: bool = False
    """Whether there is sound."""
    bytes: int = 0
    """Size of the file."""
    modified: int = 0
    """When it was changed last, in nanoseconds since 1970."""
    hash: str = ""
    """Of the content: duplicates have the same."""

    @property
    def usable(self) -> bool:
        """Whether the video may be trained on."""
        return self.status == "ok"


def write_manifest(path: str | os.PathLike[str], entries: Iterable[Entry], home: str = "") -> None:
    """Write entries as CSV, or as Parquet where the name ends in .parquet; files below `home`, by default the
    manifest's folder, by their path from there, others by their whole path."""
    path = os.fspath(path)
    home = os.path.abspath(home or os.path.dirname(path))
    rows = [{**asdict(entry), "path": _seen_from(home, entry.path), "rate": str(entry.rate)} for entry in entries]
    if path.endswith(".parquet"):
        arrow, parquet = _pyarrow(path)
        columns = {item.name: [row[item.name] for row in rows] for item in fields(Entry)}
        with replacing(path) as aside:
            parquet.write_table(arrow.table(columns, schema=arrow.schema(_schema(arrow))), str(aside))
    else:
        names = [item.name for item in fields(Entry)]
        write_csv(path, [names, *([_written(row[name]) for name in names] for row in rows)])


def read_manifest(path: str | os.PathLike[str], home: str = "") -> list[Entry]:
    """The entries of a manifest, with whole paths; see `is_manifest` for what one is. Paths start from `home`, by
    default the manifest's folder.

    Columns may be missing, moved and added, and values written as pandas and spreadsheets do. Raises MotionMAEError,
    naming the line, for one without a path or a status, and for a value that is not of its column's kind.
    """
    path = os.fspath(path)
    try:
        if path.endswith(".parquet"):
            rows = list(enumerate(_table(path), 1))
        else:
            rows = lines(path, _text(path), ("path", "status"))
    except (OSError, UnicodeError) as error:
        raise MotionMAEError(f"{path}: cannot be read as a manifest ({error})") from error
    home = os.path.abspath(home or os.path.dirname(path))
    entries = []
    for number, row in rows:
        values = {item.name: _value(path, number, item, row.get(item.name)) for item in fields(Entry)}
        entries.append(Entry(**{**values, "path": os.path.normpath(os.path.join(home, values["path"]))}))
    return entries


def is_manifest(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a manifest: Parquet, or a table with the columns `path` and `status`."""
    path = os.fspath(path)
    return path.endswith(".parquet") or {"path", "status"} <= set(header(_text(path))[0])


def _table(path: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file, of the columns that are known. Raises MotionMAEError."""
    arrow, parquet = _pyarrow(path)
    try:
        with remote.open_file(path) as file:
            opened, size = parquet.ParquetFile(file), remote.about(path).size
            names = [item.name for item in fields(Entry) if item.name in opened.schema_arrow.names]
            if lacking := {"path", "status"}.difference(names):
                raise MotionMAEError(f"{path}: is no manifest: it has no column {min(lacking)!r}")
            if opened.metadata.num_rows > size:  # the same row over and over: no manifest says so
                raise MotionMAEError(
                    f"{path}: says that it has {many(opened.metadata.num_rows, 'row')} in {size} bytes"
                )
            return opened.read(names).to_pylist()
    except arrow.ArrowException as error:
        raise MotionMAEError(f"{path}: cannot be read as a manifest ({str(error).splitlines()[0]})") from error


def _text(path: str) -> str:
    with remote.open_file(path) as file:
        return file.read().decode("utf-8-sig", "surrogateescape")


def _value(path: str, number: int, item: Field[Any], value: Any) -> Any:
    """A value of a field's type; its default where there is none, which a path and a status do not have."""
    if value is None or value == "" or value != value:
        if item.default is MISSING:
            raise MotionMAEError(f"{path}: line {number} has no value for {item.name!r}")
        return item.default
    try:
        found = _read(str(item.type), value)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise MotionMAEError(f"{path}: line {number} has {value!r} for {item.name!r}, not {item.type}") from error
    return found.lower() if item.name == "status" and found.lower() == "ok" else found


def _seen_from(home: str, path: str) -> str:
    whole = os.path.abspath(path)
    return os.path.relpath(whole, home) if whole.startswith(os.path.join(home, "")) else whole


def _written(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _read(kind: str, value: Any) -> Any:
    """A value of a field's type from its text (CSV) or itself (Parquet)."""
    if kind == "str":
        return str(value)
    text = str(value).strip().replace(",", ".")  # some spreadsheets write decimals so
    if kind == "bool":
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}[text.lower()]
    if kind == "int":
        if not (number := _fraction(text)).denominator == 1:
            raise ValueError(text)
        return int(number)
    return _fraction(text) if kind == "Fraction" else float(text)


def _fraction(text: str) -> Fraction:
    if re.search(r"e[+-]?\d{3}", text.lower()):  # 1e999999999 would be written out, digit by digit
        raise ValueError(text)
    return Fraction(text)


def _pyarrow(path: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MotionMAEError(
            f"{path}: Parquet needs pyarrow: pip install 'motionmae[parquet]', or name a .csv"
        ) from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any) -> list[tuple[str, Any]]:
    kinds = {"str": arrow.string(), "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_()}
    return [(item.name, kinds.get(str(item.type), arrow.string())) for item in fields(Entry)]
