"""Precision on a CPU: measured once for a run, kept when it goes on, and never that of targets and losses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import runs
import torch

from motionmae.config import Decoder, Loss, Mask, Model, Run, Target
from motionmae.models.autoencoder import MotionMAE
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.training import checkpoint, rehearsal

BF16 = replace(runs.CPU, dtype=torch.bfloat16)


@pytest.fixture
def timed(monkeypatch):
    """Passes of which each takes as long as it is told: [fp32, bf16] for each turn, the first of which warms up."""

    def set_times(*turns):
        left = [seconds for turn in turns for seconds in turn]
        monkeypatch.setattr(rehearsal, "multiplies_bf16", lambda: True)
        monkeypatch.setattr(rehearsal, "_timed", lambda *_: left.pop(0))
        return left

    return set_times


def settle(run=None, kept=""):
    return rehearsal.precision(runs.Toy(), runs.clips(0, range(8), 8), run or Run(), runs.CPU, kept)


@pytest.mark.parametrize(
    ("turns", "chosen"),
    [
        ([(9, 9), (1.0, 0.5), (1.0, 0.6), (1.0, 0.4)], "bf16"),
        ([(9, 9), (1.0, 0.5), (1.0, 0.7), (1.0, 0.4)], "fp32"),  # not in each turn
        ([(9, 9), (0.01, 0.001), (0.01, 0.001), (0.01, 0.001)], "fp32"),  # too short to tell
    ],
)
def test_auto_takes_bf16_where_each_turn_says_that_it_is_much_faster_and_says_so(timed, turns, chosen):
    timed(*turns)
    runtime, told = settle()
    assert runtime.precision == chosen
    assert told.startswith(f"precision auto: {chosen}, as bf16 is at least ")


def test_a_choice_that_is_made_is_not_measured(timed):
    timed()  # a pass would find no time
    assert settle(kept="bf16") == (BF16, "")
    assert settle(Run(precision="fp32")) == (runs.CPU, "")
    assert settle(Run(deterministic=True)) == (runs.CPU, "")


def test_a_run_keeps_the_precision_it_began_with(timed, tmp_path, capsys):
    turn = (1.0, 0.5)
    left = timed(turn, turn, turn, turn)

    def fail(step, batch):
        if step == 6:
            raise RuntimeError("the machine has gone")
        return batch

    config = runs.toy_config(tmp_path / "run", steps=8)
    with pytest.raises(RuntimeError, match="the machine has gone"):
        runs.fit_toy(config, spoil=fail)
    assert "precision auto: bf16" in capsys.readouterr().out
    assert left == []
    runs.fit_toy(config)  # measuring again would find no time
    for file in checkpoint.found(tmp_path / "run"):
        assert json.loads(checkpoint.stored.Stored(file).about["plan"])["precision"] == "bf16"


def test_targets_and_losses_are_float32_under_bf16():
    model = Model(4, 32, (2, 8, 8), 24, 1, 3, decoder=Decoder("shared", 12, 1, 2))
    objective = Reconstruction(MotionMAE(model), Mask("random", 0.5), Target(), Loss())
    batch = {"clip": torch.randint(0, 256, (2, 3, 5, 32, 32), dtype=torch.uint8), "key": torch.arange(2)}
    shown, after = objective.frames(batch["clip"])
    masked = objective.draw(shown, after, batch["key"])[1]
    plain = {name: objective.wanted(name, shown, after, masked)[0] for name in ("appearance", "motion")}
    with BF16.autocast():
        for name, wanted in plain.items():
            assert torch.equal(objective.wanted(name, shown, after, masked)[0], wanted)
        parts = objective(batch)
    assert {value.dtype for value in parts.values()} == {torch.float32}
