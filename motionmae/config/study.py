"""Studies: what many runs have in common, and how each of them is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from motionmae.config.bounds import PROCESSES, SOME, Bounds
from motionmae.config.pretraining import Pretrain
from motionmae.config.recognition import Finetune, Probe
from motionmae.config.segmentation import SegmentDavis

Measure = Literal["probe", "attentive", "finetune", "davis"]


@dataclass(frozen=True)
class Study:
    """A named grid of pretraining runs, each measured alike, as one table."""

    grid: str = ""
    """The grid's name; set by the choice."""
    base: Pretrain = field(default_factory=Pretrain)
    """What all runs have in common: a config of motionmae pretrain, of which each arm changes a few fields."""
    seeds: Annotated[tuple[int, ...], Bounds(0, 2**63 - 1, least=1)] = (0, 1, 2)
    """Seeds of each arm; arms are compared seed by seed."""
    arms: tuple[str, ...] = ()
    """Arms to run, of those that the grid has; all by default."""
    measures: tuple[Measure, ...] = ("probe",)
    """What is measured of each run: by --probe, by an attentive probe on the same videos, by --finetune with each of
    --fractions of the labels, and by --davis. What a finished run lacks is added."""
    probe: Probe = field(default_factory=Probe)
    """A config of motionmae probe; its model and folder are the run's."""
    finetune: Finetune = field(default_factory=Finetune)
    """A config of motionmae finetune; what it starts from and its folder are the run's."""
    fractions: Annotated[tuple[float, ...], Bounds(0, 1, above=True, least=1)] = (1.0, 0.1)
    """Shares of the labels that fine-tuning gets; with --finetune.optim.steps for all of them, the steps for a share go
    by its square root: fewer steps, and each label seen more often."""
    davis: SegmentDavis = field(default_factory=SegmentDavis)
    """A config of motionmae segment davis; its model and folder are the run's."""
    processes: Annotated[int, PROCESSES] = 1
    """Runs at the same time; with --base.run.threads 1 each keeps one processor busy."""
    timed: Annotated[int, SOME] = 5
    """Steps of each arm that are timed, in turns, for the comparison at equal time; 0 for none."""
    out: str = ""
    """Folder with a run folder for each arm and seed, which grids on the same data share; by default runs/study."""
    results: str = "studies/mine"
    """Folder for the results, a small JSON file for each arm and seed, and the table."""
    page: str = ""
    """A Markdown file in which the table stands between its two comments, and is renewed."""
    tables: bool = False
    """Run nothing: make the table from the results that there are."""
