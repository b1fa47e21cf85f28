"""`motionmae plan`: what a pretraining run would take, from its config alone, and which of it was measured.

Arithmetic and activations are counted on tensors that have shapes and no numbers: any size fits any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from motionmae import runtime
from motionmae.config import Planned, Pretrain
from motionmae.data.clips import pretraining_offsets
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.objectives.reconstruction import Reconstruction, heads_of
from motionmae.progress import clock, then
from motionmae.runtime import Runtime
from motionmae.training import optim, settling
from motionmae.training.machine import COUNTED, now
from motionmae.words import many


@dataclass(frozen=True)
class Needs:
    """Of one clip: floating-point operations forward and backward, bytes kept in between; of the model: bytes."""

    flops: int
    kept: int
    weights: int
    state: int
    block: int


def run(config: Planned) -> None:
    """Print the plan."""
    if config.gpus < 1:
        raise MotionMAEError(f"--gpus must be at least 1, it is {config.gpus}")
    if config.videos < 1:
        raise MotionMAEError(f"--videos must be at least 1, it is {config.videos}")
    if config.rate is not None and config.rate <= 0:
        raise MotionMAEError(f"--rate must be above 0 TFLOP/s, it is {config.rate:g}")
    if config.epochs is not None:
        left = tuple(name for name in config.open if name != "optim.steps")
        config = replace(config, optim=replace(config.optim, epochs=config.epochs, steps=None), open=left)
    # As the run would settle it, in a folder of its own.
    settled, said = settling.settle(replace(config, run=replace(config.run, out="")), config.videos, config.gpus)
    here = runtime.start(config.run)
    plan = optim.plan(settled.optim, settled.run, config.videos, config.data.repeats, config.gpus)
    needs = needs_of(config)
    rate, origin = (1e12 * config.rate, "given") if config.rate else measured(config, needs, here)
    seconds = plan.steps * plan.batch * needs.flops / (rate * config.gpus)
    if said:
        print(said)
    print(f"{optim.in_numbers(plan)}; {many(plan.steps * plan.batch, 'clip')} of {many(config.videos, 'video')}")
    for name, bytes_ in memory(needs, plan.micro, config.gpus).items():
        print(
            f"{name}: about {bytes_ / 2**30:.2f} GiB a rank with {many(plan.micro, 'clip')} at once "
            f"({needs.kept / 2**20:.0f} MiB a clip)"
        )
    print(
        f"{needs.flops / 1e9:.1f} GFLOP a clip, forward and backward, {plan.steps * plan.batch * needs.flops:.2e} FLOP"
    )
    print(f"{clock(seconds)} at {rate / 1e12:.3g} TFLOP/s a rank ({origin})")
    print(
        "counted: operations, weights and what autograd keeps (in bf16 unless --run.precision fp32); extrapolated: the "
        "hours, without waiting for data or other ranks, and the memory, without what lives inside an operator"
    )
    then("motionmae pretrain with the same preset and --data.path VIDEOS")


def needs_of(config: Pretrain) -> Needs:
    """What a clip and the model need. Activations are those of bf16 autocast, as on a GPU, unless fp32 is asked for."""
    half = config.run.precision != "fp32"
    model, target = config.model, config.target
    frames = len(pretraining_offsets(model.frames, config.data.stride, target.adjacent, target.gap))
    with torch.device("meta"):
        objective = build(config).train()
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        # On the CPU in name: the attention of the meta device keeps more than that of any real one.
        values = [*objective.named_parameters(), *objective.named_buffers()]
        stand_ins = {
            name: torch.empty(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)
            for name, value in values
        }
        clip = torch.zeros(1, 3, frames, model.size, model.size, dtype=torch.uint8)
        batch = {"clip": clip, "key": torch.zeros(1, dtype=torch.int64)}
        held: dict[int, Tensor] = {}

        def keep(value: Tensor) -> Tensor:
            held[value.untyped_storage()._cdata] = value
            return value

        with FlopCounterMode(display=False, custom_mapping=COUNTED) as flops:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
                loss = functional_call(objective, stand_ins, (batch,))["loss"]
            loss.backward()
        for value in stand_ins.values():
            held.pop(value.untyped_storage()._cdata, None)
        kept = sum(value.untyped_storage().nbytes() for value in held.values())
    matrices = sum(value.numel() for value, _ in objective.autoencoder.hidden_matrices())
    block = sum(value.numel() for value in objective.autoencoder.encoder.blocks[0].parameters())
    numbers = sum(value.numel() for value in objective.parameters())
    momenta = 2 * numbers - (matrices if config.optim.kind == "muon" else 0)
    means = numbers if config.optim.ema is not None else 0
    return Needs(flops.get_total_flops(), kept, 4 * numbers, 4 * (momenta + means), 4 * block)


def build(config: Pretrain) -> Reconstruction:
    """The objective that the run would train."""
    autoencoder = MotionMAE(config.model, heads_of(config.loss, config.target, config.model.cube))
    autoencoder.recompute(config.run.checkpointing)
    return Reconstruction(autoencoder, config.mask, config.target, config.loss)


def memory(needs: Needs, micro: int, ranks: int) -> dict[str, int]:
    """Bytes of a rank: weights, gradients, optimiser and activations; all of them with DDP, which has buckets of all
    gradients beside, a part of them with FSDP2, which gathers two blocks at a time."""
    activations = needs.kept * micro
    buckets = needs.weights if ranks > 1 else 0
    whole = 2 * needs.weights + needs.state
    return {"DDP": whole + buckets + activations, "FSDP2": whole // ranks + 4 * needs.block + activations}


def measured(config: Pretrain, needs: Needs, here: Runtime) -> tuple[float, str]:
    """Operations a second that a forward and backward pass of one clip reaches here, the better of two tries."""
    objective = build(config).to(here.device).train()
    model, target = config.model, config.target
    frames = len(pretraining_offsets(model.frames, config.data.stride, target.adjacent, target.gap))
    clip = torch.randint(0, 256, (1, 3, frames, model.size, model.size), dtype=torch.uint8, device=here.device)
    batch = {"clip": clip, "key": torch.zeros(1, dtype=torch.int64, device=here.device)}
    spent = []
    for _ in range(3):
        begun = now(here.device)
        with here.autocast():
            loss = objective(batch)["loss"]
        loss.backward()
        spent.append(now(here.device) - begun)
    return needs.flops / min(spent[1:]), f"measured on this machine's {here.device.type} in {here.precision}, one clip"
