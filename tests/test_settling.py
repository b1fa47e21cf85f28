"""What presets leave open fits the videos and the machine, and published numbers stay where the data are enough."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import runs
import torch

from motionmae import cli
from motionmae.config import Data, Pretrain
from motionmae.data.synthetic import write_videos
from motionmae.presets import COMMANDS, OPEN
from motionmae.runtime import Runtime
from motionmae.training.optim import Plan
from motionmae.training.rehearsal import Rehearsal
from motionmae.training.settling import AHEAD, ahead, refusal, settle

SMALLER = (
    "--model.frames", "4", "--model.size", "32", "--model.cube", "2", "16", "16", "--model.width", "24",
    "--model.depth", "1", "--model.heads", "2", "--model.decoder.width", "16", "--model.decoder.depth", "1",
    "--model.decoder.heads", "2", "--run.device", "cpu", "--data.workers", "0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "videos"), [("k400", 240_000), ("ssv2-small", 168_000), ("ucf101", 9537), ("hmdb51", 3570)]
)
def test_published_numbers_stay_where_the_data_are_enough(preset, videos):
    config = COMMANDS["pretrain"].choices[preset]
    settled, said = settle(config, videos, 1)
    assert settled.optim == config.optim
    assert said == ""


@pytest.mark.parametrize(("videos", "batch", "steps"), [(5, 32, 10_000), (1000, 128, 10_000), (4000, 512, 10_000)])
def test_few_videos_get_small_batches_and_no_fewer_steps_than_teach_anything(videos, batch, steps, tmp_path):
    config = COMMANDS["pretrain"].choices["small"]
    settled, said = settle(replace(config, run=replace(config.run, out=str(tmp_path))), videos, 1)
    assert (settled.optim.batch, settled.optim.steps) == (batch, steps)
    assert f"{videos} videos, few for this recipe: {steps} steps of {batch} clips in place of" in said
    assert 1 <= settled.data.workers <= 8


def test_tiny_is_as_it_was_and_configs_made_in_python_are_all_given():
    tiny = COMMANDS["pretrain"].choices["tiny"]
    for config in (tiny, Pretrain()):
        assert config.open == ()
        assert settle(config, 5, 1) == (config, "")


def test_what_is_typed_is_not_open():
    def left(*args: str) -> set[str]:
        return set(OPEN) - set(cli.parse(["pretrain", "small", "--data.path", "x", *args])[1].open)

    assert left() == set()
    assert left("--optim.batch", "1024") == {"optim.batch"}
    assert left("--optim.epochs=3", "--run.micro_batch", "auto") == {"optim.steps", "run.micro_batch"}
    assert left("--data.workers", "3", "--data.prefetch", "4") == {"data.workers", "data.prefetch"}


def test_batches_ahead_are_bounded_in_bytes():
    assert ahead(Data(workers=4, prefetch=4), 1000) == Data(workers=4, prefetch=4)
    assert ahead(Data(workers=4, prefetch=4), int(AHEAD / 12)).prefetch == 2
    assert ahead(Data(workers=4, prefetch=4), int(AHEAD)).prefetch == 1


def test_days_on_a_cpu_are_begun_where_they_are_meant_alone(tmp_path):
    config = replace(COMMANDS["pretrain"].choices["small"], run=replace(Pretrain().run, out=str(tmp_path)))
    plan, slow = Plan(10_000, 500, 32, 8, 4, 1, 1e-4, 5), Rehearsal(12.0, 0)
    said = refusal(slow, plan, config, runs.CPU)
    assert re.search(r"10000 steps of 32 clips .* about 5 days 13:20:00 on this CPU.*tiny", said)
    assert not refusal(slow, replace(plan, steps=1000), config, runs.CPU)
    assert not refusal(slow, plan, replace(config, open=OPEN[2:]), runs.CPU)  # --optim.steps was typed
    assert not refusal(slow, plan, config, Runtime(torch.device("cuda"), None))


def test_a_preset_on_few_videos_says_its_plan_writes_what_it_settled_and_goes_on_with_it(tmp_path, capsys):
    list(write_videos(tmp_path / "v", "train", 1, seed=0, frames=20, size=32))
    args = ["pretrain", "small", *SMALLER, "--data.path", str(tmp_path / "v"), "--run.out", str(tmp_path / "run")]
    assert cli.main([*args, "--optim.steps", "2"]) == 0
    told = capsys.readouterr().out
    assert "2 steps of 32 clips" in told
    assert re.search(r"one clip says: about .* GiB of memory for each rank, .* for 2 steps if the data keep up", told)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["optim"]["batch"], config["run"]["micro_batch"], config["open"]) == (32, 32, [])
    assert cli.main([*args, "--optim.steps", "2"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert cli.main(args) == 0  # its steps are the run's, not the recipe's
    assert "already finished" in capsys.readouterr().out
