"""Numbers of the steps since the last reading, summed on the device: nothing waits for it until it is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motionmae.runtime import Runtime
from motionmae.training.machine import peak


@dataclass(frozen=True)
class Step:
    """What is remembered of a step until it is known to be sound: its batches' numbers, its loss and its norm."""

    step: int
    batches: list[dict[str, Tensor]]
    losses: Tensor
    norm: Tensor


@dataclass(frozen=True)
class Bad:
    """A step that was skipped: this rank's batches (key, index, …), the loss of each micro-batch, and the norm."""

    step: int
    batches: list[dict[str, list[int]]]
    losses: list[float]
    norm: float


class Meter:
    """Means between two readings, rates, and the steps that were not finite."""

    def __init__(self):
        self._restart()

    def _restart(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.kept: list[Step] = []
        self.clips = 0
        self.waited = 0.0
        self.begun = time.perf_counter()

    def wait(self, stream: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
        """The next micro-batches, and the time that they took to come."""
        begun = time.perf_counter()
        micro = [next(stream) for _ in range(count)]
        self.paused = time.perf_counter()
        self.waited += self.paused - begun
        return micro

    def add(
        self, step: int, micro: list[dict[str, Any]], parts: list[dict[str, Tensor]], norm: Tensor, clips: int
    ) -> None:
        """Count one step: each micro-batch's parts, whose mean is the step's, and the gradient's norm."""
        self.names = [*parts[0], "gradient_norm", "finite"]
        table = torch.stack([value for found in parts for value in found.values()]).view(len(parts), -1)
        means = torch.cat((table.mean(0), torch.stack((norm, torch.ones_like(norm)))))
        means = torch.where(norm.isfinite(), means, 0.0)
        self.sums = means if self.sums is None else self.sums + means
        numbers = [{name: value for name, value in batch.items() if _numbers(value)} for batch in micro]
        self.kept.append(Step(step, numbers, table[:, self.names.index("loss")], norm))
        self.clips += clips
        self.paused = time.perf_counter()

    def resume(self) -> None:
        """Leave the time since the last step out of the rates: it went into saving or inspecting."""
        self.begun += time.perf_counter() - max(self.paused, self.begun)  # a reading in between has begun anew

    def read(self, runtime: Runtime) -> tuple[dict[str, float], list[bool], list[Bad]]:
        """Means over ranks and sound steps since the last reading, whether each step was sound, and the unsound ones.

        Waits for the device. All ranks find the same steps unsound, as they share the gradient.
        """
        assert self.sums is not None
        values = runtime.mean(self.sums).tolist()
        shown = dict(zip(self.names, values, strict=True))
        finite = shown.pop("finite")
        shown = {name: value / finite if finite else float("nan") for name, value in shown.items()}
        sound = torch.stack([kept.norm for kept in self.kept]).isfinite().tolist()
        bad = [
            Bad(
                kept.step,
                [{name: value.tolist() for name, value in batch.items()} for batch in kept.batches],
                kept.losses.tolist(),
                kept.norm.item(),
            )
            for kept, well in zip(self.kept, sound, strict=True)
            if not well
        ]
        shown["skipped"] = float(len(bad))
        spent = time.perf_counter() - self.begun
        shown |= {"clips_per_second": self.clips / spent, "data_wait": self.waited / spent}
        shown["memory_gib"] = peak(runtime.device) / 2**30
        self._restart()
        return shown, sound, bad


def _numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 1 and value.dtype == torch.int64
