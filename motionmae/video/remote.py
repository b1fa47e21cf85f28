"""Files behind addresses (`s3://`, `gs://`, `hf://`, `https://` …), read by ranges through the fsspec library.

Its one rule: an address is what the user typed, and from nowhere else. `root` remembers it and gives it a place, a path
such as /s3:/bucket/videos, below which the files behind it lie: whoever handles paths needs not know. A place that
nobody typed, whatever file names it, is just a path that does not exist.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from motionmae.errors import MotionMAEError
from motionmae.video import pulse

BLOCK, BLOCKS = 1 << 20, 32
"""Bytes that are asked for at a time, and how many such blocks of an open file are kept."""
BOXES = 16
"""Parts of an mp4 that are looked for; a file of more is in pieces, whose index lies among the data."""
NOWHERE = "there is no such file or folder"
WHOLE = "its store gives files as a whole only, not their parts"
_roots: dict[str, str] = {}  # of each place: the address that was typed


class About(NamedTuple):
    """What a store tells of a file: its bytes, its time of change in nanoseconds (0: untold), and a checksum or ""."""

    size: int
    modified: int
    checksum: str = ""


def root(address: str) -> str:
    """The place of an address that the user typed."""
    scheme, _, rest = address.partition("://")
    place = os.path.normpath(f"/{scheme}:/{rest.strip('/')}")
    _roots[place] = address.rstrip("/") if rest else address
    return place


def roots() -> dict[str, str]:
    """The addresses that are known, by their places."""
    return dict(_roots)


def learn(known: Mapping[str, str]) -> None:
    """Know the addresses that another process knew."""
    _roots.update(known)


def address_of(path: str | os.PathLike[str]) -> str:
    """The address of a place below one that was typed; "" for any other path."""
    path = place = os.fspath(path) if _roots else ""
    while place and place not in _roots:
        place = place.rpartition("/")[0]
    return _roots[place] + path[len(place) :] if place else ""


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people and tables to read: a place as its address."""
    return address_of(path) or os.fspath(path)


def about(path: str | os.PathLike[str]) -> About:
    """What is known of a file, on this machine or behind an address. Raises OSError where there is none."""
    if not (address := address_of(path)):
        found = os.stat(path)
        return About(found.st_size, found.st_mtime_ns)
    with _clearly(address):
        system, key = _opened(address)
        told = system.info(key)
        if told.get("type") == "directory":
            raise IsADirectoryError(21, "is a folder, and folders of frames are not read from addresses", address)
        kept = told.get("mtime") or told.get("LastModified") or told.get("last_modified") or told.get("created")
        kept = kept or told.get("Last-Modified")  # of a web server
        large = told.get("lfs") or {}
        checksum = told.get("ETag") or told.get("md5Hash") or large.get("sha256") or told.get("blob_id") or ""
        return About(int(told.get("size") or 0), _nanoseconds(kept), str(checksum).strip('"'))


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or a folder, on this machine or behind an address."""
    if not (address := address_of(path)):
        return os.path.exists(path)
    with contextlib.suppress(OSError), _clearly(address):
        system, key = _opened(address)
        return bool(system.exists(key))
    return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder, on this machine or behind an address. Raises OSError where nobody answers there."""
    if not (address := address_of(path)):
        return os.path.isdir(path)
    with _clearly(address):
        system, key = _opened(address)
        return bool(system.isdir(key))


def walk(place: str) -> list[str]:
    """The places of all files below a place, sorted; hidden ones are not among them. Raises OSError."""
    with _clearly(address_of(place)):
        system, key = _opened(address_of(place))
        base = system._strip_protocol(key).rstrip("/")
        found = (name[len(base) :].lstrip("/") for name in system.find(key) if name.startswith(f"{base}/"))
        if base.startswith(("http://", "https://")):  # links: a name is made of them, but for /, ?, # and % in it
            found = (unquote(re.sub("%(?=23|25|2F|3F)", "%25", name, flags=re.I)) for name in found if "?" not in name)
        return [f"{place}/{name}" for name in sorted(found) if not any(part[:1] == "." for part in name.split("/"))]


