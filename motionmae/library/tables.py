"""Tables with named columns, as people, pandas and spreadsheets write them.

Its one rule: what is unclear is refused by the number of its line; nothing is guessed by position.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

from motionmae.errors import MotionMAEError
from motionmae.words import many

Line = tuple[int, dict[str, str]]  # its number, and its values by the names of their columns

SEPARATORS = ",\t;"


def header(text: str) -> tuple[list[str], str]:
    """The names of a table's columns in small letters, and what parts them: the separator that parts most."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    first = first.replace("\0", "")  # which Python 3.10 refuses; whoever reads on says what is wrong with the line
    try:
        parted = {mark: next(csv.reader([first], delimiter=mark), []) for mark in SEPARATORS}
    except csv.Error:  # a field that is longer than any in a table
        return [], SEPARATORS[0]
    mark = max(SEPARATORS, key=lambda mark: len(parted[mark]))
    return [name.strip().lower() for name in parted[mark]], mark


def lines(path: str, text: str, required: Sequence[str] = ()) -> list[Line]:
    """The lines of a table, their values without the blanks around them; empty lines and columns without a name are
    passed over. Raises MotionMAEError, naming `path` and the line, for a line of another length than the header's."""
    names, mark = header(text)
    reader, found = csv.reader(text.splitlines(keepends=True), delimiter=mark), []
    try:
        for values in reader:
            if not any(value.strip() for value in values) or (not found and values and _is_header(values, names)):
                continue
            extra = [value for value in values[len(names) :] if value.strip()]
            if len(values) < len(names) or extra:
                lacking = next((name for name in names[len(values) :] if name in required), "")
                told = (
                    f"no value for {lacking!r}" if lacking else f"{many(len(values), 'value')}, the header {len(names)}"
                )
                raise MotionMAEError(f"{path}: line {reader.line_num} has {told}")
            row = {name: value.strip() for name, value in zip(names, values, strict=False) if name}
            found.append((reader.line_num, row))
    except csv.Error as error:
        raise MotionMAEError(f"{path}: line {reader.line_num} cannot be read ({error})") from error
    return found


def _is_header(values: Sequence[str], names: Sequence[str]) -> bool:
    return [value.strip().lower() for value in values] == list(names)
