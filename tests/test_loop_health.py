"""A sick run is noticed: bad steps are skipped, counted, dumped and replayed; what learns nothing is named."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch
from hypothesis import given
from hypothesis import strategies as st

from motionmae import runtime
from motionmae.config import Finetune, Labelled
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.evaluation.probing import effective_rank
from motionmae.library.sources import Videos
from motionmae.training import health
from motionmae.training.health import Budget, Plateaus
from motionmae.video.writing import write_video


def poison(*steps: int, name: str = "x"):
    """Batches with a NaN in these steps."""

    def spoil(step, batch):
        if step in steps:
            batch = {**batch, name: batch[name].clone()}
            batch[name][0, 0] = float("nan")
        return batch

    return spoil


def test_a_step_that_is_not_finite_moves_nothing(tmp_path):
    """Steps 8 to 11 are bad: the weights and averages at the end are those after step 7."""
    runs.fit_toy(runs.toy_config(tmp_path, save_every=8, keep=2), spoil=poison(8, 9, 10, 11))
    before = runs.load_file(tmp_path / "checkpoints/step-00000008.safetensors")
    assert runs.same(before, runs.newest(tmp_path))
    assert [line["skipped"] for line in runs.readings(tmp_path)] == [0, 0, 0, 0, 2, 2]
    assert math.isnan(runs.readings(tmp_path)[-1]["loss"])


def test_the_readings_leave_bad_steps_out(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path / "a", log_every=12), spoil=poison(5))
    reading = runs.readings(tmp_path / "a")[-1]
    assert reading["skipped"] == 1
    assert math.isfinite(reading["loss"])


def test_a_loss_that_is_not_finite_is_skipped_even_where_its_gradient_is(tmp_path):
    class Constant(runs.Toy):
        def forward(self, batch):
            found = super().forward(batch)
            return found | {"loss": found["loss"] + torch.where(batch["key"][0] >= 64, float("inf"), 0.0)}

    runs.fit_toy(runs.toy_config(tmp_path, save_every=8), Constant(0.0))
    before = runs.load_file(tmp_path / "checkpoints/step-00000008.safetensors")
    assert runs.same(before, runs.newest(tmp_path))


def _poisoned_rank(config: runs.Config) -> int:
    here = runtime.start(config.run)
    with runtime.leaving(here):
        spoil = poison(8, 9, 10, 11) if here.rank == 1 else None
        runs.fit_toy(config, runs.Toy(0.0), spoil, here)
    return 0


def test_one_ranks_bad_batch_is_skipped_by_all(tmp_path):
    processes = runs.ranks(_poisoned_rank, 2, runs.toy_config(tmp_path, save_every=8))
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    before = runs.load_file(tmp_path / "checkpoints/step-00000008.safetensors")
    assert runs.same(before, runs.newest(tmp_path))


def replaying(config: runs.Config, file: Path) -> runs.Config:
    return replace(config, run=replace(config.run, replay=str(file)))


def test_after_the_budget_the_run_stops_with_a_dump_that_can_be_replayed(tmp_path, capsys):
    config = runs.toy_config(tmp_path, bad_steps=2, micro_batch=4)
    spoil = poison(5, 6, 7)
    with pytest.raises(
        MotionMAEError, match=r"3 of the last 8 steps .* --run.bad-steps allows 2.*--run.replay"
    ) as found:
        runs.fit_toy(config, spoil=spoil)
    file = tmp_path / "dumps/step-00000008.safetensors"
    assert str(file) in str(found.value)
    _, told = health.read_dump(file)
    assert [bad["step"] for bad in told["steps"]] == [5, 6, 7]
    first = told["steps"][0]["ranks"][0]
    assert first["batches"] == [{"key": [40, 41, 42, 43]}, {"key": [44, 45, 46, 47]}]
    assert math.isnan(first["losses"][0])
    assert math.isnan(told["steps"][0]["norm"])

    def batches(step: int, micro: int):
        return runs.batches(8, micro, spoil=spoil)(step)

    results = health.replay(runs.Toy(), batches, replaying(config, file), runs.CPU)
    assert len(results) == 6
    assert [result["module"] for result in results] == ["enter"] * 6
    assert results[0]["gradients"]
    assert math.isnan(results[0]["loss"])
    assert "first not finite: enter" in capsys.readouterr().out


def test_a_replay_draws_what_the_run_drew_in_each_micro_batch(tmp_path):
    """The first of two micro-batches is bad; the second's loss, with dropout, is that of the run to the last bit."""
    config = runs.toy_config(tmp_path, bad_steps=0, micro_batch=4, log_every=1)

    def spoil(step, batch):
        return poison(5)(step, batch) if batch["key"][0] == 40 else batch

    with pytest.raises(MotionMAEError, match="of the last"):
        runs.fit_toy(config, spoil=spoil)
    file = tmp_path / "dumps/step-00000006.safetensors"
    losses = health.read_dump(file)[1]["steps"][0]["ranks"][0]["losses"]
    stream = lambda step, micro: runs.batches(8, micro, spoil=spoil)(step)  # noqa: E731
    replayed = health.replay(runs.Toy(), stream, replaying(config, file), runs.CPU)
    assert replayed[1]["loss"] == losses[1] > 0
    other = replace(replaying(config, file), optim=replace(config.optim, lr=0.1))
    with pytest.raises(MotionMAEError, match=r"is of a run of another config: optim.lr \(0.3 there, 0.1 here\)"):
        health.replay(runs.Toy(), stream, other, runs.CPU)


