"""Shards behind addresses give the samples of the files that were packed; what cannot be fetched costs a sentence."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import pickle
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from motionmae.config import Data
from motionmae.data import loading
from motionmae.data.clips import Clips
from motionmae.data.loading import Order, loader
from motionmae.errors import MotionMAEError
from motionmae.library import tars
from motionmae.library.manifest import Entry, write_manifest
from motionmae.library.processes import each
from motionmae.library.scan import examine
from motionmae.library.sources import find
from motionmae.video import origin
from motionmae.video.reading import VideoError, probe, read_frames

OFFSETS = [0, 2, 4]


class Store:
    """Files behind http on this machine, and how often each was asked for."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder, Counter[str]()

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.asked[handler.path.rpartition("/")[2]] += 1
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "store"
    entries = []
    for number in range(5):
        path = zoo.encode(tmp_path / f"{number}.mp4", "libx264", count=10 + number, options=zoo.H264)
        entries.append(Entry(str(path), "ok", label="ab"[number % 2], frames=10 + number))
    assert tars.pack(entries, str(folder), 2) == 3
    found = Store(folder)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def data(store: Store, tmp_path: Path) -> Data:
    return Data(path=f"{store.root}/{{000000..000002}}.tar", fetched=str(tmp_path / "fetched"), stride=2, workers=0)


def samples(data: Data, files: list[Path] | None = None) -> list[torch.Tensor]:
    dataset = Clips(files or find(data).paths, data, OFFSETS, 24, 3)
    return [dataset[(epoch, index)][0]["clip"] for epoch in range(2) for index in range(len(dataset))]


def test_addresses_give_the_samples_of_the_files(data: Data, store: Store, tmp_path: Path):
    found = find(data)
    assert found.labels == ["a", "b", "a", "b", "a"]
    assert store.asked == {"index.json": 1}, "nothing is fetched before a video is opened"
    expected = samples(data, [tmp_path / f"{number}.mp4" for number in range(5)])
    assert all(torch.equal(one, two) for one, two in zip(samples(data), expected, strict=True))
    assert max(store.asked[f"{number:06d}.tar"] for number in range(3)) == 1
    local = samples(replace(data, path=str(store.folder)))
    assert all(torch.equal(one, two) for one, two in zip(local, expected, strict=True))


def test_workers_share_what_is_fetched(data: Data, store: Store):
    dataset = Clips(find(data).paths, data, OFFSETS, 24, 3)
    alone = loader(dataset, Order(5, 5, 5, 3, groups=dataset.groups), data, pin=False)
    expected = [next(alone) for _ in range(2)]
    for file in Path(data.fetched).glob("*.tar"):
        file.unlink()
    store.asked.clear()
    two = replace(data, workers=2)
    shared = loader(dataset, Order(5, 5, 5, 3, groups=dataset.groups), two, pin=False)
    for batch in expected:
        assert torch.equal(batch["clip"], next(shared)["clip"])
    shared.close()
    assert store.asked == {f"{number:06d}.tar": 1 for number in range(3)}


def test_a_pipe_and_shards_without_an_index(data: Data, store: Store):
    (store.folder / "index.json").unlink()
    pipe = replace(data, path=f"pipe:cat {shlex.quote(str(store.folder))}/{{000000..000002}}.tar")
    assert find(pipe).labels == find(data).labels == ["a", "b", "a", "b", "a"]
    assert [len(read_frames(path)) for path in find(pipe).paths] == [10, 11, 12, 13, 14]
    store.asked.clear()
    find(data)
    assert set(store.asked) == {"index.json"}, "what was listed once is known"


def test_the_folder_stays_within_its_bound(data: Data, store: Store, monkeypatch: pytest.MonkeyPatch):
    sizes = [file.stat().st_size for file in store.folder.glob("*.tar")]
    few = replace(data, fetched_gb=(max(sizes) * 1.5) / 1e9)
    with pytest.raises(MotionMAEError, match=r"--data\.fetched-gb .* is too little for shards of .* at least"):
        find(few)
    monkeypatch.setattr(origin, "WINDOW", 0)
    files = find(few).paths
    for path in [*files, *files]:
        assert len(read_frames(path)) >= 10
        assert sum(file.stat().st_size for file in Path(data.fetched).glob("*.tar")) <= max(sizes) * 1.5
    assert store.asked["000000.tar"] == 2


def test_what_is_being_read_is_not_removed(data: Data, tmp_path: Path):
    files = find(data).paths
    folder, shard = data.fetched, str(files[0]).partition("::")[0]
    held = origin.hold(shard)
    assert held
    origin._make_room(folder, 0.0, "")
    assert os.path.exists(shard)
    held.close()
    origin._make_room(folder, 0.0, "")
    assert not os.path.exists(shard)
    assert len(read_frames(files[0])) == 10, "it is fetched again"


