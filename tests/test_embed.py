"""Embedding: every stretch of every video, any layer, any file; stopped, shared out and unreadable."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import runs
import torch

import motionmae
from motionmae.cli import main
from motionmae.config import Data, Model, Pretrain, Viewing
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.inference import features, windows
from motionmae.inference.embedding import fingerprint, layout_of
from motionmae.inference.table import read_features
from motionmae.inference.views import View
from motionmae.library.sources import Videos
from motionmae.models.attentive import AttentiveHead, save_head
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.weights import save
from motionmae.tasks import embed as task
from motionmae.video.reading import open_video, read_frames
from motionmae.video.writing import write_video

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=3, heads=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(path, MotionMAE(SMALL), asdict(Pretrain(model=SMALL, data=Data(stride=2, short="clamp"))))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for label, seeds in (("left", (1, 2)), ("right", (3,))):
        (root / label).mkdir()
        for seed in seeds:
            write_video(root / label / f"{seed}.mp4", render(seed, label, 20 + seed, 32).frames, 10)
    (root / "left" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 500)
    return root


def run(*words):
    return main([str(word) for word in words])


def embed(model, videos, out, *words):
    return run("embed", model, videos, "--out", out, "--device", "cpu", "--workers", "0", *words)


@pytest.mark.parametrize("ending", features.ENDINGS)
def test_every_kind_of_table_says_the_same(model, folder, tmp_path, ending):
    assert embed(model, folder, tmp_path / f"f{ending}") == 0
    table = read_features(tmp_path / f"f{ending}")
    assert not (tmp_path / f"f{ending}.parts").exists()
    encoder, _ = layout_of(model)
    assert table.about["model"] == fingerprint(encoder)
    assert {row.label for row in table.rows} == {"left", "right"}
    for name in ("1.mp4", "2.mp4"):
        own = [at for at, row in enumerate(table.rows) if row.video.endswith(f"left/{name}")]
        frames = read_frames(folder / "left" / name)
        rows = [table.rows[at] for at in own]
        assert len(rows) == 3  # 21 or 22 frames: 8 and 8 end to end, and the last ones
        assert [row.frames for row in rows[:2]] == [[0, 2, 4, 6], [8, 10, 12, 14]]
        assert rows[2].frames == list(range(len(frames) - 8, len(frames), 2))
        assert [row.start for row in rows[:2]] == [0.0, pytest.approx(0.8)]
        assert rows[2].end == pytest.approx(len(frames) / 10)
        for at in own:
            small = torch.nn.functional.interpolate(
                frames[table.rows[at].frames].permute(0, 3, 1, 2), (16, 16), mode="bilinear", antialias=True
            )
            with torch.no_grad():
                wanted = encoder(small.transpose(0, 1)[None]).mean(1)[0]
            np.testing.assert_allclose(np.asarray(table.of(None)[at]), wanted, atol=1e-5)


def test_a_table_is_read_by_pandas_ways_and_tells_what_failed(model, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert embed(model, folder, tmp_path / "f.parquet", "--every", "1s", "--pool", "time", "--layers", "1", "3") == 0
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    failed = [at for at, reason in enumerate(table["reason"]) if reason]
    assert [table["video"][at] for at in failed] == [str(folder / "left" / "broken.mp4")]
    assert len(table["vector_1"][0]) == len(table["vector_3"][0]) == 2 * 24
    assert np.isnan(table["vector_3"][failed[0]]).all()
    ones = [(a, b) for v, a, b in zip(table["video"], table["start"], table["end"], strict=True) if v.endswith("1.mp4")]
    assert ones == [(0, 1), (1, 2), (2, pytest.approx(2.1))]


def test_a_row_a_video_is_the_mean_of_its_clips(model, folder, tmp_path):
    clips = motionmae.embed(model, folder / "left" / "1.mp4")
    video = motionmae.embed(motionmae.load(model), folder / "left" / "1.mp4", "video", views=Viewing(1, 1, stride=2))
    assert len(video.rows) == 1
    torch.testing.assert_close(video.vector[0], clips.vector.mean(0))
    tokens = motionmae.embed(model, folder / "left" / "1.mp4", pool="none")
    torch.testing.assert_close(tokens.vector.mean(1), clips.vector)


def test_a_stopped_embedding_goes_on_and_jobs_share_it(model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("motionmae.tasks.embed.PART", 1)
    whole, out = tmp_path / "whole.npz", tmp_path / "f.npz"
    assert embed(model, folder, whole) == 0
    for job in ("2/3", "1/3", "3/3"):
        assert embed(model, folder, out, "--part", job) == 0
        assert out.exists() == (job == "3/3")
    a, b = (read_features(path) for path in (whole, out))
    assert a.rows == b.rows
    np.testing.assert_array_equal(a.of(None), b.of(None))
    assert embed(model, folder, tmp_path / "g.npz", "--part", "1/2") == 0
    assert embed(model, folder, tmp_path / "g.npz", "--pool", "time") == 2
    assert "holds parts made otherwise (pool differ)" in capsys.readouterr().err


def test_groups_and_classes_are_a_lists_own(model, folder, tmp_path):
    listed = tmp_path / "list.csv"
    names = "left/1.mp4,l,anna\nleft/2.mp4,l,bert\nleft/broken.mp4,l,bert\n"
    listed.write_text("path,label,group\n" + names.replace("left", f"{folder}/left"))
    assert embed(model, listed, tmp_path / "f.npz", "--every", "video") == 0
    with np.load(tmp_path / "f.npz") as table:
        assert table["group"].tolist() == ["anna", "bert", "bert"]
        assert table["label"].tolist() == ["l"] * 3
        assert table["reason"].tolist()[:2] == ["", ""]


def test_what_the_attentive_probe_looks_at_is_a_pool(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(tmp_path / "own.safetensors", MotionMAE(SMALL), asdict(Pretrain(model=SMALL, data=Data(stride=2))))
    assert embed("own.safetensors", folder, "f.npz", "--pool", "attentive") == 2
    assert "own.safetensors has no attentive pool" in capsys.readouterr().err
    encoder = motionmae.load("own.safetensors")
    head = AttentiveHead(SMALL.width, 1, 3)
    save_head(tmp_path / "runs/own-probe/attentive.safetensors", head, fingerprint(encoder))
    assert embed("own.safetensors", folder, "f.npz", "--pool", "attentive", "--layers", "1") == 2
    assert "is fitted on the last layer, 3" in capsys.readouterr().err
    assert embed("own.safetensors", folder, "f.npz", "--pool", "attentive") == 0
    assert embed("own.safetensors", folder, "t.npz", "--pool", "none") == 0
    tokens = torch.from_numpy(read_features("t.npz").of(None))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(read_features("f.npz").of(None)), head.pool(tokens))
    found = motionmae.embed("own.safetensors", folder / "left" / "1.mp4", pool="attentive")
    assert found.vector.shape[1] == SMALL.width
    with pytest.raises(MotionMAEError, match="this encoder has no attentive pool"):
        motionmae.embed(encoder, folder / "left" / "1.mp4", pool="attentive")
    assert run("search", "f.npz", folder / "left" / "1.mp4", "--top", "1") == 0
    save_head(tmp_path / "runs/own-probe/attentive.safetensors", head, "another")
    assert embed("own.safetensors", folder, "g.npz", "--pool", "attentive") == 2
    assert "was fitted on an encoder of other weights" in capsys.readouterr().err


def shared_out(words):
    """A rank of several: the command, with parts of one video."""
    task.PART = 1
    return main(words)


@pytest.mark.slow
def test_two_ranks_embed_what_one_does(model, folder, tmp_path):
    assert embed(model, folder, tmp_path / "one.npz") == 0
    words = ["embed", model, folder, "--out", tmp_path / "two.npz", "--workers", 0, "--device", "cpu"]
    both = runs.ranks(shared_out, 2, [str(word) for word in words])
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    one, two = (read_features(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert one.rows == two.rows
    np.testing.assert_allclose(one.of(None), two.of(None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 8, 9, 30])
@pytest.mark.parametrize("sampling", [{"stride": 2}, {"fps": 5.0, "stride": 1}, {"sampling": "uniform", "stride": 1}])
def test_clips_end_to_end_leave_no_frame_out(tmp_path, count, sampling):
    write_video(tmp_path / "v.mp4", render(1, "up", count, 32).frames, 10)
    usual = {"clips": 1, "crops": 1, "sampling": "dense", "fps": None, "short": "clamp", "frames": 4, "size": 16}
    with open_video(tmp_path / "v.mp4") as video:
        found = windows.end_to_end(video, View(**usual | sampling))
        duration = Fraction(video.duration)
    assert found[0].start == 0
    assert found[-1].end == duration
    assert all(after.start <= before.end for before, after in itertools.pairwise(found))
    assert all(0 <= number < count for window in found for number in window.frames)
    assert all(len(window.frames) == 4 for window in found)


def test_search_finds_the_copy_first_and_lists_duplicates(model, folder, tmp_path, capsys):
    copy = folder / "right" / "copy.mp4"
    copy.write_bytes((folder / "left" / "1.mp4").read_bytes())
    try:
        assert embed(model, folder, tmp_path / "f.npz") == 0
    finally:
        copy.unlink()
    capsys.readouterr()
    query = tmp_path / "query.mp4"
    query.write_bytes((folder / "left" / "2.mp4").read_bytes())
    words = ("--device", "cpu", "--workers", "0", "--json", "-")
    assert run("search", tmp_path / "f.npz", query, "--html", tmp_path / "hits.html", *words) == 0
    found = json.loads(capsys.readouterr().out)[str(query)]
    assert found[0]["video"] == str(folder / "left" / "2.mp4")
    assert found[0]["score"] == pytest.approx(1, abs=1e-4)
    assert len({hit["video"] for hit in found}) == len(found) == 4
    assert "data:image/jpeg" in (tmp_path / "hits.html").read_text()
    assert run("search", tmp_path / "f.npz", "copy.mp4", "--by", "clip", *words) == 0
    assert json.loads(capsys.readouterr().out)["copy.mp4"][0]["video"] == str(folder / "left" / "1.mp4")
    assert run("search", tmp_path / "f.npz", "--duplicates", "0.9999", *words) == 0
    pair = json.loads(capsys.readouterr().out)["near-duplicates"]
    assert {hit["video"] for hit in pair} == {str(copy), str(folder / "left" / "1.mp4")}
    assert run("map", tmp_path / "f.npz") == 0
    page = (tmp_path / "f.map.html").read_text()
    assert page.count("<circle") == len(read_features(tmp_path / "f.npz").rows) + 2


def test_blocks_change_nothing(monkeypatch):
    from motionmae.inference import nearest

    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).numpy()
    query = torch.from_numpy(vectors[[3, 7]])
    pairs = list(nearest.duplicates(vectors, 0.5))
    scores, places = nearest.nearest(vectors, query, 5)
    monkeypatch.setattr(nearest, "BLOCK", 7)
    assert [(a, b) for a, b, _ in sorted(nearest.duplicates(vectors, 0.5))] == [(a, b) for a, b, _ in sorted(pairs)]
    found, where = nearest.nearest(vectors, query, 5)
    torch.testing.assert_close(found, scores)
    assert torch.equal(where, places)
    assert where[:, 0].tolist() == [3, 7]
    torch.testing.assert_close(nearest.mean_of(vectors), torch.from_numpy(vectors).mean(0))


@pytest.mark.parametrize("engine", ["faiss", "hnswlib"])
def test_an_index_finds_what_comparing_all_finds(engine):
    pytest.importorskip(engine)
    from motionmae.inference import nearest

    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)).numpy()
    query = torch.from_numpy(vectors[:5]) + 0.1
    scores, places = nearest.nearest(vectors, query, 3)
    found, where = nearest.nearest(vectors, query, 3, engine=engine)
    assert torch.equal(where, places)
    torch.testing.assert_close(found, scores)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embed", "MODEL", "VIDEOS"], "embed needs --out: the table: .parquet, .npz"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.txt"], "--out 'x.txt': expected a name that ends in .parquet"),
        (["embed", "MODEL", "VIDEOS", "--out", "THERE.npz"], "exists already"),
        (["embed", "MODEL", "--out", "x.npz"], "embed needs VIDEOS"),
        (["embed", "MODEL", "nowhere", "--out", "x.npz"], "nowhere: there is no such file"),
        (["embed", "nothing", "VIDEOS", "--out", "x.npz"], "nothing: there is no such checkpoint"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.npz", "--every", "often"], "--every 'often'"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.npz", "--window", "2s"], "--window 2s: needs --every in seconds"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.npz", "--layers", "9"], "--layers 9: the encoder has the layers"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.npz", "--part", "3/2"], "--part '3/2'"),
        (["embed", "MODEL", "VIDEOS", "--out", "x.npy", "--layers", "1", "2"], "holds one layer"),
        (["embed", "MODEL", "BROKEN", "--out", "x.npz"], "none of the videos could be read"),
        (["search", "nothing.npz", "q.mp4"], "nothing.npz: there is no such table"),
        (["search", "MODEL", "q.mp4"], "is no table of motionmae embed"),
        (["search", "THERE.npz", "q.mp4"], "cannot be read as a table"),
        (["search", "THERE.npz"], "say what to search for"),
        (["map", "VIDEOS"], "there is no such table"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(model, folder, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "THERE.npz").write_bytes(b"no table")
    names = {"MODEL": str(model), "VIDEOS": str(folder), "BROKEN": str(folder / "left" / "broken.mp4")}
    assert run(*(names.get(word, word) for word in words)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_every_video_is_in_one_part():
    videos = Videos([Path(f"{at}.mp4") for at in range(2 * task.PART + 1)], [], [])
    parts = [task.places_of(part, videos) for part in range(3)]
    assert [at for part in parts for at in part] == list(range(2 * task.PART + 1))
    assert len(parts[0]) == task.PART
