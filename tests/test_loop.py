"""A run that is stopped in any way and started again ends with the weights of one that never was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

from motionmae.config import Data, OptimKind
from motionmae.data import loading
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.training import loop
from motionmae.training.optim import plan
from motionmae.video.writing import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, motion in enumerate(("left", "up", "grow", "clockwise", "down")):
        write_video(folder / f"{index}.mp4", render(index, motion, 8, 16).frames, 12)
    return folder


@pytest.fixture(scope="module")
def unbroken(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("unbroken")
    assert runs.pretrain(runs.pretraining(videos, out)) == 0
    return runs.newest(out)


class Stop(Exception):
    pass


def stopping(config: runs.Config, at: int):
    """Batches that raise at a step, as a crash would."""
    inner = runs.batches(8, config.run.micro_batch or 8)

    def stream(first: int):
        per = 8 // (config.run.micro_batch or 8)
        for place, batch in enumerate(inner(first)):
            if first + place // per == at:
                raise Stop
            yield batch

    return stream


@pytest.mark.parametrize("at", [1, 4, 6, 11])
@pytest.mark.parametrize(("ema", "kind"), [(None, "adamw"), (0.9, "adamw"), (0.9, "muon")])
def test_a_crashed_run_goes_on_to_the_same_bits(tmp_path, at, ema, kind):
    config = runs.toy_config(tmp_path / "a", ema=ema, kind=kind, micro_batch=4)
    with pytest.raises(Stop):
        runs.fit_toy(config, stream=stopping(config, at))
    runs.fit_toy(config)
    whole = runs.toy_config(tmp_path / "b", ema=ema, kind=kind, micro_batch=4)
    runs.fit_toy(whole)
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_fp16s_loss_scale_is_resumed(tmp_path, kind):
    half = replace(runs.CPU, dtype=torch.float16)
    for out, stop in (("a", 6), ("b", None)):
        config = runs.toy_config(tmp_path / out, kind=kind)
        if stop:
            with pytest.raises(Stop):
                runs.fit_toy(config, stream=stopping(config, stop), runtime=half)
        runs.fit_toy(config, runtime=half)
    assert runs.newest(tmp_path / "a")["scaler/growth"] > 0
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))


def test_an_inspection_leaves_no_trace_in_what_is_learnt(tmp_path):
    def inspect(step: int) -> dict[str, float]:
        return {"drawn": torch.rand(()).item()}

    runs.fit_toy(runs.toy_config(tmp_path / "a"))
    runs.fit_toy(runs.toy_config(tmp_path / "b", inspect_every=3), inspect=inspect)
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))
    assert [line["step"] for line in runs.readings(tmp_path / "b") if "drawn" in line] == [3, 6, 9, 12]


def test_the_logs_of_a_resumed_run_have_each_step_once(tmp_path):
    config = runs.toy_config(tmp_path, log_every=1)
    with pytest.raises(Stop):
        runs.fit_toy(config, stream=stopping(config, 7))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    runs.fit_toy(config)
    assert [line["step"] for line in runs.readings(tmp_path)] == list(range(1, 13))


def test_a_finished_run_is_left_alone(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    toy, done = runs.fit_toy(runs.toy_config(tmp_path), stream=lambda step: iter(()))
    assert done
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert torch.equal(toy.leave.weight, runs.newest(tmp_path)["model/leave.weight"])


def test_another_config_in_the_same_folder_is_named(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    runs.fit_toy(runs.toy_config(tmp_path, keep=7))  # how it is run may change
    with pytest.raises(MotionMAEError, match=r"optim.lr \(0.3 there, 0.1 here\)"):
        runs.fit_toy(runs.toy_config(tmp_path, lr=0.1))


def test_a_run_of_an_earlier_version_goes_on_where_new_fields_are_at_their_defaults(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    told = json.loads((tmp_path / "config.json").read_text())
    del told["optim"]["momentum"]
    (tmp_path / "config.json").write_text(json.dumps(told))
    runs.fit_toy(runs.toy_config(tmp_path))
    del told["optim"]["lr"]
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(MotionMAEError, match=r"optim.lr \(0.00015 there, 0.3 here\)"):
        runs.fit_toy(runs.toy_config(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_from_there(tmp_path, number):
    config = runs.toy_config(tmp_path / "a", save_every=1000)

    def spoil(step, batch):
        if step == 5:
            os.kill(os.getpid(), number)
        return batch

    _, done = runs.fit_toy(config, spoil=spoil)
    assert not done
    assert sorted(file.name for file in (tmp_path / "a/checkpoints").iterdir()) == ["step-00000006.safetensors"]
    assert runs.fit_toy(config)[1]
    runs.fit_toy(runs.toy_config(tmp_path / "b", save_every=1000))
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))


def _hang(out: Path) -> int:
    """A run whose sixth step never ends."""

    def spoil(step, batch):
        if step == 5:
            (out / "there").touch()
            while True:
                time.sleep(0.05)
        return batch

    runs.fit_toy(runs.toy_config(out), spoil=spoil)
    return 0


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = runs.start(_hang, tmp_path)
    _await(tmp_path / "there")
    os.kill(process.pid, signal.SIGINT)
    process.join(0.5)
    assert process.is_alive()  # it waits for its step
    os.kill(process.pid, signal.SIGINT)
    process.join(5)
    assert process.exitcode == 130


def test_a_folder_without_a_checkpoint_is_taken_over_with_a_sentence(tmp_path, capsys):
    class Broken(runs.Toy):
        def forward(self, batch):
            raise MotionMAEError("no batch")

    with pytest.raises(MotionMAEError, match="no batch"):
        runs.fit_toy(runs.toy_config(tmp_path, lr=0.1), Broken())
    runs.fit_toy(runs.toy_config(tmp_path))
    assert f"{tmp_path}: a start of another config had saved no checkpoint there" in capsys.readouterr().out
    assert len(runs.readings(tmp_path)) == 6
    with pytest.raises(MotionMAEError, match=r"holds a run of another config: optim.lr \(0.3 there, 0.1 here\)"):
        runs.fit_toy(runs.toy_config(tmp_path, lr=0.1))


def test_two_runs_at_once_in_one_folder_are_refused_until_the_first_has_ended(tmp_path):
    process = runs.start(_hang, tmp_path)
    _await(tmp_path / "there")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(MotionMAEError, match="another process trains in this folder"):
        runs.fit_toy(runs.toy_config(tmp_path, lr=0.1))
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    process.kill()
    process.join()
    assert runs.fit_toy(runs.toy_config(tmp_path))[1]


def test_other_videos_than_before_are_named(tmp_path, capsys):
    config = runs.toy_config(tmp_path)
    with pytest.raises(Stop):
        runs.fit_toy(config, stream=stopping(config, 6))
    made = replace(plan(config.optim, config.run, 8, 1, 1), videos=9)
    loop.fit(runs.Toy(), runs.batches(8, 8), made, runs.CPU, config)
    assert "going on from step 4; it had 8 videos and now has 9" in capsys.readouterr().out


def test_an_inspection_that_cannot_be_written_is_an_error_in_words(tmp_path):
    def inspect(step: int) -> dict[str, float]:
        raise OSError(28, "No space left on device")

    with pytest.raises(MotionMAEError, match=r"the inspection of step 12 failed .*No space left"):
        runs.fit_toy(runs.toy_config(tmp_path), inspect=inspect)


def _await(file: Path) -> None:
    runs.until(file.exists, f"{file} never came", 60)


def _await_a_step(folder: Path) -> None:
    _await(folder / "metrics.jsonl")
    runs.until((folder / "metrics.jsonl").read_text, f"no step in {folder}", 240)


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_of_a_real_run_saves_in_mid_epoch(videos, unbroken, tmp_path, workers):
    config = runs.pretraining(videos, tmp_path / "run", workers=workers, log_every=1)
    process = runs.start(_group, config)
    _await_a_step(tmp_path / "run")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loader's workers get it too
    process.join(60)
    assert process.exitcode == 1
    assert runs.pretrain(config) == 0
    assert runs.same(runs.newest(tmp_path / "run"), unbroken)


def _group(config) -> int:
    os.setpgid(0, 0)
    return runs.pretrain(config)


class Struck(torch.utils.data.Dataset):
    """Data at whose arrival in a worker, before the worker's own first line, Ctrl-C is pressed."""

    def __setstate__(self, state):
        os.kill(os.getpid(), signal.SIGINT)

    def __getstate__(self):
        return {"struck": True}

    def __getitem__(self, place):
        return [{"index": place}]


