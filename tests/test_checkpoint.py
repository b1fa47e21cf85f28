"""A checkpoint is whole or not there; the last good one survives whatever happens."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest
import runs
import torch
from safetensors import safe_open

from motionmae import stored
from motionmae.errors import MotionMAEError
from motionmae.training import checkpoint, folder, log
from motionmae.training.checkpoint import State, restore, save
from motionmae.training.optim import average, optimiser


def state(seed: int = 0, ema: float | None = None, kind: str = "adamw") -> State:
    toy, optim = runs.Toy(seed=seed), runs.toy_config(Path("x"), ema=ema, kind=kind).optim
    made = State(toy, optimiser(toy, optim, 0.1), torch.amp.GradScaler("cpu", enabled=False), average(toy, optim))
    toy(runs.clips(seed, range(8), 8))["loss"].backward()
    made.optimizer.step()
    return made


def put(folder: Path, step: int, made: State, keep: int = 2) -> Path:
    return save(folder, step, made, {"config": {"seed": 1}}, keep, runs.CPU)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_restored_is_what_was_saved(tmp_path, kind):
    made, other = state(0, 0.9, kind), state(1, 0.9, kind)
    put(tmp_path, 7, made)
    assert not runs.same(checkpoint.named(made), checkpoint.named(other))
    assert restore(tmp_path, other, runs.CPU)[0] == 7
    assert runs.same(checkpoint.named(made), checkpoint.named(other))


def test_a_checkpoint_tells_its_step_config_and_versions(tmp_path):
    with safe_open(str(put(tmp_path, 7, state())), "pt") as content:
        about = content.metadata()
    assert (about["step"], json.loads(about["config"])) == ("7", {"seed": 1})
    assert json.loads(about["versions"])["torch"] == torch.__version__


def test_nothing_to_restore_is_step_zero(tmp_path):
    assert restore(tmp_path, state(), runs.CPU)[0] == 0


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 10)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, damage):
    good, late = state(0), state(1)
    put(tmp_path, 10, good)
    damage(put(tmp_path, 20, late))
    other = state(2)
    with pytest.warns(UserWarning, match=r"step-00000020.safetensors is damaged"):
        assert restore(tmp_path, other, runs.CPU)[0] == 10
    assert runs.same(checkpoint.named(good), checkpoint.named(other))


def test_a_step_that_is_damaged_a_second_time_falls_back_again(tmp_path):
    put(tmp_path, 10, state())
    for _ in range(2):
        place = put(tmp_path, 20, state(1))
        place.unlink()
        place.mkdir()  # as a damaged folder of shards
        (place / "rest").touch()
        with pytest.warns(UserWarning, match="damaged"):
            assert restore(tmp_path, state(2), runs.CPU)[0] == 10


def test_one_that_may_not_be_read_is_an_error_and_stays_where_it_is(tmp_path, monkeypatch):
    place = put(tmp_path, 10, state())

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")  # as root, a file's mode alone would not refuse

    monkeypatch.setattr(stored, "safe_open", refuse)
    with pytest.raises(MotionMAEError, match=r"step-00000010.safetensors: cannot be read .*Permission denied"):
        restore(tmp_path, state(), runs.CPU)
    assert place.is_file()


def test_a_damaged_one_never_pushes_out_a_good_one(tmp_path):
    put(tmp_path, 10, state(0))
    flip(put(tmp_path, 20, state(1), keep=2))
    with pytest.warns(UserWarning, match="damaged"):
        restore(tmp_path, state(2), runs.CPU)
    put(tmp_path, 15, state(3), keep=2)
    assert [file.name for file in checkpoint.found(tmp_path)] == [
        "step-00000010.safetensors",
        "step-00000015.safetensors",
    ]


def test_where_all_are_damaged_nothing_starts_silently_anew(tmp_path):
    flip(put(tmp_path, 10, state()))
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(MotionMAEError, match="of its 1 checkpoint none is whole"),
    ):
        restore(tmp_path, state(), runs.CPU)
    assert names(tmp_path) == ["step-00000010.safetensors.damaged"]


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (2, [30, 40]), (3, [20, 30, 40]), (0, [10, 20, 30, 40])])
def test_keep_limits_how_many_stay(tmp_path, keep, left):
    for step in (10, 20, 30, 40):
        put(tmp_path, step, state(), keep)
    assert [checkpoint.step_of(file) for file in checkpoint.found(tmp_path)] == left


def test_what_a_killed_save_left_is_cleared(tmp_path):
    put(tmp_path, 10, state())
    (tmp_path / "checkpoints/step-00000011.safetensors.part").write_bytes(b"half")
    assert restore(tmp_path, state(), runs.CPU)[0] == 10
    assert names(tmp_path) == ["step-00000010.safetensors"]


def test_a_full_disk_is_an_error_and_the_last_good_one_stays(tmp_path):
    good = state()
    put(tmp_path, 10, good, keep=1)
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a file may not grow further, as on a full disk
    try:
        with pytest.raises(MotionMAEError, match=r"step-00000020.*could not be written.*earlier checkpoints are whole"):
            put(tmp_path, 20, state(1), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == ["step-00000010.safetensors"]
    other = state(2)
    assert restore(tmp_path, other, runs.CPU)[0] == 10
    assert runs.same(checkpoint.named(good), checkpoint.named(other))


def test_a_folder_that_may_not_be_written_is_an_error(tmp_path, monkeypatch):
    put(tmp_path, 10, state())

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")  # as root, a folder's mode alone would not refuse

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MotionMAEError, match="Permission denied"):
        put(tmp_path, 20, state())
    assert names(tmp_path) == ["step-00000010.safetensors"]


def test_a_failed_save_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "save_file", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(MotionMAEError, match="No space left"):
        runs.fit_toy(runs.toy_config(tmp_path))


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    put(tmp_path, 10, state())
    other = state()
    other.objective.add_module("more", torch.nn.Linear(2, 2))
    with pytest.raises(MotionMAEError, match=r"lacks more.weight"):
        restore(tmp_path, other, runs.CPU)


STATES = {"optimizer": torch.zeros(7), "step": torch.zeros(3, 3), "whole numbers": torch.zeros(1, dtype=torch.int8)}


@pytest.mark.parametrize("what", STATES)
def test_states_that_no_optimiser_has_are_refused(tmp_path, what):
    file = put(tmp_path, 1, state())
    held = stored.Stored(file)
    tensors = {name: held.tensor(name) for name in held.shapes}
    ending = "/exp_avg" if what == "optimizer" else "/step"
    tensors[next(name for name in tensors if name.endswith(ending))] = STATES[what]
    stored.save_checked(file, tensors, {"config": "{}"})
    with pytest.raises(MotionMAEError, match="no optimiser's"):
        restore(tmp_path, state(), runs.CPU)


@pytest.mark.parametrize("plan", ["[1]", "[" * 100_000])
def test_a_plan_that_is_none_is_refused(tmp_path, plan):
    file = put(tmp_path, 1, state())
    held = stored.Stored(file)
    stored.save_checked(file, {name: held.tensor(name) for name in held.shapes}, {"plan": plan})
    with pytest.raises(MotionMAEError, match="its plan"):
        restore(tmp_path, state(), runs.CPU)


@pytest.mark.parametrize("told", [{"optim": "x"}, {"optim": {"steps": "x"}}, {"optim": {"epochs": [1]}}])
def test_lengths_that_are_no_numbers_are_passed_on_to_be_compared(told):
    assert folder._longer(told, {"optim": {"steps": 5}}) == ""  # pyright: ignore[reportPrivateUsage]


def test_a_step_beyond_all_numbers_is_none():
    assert log._step('{"step": 1e999}') == log._step("[" * 100_000) == -1  # pyright: ignore[reportPrivateUsage]
