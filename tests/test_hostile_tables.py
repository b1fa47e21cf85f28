"""What a hostile table, list, shard or run folder costs is one sentence: no address, no hang, no memory, no escape."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from motionmae.cli import main
from motionmae.config import Data
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError
from motionmae.files import escaped, one_line
from motionmae.inference.table import read_features
from motionmae.inference.windows import parse_seconds
from motionmae.library.manifest import read_manifest
from motionmae.library.sources import find
from motionmae.library.tars import members
from motionmae.models import hub
from motionmae.report.run import read_config, read_metrics

ABOUT = {
    "path": "tiny", "model": "0", "heads": None, "every": "clip", "window": "", "pool": "mean", "layers": [4],
    "views": {"clips": 1, "crops": 1},
}  # fmt: skip
ROW = {"video": "a.mp4", "start": 0.0, "end": 1.0, "frames": [0, 1], "label": "", "group": "", "reason": ""}


def table(place: Path, about=ABOUT, row=ROW, vectors=None, text: str = "") -> Path:
    """A table of three rows as motionmae embed writes it."""
    vectors = np.eye(3, dtype=np.float32) if vectors is None else vectors
    rows = [row | {"video": f"{at}{row['video']}"} if isinstance(row["video"], str) else row for at in range(3)]
    told = text or json.dumps({"about": about, "rows": rows})
    with place.open("wb") as file:
        np.savez(file, features=np.array(told), vector=vectors)  # pyright: ignore[reportArgumentType]
    return place


ROWS = {"start": "x", "video": 5, "label": ["a"], "frames": "abc", "end": None, "reason": 1, "group": {}}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(MotionMAEError, match=rf"t\.npz: .*row 1 has .* for '{name}'"):
        read_features(table(tmp_path / "t.npz", row=ROW | {name: ROWS[name]}))


VECTORS = {
    "fewer": np.zeros((2, 3), np.float32), "more": np.zeros((4, 3), np.float32), "texts": np.array(["a"] * 3),
    "a number": np.array(1.0), "flat": np.zeros(3, np.float32), "narrow": np.zeros((3, 0), np.float32),
    "complex": np.zeros((3, 2), np.complex64),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_that_are_not_those_of_the_rows_are_refused(tmp_path, name):
    with pytest.raises(MotionMAEError, match=r"t\.npz: cannot be read as a table"):
        read_features(table(tmp_path / "t.npz", vectors=VECTORS[name]))


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"about": {"layers": []}, "rows": []}', "[]"])
def test_what_a_table_says_of_itself_may_be_anything(tmp_path, text):
    with pytest.raises(MotionMAEError, match=r"t\.npz: "):
        read_features(table(tmp_path / "t.npz", text=text))


def test_what_is_no_archive_and_what_was_pressed_are_refused(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04" + b"x" * 50)
    with pytest.raises(MotionMAEError, match=r"t\.npz: cannot be read"):
        read_features(tmp_path / "t.npz")
    with (tmp_path / "t.npz").open("wb") as file:
        np.savez_compressed(file, features=np.array("{}"), vector=np.zeros((1000, 1000), np.float32))
    with pytest.raises(MotionMAEError, match=r"t\.npz: says that it holds 4\d+ bytes"):
        read_features(tmp_path / "t.npz")


def test_numbers_that_are_not_finite_are_told(tmp_path, capsys):
    vectors = np.eye(3, dtype=np.float32)
    vectors[1, 1] = np.nan
    for words in (["map"], ["search", "0a.mp4"], ["search", "--duplicates", "0.5"]):
        assert main([words[0], str(table(tmp_path / "t.npz", vectors=vectors)), *words[1:]]) == 2
        assert "row 2 of the table holds numbers that are not finite" in capsys.readouterr().err


MADE = {
    "path": 5, "no path": None, "every": {"a": 1}, "pool": "x", "heads": "x", "views": "x", "window": 3, "address": "",
    "frames": {"frames": 10**9},
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_how_a_table_was_made_is_asked_and_no_address_of_it_is_fetched(tmp_path, capsys, monkeypatch, name):
    told = {"no path": {"path": None}, "address": {"path": "hf://evil/name"}, "frames": {"views": MADE["frames"]}}
    about = ABOUT | told.get(name, {name: MADE[name]})
    monkeypatch.setattr(hub, "local", lambda path: pytest.fail(f"{path} was asked for"))
    (tmp_path / "q.mp4").write_bytes(b"")
    assert main(["search", str(table(tmp_path / "t.npz", about)), str(tmp_path / "q.mp4")]) == 2
    error = capsys.readouterr().err
    assert ("only you name an address" if name == "address" else "does not say how it was made") in error
    assert error.count("\n") == 1


def test_a_table_of_the_model_in_the_package_is_searched_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(write_videos(Path("videos"), "train", 2, seed=0))
    assert main(["embed", "tiny", "videos", "--out", "t.npz", "--workers", "0", "--device", "cpu"]) == 0
    query, _ = next(write_videos(Path("queries"), "train", 1, seed=5))
    assert main(["search", "t.npz", str(query), "--workers", "0", "--json", "h.json", "--device", "cpu"]) == 0
    assert len(json.loads(Path("h.json").read_text())[str(query)]) == 5


@pytest.mark.parametrize("words", ["1e-9s", "1e999999999", "0.0001", "-1", "nan", "inf", "1/0", ""])
def test_windows_are_not_without_end(words):
    with pytest.raises(MotionMAEError, match="expected seconds"):
        parse_seconds(words, "--every")


@pytest.mark.parametrize("value", ["1e999999999", "1e-999999999", "1E+4300"])
def test_numbers_of_manifests_are_not_written_out(tmp_path, value):
    (tmp_path / "m.csv").write_text(f"path,status,frames,rate\na.mp4,ok,1,{value}\n")
    with pytest.raises(MotionMAEError, match=r"m\.csv: line 2 has .* for 'rate'"):
        read_manifest(tmp_path / "m.csv")


def test_parquet_that_is_none_lacks_columns_or_repeats_itself_is_refused(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1xxxxPAR1")
    with pytest.raises(MotionMAEError, match=r"m\.parquet: cannot be read as a manifest"):
        read_manifest(tmp_path / "m.parquet")
    parquet.write_table(arrow.table({"path": ["a"]}), tmp_path / "m.parquet")
    with pytest.raises(MotionMAEError, match=r"m\.parquet: is no manifest: it has no column 'status'"):
        read_manifest(tmp_path / "m.parquet")
    parquet.write_table(arrow.table({"path": ["a"] * 100_000, "status": ["ok"] * 100_000}), tmp_path / "m.parquet")
    with pytest.raises(MotionMAEError, match=r"m\.parquet: says that it has 100000 rows in \d+ bytes"):
        read_manifest(tmp_path / "m.parquet")


LISTS = {
    "deep.json": "[" * 200_000, "long.txt": "a," * 2 + "b" * 200_000 + ".mp4 1", "far.json": '{"a": {"annotations": '
    '{"segment": [Infinity, 1]}}}', "k.csv": "youtube_id,time_start,time_end,label\na,x,2,b\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_anything_are_refused(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name])
    with pytest.raises(MotionMAEError, match=re.escape(name)):
        find(Data(path=str(tmp_path / name)))


def shard(place: Path, name: str, content: bytes, size: int | None = None, sparse: bool = False) -> Path:
    """A tar with one member that may say that it is larger than it is, and may be sparse."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    if not sparse:
        member.size = size or member.size
        place.write_bytes(member.tobuf() + content.ljust(512, b"\0") + b"\0" * 1024)
        return place
    member.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (0, len(content))
    head[483:495] = b"\x80" + (size or 0).to_bytes(11, "big")
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:512]))
    place.write_bytes(bytes(head) + content.ljust(512, b"\0") + b"\0" * 1024)
    return place


