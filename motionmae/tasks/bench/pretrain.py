"""`motionmae bench pretrain`: a step against the machine's own limits, by its parts, and beside transformers' VideoMAE.

All that is compared runs in turns in one process, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from motionmae import runtime
from motionmae.config import BenchPretrain, Pretrain, check
from motionmae.data.clips import pretraining_offsets
from motionmae.data.loading import Order, collate, loader
from motionmae.data.synthetic import write_videos
from motionmae.library.sources import find
from motionmae.models.encoder import MEAN, STD, to_unit
from motionmae.models.linear import multiply
from motionmae.models.tokens import clip_grid
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.progress import Progress
from motionmae.runtime import Runtime
from motionmae.tasks.bench import parts
from motionmae.tasks.bench.parts import Part
from motionmae.tasks.pretrain import build, clips_of
from motionmae.training import machine, optim
from motionmae.training.machine import now
from motionmae.words import many

Step = Callable[[dict[str, Any]], dict[str, float]]
Config = TypeVar("Config", bound=Pretrain)
STAGES = ("to device", "forward", "backward", "optimiser")


@dataclass(frozen=True)
class Turn:
    """One turn: seconds of a step of each kind, its processor time, and the machine's rates at that moment."""

    seconds: dict[str, float]
    processor: dict[str, float]
    stages: dict[str, float]
    product: float
    copy: float


def run(config: BenchPretrain) -> None:
    """Time steps on real videos, or on synthetic ones where no folder is given, and say what limits them."""
    check(config)
    here = runtime.start(config.run)
    with videos(config) as config, Progress("measuring") as progress:
        objective = build(config).to(here.device).train()
        batch, load = _load(config)
        step = _stepper(objective, optim.optimiser(objective, config.optim, config.optim.lr), here)
        kinds: dict[str, tuple[Step, dict[str, Any]]] = {"ours": (step, batch)}
        if config.alternatives:
            kinds |= {name: (other, batch) for name, other in _alternatives(objective, batch, config, here).items()}
        if config.reference and importlib.util.find_spec("transformers") is not None:
            kinds["VideoMAEForPreTraining"] = _reference(config, objective, batch, here)
        turns = take_turns(kinds, config.turns, here, progress)
        progress.show(0, "parts of a step")
        found = parts.measure(objective, batch, here, config.turns)
        whole = parts.counted(lambda: step(batch))
        progress.show(0, "steps fed by workers")
        waiting = _waiting(config, step, here, config.turns)
    print(_headline(config, here))
    for line in (
        *_stages(turns, load, config),
        *_parts(found, whole, turns),
        *_comparison(turns),
        _memory(here),
        _limit(whole, turns, waiting, config, here),
    ):
        print(f"  {line}")


@contextmanager
def videos(config: Config) -> Iterator[Config]:
    """The config with videos to read: its own, or synthetic ones that are gone afterwards."""
    if config.data.path:
        yield config
        return
    with tempfile.TemporaryDirectory() as made:
        size = 256 if config.model.size > 128 else config.model.size
        list(write_videos(Path(made), "bench", 2, seed=0, frames=2 * config.model.frames, size=size))
        yield replace(config, data=replace(config.data, path=made))


def take_turns(
    kinds: dict[str, tuple[Step, dict[str, Any]]], count: int, here: Runtime, progress: Progress
) -> list[Turn]:
    """A step of each kind and one reading of the machine's rates, `count` times after one that is not kept."""
    product, copy = machine.product(here.device, here.dtype or torch.float32, multiply), machine.copy(here.device)
    turns = []
    for turn in range(count + 1):
        progress.show(0, f"turn {turn} of {count}")
        seconds, processor, stages = {}, {}, {}
        for name, (step, batch) in kinds.items():
            begun = time.process_time()
            spent = step(batch)
            processor[name] = time.process_time() - begun
            seconds[name] = sum(spent.values())
            stages = stages or spent
        turns.append(Turn(seconds, processor, stages, product(), copy()))
    return turns[1:]


def _load(config: Pretrain) -> tuple[dict[str, Tensor], float]:
    """A batch decoded in this process, and the seconds it took."""
    dataset = clips_of(config, find(config.data).paths)
    places = next(iter(Order(len(dataset), config.optim.batch, config.optim.batch, config.seed)))
    begun = time.perf_counter()
    return collate([dataset[place] for place in places]), time.perf_counter() - begun


