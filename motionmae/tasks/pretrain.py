"""`motionmae pretrain`: a folder of videos to a run folder with an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from motionmae.config import Pretrain
from motionmae.data.clips import Clips, Order, collate, loader, pretraining_offsets
from motionmae.data.sources import find
from motionmae.models.autoencoder import MotionMAE
from motionmae.objectives.reconstruction import Reconstruction, active_targets
from motionmae.report.pictures import save_animation, side_by_side
from motionmae.training import loop, optim, runtime
from motionmae.training.runtime import Runtime


def run(config: Pretrain) -> None:
    """Pretrain on the videos under `config.data.path`, or go on with the run that `config.run.out` holds."""
    fit_videos(config, find(config.data).paths)


def fit_videos(config: Pretrain, files: Sequence[Path]) -> bool:
    """Pretrain on these files; True when the run is finished, False when the user stopped it."""
    here = runtime.start(config.run)
    with runtime.leaving(here):
        dataset = clips_of(config, files)
        plan = optim.plan(config.optim, config.run, len(files), config.data.repeats, here.ranks)
        objective = build(config)
        dataset[(0, 0)]  # a set that cannot be read at all is found before anything is written
        loop.open_folder(config.run, config, here)
        here.say(describe(config, plan, objective, len(files), here))

        def batches(step: int):
            repeats = config.data.repeats
            order = Order(
                len(files), plan.batch // repeats, plan.micro // repeats, config.seed, here.rank, here.ranks, step
            )
            return loader(dataset, order, config.data, pin=here.device.type == "cuda")

        inspect = pictures(config, objective, dataset, here) if here.main else None
        return loop.fit(objective, batches, plan, config.optim, config.run, here, config, inspect)


def clips_of(config: Pretrain, files: Sequence[Path]) -> Clips:
    """The videos as pretraining clips: the encoder's frames and those that close the differences."""
    offsets = pretraining_offsets(config.model.frames, config.data.stride, config.target.adjacent, config.target.gap)
    return Clips(files, config.data, offsets, config.model.size, config.seed)


def build(config: Pretrain) -> Reconstruction:
    """The objective with freshly seeded weights."""
    torch.manual_seed(config.seed)
    autoencoder = MotionMAE(config.model, active_targets(config.loss))
    autoencoder.recompute(config.run.checkpointing)
    return Reconstruction(autoencoder, config.mask, config.target, config.loss)


def describe(config: Pretrain, plan: optim.Plan, objective: Reconstruction, videos: int, here: Runtime) -> str:
    """What is about to happen, in three lines."""
    model, autoencoder = config.model, objective.autoencoder
    encoder = sum(value.numel() for value in autoencoder.encoder.parameters()) / 1e6
    whole = sum(value.numel() for value in autoencoder.parameters()) / 1e6
    precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[here.dtype]
    return (
        f"{videos} videos, clips of {model.frames} x {model.size} x {model.size}, {config.mask.kind} mask "
        f"{config.mask.ratio}\n"
        f"encoder {encoder:.1f} M parameters, {whole:.1f} M with the decoder, on {here.device} in {precision}\n"
        f"{plan.steps} steps of {plan.batch} clips = {plan.micro} x {plan.accumulation} accumulated x {plan.ranks} "
        f"ranks, peak learning rate {plan.lr:.2e}, into {config.run.out}"
    )


def pictures(config: Pretrain, objective: Reconstruction, dataset: Clips, here: Runtime) -> Callable[[int], dict]:
    """An inspection that draws the same four clips each time: input, masked, and each head's truth and prediction."""
    batch = here.to_device(collate([dataset[(0, index)] for index in range(min(4, len(dataset)))]))

    def inspect(step: int) -> dict[str, float]:
        shown = side_by_side(objective.pictures({name: value[:4] for name, value in batch.items()}))
        save_animation(Path(config.run.out) / "pictures" / f"step-{step:08d}.webp", shown, config.data.stride)
        return {}

    return inspect
