"""Work on a Ray cluster gives what this machine alone would give; a machine that dies costs its tasks, not the run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from motionmae.cli import main
from motionmae.config import Data, Model, Pretrain, Spread
from motionmae.errors import MotionMAEError
from motionmae.inference.table import read_features
from motionmae.library import cluster
from motionmae.library.manifest import read_manifest
from motionmae.library.parts import parts_beside
from motionmae.library.processes import Failure
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.weights import save

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def slowly(number: int) -> int:
    """A function for the cluster: some items take their time, one crashes, one fails."""
    time.sleep(0.1)
    if number == 5:
        os._exit(3)
    if number == 6:
        raise ValueError("six")
    return number * number


def check_slowly(found: dict[int, Any]) -> None:
    assert isinstance(found[5], Failure)
    assert "crashes" in found[5].reason
    assert found[6] == Failure("six")
    assert {number: value for number, value in found.items() if number not in (5, 6)} == {
        number: number * number for number in range(40) if number not in (5, 6)
    }


@pytest.mark.parametrize("command", ["scan", "prepare", "embed"])
def test_without_ray_it_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    zoo.encode(tmp_path / "v" / "a.mp4", "libx264", count=3, options=zoo.H264)
    words = {"scan": ["v"], "prepare": ["v"], "embed": ["tiny", "v", "--out", "f.npz"]}[command]
    assert run(command, *words, "--engine", "ray") == 2
    error = capsys.readouterr().err
    assert error == "motionmae: --engine ray: needs Ray: pip install 'motionmae[ray]'\n"
    assert not (tmp_path / "f.npz").exists()
    assert not (tmp_path / "manifest.csv").exists()


def test_an_address_where_no_cluster_is_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ray")
    zoo.encode(tmp_path / "a.mp4", "libx264", count=3, options=zoo.H264)
    words = ["scan", tmp_path, "--out", tmp_path / "m.csv", "--engine", "ray"]
    assert run(*words, "--ray-address", "127.0.0.1:1") == 2
    error = capsys.readouterr().err
    assert error.startswith("motionmae: --ray-address 127.0.0.1:1: no Ray cluster can be joined there")
    assert error.count("\n") == 1


def test_embed_leaves_nothing_behind_where_no_cluster_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ray")
    zoo.encode(tmp_path / "a.mp4", "libx264", count=3, options=zoo.H264)
    words = ["embed", "tiny", tmp_path / "a.mp4", "--out", tmp_path / "a.npz", "--engine", "ray"]
    assert run(*words, "--ray-address", "127.0.0.1:1") == 2
    assert "no Ray cluster can be joined there" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


class Machines:
    """As much of Ray as is used, in this process; the tasks of these numbers are lost, or raise."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        cause = ValueError("no such model")

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, lost: tuple[int, ...] = (), failing: tuple[int, ...] = ()):
        self.lost, self.failing, self.asked, self.most = lost, failing, list[Any](), 0
        self.unread = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        def start(*words: Any) -> int:
            self.asked.append(lambda: function(*words))
            self.unread += 1
            self.most = max(self.most, self.unread)
            return len(self.asked) - 1

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, tasks: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        return tasks[-num_returns:], tasks[:-num_returns]  # the newest first: order means nothing

    def get(self, task: int) -> Any:
        self.unread -= 1
        if task in self.lost:
            raise self.RayError
        if task in self.failing:
            raise self.RayTaskError
        return self.asked[task]()


@contextmanager
def joined(machines: Machines) -> Iterator[Machines]:
    yield machines