def open_file(path: str | os.PathLike[str]) -> Any:
    """A binary file to read, on this machine or behind an address: only the ranges that are read come. OSError."""
    if not (address := address_of(path)):
        return open(path, "rb")
    with _clearly(address):
        system, key = _opened(address)
        kept = {"cache_type": "blockcache", "cache_options": {"maxblocks": BLOCKS}}
        return system.open(key, "rb", block_size=BLOCK, **kept)


def blocks(address: str) -> Iterator[bytes]:
    """The bytes of a file behind an address from its start on. Raises OSError."""
    with _clearly(address):
        system, key = _opened(address)
        with system.open(key, "rb", block_size=BLOCK) as file:
            while block := file.read(BLOCK):
                pulse.beat()
                yield block


class Reader:
    """A file behind an address as the demuxer reads it: every error is one sentence by `fail`, after a deadline too.

    What lies in `blank` reads as zeros and is not fetched: for listing packets of which only the places matter.
    """

    def __init__(self, path: str, late: Callable[[], str], fail: Callable[[str], Exception]):
        self.name, self.late, self.fail = path, late, fail
        self.blank: list[tuple[int, int]] = []
        try:
            self.file = open_file(path)
            size = getattr(self.file, "size", None)  # a store need not be asked twice
            self.size = size if isinstance(size, int) else about(path).size
        except OSError as error:
            raise fail((error.strerror or str(error) or "unreadable").lower()) from error
        if not self.file.seekable():
            self.file.close()
            raise fail(WHOLE)

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on, perhaps fewer than asked for."""
        if late := self.late():
            raise self.fail(late)
        pulse.beat()
        here = self.file.tell()
        for first, end in self.blank:
            if first <= here < end:
                count = min(size if size >= 0 else end - here, end - here)
                self.file.seek(here + count)
                return bytes(count)
        left = max(0, self.size - here)  # asked beyond the end, older caches of fsspec fail
        try:
            with _clearly(self.name):
                return self.file.read(min(size, left) if size >= 0 else left)
        except OSError as error:
            raise self.fail(f"cannot be read at byte {here} ({error.strerror or error})") from error

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The byte to be read next."""
        return self.file.tell()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def data(self) -> list[tuple[int, int]]:
        """The stretches of an mp4 that hold nothing but pictures and sound; none where its index lies among them."""
        found, here = list[tuple[int, int]](), 0
        for _ in range(BOXES):
            if here + 8 > self.size:
                return found
            self.seek(here)
            head = self.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length or self.size - here
            if length < 8 or head[4:8] == b"moof":
                return []
            if head[4:8] == b"mdat":
                found.append((here + 16, min(here + length, self.size)))
            here += length
        return []


def _opened(address: str) -> tuple[Any, str]:
    """The file system behind an address, and the address's name in it."""
    import fsspec.core

    return fsspec.core.url_to_fs(address)


@contextlib.contextmanager
def _clearly(address: str) -> Iterator[None]:
    """Within it whatever a store raises is an OSError; that its library is not there, a MotionMAEError."""
    try:
        yield
    except FileNotFoundError as error:  # some say nothing but the name
        told = error.strerror or str(error)
        raise FileNotFoundError(2, NOWHERE if address.endswith(told) else told, address) from error
    except (OSError, MotionMAEError):
        raise
    except ImportError as error:
        raise MotionMAEError(f"{address}: {error}") from error
    except ValueError as error:
        if "rotocol" in str(error):  # not known
            raise MotionMAEError(f"{address}: nothing here opens such an address ({error})") from error
        if "range requests" in str(error):  # an HTTP server's
            raise OSError(5, WHOLE) from error
        raise OSError(5, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # of botocore, aiohttp and many others
        raise OSError(5, f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _nanoseconds(told: Any) -> int:
    """A store's time of change, in nanoseconds since 1970; 0 where it tells none."""
    if isinstance(told, str):
        with contextlib.suppress(ValueError):
            told = parsedate_to_datetime(told) if "," in told else datetime.fromisoformat(told.replace("Z", "+00:00"))
    if isinstance(told, datetime):
        told = told.timestamp()
    return int(told * 1e9) if isinstance(told, (int, float)) else 0