def test_labels_in_shards_are_small_and_no_bombs(tmp_path):
    with pytest.raises(MotionMAEError, match=r"s\.tar: .*a\.json says that it holds"):
        members(str(shard(tmp_path / "s.tar", "a.json", b"{}", 8 << 40)))
    with pytest.raises(MotionMAEError, match=r"s\.tar: .*a\.json says that it holds"):
        members(str(shard(tmp_path / "s.tar", "a.json", b"{}", 3 << 33, sparse=True)))
    with pytest.raises(MotionMAEError, match=r"s\.tar: .*a\.json: is not readable as JSON"):
        members(str(shard(tmp_path / "s.tar", "a.json", b"[" * 100_000)))


def run_folder(place: Path, line: str, config: str = "{}") -> Path:
    """A run folder with one reading beside two good ones."""
    place.mkdir(exist_ok=True)
    good = '{"step": 1, "loss": 1.0, "appearance": 1.0, "appearance_ratio": 0.5, "clips_per_second": 2.0}'
    (place / "metrics.jsonl").write_text("\n".join([good, line, good]))
    (place / "config.json").write_text(config)
    (place / "pictures").mkdir(exist_ok=True)
    (place / "pictures" / "step-abc.webp").write_bytes(b"x")
    return place


LINES = [
    "[" * 100_000, '{"step": ' + "1" * 5000 + "}", '{"step": 1e400}', '{"step": true, "loss": true}',
    '{"step": 2, "loss": "x", "appearance": [1], "appearance_ratio": {}, "clips_per_second": null}',
    '{"step": 2, "loss": NaN, "appearance": Infinity, "appearance_ratio": 1e-320, "clips_per_second": NaN}',
    '{"step": 2, "loss": ' + "1" * 400 + "}", '{"step": 2, "loss": 1.0, "clips_per_second": 1e-320}',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_report_is_made_whatever_a_reading_is(tmp_path, line):
    folder = run_folder(tmp_path / "run", line, '{"optim": {"batch": 4}}')
    (folder / "provenance.json").write_text("[]")
    assert main(["report", str(folder), "--out", str(tmp_path / "r.html")]) == 0
    for reading in read_metrics(folder):
        assert all(type(value) in (int, float) for value in reading.values())


CONFIGS = {
    "its optim is": '{"optim": [1]}', "its data is": '{"data": "x"}', "optim.steps is": '{"optim": {"steps": "x"}}',
    "nested too deep": '{"a":' * 900 + "1" + "}" * 900, "not readable as JSON": "1" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("reason", CONFIGS)
def test_configs_of_run_folders_that_are_none_are_told(tmp_path, reason):
    with pytest.raises(MotionMAEError, match=rf"config\.json: .*{reason}"):
        read_config(run_folder(tmp_path / "run", "", CONFIGS[reason]))


def test_a_run_has_no_quantities_without_end(tmp_path):
    folder = run_folder(tmp_path / "run", "\n".join(f'{{"step": 1, "k{at}": 1.0}}' for at in range(1001)))
    with pytest.raises(MotionMAEError, match="more than 1000 quantities"):
        read_metrics(folder)


def test_a_terminal_obeys_nothing():
    every = "".join(map(chr, [*range(32), *range(127, 160), 0x202E, 0x2066]))
    assert re.fullmatch(r"[ -~\t\n]*", escaped(every))
    assert re.fullmatch(r"[ -~\t]*", one_line(every))
    assert escaped("ä 動画 🎬\t\n") == "ä 動画 🎬\t\n"


EVIL = "[red][link=x]\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\nnew"


def test_names_of_files_reach_the_terminal_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    Path("videos", f"{EVIL}.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 500)
    assert main(["scan", "videos", "--workers", "1"]) == 0
    assert main(["predict", "nothing", f"videos/{EVIL}.mp4"]) == 2
    labelled = table(Path("t.npz"), row=ROW | {"video": EVIL, "label": EVIL})
    assert main(["search", str(labelled), "--duplicates", "-1"]) == 0
    assert main(["search", f"{EVIL}.npz", "x"]) == 2
    told = capsys.readouterr()
    assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]*", told.out + told.err)
    assert "\nnew" not in told.out + told.err
    assert "[red][link=x]" in told.out
    assert "owned" in told.err


def test_labels_of_shards_are_text(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.mp4", "a.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"[]"))
    assert [label for _, label in members(str(tmp_path / "s.tar"))] == [""]