def test_every_item_comes_once_and_few_tasks_wait(monkeypatch: pytest.MonkeyPatch):
    machines = Machines(lost=(3,))
    monkeypatch.setattr(cluster, "joined", lambda address: joined(machines))
    monkeypatch.setattr(cluster, "_each", lambda function, limit, chunk: [function(item) for item in chunk])
    each = cluster.each_by(Spread(engine="ray"))
    found = list(each(lambda number: number * number, range(100), 1, lambda _: 9.0))
    assert sorted(item for item, _ in found) == list(range(100))
    lost = [item for item, result in found if isinstance(result, Failure)]
    assert len(lost) == cluster.CHUNK
    assert all(result == item * item for item, result in found if item not in lost)
    assert "lost with its machine 4 times" in next(result.reason for item, result in found if item in lost)
    assert machines.most <= 6
    machines.failing = tuple(range(100))
    with pytest.raises(MotionMAEError, match="--engine ray: a task failed: no such model"):
        list(each(abs, range(100), 1, lambda _: 9.0))


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one processor each, as far as Ray can tell."""
    pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    here = os.path.dirname(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.path.dirname(here)]))  # what the machines import
    made = utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_machine_that_dies_costs_its_tasks_alone(machines: Any, tmp_path: Path):
    second = machines.add_node(num_cpus=1, object_store_memory=100 << 20)
    each, found = cluster.each_by(Spread(engine="ray", ray_address=machines.address)), dict[int, Any]()
    for item, result in each(slowly, range(40), 1, lambda _: 20.0):
        found[item] = result
        if second and len(found) > 8:
            machines.remove_node(second, allow_graceful=False)
            second = None
    assert second is None
    assert len(found) == 40
    check_slowly(found)

    videos, out = tmp_path / "videos", tmp_path / "out"
    for label in "ab":
        (videos / label).mkdir(parents=True)
    for number in range(5):
        zoo.encode(videos / "ab"[number % 2] / f"{number}.mp4", "libx264", count=4 + number, options=zoo.H264)
    (videos / "a" / "broken.mp4").write_bytes(b"no video")
    save(tmp_path / "m.safetensors", MotionMAE(SMALL), asdict(Pretrain(model=SMALL, data=Data(stride=1))))
    far = ["--engine", "ray", "--ray-address", machines.address]
    assert run("scan", videos, "--out", tmp_path / "far.csv", *far) == 0
    assert run("scan", videos, "--out", tmp_path / "near.csv") == 0
    assert read_manifest(tmp_path / "far.csv") == read_manifest(tmp_path / "near.csv")
    assert run("prepare", videos, "--out", out, "--short", 32, *far) == 0
    assert len(read_manifest(out / "manifest.csv")) == 5
    embed = ["embed", tmp_path / "m.safetensors", videos]
    assert run(*embed, "--out", tmp_path / "far.npz", *far) == 0
    assert run(*embed, "--out", tmp_path / "near.npz", "--workers", 0) == 0
    one, two = (read_features(tmp_path / f"{name}.npz") for name in ("far", "near"))
    assert one.rows == two.rows
    np.testing.assert_allclose(one.of(None), two.of(None), rtol=1e-5, atol=1e-6)


def test_an_embedding_whose_tasks_were_lost_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    torch.manual_seed(0)
    (tmp_path / "v").mkdir()
    for number in range(3):
        zoo.encode(tmp_path / "v" / f"{number}.mp4", "libx264", count=4, options=zoo.H264)
    save(tmp_path / "m.safetensors", MotionMAE(SMALL), asdict(Pretrain(model=SMALL, data=Data(stride=1))))
    machines = Machines(lost=(1,))
    monkeypatch.setattr(cluster, "joined", lambda address: joined(machines))
    monkeypatch.setattr("motionmae.tasks.embed.PART", 1)
    words = ["embed", tmp_path / "m.safetensors", tmp_path / "v", "--out", tmp_path / "f.npz", "--engine", "ray"]
    assert run(*words) == 2
    assert "lacking: 1 of 3 parts, first part 1 was lost" in capsys.readouterr().err
    assert len(list(parts_beside(tmp_path / "f.npz").glob("*.safetensors"))) == 2
    asked = len(machines.asked)
    assert run(*words) == 0
    assert len(machines.asked) == asked + 1
    assert len(read_features(tmp_path / "f.npz").rows) == 3
