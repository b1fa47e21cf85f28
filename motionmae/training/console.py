"""What the user sees and says while a run goes: one calm line of progress, and the signals that ask it to stop."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from types import FrameType


class Interrupts:
    """Within it, the first SIGTERM or Ctrl-C only sets `asked`; a second ends the process at once."""

    asked = False

    def __enter__(self) -> Interrupts:
        self.process = os.getpid()
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a loader's worker: Ctrl-C reaches it too, and its batches are needed for the step in hand
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        os.write(2, b"\nstopping after this step; once more to stop at once\n")  # print may not be re-entered


class Progress:
    """One calm line with the time left: rewritten in place on a terminal, a plain line at each `show` when piped."""

    def __init__(self, total: int, done: int = 0, speak: bool = True):
        self.total, self.first, self.begun, self.speak = total, done, time.perf_counter(), speak
        self.live = speak and sys.stdout.isatty()
        self.open = False

    def show(self, done: int, text: str) -> str:
        """Show the state after `done` of `total` steps; the line itself."""
        spent = time.perf_counter() - self.begun
        left = spent / max(1, done - self.first) * (self.total - done)
        line = f"{done}/{self.total}  {text}  {clock(left)} left"
        if self.live:
            wide = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:wide]}", end="", flush=True)
            self.open = True
        elif self.speak:
            print(line, flush=True)
        return line

    def close(self) -> None:
        """End the line, so that something else can be said."""
        if self.open:
            print(flush=True)
        self.open = False


def clock(seconds: float) -> str:
    """Seconds as D days H:MM:SS, H:MM:SS or M:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} day{'s' if days > 1 else ''} {text}" if days else text
