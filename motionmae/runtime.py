"""Where a run happens: device, precision, ranks, and the one voice that speaks. Read from the environment once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from motionmae import noise
from motionmae.config import Hardware, Run
from motionmae.errors import MotionMAEError

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SEEN = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
"""Whether PyTorch is of the version on which ranks were seen to do all that is asked of them, or later."""
_unended: list[Any] = []
"""Groups of ranks that have parted. PyTorch 2.6 waits for a group's threads without letting go of the interpreter,
which a thread needs to drop its last tensor: now and then a deadlock. Kept, it is not waited for; 2.13 lets go."""


@dataclass(frozen=True)
class Runtime:
    """The device, the autocast dtype (None: float32 throughout), and this process among the ranks."""

    device: torch.device
    dtype: torch.dtype | None
    rank: int = 0
    ranks: int = 1

    @property
    def precision(self) -> str:
        """The dtype by the name it has on the command line."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)

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
        """Seed the CPU's and the device's generator for one step of one rank, so that neither's state need be kept.

        Whatever the objective draws in a step (drop path, dropout) is then the same after a resumption and in a replay.
        """
        key = noise.key(seed, step, self.rank)
        torch.default_generator.manual_seed(key)  # torch.manual_seed costs a traceback for each absent kind of device
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)
        elif self.device.type == "mps":
            torch.mps.manual_seed(key)

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
        _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Runtime(device, pick_dtype(run.precision, device), rank, ranks)


def single(compute: Hardware) -> Runtime:
    """The runtime of a command that runs in one process, whose float32 products stay whole on a GPU too."""
    device = pick_device(compute.device)
    if compute.threads:
        torch.set_num_threads(compute.threads)
    return Runtime(device, pick_dtype(compute.precision, device))


def start_for(compute: Hardware) -> Runtime:
    """The runtime of a command that trains nothing."""
    return start(Run(device=compute.device, precision=compute.precision, threads=compute.threads))


def out_beside(model: str, name: str) -> Path:
    """Where a command writes about a model: in its run folder, or in runs/ for a single file."""
    path = Path(model)
    return path / name if path.is_dir() else Path("runs") / f"{path.stem}-{name}"


def _join(backend: str) -> None:
    """Meet the other ranks, at every restart under a name of its own.

    torchrun may keep its store over a restart, and in it the addresses of dead processes: half of the restarts then
    fail or hang (PyTorch 2.13, `--standalone`).
    """
    # Its functions have the group as a default, as it is when it is read. Read later, as torch._dynamo does, they keep
    # the group, and its threads, for ever: an interpreter that is taken down under them aborts now and then.
    import torch.distributed.nn.functional  # noqa: F401

    store, rank, ranks = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"attempt-{attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backend, store=own, rank=rank, world_size=ranks)


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


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was asked: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def pick_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that autocast uses; what trains on a CPU measures for itself whether bf16 is the faster."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return PRECISIONS[precision]


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
        with contextlib.suppress(OSError):  # a terminal that has gone; and print may not be re-entered
            os.write(2, b"\nstopping after this step; once more to stop at once\n")


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
        if lost(error, runtime):
            raise MotionMAEError(
                f"rank {runtime.rank} of {runtime.ranks}: another rank has ended or is out of reach; this ends too: "
                f"its own last words say why ({str(error).splitlines()[0][:160]})"
            ) from error
        raise
    if runtime.ranks > 1 and dist.is_initialized():
        if not SEEN:
            _unended.append(dist.group.WORLD)
        dist.destroy_process_group()  # only in peace: after an error, waiting for the others would hang


def lost(error: RuntimeError, runtime: Runtime) -> bool:
    """Whether it is that another rank is out of reach."""
    text = str(error).lower()
    return runtime.ranks > 1 and (
        isinstance(error, dist.DistError)
        or any(
            sign in text
            for sign in ("connection closed", "connection reset", "broken pipe", "connection refused", "gloo")
        )
    )