def test_a_replay_of_other_batches_is_refused(tmp_path):
    config = runs.toy_config(tmp_path, bad_steps=0)
    with pytest.raises(MotionMAEError, match="of the last"):
        runs.fit_toy(config, spoil=poison(1))

    def other(step: int, micro: int):
        return runs.batches(8, micro)(step + 1)

    with pytest.raises(MotionMAEError, match=r"key of step 1 was \[8, 9, 10, 11\]…, here it is \[16, 17, 18, 19\]"):
        health.replay(runs.Toy(), other, replaying(config, tmp_path / "dumps/step-00000002.safetensors"), runs.CPU)


def test_what_is_no_dump_is_named(tmp_path):
    config = runs.toy_config(tmp_path)
    runs.fit_toy(config)
    file = next((tmp_path / "checkpoints").iterdir())
    with pytest.raises(MotionMAEError, match="is not a dump of bad steps"):
        health.replay(runs.Toy(), None, replaying(config, file), runs.CPU)
    with pytest.raises(MotionMAEError, match="runs on one process, this run has 2 ranks"):
        health.replay(runs.Toy(), None, replaying(config, file), replace(runs.CPU, ranks=2))


def test_the_command_replays_a_dump(tmp_path, capsys):
    """A real run with broken weights: the sane videos are not at fault, and the replay says where it begins."""
    write_video(tmp_path / "a.mp4", render(0, "left", 8, 16).frames, 12)
    config = runs.pretraining(tmp_path, tmp_path / "run", steps=3, bad_steps=0, log_every=1)
    from motionmae.tasks import pretrain

    def broken(config, made=pretrain.build):
        objective = made(config)
        objective.autoencoder.encoder.norm.weight.data.fill_(float("inf"))
        return objective

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "build", broken)
        with pytest.raises(MotionMAEError, match="1 of the last 1 step had"):
            pretrain.fit_videos(config, Videos([tmp_path / "a.mp4"], [], []))
    dump = tmp_path / "run/dumps/step-00000001.safetensors"
    capsys.readouterr()
    replayed = replace(config, run=replace(config.run, replay=str(dump)))
    assert pretrain.fit_videos(replayed, Videos([tmp_path / "a.mp4"], [], []))
    assert "step 0 rank 0 micro-batch 0 in float32: loss nan" in (said := capsys.readouterr().out)
    assert "first not finite: autoencoder.encoder.norm" in said


