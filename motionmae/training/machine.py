"""What the machine can do at most, measured when asked: matrix products, copies, and calls of operators."""

from __future__ import annotations

import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from motionmae.runtime import wait

SIDE = 2048
"""Rows and columns of the matrices that are multiplied: large enough for any processor to be at its best."""
LONG = 2**26
"""Bytes that are copied: more than a processor's caches hold."""
CALLS = 500
"""Operators in a row whose calls are timed."""


def _linear(x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return 2 * math.prod(x) * weight[0]


def _attention(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(gradient: Any, q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return sdpa_backward_flop_count(gradient, q, k, v)


COUNTED: dict[Any, Any] = {
    getattr(space, name): formula
    for space, name, formula in (
        (torch.ops.mkldnn, "_linear_pointwise", _linear),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward),
    )
    if hasattr(space, name)
}
"""Operations of what PyTorch's counter of operations does not know on CPUs, for its `custom_mapping`."""


def peak(device: torch.device) -> int:
    """The most memory so far in bytes: what this process has had of the GPU, or on the CPU all that it has had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def now(device: torch.device) -> float:
    """Seconds of the clock, when the device has done all it was asked.

    On one thread of a CPU it is the processor's own time, from which whatever else the machine does stays out.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time()
    wait(device)
    return time.perf_counter()


def product(
    device: torch.device,
    dtype: torch.dtype,
    multiply: Callable[[Tensor, Tensor], Tensor] = F.linear,
    side: int = SIDE,
) -> Callable[[], float]:
    """A function that multiplies two large matrices, as linear layers do, and tells the operations a second."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: 2 * side**3 / _seconds(lambda: multiply(left, right), device)


def copy(device: torch.device) -> Callable[[], float]:
    """A function that copies a long tensor and tells the bytes a second, those read and those written."""
    source = torch.ones(LONG // 4, device=device)
    target = torch.empty_like(source)
    return lambda: 2 * LONG / _seconds(lambda: target.copy_(source), device)


def call(device: torch.device) -> float:
    """Seconds of calling an operator forward and backward on next to nothing, by the operator: Python and dispatch."""
    value = torch.ones(1, device=device, requires_grad=True)

    def chain() -> None:
        found = value
        for _ in range(CALLS):
            found = found * 1.0
        found.backward()

    return _seconds(chain, device) / (2 * CALLS)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The seconds of one piece of work, the shorter of two tries."""
    marks = [now(device)]
    for _ in range(2):
        work()
        marks.append(now(device))
    return min(after - before for before, after in itertools.pairwise(marks))
