"""Where bytes come from. Shards behind addresses are fetched whole into a folder of bounded size, when a video in them
is opened; single files behind addresses are read where they are (`remote.py`).

Its one rule: an address is what the user typed, as `Data.path` or `Data.root` or as a video's name, and comes from
nowhere else. `place` remembers it in this process, and `told` hands what is remembered to the processes that it starts:
no file ever says what is fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from motionmae.errors import MotionMAEError
from motionmae.video import pulse, remote

TRIES = 3
"""How often a fetch is tried, with longer and longer pauses between."""
STALL = 60.0
"""Seconds without a byte after which a fetch has failed."""
WINDOW = 16
"""Shards whose videos are mixed with each other, when not all can be at hand."""
UNKNOWN = ("s3", "hf", "memory", "az", "abfs", "abfss")
"""Schemes that the webdataset library does not open, and fsspec does."""
_OURS = re.compile(r"[0-9a-f]{16}-[\w.-]*\.tar")
_addresses: dict[str, tuple[str, float]] = {}  # of each place: where it is fetched from, and what its folder may hold


def is_address(path: str) -> bool:
    """Whether a path is an address: with a scheme (http, s3, gs, …), or a pipe."""
    return path.startswith("pipe:") or re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


def as_place(path: str) -> str:
    """A path that the user typed, as one: an address as its place, any other as it is."""
    return remote.root(path) if is_address(path) else path


def is_of_shards(address: str) -> bool:
    """Whether an address names shards, and not a folder, a list or a video."""
    return address.startswith("pipe:") or "::" in address or re.search(r"\.tar(?![\w.])", address) is not None


def addresses(path: str) -> list[str]:
    """The shards that a path with braces names: `http://host/{000000..000009}.tar`, several ones joined by `::`."""
    library(path)
    from webdataset.shardlists import expand_urls

    return expand_urls(path)


def library(path: str) -> Any:
    """The webdataset library; raises MotionMAEError where it is not installed."""
    try:
        import webdataset
    except ImportError as error:
        raise MotionMAEError(f"{path}: shards need webdataset: pip install 'motionmae[shards]'") from error
    return webdataset


def place_of(address: str, folder: str, most: float) -> str:
    """The file that an address has, or will have, below `folder`, which may hold `most` bytes of shards."""
    names = re.findall(r"[^/\s]+\.tar", address)
    name = re.sub(r"[^\w.-]", "_", names[-1]) if names else "shard.tar"
    file = os.path.join(
        os.path.abspath(folder), f"{hashlib.blake2b(address.encode(), digest_size=8).hexdigest()}-{name}"
    )
    os.makedirs(folder, exist_ok=True)
    _addresses[file] = address, most
    return file


def told() -> dict[str, tuple[str, float]]:
    """What this process knows of addresses, for a process that it starts, which gives it to `inherit`."""
    return dict(_addresses) | {place: (address, 0.0) for place, address in remote.roots().items()}


def inherit(addresses: Mapping[str, tuple[str, float]]) -> None:
    """Know the addresses that the process knew which started this one."""
    _addresses.update({place: held for place, held in addresses.items() if held[1]})
    remote.learn({place: address for place, (address, most) in addresses.items() if not most})


def is_fetched(file: str) -> bool:
    """Whether a file is the place of an address."""
    return file in _addresses


def hold(file: str) -> IO[str] | None:
    """Have a shard at hand, fetching it where it is not; nobody removes it until what is returned is closed.

    None for a file that has no address. Raises OSError where it cannot be fetched.
    """
    if file not in _addresses:
        return None
    address, most = _addresses[file]
    lock = open(f"{file}.lock", "w")  # noqa: SIM115
    try:
        _take(lock, alone=False)
        while not os.path.exists(file):
            _take(lock, alone=True)
            if not os.path.exists(file):  # nobody else did while this process waited
                _fetch(address, file)
                _make_room(os.path.dirname(file), most, file)
            _take(lock, alone=False)  # it is let go for a moment: look again
        os.utime(file)  # the least recently used go first
    except BaseException:
        lock.close()
        raise
    return lock


def _take(lock: IO[str], alone: bool) -> None:
    """Wait for a lock, for as long as another process fetches: that one tells where it fails."""
    import fcntl  # not on Windows, where everything but shards behind addresses works

    while True:
        try:
            return fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            pulse.beat()
            time.sleep(0.1)


def text_beside(address: str, name: str) -> str | None:
    """The text of a file beside a shard; None where there is none."""
    found = list(re.finditer(r"[^/\s]+\.tar", address))
    if not found:
        return None
    where = address[: found[-1].start()] + name + address[found[-1].end() :]
    try:
        return b"".join(_blocks(where)).decode()
    except (OSError, ValueError):
        return None


def _fetch(address: str, file: str) -> None:
    reason: object = ""
    for turn in range(TRIES):
        time.sleep(turn * 2)
        try:
            with open(f"{file}.part", "wb") as target:
                for block in _blocks(address):
                    target.write(block)
            os.replace(f"{file}.part", file)
            return
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                os.remove(f"{file}.part")
            told = re.search(r"exit \d+", str(error))
            reason = told[0] if told else error
    raise OSError(f"cannot be fetched from {address} ({reason})")


def _blocks(address: str) -> Iterator[bytes]:
    """The bytes behind an address, as webdataset opens it; OSError where it fails, ends early or stalls."""
    if address.partition("://")[0] in UNKNOWN:
        yield from remote.blocks(address)
        return
    stream = library(address).gopen(address)
    try:
        content = getattr(stream, "stream", stream)
        while True:
            if not select.select([content], [], [], STALL)[0]:
                raise OSError(f"nothing came for {STALL:g} s")
            block = os.read(content.fileno(), 1 << 20)
            if not block:
                break
            pulse.beat()
            yield block
        if hasattr(stream, "wait_for_child"):
            stream.wait_for_child()
    finally:
        if hasattr(stream, "proc"):
            stream.proc.kill()
            stream.proc.wait()
        getattr(stream, "stream", stream).close()


def _make_room(folder: str, most: float, kept: str) -> None:
    """Remove the shards that were used longest ago, and are not in use, until the folder holds no more than `most`.

    Only files with a name that `place` gives count: nothing else that lies there goes away.
    """
    import fcntl

    files = []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if _OURS.fullmatch(name):
                found = os.stat(os.path.join(folder, name))
                files.append((found.st_mtime, found.st_size, os.path.join(folder, name)))
    held = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if held <= most:
            return
        if file == kept:
            continue
        with open(f"{file}.lock", "w") as lock, contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(file)
            held -= size
