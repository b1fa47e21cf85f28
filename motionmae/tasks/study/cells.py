"""One cell of a study: an arm at a seed, pretrained, measured, and written down as a small file of figures."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motionmae.config import Measure, Pretrain, Study
from motionmae.errors import MotionMAEError
from motionmae.files import read_json, write_json
from motionmae.grids import GRIDS, UNLEARNED_ARMS, UNTRAINED, arm_of
from motionmae.library.processes import when_parent_ends
from motionmae.models.weights import save
from motionmae.report.run import read_metrics
from motionmae.tasks import finetune, pretrain, probe
from motionmae.tasks.segment import davis

STOPPED = 3
"""Exit code of a cell's process that the user stopped."""


@dataclass(frozen=True)
class Cell:
    """An arm of a grid at a seed, and its config."""

    arm: str
    seed: int
    config: Pretrain

    @property
    def name(self) -> str:
        """Of its run folder and its file of figures."""
        return f"{self.arm}-{self.seed}"

    @property
    def learns(self) -> bool:
        """Whether it is pretrained at all."""
        return self.arm not in (UNTRAINED, *UNLEARNED_ARMS)


def of_grid(config: Study) -> list[Cell]:
    """The cells: all arms at the first seed, then at the next, so that a study that is cut short is even."""
    arms = [arm for arm in GRIDS[config.grid].arms if not config.arms or arm in config.arms]
    return [
        Cell(arm, seed, arm_of(config.base, arm, seed, config.out))
        for seed in config.seeds
        for arm in arms
        if arm not in UNLEARNED_ARMS or seed == config.seeds[0]
    ]


def file_of(config: Study, cell: Cell) -> Path:
    """Where the figures of a cell are."""
    return Path(config.results) / f"{cell.name}.json"


def figures(config: Study, cell: Cell) -> dict[str, Any]:
    """The figures that there are of a cell; none where it has failed or not been done."""
    file = file_of(config, cell)
    found = read_json(file) if file.exists() else {}
    return {} if "failed" in found else found


def unmeasured(config: Study, cell: Cell) -> list[Measure]:
    """What is still to be measured of a cell."""
    found, possible = figures(config, cell), ("probe",) if cell.arm in UNLEARNED_ARMS else config.measures
    return [name for name in config.measures if name in possible and not there(config, found, name)]


def there(config: Study, found: dict[str, Any], name: Measure) -> bool:
    """Whether a measure is among the figures; fine-tuning, with each of the shares asked for."""
    return name in found and (name != "finetune" or all(f"{part:g}" in found[name] for part in config.fractions))