def _stepper(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    here: Runtime,
    loss_of: Callable[[nn.Module, dict[str, Any]], Tensor] = lambda module, batch: module(batch)["loss"],
) -> Step:
    """A training step that tells the seconds of each stage."""

    def step(batch: dict[str, Any]) -> dict[str, float]:
        marks = [now(here.device)]
        batch = here.to_device(batch)
        marks.append(now(here.device))
        with here.autocast():
            loss = loss_of(module, batch)
        marks.append(now(here.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        marks.append(now(here.device))
        optimizer.step()
        marks.append(now(here.device))
        return {stage: after - before for stage, before, after in zip(STAGES, marks, marks[1:], strict=False)}

    return step


def _alternatives(
    objective: Reconstruction, batch: dict[str, Any], config: BenchPretrain, here: Runtime
) -> dict[str, Step]:
    """The same weights stepped in the other precision, and compiled in each where compiling works."""
    other = replace(here, dtype=torch.bfloat16 if here.dtype is None else None)
    optimizer = optim.optimiser(objective, config.optim, config.optim.lr)
    found = {f"ours in {other.precision}": _stepper(objective, optimizer, other)}
    compiled: Any = torch.compile(objective)
    for place in (here, other):
        step, begun = _stepper(compiled, optimizer, place), time.perf_counter()
        try:
            step(batch)
        except Exception as error:  # the compiler's many classes, and those of the C++ compiler that it calls
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            print(f"torch.compile fails here ({type(error).__name__}: {reason[:200]})")
            break
        print(f"compiling in {place.precision} took {time.perf_counter() - begun:.0f} s")
        found[f"ours compiled, {place.precision}"] = step
    return found


def _reference(
    config: Pretrain, objective: Reconstruction, batch: dict[str, Tensor], here: Runtime
) -> tuple[Step, dict[str, Any]]:
    """A step of transformers' model of the same sizes, and our clips and masks in its form."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    model = config.model
    torch.manual_seed(config.seed)
    theirs: nn.Module = VideoMAEForPreTraining(
        VideoMAEConfig(
            image_size=model.size, patch_size=model.cube[1], num_frames=model.frames, tubelet_size=model.cube[0],
            hidden_size=model.width, num_hidden_layers=model.depth, num_attention_heads=model.heads,
            intermediate_size=int(model.width * model.mlp_ratio), decoder_hidden_size=model.decoder.width,
            decoder_num_hidden_layers=model.decoder.depth, decoder_num_attention_heads=model.decoder.heads,
            decoder_intermediate_size=int(model.decoder.width * model.mlp_ratio), use_mean_pooling=False,
        )
    )  # fmt: skip
    nn.Module.to(theirs, device=here.device)
    shown, after = objective.frames(here.to_device(batch)["clip"])
    masked = objective.draw(shown, after, batch["key"].to(here.device))[1].cpu()
    grid = clip_grid(shown, model.cube)
    hidden = torch.zeros(len(shown), grid[0] * grid[1] * grid[2], dtype=torch.bool).scatter_(1, masked, True)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    pixels = ((to_unit(shown.cpu(), torch.float32) - mean) / std).transpose(1, 2).contiguous()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4, fused=True)
    step = _stepper(
        theirs.train(), optimizer, here, lambda module, found: module(found["pixels"], found["hidden"]).loss
    )
    return step, {"pixels": pixels, "hidden": hidden}


def _waiting(config: Pretrain, step: Step, here: Runtime, steps: int) -> float:
    """The share of time that steps spend waiting for the loader's workers, in [0, 1]."""
    dataset = clips_of(config, find(config.data).paths)
    order = Order(len(dataset), config.optim.batch, config.optim.batch, config.seed)
    stream = iter(loader(dataset, order, config.data, pin=here.device.type == "cuda"))
    step(next(stream))
    begun, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - asked
        step(batch)
    return waited / (time.perf_counter() - begun)


def _headline(config: BenchPretrain, here: Runtime) -> str:
    model, mask, loss, threads = config.model, config.mask, config.loss, torch.get_num_threads()
    clock = ", processor time" if threads == 1 else ""
    where = (
        f"cpu, {many(threads, 'thread')}{clock}"
        if here.device.type == "cpu"
        else torch.cuda.get_device_name(here.device)
    )
    offsets = pretraining_offsets(model.frames, config.data.stride, config.target.adjacent, config.target.gap)
    return (
        f"{many(config.optim.batch, 'clip')} of {model.frames}x{model.size}x{model.size} "
        f"({many(len(offsets), 'frame')} read), width {model.width}, depth {model.depth}, {mask.kind} mask "
        f"{mask.ratio}, decode ratio {mask.decode_ratio}, decoder {model.decoder.attention}, motion weight "
        f"{loss.motion}, {here.precision}, {where}"
    )


def _stages(turns: list[Turn], load: float, config: BenchPretrain) -> list[str]:
    whole = statistics.median(turn.seconds["ours"] for turn in turns)
    medians = {stage: statistics.median(turn.stages[stage] for turn in turns) for stage in STAGES}
    told = ", ".join(f"{stage} {1e3 * seconds:.1f}" for stage, seconds in medians.items())
    return [
        f"step {1e3 * whole:.1f} ms ({told}), {config.optim.batch / whole:.2f} clips/s; decoding one batch in one "
        f"process {1e3 * load:.0f} ms"
    ]


def _parts(found: dict[str, Part], whole: Part, turns: list[Turn]) -> list[str]:
    """A roofline: each part's time beside what its products and its traffic would take at the machine's rates."""
    product, copy = (statistics.median(rates) for rates in ([t.product for t in turns], [t.copy for t in turns]))
    share = statistics.median(whole.flops / turn.seconds["ours"] / turn.product for turn in turns)
    step = statistics.median(turn.seconds["ours"] for turn in turns)
    lines = [
        f"a large matrix product reaches {product / 1e9:.0f} GFLOP/s here, a long copy {copy / 1e9:.1f} GB/s; the step "
        f"reaches {share:.0%} of the product's rate",
        f"{'part':10} {'GFLOP':>8} {'GB':>7} {'ms':>8}   at the machine's rates: products, traffic (ms, at most)",
    ]
    for name, part in {**found, "whole step": replace(whole, seconds=step)}.items():
        lines.append(
            f"{name:10} {part.flops / 1e9:8.2f} {part.moved / 1e9:7.2f} {1e3 * part.seconds:8.1f}   "
            f"{1e3 * part.flops / product:8.1f} {1e3 * part.moved / copy:8.1f}"
        )
    return lines


def _comparison(turns: list[Turn]) -> list[str]:
    """Each other kind of step as a ratio to ours, turn by turn."""
    lines = []
    for name in list(turns[0].seconds)[1:]:
        ratios = [turn.seconds[name] / turn.seconds["ours"] for turn in turns]
        processor = [turn.processor[name] / turn.processor["ours"] for turn in turns]
        least = min(turn.seconds[name] for turn in turns) / min(turn.seconds["ours"] for turn in turns)
        lines.append(
            f"{name}: {1e3 * statistics.median(turn.seconds[name] for turn in turns):.1f} ms, ours is "
            f"{statistics.median(ratios):.2f}x as fast (turn by turn {min(ratios):.2f} to {max(ratios):.2f}; least "
            f"against least {least:.2f}; processor time {statistics.median(processor):.2f})"
        )
    return lines


def _memory(here: Runtime) -> str:
    where = "on the device, of all kinds" if here.device.type == "cuda" else "of the process"
    return f"peak memory {machine.peak(here.device) / 2**30:.2f} GiB {where}"


def _limit(whole: Part, turns: list[Turn], waiting: float, config: BenchPretrain, here: Runtime) -> str:
    """What the step waits for: data, Python, or the larger of what its products and its traffic need."""
    step = statistics.median(turn.seconds["ours"] for turn in turns)
    shares = {
        "arithmetic": statistics.median(whole.flops / turn.product for turn in turns) / step,
        "memory": statistics.median(whole.moved / turn.copy for turn in turns) / step,
        "Python": whole.calls * machine.call(here.device) / step,
    }
    limit = "data" if waiting > 0.1 else max(shares, key=lambda name: shares[name])
    return (
        f"limit: {limit} (waiting for {many(config.data.workers, 'worker')} {waiting:.0%} of the time; a step's "
        f"products need {shares['arithmetic']:.0%} of it at the machine's rate, its traffic at most "
        f"{shares['memory']:.0%}, calling its {many(whole.calls, 'operator')} {shares['Python']:.0%})"
    )
