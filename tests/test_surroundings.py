"""A run does not die of its surroundings: signals to workers, workers that die or hang, little memory, lost storage."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
import runs
from torch.utils.data import Dataset

from motionmae import runtime
from motionmae.config import Compute, Data, Model, Pretrain
from motionmae.data import loading
from motionmae.data.clips import Clips
from motionmae.data.loading import Order, loader, within
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError
from motionmae.inference.embedding import Layout
from motionmae.inference.embedding import stream as embed_stream
from motionmae.inference.views import View, as_views, watch
from motionmae.models.encoder import VideoEncoder
from motionmae.training import loop
from motionmae.video import pulse
from motionmae.video.reading import open_video

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
            time.sleep(90)
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
@pytest.mark.parametrize(
    ("items", "match"), [(Dies(), "has died"), (Hangs(), r"no clip has been read for .* s, by 1 process: the sto")]
)
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
            pulse.beat()
            return super().__getitem__(place)

    monkeypatch.setattr(loading, "LOOK", 0.1)
    monkeypatch.setattr(loading, "SILENT", 4)
    assert len(list(loader(Slow(), [list(range(4))], ONE, pin=False))) == 1  # 1 s for a batch, 0.25 for an item


def test_workers_fit_the_shared_memory():
    assert within(8, 4, 100, "--data.workers", 4000.0) == (8, 4, "")
    workers, ahead, said = within(8, 4, 100, "--workers", 3999.0)
    assert (workers, ahead) == (8, 3)
    assert "--workers 8 with 4 batches ahead each need 0 MB of /dev/shm" in said
    assert within(8, 4, 100, "", 999.0)[:2] == (4, 1)
    assert within(8, 4, 100, "", 150.0)[0] == 0
    for room in range(0, 5000, 50):
        workers, ahead, _ = within(8, 4, 100, "", float(room))
        assert workers * (ahead + 1) * 100 <= room
        assert ahead > 0


@pytest.fixture
def little(monkeypatch):
    """A shared memory of 10 kB."""
    usage = loading.shutil.disk_usage("/")
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: usage._replace(free=10_000))


@pytest.fixture
def films(tmp_path):
    return [path for path, _ in write_videos(tmp_path / "films", "train", 3, seed=0, frames=8, size=32)]


def through_clips(films):
    stream = loader(Clips(films, ONE, range(4), 32, 0), Order(len(films), 2, 2, 0), ONE, pin=False)
    next(stream)
    stream.close()


def through_views(films):
    view = View(1, 1, "uniform", 1, None, "clamp", 4, 32)
    watch(lambda clip: clip.float().mean((1, 2, 3, 4)), as_views(films, view), Compute(workers=1), runs.CPU, quiet=True)


def through_embedding(films):
    encoder = VideoEncoder(Model(frames=4, size=32, cube=(2, 16, 16), width=48, depth=1, heads=2))
    plan = Layout("clip", "", "mean", (1,), View(1, 1, "uniform", 1, None, "clamp", 4, 32))
    assert len(list(embed_stream(encoder, films, plan, Compute(workers=1), runs.CPU))) == len(films)


@pytest.mark.parametrize(
    ("through", "option"),
    [(through_clips, "--data."), (through_views, "--"), (through_embedding, "--")],
)
def test_every_way_to_workers_asks_for_room_before_the_start(little, films, capsys, through, option):
    through(films)
    told = capsys.readouterr().err
    assert f"motionmae: {option}workers 1 with 2 batches ahead each need" in told
    assert "goes on with 0 workers, in this process" in told


def test_no_room_of_work_but_the_loaders_makes_a_data_loader():
    package = Path(loading.__file__).parents[1]
    makers = [file.name for file in package.rglob("*.py") if " DataLoader(" in file.read_text()]
    assert makers == ["loading.py"]


def test_a_stuck_worker_is_told_within_a_minute():
    assert loading.LOOK * (loading.SILENT + 1) <= 60  # a beat just after the first look puts it off by one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stuck_worker_is_told_within_a_minute_of_real_time():
    stream = loader(Hangs(), [[at] for at in range(20)], ONE, pin=False)
    batches = iter(stream)
    for _ in range(3):
        next(batches)
    begun = time.monotonic()
    with pytest.raises(MotionMAEError, match="no clip has been read for 50 s"):
        next(batches)
    assert time.monotonic() - begun < 60


def test_whoever_reads_long_beats(films, monkeypatch):
    beats = []
    monkeypatch.setattr(pulse, "_listeners", [lambda: beats.append(1)])
    with open_video(films[0]) as video:
        opened = len(beats)
        video.read([0])
    assert 0 < opened < len(beats)


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


def _of_session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, ProcessLookupError):
            if os.getsid(int(entry.name)) == leader and is_there(int(entry.name)):
                found.append(int(entry.name))
    return found


def _slow_run(config: Pretrain, there: Path) -> int:
    """A run with workers whose third step takes 35 s, the leader of its group of processes."""
    os.setsid()
    step, taken = loop.train_step, []

    def slow(*arguments):
        taken.append(1)
        if len(taken) == 3:
            there.touch()
            time.sleep(35)
        return step(*arguments)

    with mock.patch.object(loop, "train_step", slow):
        return runs.pretrain(config)


@pytest.mark.slow
def test_a_stop_in_a_step_that_takes_longer_than_half_a_minute_loses_nothing(tmp_path):
    list(write_videos(tmp_path / "videos", "train", 2, seed=0, frames=8, size=16))
    config = runs.pretraining(tmp_path / "videos", tmp_path / "run", workers=2, save_every=1000)
    process = runs.start(_slow_run, config, tmp_path / "there", TEST_LOG=str(tmp_path / "log"))
    try:
        while not (tmp_path / "there").exists() and process.is_alive():
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the workers get it too
        process.join(120)
        told = (tmp_path / "log").read_text()
        assert process.exitcode not in (None, -signal.SIGTERM, 128 + signal.SIGTERM), told
        assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003.safetensors"], told
        until = time.monotonic() + 30  # workers see within seconds that their parent has gone
        while left := _of_session(process.pid):
            assert time.monotonic() < until, f"{left} are left"
            time.sleep(0.2)
    finally:
        process.kill()