def test_fine_tuning_replays_a_dump_and_tests_nothing(tmp_path, capsys):
    from motionmae.tasks import finetune

    files = [tmp_path / f"{motion}.mp4" for motion in ("left", "up")]
    for file in files:
        write_video(file, render(0, file.stem, 8, 16).frames, 12)
    videos, small = Videos(files, ["left", "up"], []), runs.pretraining(tmp_path, tmp_path / "run", 3)
    config = Finetune(
        "none", small.model, data=Labelled(path=str(tmp_path), test="there", stride=1, workers=0), optim=small.optim,
        run=replace(small.run, bad_steps=0, log_every=1),
    )  # fmt: skip

    def broken(config, start, made=finetune.build):
        classifier = made(config, start)
        classifier.head.linear.weight.data.fill_(float("inf"))
        return classifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "build", broken)
        with pytest.raises(MotionMAEError, match="1 of the last 1 step had"):
            finetune.fit_videos(config, videos, videos)
    capsys.readouterr()
    dump = tmp_path / "run/dumps/step-00000001.safetensors"
    assert finetune.fit_videos(replace(config, run=replace(config.run, replay=str(dump))), videos, videos)
    assert "first not finite: head.linear" in (said := capsys.readouterr().out)
    assert len(said.splitlines()) == 1
    assert sorted(file.name for file in (tmp_path / "run").iterdir() if file.is_dir()) == ["dumps"]


@given(bad=st.sets(st.integers(0, 299), max_size=60), allowed=st.integers(0, 20))
def test_the_budget_counts_the_last_hundred_steps(bad, allowed):
    budget = Budget(allowed)
    for start in range(0, 300, 10):
        spent = budget.spent([step not in bad for step in range(start, start + 10)], [])
        assert spent == (len([step for step in bad if start + 10 - 100 <= step < start + 10]) > allowed)


def test_a_part_that_stays_at_its_trivial_baseline_is_named(tmp_path):
    plateaus = Plateaus(100)
    told = []
    for step in range(10, 401, 10):
        learnt = 1.0 if step < 250 else 0.6
        told += plateaus.look(step, {"motion_ratio": 1.01, "appearance_ratio": learnt, "loss": 3.0})
    assert [sentence.split(" is on")[0] for sentence in told] == [
        "step 110: motion",
        "step 110: appearance",
        "step 210: motion",
        "step 210: appearance",
        "step 310: motion",
    ]


def test_a_plateau_is_in_the_log_of_the_run(tmp_path):
    class Dull(runs.Toy):
        def forward(self, batch):
            return super().forward(batch) | {"dull_ratio": torch.tensor(1.0)}

    runs.fit_toy(runs.toy_config(tmp_path, plateau_steps=6), Dull())
    assert "dull is on a plateau" in (tmp_path / "log.txt").read_text()
    assert "toy is on a plateau" not in (tmp_path / "log.txt").read_text()


def test_clipping_bounds_the_step_and_the_log_has_the_whole_norm(tmp_path):
    toy = runs.Toy(0.0)
    runs.fit_toy(runs.toy_config(tmp_path, clip=1e-3, steps=1, log_every=1), toy)
    assert runs.readings(tmp_path)[0]["gradient_norm"] > 0.1
    gradients = [value.grad for value in toy.parameters() if value.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(1e-3, rel=1e-2)


@given(rank=st.integers(1, 6))
def test_the_effective_rank_counts_equal_directions(rank):
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(rank)))[0][:rank]
    signs = torch.cat((torch.eye(rank), -torch.eye(rank)))
    assert effective_rank(5 + signs @ basis) == pytest.approx(rank, rel=1e-3)


def test_a_collapsed_representation_has_rank_one():
    assert effective_rank(torch.ones(8, 4)) == 1.0


def test_inspections_measure_rank_and_neighbours(tmp_path):
    from motionmae.tasks.pretrain import fit_videos

    files = []
    for index in range(6):
        write_video(tmp_path / f"{index}.mp4", render(index, "left", 8, 16).frames, 12)
        files.append(tmp_path / f"{index}.mp4")
    config = runs.pretraining(tmp_path, tmp_path / "run", steps=2, inspect_every=1)
    fit_videos(config, Videos(files, ["a", "b", "a", "b", "a", "b"], []))
    looks = [line for line in runs.readings(tmp_path / "run") if "effective_rank" in line]
    assert [line["step"] for line in looks] == [1, 2]
    assert all(1 <= line["effective_rank"] <= 6 and 0 <= line["knn_accuracy"] <= 1 for line in looks)
    config = replace(config, run=replace(config.run, out=str(tmp_path / "unlabelled")))
    fit_videos(config, Videos(files, [], []))
    assert not any("knn_accuracy" in line for line in runs.readings(tmp_path / "unlabelled"))


