"""`motionmae bench embed` and `bench evaluate`: the command itself, and which share of its time is the encoder's."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from motionmae.config import BenchEmbed, BenchEvaluate
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder
from motionmae.runtime import wait
from motionmae.tasks import embed, evaluate
from motionmae.words import many


@dataclass
class Passes:
    """Clips that encoders of this process have seen, seconds inside them, and from the first clip to the last."""

    clips: int = 0
    inside: float = 0.0
    first: float | None = None
    last: float = 0.0
    begun: float = 0.0

    @property
    def whole(self) -> float:
        """Seconds between the first clip's entering and the last one's leaving."""
        return self.last - (self.last if self.first is None else self.first)


@contextlib.contextmanager
def metered() -> Iterator[Passes]:
    """A meter of all encoders' passes within the block; on a GPU each is waited for."""
    meter = Passes()

    def enter(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, VideoEncoder):
            wait(inputs[0].device)
            meter.begun = time.perf_counter()
            meter.first = meter.begun if meter.first is None else meter.first
            meter.clips += len(inputs[0])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, VideoEncoder):
            wait(inputs[0].device)
            meter.last = time.perf_counter()
            meter.inside += meter.last - meter.begun

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield meter
    finally:
        for hook in hooks:
            hook.remove()


def run(config: BenchEmbed | BenchEvaluate) -> None:
    """Run the command into a folder that is thrown away, and print its speed and the encoder's share."""
    with tempfile.TemporaryDirectory() as folder, metered() as meter, contextlib.redirect_stdout(io.StringIO()):
        if isinstance(config, BenchEmbed):
            embed.run(replace(config, out=str(Path(folder) / "vectors.npz")))
        else:
            evaluate.run(replace(config, out=folder))
    if meter.whole <= 0:
        raise MotionMAEError("no clip could be read: nothing was measured")
    print(
        f"{many(meter.clips, 'clip')} in {meter.whole:.1f} s: {meter.clips / meter.whole:.2f} clips/s; the encoder "
        f"took {meter.inside / meter.whole:.0%} of the time"
    )
    if meter.inside < 0.8 * meter.whole:
        print("the rest is waiting for clips: more --workers or motionmae prepare would help")
