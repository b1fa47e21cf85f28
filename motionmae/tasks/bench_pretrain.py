"""`motionmae bench pretrain`: what a step costs, stage by stage, and how it stands against transformers' VideoMAE."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motionmae import runtime
from motionmae.config import BenchPretrain, Pretrain
from motionmae.data.loading import Order, collate, loader
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError
from motionmae.library.sources import find
from motionmae.models.encoder import MEAN, STD, to_unit
from motionmae.models.tokens import clip_grid
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.presets import COMMANDS
from motionmae.runtime import Runtime
from motionmae.tasks.pretrain import build, clips_of
from motionmae.training import optim

Step = Callable[[dict[str, Any]], dict[str, float]]
STAGES = ("to device", "forward", "backward", "optimiser")


def run(config: BenchPretrain) -> None:
    """Time the stages of a few steps on real videos, or on synthetic ones where no folder is given."""
    settings, here = _settings(config), runtime.start(config.run)
    with tempfile.TemporaryDirectory() as made:
        if not settings.data.path:
            size = 256 if settings.model.size > 128 else settings.model.size
            list(write_videos(Path(made), "bench", 2, seed=0, frames=2 * settings.model.frames, size=size))
            settings = replace(settings, data=replace(settings.data, path=made))
        step, batch = _step(build(settings), settings, here), None
        times = {stage: [] for stage in ("load", *STAGES)}
        for batch, load in _loads(settings, config.steps + 1):
            times["load"].append(load)
            for stage, spent in step(batch).items():
                times[stage].append(spent)
        assert batch is not None
        ours = {stage: statistics.median(values[1:]) for stage, values in times.items()}
        waiting = _waiting(settings, step, here, config.steps)
        theirs = _reference(settings, batch, step, here, config.steps) if config.reference else None
    _show(config, settings, here, ours, waiting, theirs)


def _settings(config: BenchPretrain) -> Pretrain:
    presets = COMMANDS["pretrain"].choices
    if config.preset not in presets:
        raise MotionMAEError(f"there is no preset {config.preset!r}; the presets are {', '.join(presets)}")
    preset: Pretrain = presets[config.preset]
    ratio = preset.mask.decode_ratio if config.decode_ratio is None else config.decode_ratio
    motion = preset.loss.motion if config.motion is None else config.motion
    return replace(
        preset,
        mask=replace(preset.mask, decode_ratio=ratio),
        loss=replace(preset.loss, motion=motion),
        data=replace(preset.data, path=config.data.path, workers=config.data.workers, cache=False),
        optim=replace(preset.optim, batch=config.batch, kind=config.optimiser or preset.optim.kind),
        run=config.run,
    )


def _loads(settings: Pretrain, count: int) -> Iterator[tuple[dict[str, Tensor], float]]:
    """Batches decoded in this process, and the seconds each took."""
    dataset = clips_of(settings, find(settings.data).paths)
    order = iter(Order(len(dataset), settings.optim.batch, settings.optim.batch, settings.seed))
    for _ in range(count):
        places, begun = next(order), time.perf_counter()
        batch = collate([dataset[place] for place in places])
        yield batch, time.perf_counter() - begun


def _step(module: Reconstruction, settings: Pretrain, here: Runtime) -> Step:
    """A training step that tells the seconds of each stage."""
    compute: nn.Module = torch.compile(module) if settings.run.compile else module  # pyright: ignore[reportAssignmentType]
    made = optim.optimiser(module.to(here.device), settings.optim, settings.optim.lr)
    return _timed(module, lambda batch: compute(batch)["loss"], made, here)


def _timed(
    module: nn.Module, loss_of: Callable[[dict[str, Any]], Tensor], optimizer: torch.optim.Optimizer, here: Runtime
) -> Step:
    module.train()

    def step(batch: dict[str, Any]) -> dict[str, float]:
        marks = [_now(here)]
        batch = here.to_device(batch)
        marks.append(_now(here))
        with here.autocast():
            loss = loss_of(batch)
        marks.append(_now(here))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        marks.append(_now(here))
        optimizer.step()
        marks.append(_now(here))
        return {stage: after - before for stage, before, after in zip(STAGES, marks, marks[1:], strict=False)}

    return step


def _waiting(settings: Pretrain, step: Step, here: Runtime, steps: int) -> float:
    """The share of time that steps spend waiting for the loader's workers, in [0, 1]."""
    dataset = clips_of(settings, find(settings.data).paths)
    order = Order(len(dataset), settings.optim.batch, settings.optim.batch, settings.seed)
    stream = iter(loader(dataset, order, settings.data, pin=here.device.type == "cuda"))
    step(next(stream))
    begun, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - asked
        step(batch)
    return waited / (time.perf_counter() - begun)


def _reference(
    settings: Pretrain,
    batch: dict[str, Tensor],
    ours: Step,
    here: Runtime,
    steps: int,
) -> tuple[float, float] | None:
    """Median seconds of our step and of the reference's, in turns on one batch; None where it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    model = settings.model
    torch.manual_seed(settings.seed)
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
    objective = build(settings)
    now, after = objective.frames(batch["clip"])
    masked = objective.draw(now, after, batch["key"])[1]
    grid = clip_grid(now, model.cube)
    hidden = torch.zeros(len(now), grid[0] * grid[1] * grid[2], dtype=torch.bool).scatter_(1, masked, True)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    pixels = ((to_unit(now, torch.float32) - mean) / std).transpose(1, 2).contiguous()
    prepared = {"pixels": pixels, "hidden": hidden}
    made = torch.optim.AdamW(theirs.parameters(), lr=settings.optim.lr, fused=True)
    step = _timed(theirs, lambda found: theirs(found["pixels"], found["hidden"]).loss, made, here)
    spent = [(sum(ours(batch).values()), sum(step(prepared).values())) for _ in range(steps + 1)][1:]
    return statistics.median(left for left, _ in spent), statistics.median(right for _, right in spent)


def _show(
    config: BenchPretrain,
    settings: Pretrain,
    here: Runtime,
    ours: dict[str, float],
    waiting: float,
    theirs: tuple[float, float] | None,
) -> None:
    whole, model, threads = sum(ours[stage] for stage in STAGES), settings.model, torch.get_num_threads()
    where = (
        f"{here.device}, {threads} threads" if here.device.type == "cpu" else torch.cuda.get_device_name(here.device)
    )
    precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[here.dtype]
    print(
        f"{config.preset}: {config.batch} clips of {model.frames}x{model.size}x{model.size}, {settings.mask.kind} mask "
        f"{settings.mask.ratio}, decode ratio {settings.mask.decode_ratio}, motion weight {settings.loss.motion}, "
        f"{precision}, {where}"
    )
    for stage, seconds in ours.items():
        print(f"  {stage:10} {1000 * seconds:9.1f} ms" + (" (in one process)" if stage == "load" else ""))
    print(f"  step       {1000 * whole:9.1f} ms, {config.batch / whole:.2f} clips/s")
    print(f"  waiting for data with {settings.data.workers} workers: {waiting:.0%} of the time")
    if here.device.type == "cuda":
        print(f"  peak memory {torch.cuda.max_memory_allocated(here.device) / 2**30:.2f} GiB on the device")
    else:
        print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of the process")
    if theirs:
        print(
            f"  VideoMAEForPreTraining of transformers, in turns: {1000 * theirs[1]:.1f} ms against "
            f"{1000 * theirs[0]:.1f} ms, ours is {theirs[1] / theirs[0]:.2f}x as fast"
        )


def _now(here: Runtime) -> float:
    if here.device.type == "cuda":
        torch.cuda.synchronize(here.device)
    return time.perf_counter()