def work(config: Study, cell: Cell) -> None:
    """Do what is missing of a cell, in a process of its own whose words go to a file in the cell's folder.

    Leaves the figures; where it fails, the reason in their place.
    """
    when_parent_ends(partial(os.kill, os.getpid(), signal.SIGTERM))  # as its user would: what it has done is saved
    folder = Path(cell.config.run.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "study.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            do(config, cell)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:  # whatever it is, the table says it and the other cells go on
        known = isinstance(error, MotionMAEError)
        told = str(error) if known else f"{type(error).__name__}: {error}"
        write_json(file_of(config, cell), {"arm": cell.arm, "seed": cell.seed, "failed": told})
        sys.exit(2 if known else 1)


def reason(config: Study, cell: Cell, code: int | None) -> str:
    """Why a cell's process ended with this code; empty where it did its work."""
    if not code:
        return ""
    file = file_of(config, cell)
    found = read_json(file) if file.exists() else {}
    if "failed" not in found:  # killed: nothing could be said from inside
        found = {"arm": cell.arm, "seed": cell.seed, "failed": f"its process ended with code {code}"}
        write_json(file, found)
    return found["failed"]


def do(config: Study, cell: Cell) -> None:
    """Pretrain, and add each missing measure to the cell's figures as soon as it is there."""
    torch.set_num_threads(config.base.run.threads or torch.get_num_threads())
    found = figures(config, cell) or {"arm": cell.arm, "seed": cell.seed}
    if cell.learns and "pretrain" not in found:
        pretrain.run(cell.config)
        found["pretrain"] = course(cell)
    model = model_of(cell)
    for name in unmeasured(config, cell):
        begun = time.perf_counter()
        found[name] = MEASURES[name](config, cell, model)
        found.setdefault("seconds", {})[name] = round(time.perf_counter() - begun, 1)
        write_json(file_of(config, cell), found)


def model_of(cell: Cell) -> str:
    """The cell's model, as the commands name it: a run folder, an untrained encoder, or what stands for one."""
    if cell.learns or cell.arm in UNLEARNED_ARMS:
        return cell.config.run.out if cell.learns else cell.arm
    file = Path(cell.config.run.out) / "untrained.safetensors"
    if not file.exists():
        encoder = pretrain.build(cell.config).autoencoder.encoder
        save(file, nn.ModuleDict({"encoder": encoder}), {"model": asdict(cell.config.model)})
    return str(file)


def course(cell: Cell) -> dict[str, Any]:
    """How the pretraining went: its steps, each head's last loss over the trivial one, and the time it took."""
    lines = [line for line in read_metrics(Path(cell.config.run.out)) if "loss" in line]
    last, tenth = lines[-1], lines[-max(1, len(lines) // 10) :]
    ratios = {
        name: round(sum(line[name] for line in tenth) / len(tenth), 4) for name in last if name.endswith("_ratio")
    }
    speeds = sorted(line["clips_per_second"] for line in lines)
    seconds = cell.config.optim.batch / speeds[len(speeds) // 2]
    return {"steps": last["step"], **ratios, "seconds_a_step": round(seconds, 4)}


def probed(config: Study, cell: Cell, model: str) -> dict[str, Any]:
    """The study's probes on the frozen encoder."""
    asked, folder = config.probe, Path(cell.config.run.out)
    shown = {"frames": cell.config.model.frames, "size": cell.config.model.size}
    asked = replace(asked, views=replace(asked.views, **shown))
    if cell.arm in UNLEARNED_ARMS:
        asked = replace(asked, pool=tuple(pool for pool in asked.pool if pool in ("mean", "time")))
    return _short(probe.run(replace(asked, model=model, out=str(folder / "probe"))))


def attended(config: Study, cell: Cell, model: str) -> dict[str, Any]:
    """An attentive probe on the same videos."""
    folder = Path(cell.config.run.out) / "attentive"
    return _short(probe.run(replace(config.probe, model=model, kinds=("attentive",), out=str(folder))))


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a probe: for each kind and pool the accuracy, the setting, and which videos were right."""
    table = {
        kind: {pool: {name: row[name] for name in ("top1", "setting", "right")} for pool, row in pools.items()}
        for kind, pools in found["probes"].items()
    }
    return {"fitted": found["train"], "tested": found["test"], **table}


def tuned(config: Study, cell: Cell, model: str) -> dict[str, Any]:
    """Fine-tuned with each share of the labels; from scratch where the cell is untrained."""
    found = figures(config, cell).get("finetune", {})
    for fraction in (part for part in config.fractions if f"{part:g}" not in found):
        asked, folder = config.finetune, Path(cell.config.run.out) / f"finetune-{fraction:g}"
        steps = asked.optim.steps
        asked = replace(
            asked,
            init=model if cell.learns else "none",
            model=cell.config.model,
            seed=cell.seed,
            data=replace(asked.data, fraction=fraction),
            optim=replace(asked.optim, steps=None if steps is None else max(1, round(steps * fraction**0.5))),
            run=replace(asked.run, out=str(folder)),
        )
        finetune.run(asked)
        result = read_json(folder / "evaluation" / "evaluation.json")
        found[f"{fraction:g}"] = {"top1": result["top1"], "orders": result["orders"]}
    return found


def followed(config: Study, cell: Cell, model: str) -> dict[str, Any]:
    """The first masks of DAVIS sequences carried on by the frozen encoder."""
    folder = Path(cell.config.run.out) / "davis"
    davis.run(replace(config.davis, model=model, out=str(folder), overlays=False))
    total = read_json(folder / "scores.json")["global"]
    return {name: total[name] for name in ("J&F-Mean", "J-Mean", "F-Mean")}


MEASURES: dict[Measure, Callable[[Study, Cell, str], dict[str, Any]]] = {
    "probe": probed,
    "attentive": attended,
    "finetune": tuned,
    "davis": followed,
}
