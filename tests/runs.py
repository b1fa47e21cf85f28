"""Small runs for the tests of training: a toy objective whose batches are functions of their step, and real runs in
processes of their own that a test may kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from motionmae.config import (
    Data,
    Decoder,
    Finetune,
    Labelled,
    Mask,
    Mix,
    Model,
    Optim,
    OptimKind,
    Pretrain,
    Run,
    Viewing,
)
from motionmae.runtime import Runtime
from motionmae.training import loop
from motionmae.training.optim import plan

CPU = Runtime(torch.device("cpu"), None)


@dataclass(frozen=True)
class Config:
    """What fit() wants of a config."""

    optim: Optim
    run: Run
    seed: int = 3
    data: Data = field(default_factory=Data)


class Toy(nn.Module):
    """Regression with dropout, so that the generators matter: a `ModuleList` of blocks, as a transformer has."""

    def __init__(self, drop: float = 0.2, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.enter = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.leave = nn.Linear(8, 2)
        self.drop = nn.Dropout(drop)

    def layers(self):
        return [
            [*self.enter.parameters()],
            *([*block.parameters()] for block in self.blocks),
            [*self.leave.parameters()],
        ]

    def undecayed(self):
        return [value for value in self.parameters() if value.ndim < 2]

    def hidden_matrices(self):
        return [(block.weight, at + 1) for at, block in enumerate(self.blocks)]

    def forward(self, batch):
        x = self.enter(batch["x"])
        for block in self.blocks:
            x = x + self.drop(torch.tanh(block(x)))
        loss = (self.leave(x) - batch["y"]).square().mean()
        return {"loss": loss, "toy": loss.detach(), "toy_ratio": loss.detach() / batch["y"].square().mean()}


def clips(step: int, rows: range, total: int) -> dict[str, torch.Tensor]:
    """Rows of the batch of a step."""
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(total, 4, generator=generator)
    numbers = torch.arange(step * total, (step + 1) * total)
    whole = {"x": x, "y": torch.stack((x.sum(1), x[:, 0] - x[:, 1]), 1), "key": numbers}
    return {name: value[rows.start : rows.stop] for name, value in whole.items()}


def batches(batch: int, micro: int, rank: int = 0, ranks: int = 1, spoil=None):
    """A function from a step to the micro-batches of a rank from there on; `spoil(step, batch)` may change one."""

    def stream(first: int):
        step, share = first, batch // ranks
        while True:
            for at in range(rank * share, (rank + 1) * share, micro):
                made = clips(step, range(at, at + micro), batch)
                yield made if spoil is None else spoil(step, made)
            step += 1

    return stream


def toy_config(out: Path, steps: int = 12, **changes) -> Config:
    optim = Optim(batch=8, steps=steps, epochs=float(steps), warmup_epochs=2.0, lr=0.3, weight_decay=0.1)
    run = Run(out=str(out), device="cpu", log_every=2, save_every=4, inspect_every=1000)
    names = Run.__dataclass_fields__
    return Config(
        replace(optim, **{k: v for k, v in changes.items() if k not in names}),
        replace(run, **{k: v for k, v in changes.items() if k in names}),
    )


def fit_toy(
    config: Config, toy: nn.Module | None = None, spoil=None, runtime: Runtime = CPU, inspect=None, stream=None
):
    """Run the loop over the toy; the toy, and whether it finished."""
    toy = toy or Toy()
    made = plan(config.optim, config.run, 8, 1, runtime.ranks)
    stream = stream or batches(made.batch, made.micro, runtime.rank, runtime.ranks, spoil)
    with loop.open_folder(config, runtime):
        done = loop.fit(toy, stream, made, runtime, config, inspect)
    return toy, done


def readings(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def newest(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the newest checkpoint file."""
    return load_file(sorted(folder.glob("checkpoints/step-*.safetensors"))[-1])


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def pretraining(
    videos: Path, out: Path, steps: int = 12, workers: int = 0, kind: OptimKind = "adamw", **run
) -> Pretrain:
    """A real run that takes seconds: five videos in batches of four, so that most stops are in mid-epoch."""
    return Pretrain(
        model=Model(4, 16, (2, 8, 8), 24, 2, 3, decoder=Decoder("shared", 12, 1, 2)),
        mask=Mask("random", 0.5),
        data=Data(path=str(videos), stride=1, workers=workers, cache=True),
        optim=Optim(kind, batch=4, steps=steps, epochs=10.0, warmup_epochs=1.0, lr=0.2),
        run=Run(
            out=str(out), device="cpu", **{"log_every": 2, "save_every": 3, "inspect_every": 1000, "threads": 1} | run
        ),
    )


def finetuning(videos: Path, tests: Path, out: Path, steps: int = 12, **run) -> Finetune:
    """As `pretraining`, for folders of class folders: nothing drawn but the clips, looks at the test videos on the way.

    A run on several ranks is then one on the joined batch.
    """
    like = pretraining(videos, out, steps, **{"inspect_every": 6} | run)
    return Finetune(
        "none",
        like.model,
        drop_path=0.0,
        layer_decay=0.9,
        mix=Mix(0.0, 0.0, 0.1),
        data=Labelled(path=str(videos), test=str(tests), stride=1, workers=0, cache=True),
        views=Viewing(2, 1),
        optim=like.optim,
        run=like.run,
    )


def until(true, told: str, limit: float = 120) -> None:
    """Wait for what comes to be; `told` is what has failed where it does not, within `limit` seconds."""
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, told
        time.sleep(0.01)


def start(function, *arguments, **environment: str):
    """The function in a fresh process with these variables; its output goes to a file beside what it does."""
    context = multiprocessing.get_context("forkserver")
    # Nothing of the tests here: the server looks in the working folder, where a folder "runs" of runs would be "runs".
    context.set_forkserver_preload(["torch.utils.tensorboard", "motionmae.tasks.pretrain"])
    process = context.Process(target=_enter, args=(function, arguments, environment))
    process.start()
    return process


def ranks(function, number: int, *arguments, log: Path | None = None, **environment: str):
    """The function on so many ranks, each in a process of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    told = [{"TEST_LOG": f"{log}{rank}"} if log else {} for rank in range(number)]
    return [start(function, *arguments, RANK=str(r), LOCAL_RANK=str(r), **common, **told[r]) for r in range(number)]


def _enter(function, arguments, environment):
    os.environ.update(environment)
    target = os.open(environment.get("TEST_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    torch.set_num_threads(1)
    sys.exit(function(*arguments) or 0)


def command(name: str, config) -> int:
    """The command itself, without its parsing."""
    from unittest.mock import patch

    from motionmae import cli

    with patch.object(cli, "parse", lambda args: (name, config)):
        return cli.main([])


def pretrain(config: Pretrain) -> int:
    return command("pretrain", config)


def finetune(config: Finetune) -> int:
    return command("finetune", config)
