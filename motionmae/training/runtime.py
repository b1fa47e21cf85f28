"""Where a run happens: device, precision, ranks, and the one voice that speaks. Read from the environment once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from motionmae.config import Run
from motionmae.errors import MotionMAEError


@dataclass(frozen=True)
class Runtime:
    """The device, the autocast dtype (None: float32 throughout), and this process among the ranks."""

    device: torch.device
    dtype: torch.dtype | None
    rank: int = 0
    ranks: int = 1

    @property
    def main(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision for the forward pass, or nothing."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch's tensors on the device, without waiting for the copy."""
        return {k: v.to(self.device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks."""
        if self.ranks > 1:
            dist.all_reduce(values)
            values = values / self.ranks
        return values

    def say(self, message: str) -> None:
        """A line for the user, from rank 0 alone."""
        if self.main:
            print(message, flush=True)


def start(run: Run) -> Runtime:
    """The runtime of this process; joins the other ranks where torchrun has started it."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = pick_device(run.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if run.threads:
        torch.set_num_threads(run.threads)
    if ranks > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Runtime(device, pick_dtype(run.precision, device), rank, ranks)


def pick_device(name: str) -> torch.device:
    """The named device, or the best there is for "auto"."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        raise MotionMAEError(
            f"--run.device {name}: this machine has none; it has {[k for k, v in available.items() if v]}"
        )
    return torch.device(name)


def pick_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that autocast uses."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class Interrupts:
    """Within it, the first SIGTERM or Ctrl-C only sets `asked`; a second ends the process at once."""

    asked = False

    def __enter__(self) -> Interrupts:
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        print("stopping after this step; once more to stop at once", file=sys.stderr, flush=True)


class Progress:
    """One calm line with the time left: rewritten in place on a terminal, a plain line at each `show` when piped."""

    def __init__(self, total: int, done: int = 0, speak: bool = True):
        self.total, self.first, self.begun, self.speak = total, done, time.perf_counter(), speak
        self.live = speak and sys.stdout.isatty()

    def show(self, done: int, text: str) -> None:
        """The state after `done` of `total` steps."""
        if not self.speak:
            return
        spent = time.perf_counter() - self.begun
        left = spent / max(1, done - self.first) * (self.total - done)
        line = f"{done}/{self.total}  {text}  {clock(left)} left"
        print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n", flush=True)

    def close(self) -> None:
        """End the line."""
        if self.live:
            print(flush=True)


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS or M:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def leaving(runtime: Runtime) -> Iterator[None]:
    """Within it the ranks are joined; left, they part."""
    try:
        yield
    finally:
        if runtime.ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()