def test_weights_and_biases_gets_the_same_numbers(tmp_path, monkeypatch):
    """Against a stand-in for the package: it shows what is called, not that the service takes it."""
    got: list = []
    board = types.SimpleNamespace(log=lambda values, step: got.append((step, values)), finish=lambda: got.append("end"))
    opened: list = []
    stand_in = types.SimpleNamespace(init=lambda **options: opened.append(options) or board, Error=KeyError)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    runs.fit_toy(runs.toy_config(tmp_path / "run", wandb="films"))
    assert opened[0]["project"] == "films"
    assert opened[0]["resume"] == "allow"
    assert [step for step, _ in got[:-1]] == [2, 4, 6, 8, 10, 12]
    assert got[0][1]["loss"] == runs.readings(tmp_path / "run")[0]["loss"]
    assert got[-1] == "end"
    assert opened[0]["dir"] == str(tmp_path / "run")

    def refuse(**options):
        raise KeyError("No API key configured.")

    stand_in.init = refuse
    with pytest.raises(MotionMAEError, match=r"--run.wandb films: .*No API key.*WANDB_MODE=offline"):
        runs.fit_toy(runs.toy_config(tmp_path / "refused", wandb="films"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MotionMAEError, match=r"--run.wandb films: needs the package"):
        runs.fit_toy(runs.toy_config(tmp_path / "none", wandb="films"))


def test_tensorboard_has_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs.fit_toy(runs.toy_config(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [point.step for point in events.Scalars("loss")] == [2, 4, 6, 8, 10, 12]


def test_tensorboard_has_the_config_and_the_pictures_of_inspections(tmp_path):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from motionmae.training.log import Log

    config = runs.toy_config(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 6), "red").save(tmp_path / "pictures" / "step-00000003.webp")
    log = Log(tmp_path, 0, 4, config, runs.CPU)
    log.write(3, {"loss": 1.0})
    log.picture(3)
    log.picture(4)
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (shown,) = events.Images("pictures")
    assert (shown.step, shown.width, shown.height) == (3, 8, 6)
    (text,) = events.Tensors("config/text_summary")
    assert b"log_every" in text.tensor_proto.string_val[0]
    told = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optim.lr" in told
    assert b"run.log_every" in told


def test_readings_tell_the_memory(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0.05 < line["memory_gib"] < 200 for line in lines if "loss" in line)


def test_a_report_shows_runs_side_by_side(tmp_path, capsys):
    from motionmae.config import Report
    from motionmae.tasks import report

    for name, rate in (("slow", 0.1), ("fast", 0.3)):
        runs.fit_toy(runs.toy_config(tmp_path / name, lr=rate))
    report.run(Report((str(tmp_path / "slow"), str(tmp_path / "fast")), str(tmp_path / "page.html")))
    html = (tmp_path / "page.html").read_text()
    assert html.count('"name": "slow"') == html.count('"name": "fast"') > 5
    assert "<td>optim.lr</td><td>0.1</td><td>0.3</td>" in html
    assert "optim.batch" not in html
    assert "toy ratio" in html
    assert "http:" not in html
    report.run(Report((str(tmp_path / "slow"),), str(tmp_path / "one.html")))
    assert "optim.batch" in (tmp_path / "one.html").read_text()
    with pytest.raises(MotionMAEError, match="is not a run folder"):
        report.run(Report((str(tmp_path),), str(tmp_path / "none.html")))


def test_the_time_of_a_reading_and_an_inspection_is_left_out_once(monkeypatch):
    """A step ends at 10 s, its reading at 13, an inspection at 20; the next step ends at 24: one clip in 4 s."""
    from motionmae.training import meter

    now = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    found, parts, norm = meter.Meter(), [{"loss": torch.ones(())}], torch.ones(())
    for step, (ends, read) in enumerate(((10.0, 13.0), (24.0, 24.0))):
        now[0] = ends
        found.add(step, [{}], parts, norm, 1)
        now[0] = read
        shown, _, _ = found.read(runs.CPU)
        now[0] = 20.0
        found.resume()
    assert shown["clips_per_second"] == pytest.approx(1 / 4)
