"""How long work is shown: one bar on a terminal, by rich; where the output goes elsewhere, a plain line now and then.

Its one rule: nobody who watches waits longer than a few seconds for a sign of life.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from rich import progress as bars
from rich.console import Console, RenderableType
from rich.file_proxy import FileProxy

from motionmae.files import one_line

EVERY = 5.0
"""Seconds between two plain lines in the first minute, shorter than which work is silent."""
LATER = 30.0
"""Seconds between two plain lines after the first minute."""
WIDE = 80
"""Columns of a plain line at most."""


class Progress:
    """Work called `what`, of `total` pieces of which `done` are done; None where nobody knows how many there are.

    It shows itself from `start`, or as a context, on stderr, also while one piece takes long. `speak=False` is silent.
    What is left is told where the pieces are `alike`: nobody can tell from short ones how long others will take.
    """

    def __init__(self, what: str, total: int | None = None, done: int = 0, speak: bool = True, alike: bool = True):
        self.alike = alike
        self.what, self.total, self.first, self.done, self.text = what, total, done, done, ""
        self.live = speak and sys.stdout.isatty() and sys.stderr.isatty()
        self.speak = speak
        self.begun = self.shown = self.last = time.monotonic()
        self._bar: bars.Progress | None = None
        self._ended: threading.Event | None = None

    def start(self) -> None:
        """Show the work, and count its time, from now on."""
        self.begun = self.shown = time.monotonic()
        if not self.speak or self._bar is not None or self._ended is not None:
            return
        if self.live:
            bar = self._bar = _Bar(self)
            bar.start()
        else:
            self._ended = threading.Event()
            threading.Thread(target=self._tick, args=(self._ended,), daemon=True).start()

    def show(self, done: int, text: str = "") -> None:
        """So many pieces are done; `text` says more, its parts two spaces apart: the last go where room is short."""
        self.done, self.text = done, text
        self.last = time.monotonic()

    def step(self, text: str = "") -> None:
        """One piece more is done."""
        self.show(self.done + 1, text)

    def tell(self) -> None:
        """Print the state as a line on stdout where there is no bar to show it."""
        if self.speak and not self.live:
            self.shown = time.monotonic()
            print(self.line(), flush=True)

    def line(self, wide: int = WIDE) -> str:
        """The state in one line of at most so many columns."""
        spent, made = time.monotonic() - self.begun, self.done - self.first
        count = f" {self.done}/{self.total}" if self.total is not None else f" {self.done}" if self.done else ""
        if self.total is not None and self.alike and made > 0:
            each = max((self.last - self.begun) / made, spent / (made + 1))  # the piece in hand may be a slow one
            when = f"{clock(each * (self.total - self.done))} left"
        else:
            when = f"{clock(spent)} so far"
        found, *rest = f"{self.what}{count}", when, *self.text.split("  ")
        for part in map(one_line, filter(None, rest)):
            if len(found) + 2 + len(part) > wide:
                break
            found += f"  {part}"
        return found[:wide]

    def close(self) -> None:
        """Show nothing any more; what was shown on a terminal goes."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
        if self._ended is not None:
            self._ended.set()
        self._ended = None

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _tick(self, ended: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            while not ended.wait(0.25):
                now = time.monotonic()
                if now - self.shown >= (EVERY if now - self.begun < 60 else LATER):
                    self.shown = now
                    print(self.line(), file=sys.stderr, flush=True)


def unwrap() -> None:
    """In a process that was forked while a bar was shown: write to the terminal, not above a bar that is another's."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, FileProxy):
            setattr(sys, name, stream.rich_proxied_file)


def first() -> bool:
    """Whether this process is the only rank, or the one of many that speaks."""
    return int(os.environ.get("RANK", 0)) == 0


def then(what: str, aside: bool = False) -> None:
    """The last line of a command: what to type, or to open, next. `aside`: on stderr, where stdout is for a program.

    One rank of many says it.
    """
    if first():
        print(f"next: {what}", file=sys.stderr if aside else sys.stdout, flush=True)


class _Bar(bars.Progress):
    """rich's bar, which asks the work for its state at each refresh: the clock goes on while a piece takes long."""

    def __init__(self, work: Progress):
        self.work = work
        columns = bars.SpinnerColumn(), bars.BarColumn(20), bars.TextColumn("{task.description}", markup=False)
        super().__init__(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
        self.add_task("", total=work.total)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            task.description = self.work.line(self.console.width - 25)
            task.total, task.completed = self.work.total, self.work.done
        return super().get_renderables()


def clock(seconds: float) -> str:
    """Seconds as D days H:MM:SS, H:MM:SS or M:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} day{'s' if days > 1 else ''} {text}" if days else text
