"""A function over many items in processes that can be killed: an item that hangs or crashes costs itself alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from motionmae.video import origin

START = 120.0
"""Seconds that a process may take to start; the first item's time begins when it has."""


def available() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def when_parent_ends(act: Callable[[], object]) -> None:
    """Have this done when the process that started this one has ended, however that ended; nothing in one that no other
    has started by multiprocessing."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            act()

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class Failure:
    """What happened instead of a result, in words."""

    reason: str


def each(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, limit: Callable[[Any], float]
) -> Iterator[tuple[Any, Any]]:
    """Pairs of an item and `function(item)`, or a Failure, as they are done, from `workers` processes.

    `limit(item)` is the item's time in seconds; after it the process is killed and another one started. The function
    and the items must be picklable; an exception inside the function is a Failure with its sentence.
    """
    queue, pool = iter(items), [_Worker(function) for _ in range(max(1, workers))]
    try:
        busy = [worker for worker in pool if worker.take(queue, limit)]
        while busy:
            patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = wait([worker.pipe for worker in busy], timeout=patience)
            now = time.monotonic()
            for worker in list(busy):
                if worker.pipe in ready:
                    result = worker.result()
                elif now >= worker.deadline:
                    result = Failure(worker.late())
                else:
                    continue
                if isinstance(result, _Started):
                    worker.deadline = now + worker.limit
                    continue
                item = worker.item
                if not worker.take(queue, limit):
                    busy.remove(worker)
                yield item, result
    finally:
        for worker in pool:
            worker.stop()


class _Started:
    """A process's first word."""


class _Worker:
    """One process with its pipe; started again after it died."""

    def __init__(self, function: Callable[[Any], Any]):
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload(["motionmae.video.reading"])
        self.function, self.item, self.deadline, self.limit = function, None, 0.0, 0.0
        self.process: Any = None

    def take(self, queue: Iterator[Any], limit: Callable[[Any], float]) -> bool:
        """Start on the next item; False where there is none left."""
        for self.item in queue:
            self.limit = limit(self.item)
            self.deadline = time.monotonic() + self.limit
            try:
                self._send()
            except OSError:  # it died between two items
                self.stop()
                self._send()
            return True
        return False

    def _send(self) -> None:
        """Hand over the item, to a new process where there is none; that one reports when it has started."""
        if self.process is None:
            self.pipe, theirs = self.context.Pipe()
            self.process = self.context.Process(target=_serve, args=(self.function, theirs, origin.told()), daemon=True)
            self.process.start()
            theirs.close()
            self.deadline = time.monotonic() + START
        self.pipe.send(self.item)

    def result(self) -> Any:
        """The result, or how the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.stop()
            name = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
            return Failure(f"crashes the decoder ({name})")

    def late(self) -> str:
        """Kill the process and say why."""
        self.stop()
        return f"not done after {self.limit:g} s"

    def stop(self) -> None:
        """Kill the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.pipe.close()
            self.process = None


def _serve(function: Callable[[Any], Any], pipe: Connection, addresses: Mapping[str, tuple[str, float]]) -> None:
    """Answer items until the pipe closes; what libraries print is dropped, and Ctrl-C is the parent's affair."""
    origin.inherit(addresses)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pipe.send(_Started())
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(item)
        except MemoryError:
            answer = Failure("needs more memory than there is")
        except Exception as error:
            answer = Failure(str(error) or type(error).__name__)
        pipe.send(answer)
