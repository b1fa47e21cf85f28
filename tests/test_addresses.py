"""Videos behind addresses are those of the files, read by ranges; an address is typed, never what a file says."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import zoo
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

import motionmae
from motionmae.cli import main
from motionmae.config import Data, Model, Pretrain
from motionmae.data.clips import Clips
from motionmae.data.loading import Order, loader
from motionmae.errors import MotionMAEError
from motionmae.inference.table import read_features
from motionmae.library.manifest import read_manifest, write_manifest
from motionmae.library.scan import examine
from motionmae.library.sources import collect, find
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.weights import save
from motionmae.video import origin, remote
from motionmae.video.reading import Video, VideoError, probe, read_frames

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)
LARGE = (160, 240)


class Counted(MemoryFileSystem):
    """A store in memory that gives files by ranges alone, and counts the bytes that were asked of it."""

    protocol = "counted"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    asked = 0

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        return Ranged(self, path, **more) if mode == "rb" else super()._open(path, mode, **more)


class Ranged(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        Counted.asked += end - start
        return bytes(Counted.store[self.path].getbuffer()[start:end])


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_roots", {})
    fsspec.register_implementation("counted", Counted, clobber=True)
    for kind in (MemoryFileSystem, Counted):
        monkeypatch.setattr(kind, "store", {})
        monkeypatch.setattr(kind, "pseudo_dirs", [""])
    Counted.asked = 0


@pytest.fixture
def local(tmp_path: Path) -> Path:
    root = tmp_path / "local"
    for number in range(4):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        zoo.encode(root / "ab"[number % 2] / f"{number}.mp4", "libx264", count=8 + number, options=zoo.H264)
    (root / "a" / "broken.mp4").write_bytes(b"no video at all")
    (root / "notes.txt").write_text("no video")
    return root


def put(folder: Path, address: str) -> str:
    fsspec.core.url_to_fs(address)[0].put(str(folder), fsspec.core.url_to_fs(address)[1], recursive=True)
    return address


def walked(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.mp4"))


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("store", ["memory", "counted"])
def test_a_folder_behind_an_address_gives_the_samples_of_the_files(local: Path, store: str):
    (local / "a" / "broken.mp4").unlink()
    near = find(Data(path=str(local)))
    far = find(Data(path=put(local, f"{store}://bucket/videos")))
    assert far.labels == near.labels == ["a", "a", "b", "b"]
    assert remote.shown(far.paths[0]) == f"{store}://bucket/videos/a/0.mp4"
    data = Data(stride=2, workers=0)
    one, two = (Clips(found.paths, data, [0, 2, 4], 24, 3) for found in (near, far))
    for place in ((epoch, index) for epoch in range(2) for index in range(4)):
        assert torch.equal(one[place][0]["clip"], two[place][0]["clip"])


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libvpx-vp9"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_every_kind_of_file_reads_alike(tmp_path: Path, codec: str, ending: str):
    if (codec, ending) in {("libvpx-vp9", "ts"), ("libvpx-vp9", "avi"), ("libx265", "avi")}:
        pytest.skip("no such file")
    path = zoo.encode(tmp_path / f"a.{ending}", codec)
    address = put(path, f"counted://b/a.{ending}")
    place = remote.root(address)
    assert probe(place) == probe(path)
    assert torch.equal(read_frames(place), read_frames(path))
    assert torch.equal(read_frames(place, [7, 2]), read_frames(path, [7, 2]))


@pytest.mark.parametrize(
    ("codec", "flags"), [("libx264", ""), ("libx264", "faststart"), ("libx265", ""), ("mpeg4", "")]
)
def test_only_what_is_needed_of_an_indexed_file_is_read(tmp_path: Path, monkeypatch: Any, codec: str, flags: str):
    monkeypatch.setattr(remote, "BLOCK", 1 << 13)
    noise = np.random.default_rng(0).integers(0, 255, (40, *LARGE, 3), dtype=np.uint8)
    noise[32:] = np.arange(8, dtype=np.uint8)[:, None, None, None] * 20  # small: what was listed last is still at hand
    path = write(tmp_path / "a.mp4", noise, codec, {"movflags": flags} if flags else {})
    place = remote.root(put(path, "counted://b/a.mp4"))
    with Video(place) as far, Video(path) as near:
        listed = Counted.asked
        for name in ("pts", "keys", "lead", "packet"):
            assert np.array_equal(getattr(far.table, name), getattr(near.table, name)), name
        for frames in ([39], [25]):
            assert torch.equal(far.read(frames), near.read(frames))
    whole = path.stat().st_size
    assert whole > 3e5
    assert listed < whole / 4, "the list of packets is made of the index"
    assert Counted.asked < whole / 2


def write(path: Path, frames: np.ndarray, codec: str, options: dict[str, str]) -> Path:
    import av

    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(
            codec,
            25,
            options={"g": "4", "crf": "20", "preset": "ultrafast", "bf": "2", "x265-params": "log-level=none"},
        )
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    return path


def test_scan_and_its_manifest(local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(local, tmp_path / "served")
    address = f"local://{tmp_path / 'served'}"  # a store that other processes see
    manifest = tmp_path / "m.csv"
    assert run("scan", address, "--out", manifest, "--workers", 1) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"--data.path {manifest} --data.root {address}" in told
    assert "://" not in manifest.read_text()
    far = [replace(entry, modified=0, hash="") for entry in read_manifest(manifest, str(local))]
    near = [replace(examine(entry.path), modified=0, hash="", label=entry.label) for entry in far]
    assert far == near
    found = find(Data(path=str(manifest), root=address))
    assert [len(read_frames(path)) for path in found.paths] == [8, 10, 9, 11]
    with pytest.raises(MotionMAEError, match="no such file"):
        read_frames(find(Data(path=str(manifest))).paths[0])
    assert run("prepare", address, "--out", tmp_path / "small", "--short", 32, "--workers", 1) == 0
    assert [entry.frames for entry in read_manifest(tmp_path / "small" / "manifest.csv")] == [8, 10, 9, 11]
    assert run("scan", address, "--out", "memory://m.csv") == 2
    assert "--out memory://m.csv: a manifest is written on this machine" in capsys.readouterr().err


def test_lists_and_manifests_beside_the_videos(local: Path, tmp_path: Path):
    (local / "list.csv").write_text("path,label\na/0.mp4,x\nb/1.mp4,y\nc/9.mp4,y\n")
    write_manifest(
        local / "manifest.parquet", [replace(examine(str(path)), label=path.parent.name) for path in walked(local)]
    )
    put(local, "memory://bucket/set")
    found = find(Data(path="memory://bucket/set/list.csv"))
    assert (found.labels, found.missing) == (["x", "y"], ["c/9.mp4"])
    assert [len(read_frames(path)) for path in found.paths] == [8, 9]
    found = find(Data(path="memory://bucket/set/manifest.parquet"))
    assert [len(read_frames(path)) for path in found.paths] == [8, 10, 9, 11]
    assert found.labels == ["a", "a", "b", "b"]
    found = find(Data(path=str(local / "list.csv"), root="memory://bucket/set"))
    names = [remote.address_of(path).rpartition("/set/")[2] for path in found.paths]
    assert names == ["a/0.mp4", "b/1.mp4"]


def test_no_file_names_an_address(local: Path, tmp_path: Path):
    put(local, "memory://secret/set")
    evil = ("memory://secret/set/a/0.mp4", "/memory:/secret/set/a/0.mp4", "../secret/set/a/0.mp4", "file:///etc/passwd")
    text = "path,status\n" + "".join(f"{name},ok\n" for name in evil)
    (tmp_path / "open").mkdir()
    for name in ("manifest.csv", "list.csv"):
        (tmp_path / "open" / name).write_text(text if name == "manifest.csv" else text.replace(",status", ",label"))
    put(tmp_path / "open", "memory://open")
    for path in (f"{tmp_path}/open/manifest.csv", "memory://open/manifest.csv"):
        for place in find(Data(path=path)).paths:
            assert remote.address_of(place)[:14] in ("", "memory://open/")
            with pytest.raises(VideoError):
                read_frames(place)
    for text in ("ffconcat version 1.0\nfile file:///etc/hostname\n", "#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"):
        fsspec.filesystem("memory").pipe("/open/list.mp4", text.encode())
        with pytest.raises(VideoError, match="not a video"):
            read_frames(remote.root("memory://open") + "/list.mp4")
    for path in (f"{tmp_path}/open/list.csv", "memory://open/list.csv"):
        with pytest.raises(MotionMAEError, match="of its 4 videos none is there"):
            find(Data(path=path))


def test_embed_search_and_python_take_addresses(local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    put(local, "memory://bucket/videos")
    torch.manual_seed(0)
    save(tmp_path / "m.safetensors", MotionMAE(SMALL), asdict(Pretrain(model=SMALL, data=Data(stride=1))))
    for videos, out in ((local, "near"), ("memory://bucket/videos", "far")):
        words = ["embed", tmp_path / "m.safetensors", videos, "--out", tmp_path / f"{out}.npz", "--workers", 0]
        assert run(*words) == 0
    near, far = (read_features(tmp_path / f"{name}.npz") for name in ("near", "far"))
    np.testing.assert_array_equal(near.of(None), far.of(None))
    assert far.rows[0].video == "memory://bucket/videos/a/0.mp4"
    one = collect(["memory://bucket/videos/a/0.mp4"])
    assert len(read_frames(one.paths[0])) == 8
    with motionmae.open_video("memory://bucket/videos/a/0.mp4") as video:
        assert torch.equal(video.read(), read_frames(local / "a" / "0.mp4"))
    vectors = [
        motionmae.embed(str(tmp_path / "m.safetensors"), f"{place}/a/0.mp4").vector
        for place in (local, "memory://bucket/videos")
    ]
    assert torch.equal(*vectors)
    capsys.readouterr()
    assert run("search", tmp_path / "near.npz", "memory://bucket/videos/a/0.mp4", "--top", 1) == 0


def test_pretrain_reads_from_an_address(local: Path, tmp_path: Path):
    put(local, "memory://bucket/videos")
    words = ["--data.workers", 0, "--optim.steps", 1, "--optim.batch", 2, "--run.device", "cpu", "--data.bad-share", 1]
    sizes = ["--model.size", 16, "--model.frames", 4, "--data.stride", 1, "--data.cache"]
    out = ["--run.out", tmp_path / "run"]
    assert run("pretrain", "tiny", "--data.path", "memory://bucket/videos", *words, *sizes, *out) == 0
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_goes_wrong_is_one_sentence(local: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    put(local, "memory://bucket/videos")
    for address, told in [
        ("memory://bucket/nothing", "--data.path memory://bucket/nothing: cannot be read"),
        ("nonsense://bucket/x", "--data.path nonsense://bucket/x: nothing here opens such an address"),
        ("s3://bucket/x", "--data.path s3://bucket/x: Install s3fs to access S3"),
    ]:
        with pytest.raises(MotionMAEError) as error:
            find(Data(path=address))
        assert str(error.value).startswith(told)
    place = remote.root("memory://bucket/videos") + "/a/broken.mp4"
    with pytest.raises(VideoError, match=r"^memory://bucket/videos/a/broken.mp4: not a video$"):
        probe(place)
    for path, told in [
        ("memory://bucket/videos/a/none.mp4", "there is no such file or folder"),
        ("memory://bucket/videos/a", "is a folder, and folders of frames are not read from addresses"),
        ("nonsense://bucket/x.mp4", r"nothing here opens such an address \(Protocol not known: nonsense\)"),
    ]:
        with pytest.raises(VideoError, match=f"^{path}: {told}$"):
            motionmae.open_video(path)
        with pytest.raises(VideoError, match=f"^{path}: {told}$"):
            motionmae.embed("tiny", path)


def test_a_store_that_fails_in_the_midst_is_a_video_error(local: Path, monkeypatch: pytest.MonkeyPatch):
    place = remote.root(put(local / "a", "counted://b/a")) + "/0.mp4"
    assert len(read_frames(place)) == 8

    def fetch(self: Any, start: int, end: int) -> bytes:
        raise RuntimeError("the line is cut")

    monkeypatch.setattr(Ranged, "_fetch_range", fetch)
    with pytest.raises(VideoError, match=r"counted://b/a/0.mp4: cannot be read at byte 0 \(RuntimeError: the line"):
        read_frames(place, [1])


def test_workers_read_from_an_address(local: Path):
    (local / "a" / "broken.mp4").unlink()
    found = find(Data(path=f"local://{local}"))
    data = Data(stride=1, workers=1)
    dataset = Clips(found.paths, data, [0, 1, 2], 24, 3)
    batches = loader(dataset, Order(4, 4, 4, 3), data, pin=False)
    batch = next(batches)
    batches.close()
    alone = Clips(find(Data(path=str(local))).paths, data, [0, 1, 2], 24, 3)
    places = next(iter(Order(4, 4, 4, 3)))
    assert torch.equal(batch["clip"], torch.stack([alone[place][0]["clip"] for place in places]))


def test_other_processes_know_what_was_typed(tmp_path: Path):
    place = remote.root("memory://bucket/x")
    told = origin.told()
    assert told[place] == ("memory://bucket/x", 0.0)
    remote._roots.clear()
    origin.inherit(told)
    assert remote.address_of(os.path.join(place, "y.mp4")) == "memory://bucket/x/y.mp4"
    assert not origin.is_fetched(place)
