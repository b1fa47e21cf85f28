"""Where a run happens: device, precision, ranks, and the one voice that speaks. Read from the environment once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from motionmae import noise
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

    def seed(self, seed: int, step: int) -> None:
        """Seed every device's generator for one step of one rank, so that no generator's state need be kept.

        Whatever the objective draws in a step (drop path, dropout) is then the same after a resumption and in a replay.
        """
        torch.manual_seed(noise.key(seed, step, self.rank))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks."""
        if self.ranks > 1:
            dist.all_reduce(values)
            values = values / self.ranks
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value)
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
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if run.threads:
        torch.set_num_threads(run.threads)
    if ranks > 1 and not dist.is_initialized():
        # Tensors of the CPU always have a way of their own: stopping is agreed on without waiting for a GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
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


class Agreement:
    """Whether any rank was asked to stop, known to all ranks at the same step: one small exchange behind each step."""

    def __init__(self, runtime: Runtime):
        self.runtime, self.pending = runtime, None

    def reached(self, asked: bool) -> bool:
        """What the ranks had been asked by the end of the step before; alone, `asked` itself."""
        if self.runtime.ranks == 1:
            return asked
        before = self.settle()
        flag = torch.tensor([float(asked)])
        self.pending = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)
        return before

    def settle(self) -> bool:
        """Wait for the exchange that is under way, if one is."""
        if self.pending is None:
            return False
        flag, work = self.pending
        self.pending = None
        work.wait()  # pyright: ignore[reportOptionalMemberAccess]
        return bool(flag.item())


@contextlib.contextmanager
def leaving(runtime: Runtime) -> Iterator[None]:
    """Within it the ranks are joined; left, they part. A broken connection becomes one clear sentence."""
    try:
        yield
    except RuntimeError as error:
        if runtime.ranks > 1 and _lost(error):
            raise MotionMAEError(
                f"rank {runtime.rank} of {runtime.ranks}: another rank has ended or is out of reach; this ends too: "
                f"its own last words say why ({str(error).splitlines()[0][:160]})"
            ) from error
        raise
    if runtime.ranks > 1 and dist.is_initialized():
        dist.destroy_process_group()  # only in peace: after an error, waiting for the others would hang


def _lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("connection closed", "connection reset", "broken pipe", "connection refused", "gloo")
    )
