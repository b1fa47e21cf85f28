"""The benches: what they count is what was computed, and each prints its figures for any options of its preset."""

from __future__ import annotations

import re
import runpy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from motionmae import cli
from motionmae.config import Decoder, Finetune, Loss, Mask, Model, Pretrain, Run
from motionmae.data.synthetic import MOTIONS, write_videos
from motionmae.models.classifier import Classifier
from motionmae.models.weights import save
from motionmae.presets import COMMANDS
from motionmae.runtime import Runtime
from motionmae.tasks.bench import parts, whole
from motionmae.tasks.pretrain import build

CPU = Runtime(torch.device("cpu"), None)
SMALL = Model(4, 32, (2, 8, 8), 32, 2, 2, decoder=Decoder("shared", 24, 2, 2, "cross"))
SMALLER = (
    "--model.size", "32", "--model.frames", "4", "--model.width", "24", "--model.depth", "1", "--model.heads", "2",
    "--model.decoder.width", "16", "--model.decoder.depth", "1", "--model.decoder.heads", "2",
    "--model.decoder.attention", "cross", "--optim.batch", "2", "--run.threads", "1", "--turns", "1",
    "--data.workers", "0",
)  # fmt: skip
LESS = ("--no-alternatives", "--no-reference")


def test_traffic_counts_what_operators_read_and_write_and_views_move_nothing():
    left, right = torch.ones(10, 10), torch.ones(10, 10)
    assert parts.counted(lambda: left + right).moved == 3 * 400
    assert parts.counted(lambda: left.add_(right)).moved == 3 * 400
    assert parts.counted(lambda: left.t().view(10, 10)[2:]).moved == 0
    assert parts.counted(lambda: left @ right).flops == 2 * 1000


def test_parts_are_those_of_a_whole_step_and_count_its_products():
    config = Pretrain(model=SMALL, mask=Mask("random", 0.75, 0.5), loss=Loss(motion=0.0))
    objective = build(config)
    batch = {"clip": torch.randint(0, 256, (2, 3, 5, 32, 32), dtype=torch.uint8), "key": torch.arange(2)}
    found = parts.measure(objective, batch, CPU, 1)
    assert all(value.grad is None for value in objective.parameters())
    visible, predicted, pixels = 8, 12, 2 * 8 * 8 * 3
    assert found["embedding"].flops == 2 * 2 * 2 * visible * pixels * 32  # no gradient goes on to the pixels
    assert found["heads"].flops == 3 * 2 * 2 * predicted * pixels * 24
    assert found["targets"].flops == 0
    step = parts.counted(lambda: objective(batch)["loss"].backward())
    assert sum(part.flops for part in found.values()) == step.flops
    assert all(part.seconds > 0 and part.moved > 0 and part.calls > 0 for part in found.values())


def test_a_bench_of_a_step_takes_the_options_of_its_preset_and_says_what_limits_it(capsys):
    assert cli.main(["bench", "pretrain", "tiny", *SMALLER, "--mask.decode-ratio", "0.25", *LESS]) == 0
    told = capsys.readouterr().out
    for words in ("decode ratio 0.25, decoder cross", "large matrix product", "whole step", "limit: "):
        assert words in told
    for part in ("embedding", "encoder", "decoder", "heads", "targets"):
        assert f"\n  {part} " in told


@pytest.mark.parametrize("bench", ["pretrain", "run"])
def test_a_bench_knows_every_preset_of_pretraining_and_changes_only_how_it_is_run(bench):
    assert set(COMMANDS["bench"].choices[bench]) == set(COMMANDS["pretrain"].choices)
    for name, config in COMMANDS["bench"].choices[bench].items():
        preset = COMMANDS["pretrain"].choices[name]
        assert (config.model, config.mask, config.target, config.loss) == (
            preset.model, preset.mask, preset.target, preset.loss,
        )  # fmt: skip
        assert (config.optim.batch, config.run) == (8, Run())


def test_a_bench_without_a_preset_lists_them_and_a_wrong_one_is_named(capsys):
    assert cli.main(["bench", "pretrain"]) == 0
    assert re.search(r"^  tiny  .*^  small  ", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    assert cli.main(["bench", "pretrain", "tinny"]) == 2
    assert "tinny" in capsys.readouterr().err


def test_a_whole_run_tells_its_speed_and_its_wait_for_data(capsys):
    assert cli.main(["bench", "run", "tiny", *SMALLER, "--run.log-every", "1", "--run.device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "clips/s from files to gradients, 2 a step, 0 workers; data wait" in told
    assert "medians of 1 stretch of 1 step)" in told


def test_a_whole_run_that_is_stopped_says_so(monkeypatch, capsys):
    monkeypatch.setattr(whole, "fit_videos", lambda *_: False)
    assert cli.main(["bench", "run", "tiny", *SMALLER, "--run.device", "cpu"]) == 1
    assert "motionmae: stopped" in capsys.readouterr().err


@pytest.mark.parametrize("bench", ["embed", "evaluate"])
def test_inference_tells_its_speed_and_the_share_of_the_encoder(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in write_videos(tmp_path, "videos", 1, seed=0, frames=8, size=32):
        pass
    model = tmp_path / "model.safetensors"
    network = Classifier(replace(SMALL, norm=False), MOTIONS)
    save(model, network, asdict(Finetune(model=network.encoder.config, classes=MOTIONS)))
    given = ["bench", bench, str(model)]
    given += ["videos"] if bench == "embed" else ["--data.path", "videos", "--views.clips", "1", "--no-orders"]
    assert cli.main([*given, "--workers", "0", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    clips, share = re.search(r"^(\d+) clips in .* the encoder took (\d+)% of the time", told, re.M).groups()
    assert int(clips) >= 8
    assert 0 < int(share) <= 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "videos"]


def test_a_table_of_sizes_has_a_row_for_each_and_tells_the_share_of_attention(capsys):
    few = ("--presets", "tiny", "--frames", "4", "8", "--sizes", "32", "64", "--run.device", "cpu")
    assert cli.main(["bench", "sizes", *few, "--run.threads", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert [(row[3], row[5], row[7]) for row in rows] == [
        ("4", "32", "32"), ("4", "64", "128"), ("8", "32", "64"), ("8", "64", "256"),
    ]  # fmt: skip
    shares = [int(row[-3]) for row in rows]
    assert shares[0] < shares[3] < 100
    assert cli.main(["bench", "sizes", "--presets", "tinny"]) == 2


def test_the_loop_is_timed_beside_a_step_by_hand(capsys):
    script = Path(__file__).parent.parent / "benchmarks" / "loop.py"
    runpy.run_path(str(script))["main"](["tiny", *SMALLER, "--run.log-every", "2", "--run.device", "cpu"])
    told = capsys.readouterr().out
    assert "2 clips a step on cpu, 2 stretches of 2 steps" in told
    assert re.search(r"wall clock +by hand [\d.]+ ms a step, the loop's own -?[\d.]+ \(", told)
