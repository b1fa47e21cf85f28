"""A run does not die of its surroundings: signals to workers, workers that die or hang, little memory, lost storage."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import runs
from torch.utils.data import Dataset

from motionmae import runtime
from motionmae.config import Data
from motionmae.data import loading
from motionmae.data.clips import Clips
from motionmae.data.loading import loader, within
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError

ONE = Data(workers=1, prefetch=2)


class Items(Dataset):
    """Each item says its process and the seconds after which that was to end."""

    def __getitem__(self, place):
        return [{"process": os.getpid(), "ends": signal.alarm(0)}]


class Dies(Items):
    def __getitem__(self, place):
        if place == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(place)


class Hangs(Items):
    def __getitem__(self, place):
        if place == 3:
            time.sleep(60)
        return super().__getitem__(place)


def is_there(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as about:
            return about.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_outlive_a_stop_until_they_are_let_go():
    stream = loader(Items(), [[at] for at in range(20)], ONE, pin=False)
    process = int(next(stream)["process"])
    os.kill(process, signal.SIGTERM)
    time.sleep(0.1)
    for _ in range(10):
        batch = next(stream)
        assert (int(batch["process"]), int(batch["ends"])) == (process, 0)
    stream.close()
    assert not is_there(process)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch tells of the death at any time
@pytest.mark.parametrize(("items", "match"), [(Dies(), "has died"), (Hangs(), r"have read nothing for .* s: the sto")])
def test_a_worker_that_dies_or_hangs_is_a_sentence(monkeypatch, items, match):
    monkeypatch.setattr(loading, "LOOK", 0.1)
    stream = loader(items, [[at] for at in range(20)], ONE, pin=False)
    process, begun = int(next(stream)["process"]), time.monotonic()
    with pytest.raises(MotionMAEError, match=match):
        list(stream)
    assert time.monotonic() - begun < 10
    assert not is_there(process)


def test_slow_workers_are_waited_for(monkeypatch):
    class Slow(Items):
        def __getitem__(self, place):
            time.sleep(0.25)
            return super().__getitem__(place)

    monkeypatch.setattr(loading, "LOOK", 0.1)
    monkeypatch.setattr(loading, "SILENT", 4)
    assert len(list(loader(Slow(), [list(range(4))], ONE, pin=False))) == 1  # 1 s for a batch, 0.25 for an item


def test_workers_fit_the_shared_memory():
    data = Data(workers=8, prefetch=4)
    assert within(data, 100, 4000.0) == (data, "")
    less, said = within(data, 100, 3999.0)
    assert (less.workers, less.prefetch) == (8, 3)
    assert "--data.workers 8 --data.prefetch 4 need 0 MB of /dev/shm" in said
    assert within(data, 100, 999.0)[0] == replace(data, workers=4, prefetch=1)
    assert within(data, 100, 150.0)[0].workers == 0
    for room in range(0, 5000, 50):
        less = within(data, 100, float(room))[0]
        assert less.workers * (less.prefetch + 1) * 100 <= room
        assert less.prefetch > 0


@pytest.fixture
def clips(tmp_path):
    files = [path for path, _ in write_videos(tmp_path / "share", "train", 1, seed=0, frames=8, size=16)]

    def made(patience: float) -> Clips:
        return Clips(files, Data(workers=0, stride=1, patience=patience), range(4), 16, 0)

    return made


def test_a_share_that_comes_back_is_waited_for(clips, tmp_path, capsys):
    made = clips(20.0)
    os.rename(tmp_path / "share", tmp_path / "away")
    threading.Timer(0.3, os.rename, (tmp_path / "away", tmp_path / "share")).start()
    assert made[(0, 0)][0]["index"] == 0
    assert not made.failures
    assert capsys.readouterr().err.count("motionmae: ") == 2


def test_a_share_that_stays_away_is_a_sentence_and_one_lost_file_is_no_lost_share(clips, tmp_path):
    made = clips(0.2)
    made.files[0].unlink()
    assert made[(0, 0)][0]["index"] != 0
    os.rename(tmp_path / "share", tmp_path / "away")
    with pytest.raises(MotionMAEError, match=r"out of reach, for longer than --data.patience 0.2 s"):
        made[(0, 1)]


def failing(step: int):
    def spoil(at, batch):
        if at == step:
            raise MotionMAEError("the videos are out of reach")
        return batch

    return spoil


def test_a_failure_of_the_data_ends_a_run_that_is_saved(tmp_path):
    config = runs.toy_config(tmp_path / "a", save_every=1000)
    with pytest.raises(MotionMAEError, match="out of reach"):
        runs.fit_toy(config, spoil=failing(5))
    assert [file.name for file in (tmp_path / "a/checkpoints").iterdir()] == ["step-00000005.safetensors"]
    assert "saved at step 5" in (tmp_path / "a/log.txt").read_text()
    assert runs.fit_toy(config)[1]
    runs.fit_toy(runs.toy_config(tmp_path / "b", save_every=1000))
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))


def _failing_rank(config: runs.Config) -> int:
    here = runtime.start(config.run)
    try:
        with runtime.leaving(here):
            runs.fit_toy(config, runs.Toy(0.0), failing(5) if here.rank == 1 else None, here)
    except MotionMAEError:
        return 2
    return 0


@pytest.mark.slow
def test_a_failure_of_one_ranks_data_leaves_a_saved_run(tmp_path):
    processes = runs.ranks(_failing_rank, 2, runs.toy_config(tmp_path, save_every=1000))
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [2, 2]
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["step-00000005.safetensors"]