def _strike() -> int:
    batches = list(loading.loader(Struck(), [[0], [1]], Data(workers=2), pin=False))
    return 0 if len(batches) == 2 else 3


def test_a_stop_while_workers_start_is_not_their_affair():
    process = runs.start(_strike)
    process.join(240)
    assert process.exitcode == 0


def _killed(videos: Path, tmp_path: Path, kills: int, workers: int, kind: OptimKind = "adamw") -> None:
    """Kill a run so often, from before its first step to its last, and let it finish then."""
    draw = random.Random(kills + workers)
    config = runs.pretraining(videos, tmp_path / "run", 4 * kills, workers, kind, save_every=1, log_every=1)
    whole = replace(config, data=replace(config.data, workers=0), run=replace(config.run, out=str(tmp_path / "whole")))
    runs.start(time.sleep, 0).join()  # the first process waits for what all of them import
    begun = time.monotonic()
    process = runs.start(runs.pretrain, whole)
    _await(tmp_path / "whole/metrics.jsonl")
    started = time.monotonic() - begun
    process.join(300)
    life = time.monotonic() - begun
    hits = 0
    for _ in range(kills):
        process = runs.start(runs.pretrain, config)
        process.join(started * draw.uniform(0.3, 1.1) + draw.uniform(0, 1.5 * (life - started) / kills))
        hits += process.is_alive()
        process.kill()
        process.join()
    process = runs.start(runs.pretrain, config)
    process.join(300)
    assert process.exitcode == 0
    assert hits >= kills / 3
    assert runs.same(runs.newest(tmp_path / "run"), runs.newest(tmp_path / "whole"))
    assert not list((tmp_path / "run/checkpoints").glob("*.part"))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_three_kills_change_no_bit(videos, tmp_path, kind):
    _killed(videos, tmp_path, 3, workers=0, kind=kind)


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_behind(videos, tmp_path):
    """Where a server forks the workers, as it does here and in Python 3.14, they have no parent whose end they see."""
    config = runs.pretraining(videos, tmp_path / "run", 100_000, workers=2, log_every=1)
    process = runs.start(runs.pretrain, config)
    _await_a_step(tmp_path / "run")
    workers = _descendants(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.join()
    end = time.monotonic() + 20
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"{left} live on"
        time.sleep(0.05)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_change_no_bit(videos, tmp_path, workers):
    _killed(videos, tmp_path, 20, workers)
