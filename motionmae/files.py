"""The one door for what is written and for small files that are read: a file is there whole, or it is not there.

All content goes to NAME.part beside its place, is brought to the disk, and is renamed. Only what grows line by line (a
run's log and metrics) and locks are opened otherwise.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motionmae.errors import MotionMAEError

if TYPE_CHECKING:
    from PIL import Image

Name = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: Name) -> Iterator[Path]:
    """Yields the name beside `path` under which to write a file or a folder; it gets its own name when the block ends.

    Missing folders are made, and a file's mode follows the umask. Where the block fails, nothing is left. Raises
    MotionMAEError for what the file system refuses.
    """
    target = Path(path)
    aside = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        aside.touch()  # as the umask says: some writers make their files for their owner alone
        mode = aside.stat().st_mode
        aside.unlink()
        yield aside
        if aside.is_dir():
            remove(target)
        else:
            os.chmod(aside, mode)
        flush(aside)
        os.replace(aside, target)
        flush(target.parent)
    except OSError as error:
        raise MotionMAEError(f"{target}: could not be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            remove(aside)


def write_bytes(path: Name, content: bytes) -> None:
    """A file of these bytes."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_text(path: Name, text: str, errors: str = "surrogateescape") -> None:
    """A UTF-8 file; names of files that are not UTF-8 are written as they are, or as `errors` says."""
    write_bytes(path, text.encode("utf-8", errors))


def write_json(path: Name, content: Any) -> None:
    """A JSON file, for people to read too."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(content, indent=1) + "\n"


def write_csv(path: Name, rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file of these rows, the first of which names the columns."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def write_image(path: Name, image: Image.Image, **options: Any) -> None:
    """A picture in the format of the name's ending; the options are the encoder's."""
    content = io.BytesIO()
    image.save(content, {".jpg": "JPEG"}.get(ending := Path(path).suffix.lower(), ending[1:].upper()), **options)
    write_bytes(path, content.getvalue())


def read_text(path: Name, errors: str = "strict") -> str:
    """A small UTF-8 file, with or without a byte order mark. Raises MotionMAEError for what is not one."""
    try:
        return Path(path).read_text("utf-8-sig", errors)
    except OSError as error:
        raise MotionMAEError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise MotionMAEError(f"{os.fspath(path)}: is not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: Name) -> Any:
    """A small JSON file's content. Raises MotionMAEError for what is not one."""
    return parsed(read_text(path), os.fspath(path))


def parsed(text: str | bytes, where: str) -> Any:
    """The content of JSON that somebody else wrote. Raises MotionMAEError, naming `where`, for what is none, also where
    it is nested too deep or has a number of too many digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MotionMAEError(f"{where}: is not readable as JSON ({str(error)[:200]})") from error


def unpressed(path: Name) -> list[zipfile.ZipInfo]:
    """What a zip file holds. Raises MotionMAEError where that is more than the file itself: neither PyTorch nor numpy
    presses what they write, and a few bytes could become any number in memory."""
    with zipfile.ZipFile(path) as file:
        records = file.infolist()
    told, size = sum(record.file_size for record in records), Path(path).stat().st_size
    if told > size:
        raise MotionMAEError(f"{os.fspath(path)}: says that it holds {told} bytes, in {size}")
    return records


CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys, or what turns a line's letters around; line ends and tabs are not among them."""


def escaped(text: str) -> str:
    """Text of which a terminal obeys nothing: the names of files may hold anything.

    >>> escaped("a\x1b[2J.mp4")
    'a\\\\x1b[2J.mp4'
    """
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same in one line, whatever is in it."""
    return escaped(text.replace("\n", "\\n"))


def remove(place: Path) -> None:
    """Make a file or a folder go away, if it is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
