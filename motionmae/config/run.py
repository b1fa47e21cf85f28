"""How a run is optimised, where it goes and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from motionmae.config.bounds import COUNT, PROCESSES, SOME, WORKERS, Bounds

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
OptimKind = Literal["adamw", "muon"]
EngineKind = Literal["local", "ray"]


@dataclass(frozen=True)
class Optim:
    """AdamW or Muon with linear warm-up and cosine decay, stepped by step."""

    kind: OptimKind = "adamw"
    """AdamW for all parameters, or Muon for the matrices inside the transformer blocks and AdamW for the rest."""
    batch: Annotated[int, COUNT] = 1024
    """Clips in one optimiser step, over all ranks and accumulated micro-batches."""
    epochs: Annotated[float, Bounds(0, 1e9, above=True)] = 800.0
    """Passes over the videos."""
    steps: Annotated[int | None, COUNT] = None
    """Optimiser steps, instead of epochs; the warm-up keeps its share. They may be raised on a run that is under way or
    finished."""
    tail: Annotated[int, SOME] = 0
    """Steps at the end that stay at the lowest rate: as many as are added to a run keep the rates that it had."""
    lr: Annotated[float, Bounds(0, 1000)] = 1.5e-4
    """Peak learning rate for 256 clips; the run's peak is this times batch / 256."""
    lr_hidden: Annotated[float, Bounds(0, 1, above=True)] = 0.01
    """Muon's peak learning rate, above 0, at most 1; its updates are of one size, so it is not scaled by the batch. It
    rises and falls in step with lr."""
    lr_start: Annotated[float, Bounds(0, 1000)] = 1e-6
    """Learning rate at the first step, for 256 clips as lr."""
    lr_end: Annotated[float, Bounds(0, 1000)] = 1e-5
    """Learning rate at the last step, for 256 clips as lr."""
    warmup_epochs: Annotated[float, Bounds(0, 1e9)] = 40.0
    """Epochs in which the rate rises; where the run is not longer, a tenth of it."""
    weight_decay: Annotated[float, Bounds(0, 1000)] = 0.05
    """Decoupled weight decay of matrices; biases, norms, positions and mask tokens have none."""
    betas: Annotated[tuple[float, float], Bounds(0, 1, below=True)] = (0.9, 0.95)
    """AdamW's two averages."""
    momentum: Annotated[float, Bounds(0, 1, below=True)] = 0.95
    """Muon's average of the gradient, at least 0, below 1."""
    clip: Annotated[float | None, Bounds(0, 1e9, above=True)] = None
    """Largest norm of the gradient; none by default."""
    ema: Annotated[float | None, Bounds(0, 1, above=True, below=True)] = None
    """Decay a step of the weights' running mean, for instance 0.9999; it is kept beside the weights and is what
    motionmae.load takes. None by default."""


@dataclass(frozen=True)
class Run:
    """Where, on what and how often."""

    out: str = ""
    """Run folder; by default runs/COMMAND-PRESET."""
    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """auto: bf16 on a GPU that has it, else fp16 with loss scaling; on a CPU that has bf16 the faster of it and fp32,
    measured once."""
    compile: bool = False
    """Compile the objective with torch.compile; where that fails the run says why and goes on without."""
    deterministic: bool = False
    """Equal numbers each time on a GPU too, slower; the CPU's are equal in any case."""
    parallel: Parallel = "ddp"
    """Under torchrun: ddp keeps all weights on every rank, fsdp a part on each, with checkpoints in parts too."""
    micro_batch: Annotated[int | Literal["auto"] | None, COUNT] = None
    """Clips that pass through the model at once, for each rank; the rest of the batch is accumulated. auto tries
    what fits; none: the rank's whole batch."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    log_every: Annotated[int, COUNT] = 10
    """Steps between two lines of the log."""
    save_every: Annotated[int, COUNT] = 500
    """Steps between two checkpoints."""
    inspect_every: Annotated[int, COUNT] = 1000
    """Steps between two inspections: reconstruction pictures and measures of the representation."""
    keep: Annotated[int, SOME] = 2
    """Checkpoints that stay in the run folder; 0 keeps all."""
    bad_steps: Annotated[int, SOME] = 20
    """Steps out of the last 100 that may be skipped for a loss or gradient that is not finite; one more ends the
    run with a dump of them."""
    replay: str = ""
    """A dump of bad steps: run them again, say where the numbers stop being finite, and change nothing."""
    plateau_steps: Annotated[int, COUNT] = 1000
    """Steps after which a part of the loss that is no better than a trivial prediction is named in the log."""
    wandb: str = ""
    """Weights & Biases project that gets the curves too (needs the wandb package)."""
    threads: Annotated[int | None, PROCESSES] = None
    """Threads of the CPU's own mathematics; PyTorch's choice by default."""


@dataclass(frozen=True)
class Hardware:
    """What a trained model runs on."""

    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """Of the model: bf16 on a GPU that has it, else fp16; fp32 on the CPU."""
    threads: Annotated[int | None, PROCESSES] = None
    """Threads of the CPU's own mathematics; PyTorch's choice by default."""


@dataclass(frozen=True)
class Compute(Hardware):
    """What a trained model runs on, and how clips come to it."""

    batch: Annotated[int, COUNT] = 32
    """Clips that pass through the model at once, for each rank."""
    workers: Annotated[int, WORKERS] = 4
    """Processes that decode, for each rank; 0 decodes in the process of the model."""


@dataclass(frozen=True)
class Spread:
    """Over which jobs and machines work on many videos is spread."""

    part: str = ""
    """This job's share of the work, such as 3/64: job K of N, each started with the same words but this. Whichever ends
    last joins the parts; so does the command without it, which does what is lacking."""
    engine: EngineKind = "local"
    """Processes of this machine; or tasks on a Ray cluster, of which a machine that dies costs its tasks alone."""
    ray_address: str = ""
    """A cluster's address, such as 10.0.0.1:6379, or auto on one of its machines. By default $RAY_ADDRESS, or a cluster
    on this machine alone for as long as the command runs."""
