"""A training step by its parts: what each multiplies and moves, counted, and how long it takes, timed.

Each part runs alone, forward and backward, on what it gets in a real step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from motionmae.models.blocks import run_blocks
from motionmae.models.tokens import clip_grid
from motionmae.objectives import masking
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.runtime import Runtime
from motionmae.training.machine import COUNTED, now


@dataclass(frozen=True)
class Part:
    """Floating-point operations of matrix products and attention, bytes read and written, operators, and seconds."""

    flops: int
    moved: int
    calls: int
    seconds: float = 0.0


class Traffic(TorchDispatchMode):
    """Counts operators, and the bytes that they read and write as if nothing stayed in a cache: an upper bound."""

    moved = calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls += 1
        if not (func.is_view or func in (torch.ops.aten._unsafe_view.default, torch.ops.aten.detach.default)):
            returned = [value for value in tree_leaves(found) if isinstance(value, Tensor)]
            changed = [
                value
                for argument, given in zip(func._schema.arguments, args, strict=False)
                if argument.alias_info and argument.alias_info.is_write
                for value in tree_leaves(given)
            ]
            read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            self.moved += sum(value.numel() * value.element_size() for value in [*read, *(returned or changed)])
        return found


def counted(work: Callable[[], object]) -> Part:
    """What a piece of work multiplies and moves."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as flops, Traffic() as traffic:
        work()
    return Part(flops.get_total_flops(), traffic.moved, traffic.calls)


def measure(objective: Reconstruction, batch: dict[str, Any], here: Runtime, turns: int) -> dict[str, Part]:
    """The parts of a step in their order; times are medians over the turns."""
    pieces = work(objective, here.to_device(batch), here)
    spent: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(turns + 1):
        for name, piece in pieces.items():
            begun = now(here.device)
            piece()
            spent[name].append(now(here.device) - begun)
    found = {}
    for name, piece in pieces.items():
        found[name] = replace(counted(piece), seconds=statistics.median(spent[name][1:]))
    objective.zero_grad(set_to_none=True)
    return found


def work(objective: Reconstruction, batch: dict[str, Any], here: Runtime) -> dict[str, Callable[[], None]]:
    """A function for each part, on the very tensors that the part before it gives."""
    model = objective.autoencoder
    encoder, decoders = model.encoder, model.decoders
    before, after = objective.frames(batch["clip"])
    visible, every = objective.draw(before, after, batch["key"])
    masked = masking.thin(every, objective.mask.decode_ratio, batch["key"])
    grid = clip_grid(before, model.config.cube)

    def encode(tokens: Tensor) -> Tensor:
        return encoder.norm(run_blocks(encoder.blocks, tokens, encoder.recompute))

    def decode(encoded: Tensor) -> Tensor:
        return torch.stack([decoder.features(encoded, visible, masked, grid) for decoder in decoders])  # pyright: ignore

    def predict(features: Tensor) -> Tensor:
        each = zip(decoders, features, strict=True)
        return torch.cat([head(found) for decoder, found in each for head in decoder.heads.values()], -1)  # pyright: ignore

    with torch.no_grad(), here.autocast():
        tokens = encoder.tokens(before, visible)
        encoded = encode(tokens)
        features = decode(encoded)
        names = list(objective.autoencoder(before, visible, masked))

    def targets() -> None:
        masking.thin(objective.draw(before, after, batch["key"])[1], objective.mask.decode_ratio, batch["key"])
        for name in names:
            wanted, _ = objective.wanted(name, before, after, masked)
            objective.baseline(name, wanted)

    def both(function: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], None]:
        def run() -> None:
            entered = given.detach().requires_grad_(given.is_floating_point())
            with here.autocast():
                found = function(entered)
            found.backward(torch.ones_like(found))

        return run

    return {
        "embedding": both(lambda clip: encoder.tokens(clip, visible), before),
        "encoder": both(encode, tokens),
        "decoder": both(decode, encoded),
        "heads": both(predict, features),
        "targets": targets,
    }
