"""The plan of a run: what it counts without numbers is what a real step has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import runs
import torch
from torch.utils.flop_counter import FlopCounterMode

from motionmae import cli
from motionmae.config import Decoder, Mask, Model, Optim, Pretrain, Run
from motionmae.tasks import plan
from motionmae.tasks.pretrain import build
from motionmae.training import rehearsal
from motionmae.training.machine import COUNTED

SMALL = Pretrain(
    model=Model(4, 32, (2, 8, 8), 24, 3, 3, decoder=Decoder("shared", 12, 2, 2)),
    mask=Mask("random", 0.5),
    run=Run(precision="fp32"),
)


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_operations_and_activations_are_those_of_a_real_step(attention):
    model = replace(SMALL.model, decoder=replace(SMALL.model.decoder, attention=attention))
    config = replace(SMALL, model=model)
    needs, objective = plan.needs_of(config), build(config)
    batch = {"clip": torch.randint(0, 256, (1, 3, 5, 32, 32), dtype=torch.uint8), "key": torch.arange(1)}
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as flops:
        objective(batch)["loss"].backward()
    assert needs.flops == flops.get_total_flops()
    assert "attention" in str(list(flops.get_flop_counts()["Global"]))
    numbers = sum(value.numel() for value in objective.parameters())
    assert (needs.weights, needs.state) == (4 * numbers, 8 * numbers)
    found = rehearsal.rehearse(objective, batch, runs.CPU, warm=False).memory - 16 * numbers
    assert needs.kept == pytest.approx(found, rel=0.02)


def test_muon_keeps_one_number_of_a_hidden_matrix_and_a_running_mean_one_more_of_each():
    plainly, muon = plan.needs_of(SMALL), plan.needs_of(replace(SMALL, optim=Optim(kind="muon")))
    hidden = sum(value.numel() for value, _ in build(SMALL).autoencoder.hidden_matrices())
    assert plainly.state - muon.state == 4 * hidden
    assert plan.needs_of(replace(SMALL, optim=Optim(ema=0.99))).state == plainly.state + plainly.weights


def test_shards_are_a_part_of_the_weights_and_one_rank_has_no_buckets():
    needs = plan.Needs(flops=1, kept=1000, weights=400, state=800, block=50)
    assert plan.memory(needs, 2, 1) == {"DDP": 1600 + 2000, "FSDP2": 1600 + 200 + 2000}
    assert plan.memory(needs, 2, 4) == {"DDP": 1600 + 400 + 2000, "FSDP2": 400 + 200 + 2000}


def test_the_command_tells_steps_memory_and_hours_at_a_given_rate(capsys):
    args = ["plan", "base", "--gpus", "8", "--videos", "170000", "--epochs", "800", "--rate", "100"]
    assert cli.main(args) == 0
    told = capsys.readouterr().out
    assert told.startswith(
        "132813 steps of 1024 clips = 128 x 1 accumulated x 8 ranks; 136000512 clips of 170000 videos"
    )
    needs = plan.needs_of(SMALL)
    assert needs.flops > 0
    for words in ("DDP: about ", "FSDP2: about ", "GFLOP a clip", "at 100 TFLOP/s a rank (given)", "extrapolated"):
        assert words in told


def test_without_a_rate_this_machine_is_measured(capsys):
    assert cli.main(["plan", "tiny", "--gpus", "1", "--videos", "10", "--run.device", "cpu"]) == 0
    assert "measured on this machine's cpu in fp32" in capsys.readouterr().out


def test_few_videos_are_planned_as_a_run_of_them_would_be_unless_epochs_are_given(capsys):
    few = ["plan", "small", "--gpus", "1", "--videos", "5", "--rate", "1", "--run.device", "cpu"]
    assert cli.main(few) == 0
    told = capsys.readouterr().out
    assert "5 videos, few for this recipe: 10000 steps of 32 clips" in told
    assert "\n10000 steps of 32 clips" in told
    assert cli.main([*few, "--epochs", "64"]) == 0
    assert "\n10 steps of 32 clips" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value"), [("--gpus", "0"), ("--videos", "0"), ("--rate", "0"), ("--gpus", "3")])
def test_a_plan_that_cannot_be_is_one_sentence(capsys, option, value):
    assert cli.main(["plan", "tiny", "--rate", "1", option, value]) == 2
    assert capsys.readouterr().err.startswith("motionmae: --")