def test_a_shard_that_cannot_be_fetched_is_a_bad_file_and_a_store_that_is_not_there_an_error(
    data: Data, store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(origin.time, "sleep", lambda _: None)
    files = find(data).paths
    (store.folder / "000002.tar").unlink()
    with pytest.raises(VideoError, match=r"000002\.tar::.*: cannot be fetched from http://127.* \(exit 22\)"):
        probe(files[4])
    assert store.asked["000002.tar"] == origin.TRIES
    dataset = Clips(files, replace(data, bad_share=1.0), OFFSETS, 24, 0)
    assert dataset[(0, 4)][0]["index"] != 4
    assert "skipped" in capfd.readouterr().err
    assert not list(Path(data.fetched).glob("*.part"))
    with pytest.raises(MotionMAEError, match=r"cannot be fetched from http://127.*/nothing\.tar"):
        find(replace(data, path=f"{store.root}/nothing.tar"))
    (store.folder / "index.json").write_text("[1]")
    with pytest.raises(MotionMAEError, match=r"the index\.json beside the shards is not one"):
        find(data)


def test_a_stall_ends(data: Data, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(origin, "STALL", 0.1)
    with pytest.raises(OSError, match=r"nothing came for 0\.1 s"):
        list(origin._blocks("pipe:sleep 60"))


def test_nothing_that_lies_beside_the_data_is_run_or_fetched(tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = zoo.encode(folder / "v.mp4", "libx264", count=12, options=zoo.H264)
    entry = examine(str(path))
    ran = tmp_path / "ran"
    fetched = origin.place_of(f"pipe:touch {ran}; cat {path} #x.tar", str(tmp_path / "unused"), 1.0)
    origin._addresses.clear()
    for shard in (folder / "shard.tar", Path(fetched)):  # beside the data, and in the folder of what is fetched
        inside = dataclasses.replace(entry, path=f"{shard}::0+{entry.bytes}::a.mp4")
        write_manifest(tmp_path / "manifest.csv", [entry, inside])
        note = {"address": f"pipe:touch {ran}; cat {path} #x.tar", "most": 0}
        Path(f"{shard}.note.json").write_text(json.dumps(note))
        files = find(Data(path=str(tmp_path / "manifest.csv"))).paths
        assert len(files) == 2
        with pytest.raises(VideoError, match="no such file"):
            probe(files[1])
        assert not Clips(files, Data(), OFFSETS, 24, 0).groups
    assert not ran.exists()
    assert path.exists()


def test_the_folder_loses_nothing_that_was_not_fetched(data: Data):
    mine = Path(data.fetched)
    mine.mkdir()
    (mine / "mine.tar").write_bytes(b"0" * 1000)
    files = find(data).paths
    assert len(read_frames(files[0])) == 10
    origin._make_room(data.fetched, 0.0, "")
    assert [file.name for file in mine.glob("*.tar")] == ["mine.tar"]


def test_processes_that_are_started_anew_know_the_addresses(data: Data, monkeypatch: pytest.MonkeyPatch):
    files, started = find(data).paths, []
    found = dict(each(read, [str(path) for path in files], 1, lambda _: 60.0))
    assert [found[str(path)] for path in files] == [10, 11, 12, 13, 14]
    dataset = Clips(files, data, OFFSETS, 24, 3)
    alone = next(loader(dataset, Order(5, 5, 5, 3), data, pin=False))["clip"]
    for file in Path(data.fetched).glob("*.tar"):
        file.unlink()
    known, order = origin.told(), Order(5, 5, 5, 3).permutation(0).tolist()
    monkeypatch.setattr(loading, "DataLoader", lambda *_, worker_init_fn, **__: started.append(worker_init_fn) or [])
    list(loader(dataset, Order(5, 5, 5, 3), replace(data, workers=1), pin=False))
    origin._addresses.clear()
    monkeypatch.setattr(loading.signal, "signal", lambda *_: None)
    monkeypatch.setattr(loading, "when_parent_ends", id)
    pickle.loads(pickle.dumps(started[0]))(0)  # as in a process that inherits nothing
    assert origin.told() == known
    assert torch.equal(torch.stack([dataset[(0, index)][0]["clip"] for index in order]), alone)


def read(path: str) -> int:
    return len(read_frames(path))


def test_an_order_keeps_to_a_window_of_shards():
    groups = [number // 4 for number in range(200)]
    for epoch in (0, 1):
        order = Order(200, 8, 8, 0, groups=groups).permutation(epoch)
        assert sorted(order) == list(range(200))
        window = 4 * origin.WINDOW
        for at in range(0, 200, window):
            assert len({groups[video] for video in order[at : at + window]}) <= origin.WINDOW
    assert not np.array_equal(*(Order(200, 8, 8, 0, groups=groups).permutation(epoch) for epoch in (0, 1)))
