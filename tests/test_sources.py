"""Wherever videos come from: a folder, a manifest, a list of any common make, and the annotations of data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motionmae import cli
from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.library.classes import number
from motionmae.library.manifest import Entry, write_manifest
from motionmae.library.sources import Videos, find


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names(found: Videos) -> list[tuple[str, str]]:
    labels = found.labels or [""] * len(found.paths)
    return [(path.name, label) for path, label in zip(found.paths, labels, strict=True)]


def listed(tmp_path: Path, name: str, text: str, **options: str) -> Videos:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return find(Data(path=str(tmp_path / name), **options))


def test_a_folder_of_class_folders(tmp_path: Path):
    touch(tmp_path, "dogs/b.mp4", "dogs/a.MP4", "cats/c.webm", "cats/notes.txt", "cats/.hidden.mp4")
    touch(tmp_path, "frames/x/1.jpg", "frames/x/2.jpg")
    assert names(find(Data(path=str(tmp_path)))) == [
        ("c.webm", "cats"),
        ("a.MP4", "dogs"),
        ("b.mp4", "dogs"),
        ("x", "frames"),
    ]
    touch(tmp_path, "loose.mp4")
    assert find(Data(path=str(tmp_path))).labels == []


def test_a_manifest_gives_what_is_usable_and_tells_the_rest(tmp_path: Path):
    entries = [Entry(str(tmp_path / "a.mp4"), "ok", "dogs"), Entry(str(tmp_path / "b.mp4"), "zero bytes", "dogs")]
    for name in ("m.csv", "m.parquet"):
        write_manifest(tmp_path / name, entries)
        found = find(Data(path=str(tmp_path / name)))
        assert (names(found), [Path(path).name for path in found.missing]) == ([("a.mp4", "dogs")], ["b.mp4"])
    assert found.told() == f"1 video of 1 class; 1 more listed but missing or unusable, first {tmp_path / 'b.mp4'}"


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_tables_with_named_columns_are_quoted_as_usual(tmp_path: Path, separator: str):
    touch(tmp_path, "videos/a, b; c.mp4", "videos/d e.mp4", "videos/f.mp4")
    rows = [("extra", "Video_Path", "label", "split"), ("1", '"videos/a, b; c.mp4"', '"dog, big"', "train")]
    rows += [("2", "videos/d e.mp4", "cat", "train"), ("3", "videos/f.mp4", "cat", "val")]
    text = "\ufeff" + "\r\n".join(separator.join(row) for row in rows)
    assert names(listed(tmp_path, "list.csv", text, split="train")) == [("a, b; c.mp4", "dog, big"), ("d e.mp4", "cat")]
    assert len(listed(tmp_path, "list.csv", text).paths) == 3
    assert find(Data(path=str(tmp_path / "list.csv"))).labels == ["dog, big", "cat", "cat"]


def test_a_table_without_labels(tmp_path: Path):
    touch(tmp_path, "a.mp4")
    assert names(listed(tmp_path, "list.csv", "path\na.mp4\n")) == [("a.mp4", "")]
    with pytest.raises(MotionMAEError, match="line 3 has no value"):
        listed(tmp_path, "list.csv", "path,label\na.mp4,x\nb.mp4\n")


def test_lists_with_spaces(tmp_path: Path):
    touch(tmp_path, "a b.mp4", "c.mp4", "frames 3/1.jpg", "frames 3/2.jpg", "d 7.mp4")
    text = "a b.mp4 12\nc.mp4 3\nframes 3 2 5\nd 7.mp4 0\n"
    assert names(listed(tmp_path, "list.txt", text)) == [
        ("a b.mp4", "12"),
        ("c.mp4", "3"),
        ("frames 3", "5"),
        ("d 7.mp4", "0"),
    ]
    assert names(listed(tmp_path, "list.csv", "c.mp4,3\na b.mp4,12\n")) == [("c.mp4", "3"), ("a b.mp4", "12")]
    assert names(listed(tmp_path, "list.txt", f"{tmp_path}/c.mp4 3\n", root="/")) == [("c.mp4", "3")]
    assert names(listed(tmp_path, "list.txt", "d 7.mp4\na b.mp4\n")) == [("d 7.mp4", ""), ("a b.mp4", "")]


def test_kinetics(tmp_path: Path):
    touch(tmp_path, "train/abseiling/-abc_000001_000011.mp4", "val/x_000100_000110.mkv")
    text = (
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        'abseiling,-abc,1,11,train,0\n"playing, well",x,100,110,validate,0\nzumba,gone,5,15,train,0\n'
    )
    found = listed(tmp_path, "kinetics.csv", text)
    assert names(found) == [("-abc_000001_000011.mp4", "abseiling"), ("x_000100_000110.mkv", "playing, well")]
    assert found.missing == ["gone_000005_000015.mp4"]
    assert names(listed(tmp_path, "kinetics.csv", text, split="validate")) == [("x_000100_000110.mkv", "playing, well")]


def test_kinetics_as_json_and_its_test_set_without_classes(tmp_path: Path):
    touch(tmp_path, "-abc_000001_000011.mp4", "x_000100_000110.mp4")
    about = {"annotations": {"label": "zumba", "segment": [1.0, 11.0]}, "duration": 10.0, "subset": "train"}
    test = {"annotations": {"segment": [100.0, 110.0]}, "duration": 10.0, "subset": "test"}
    text = json.dumps({"-abc": about, "x": test, "gone": about})
    found = listed(tmp_path, "kinetics.json", text, split="train")
    assert (names(found), found.missing) == ([("-abc_000001_000011.mp4", "zumba")], ["gone_000001_000011.mp4"])
    text = "youtube_id,time_start,time_end,split\nx,100,110,test\n"
    assert names(listed(tmp_path, "test.csv", text)) == [("x_000100_000110.mp4", "")]


def test_something_something(tmp_path: Path):
    touch(tmp_path, "20bn/74225.webm", "20bn/9.webm")
    rows = [
        {
            "id": "74225",
            "label": "spinning cube",
            "template": "Spinning [something] that stops",
            "placeholders": ["cube"],
        }
    ]
    found = listed(tmp_path, "train.json", json.dumps(rows), root=str(tmp_path / "20bn"))
    assert names(found) == [("74225.webm", "Spinning something that stops")]
    assert names(listed(tmp_path, "answers.csv", "9;Holding [something]\n")) == [("9.webm", "Holding something")]
    with pytest.raises(MotionMAEError, match="not a list of objects"):
        listed(tmp_path, "other.json", '{"a": 1}')


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101(tmp_path: Path, split: int):
    touch(tmp_path / "UCF-101", "ApplyEyeMakeup/v_A_g08_c01.avi", "YoYo/v_Y_g25_c05.avi")
    train = listed(
        tmp_path, f"trainlist0{split}.txt", "ApplyEyeMakeup/v_A_g08_c01.avi 1\r\n", root=str(tmp_path / "UCF-101")
    )
    test = listed(tmp_path, f"testlist0{split}.txt", "YoYo/v_Y_g25_c05.avi\n")
    assert names(train) == [("v_A_g08_c01.avi", "ApplyEyeMakeup")]
    assert names(test) == [("v_Y_g25_c05.avi", "YoYo")]


def test_hmdb51(tmp_path: Path):
    touch(tmp_path / "videos", "brush_hair/a_b.avi", "brush_hair/c.avi", "wave/d.avi", "wave/a_b.avi")
    splits = tmp_path / "splits"
    splits.mkdir()
    for turn in (1, 2, 3):
        uses = [1, 2, 0] if turn == 1 else [2, 1, 1]
        (splits / f"brush_hair_test_split{turn}.txt").write_text(f"a_b.avi {uses[0]} \nc.avi {uses[1]} \n")
        (splits / f"wave_test_split{turn}.txt").write_text(f"d.avi {uses[2]} \na_b.avi {uses[0]} \n")

    def of(split: str) -> list[tuple[str, str]]:
        found = find(Data(path=str(splits), root=str(tmp_path / "videos"), split=split))
        assert all(path.parent.name == label for path, label in zip(found.paths, found.labels, strict=True))
        return names(found)

    assert of("train1") == [("a_b.avi", "brush_hair"), ("a_b.avi", "wave")]
    assert of("test1") == [("c.avi", "brush_hair")]
    assert of("train3") == [("c.avi", "brush_hair"), ("d.avi", "wave")]
    with pytest.raises(MotionMAEError, match="choose train1, test1"):
        of("train")


def test_labels_become_numbers_in_a_fixed_order():
    assert number(["b", "a", "b"]) == ([1, 0, 1], ["a", "b"])
    assert number(["10", "9", "10"]) == ([1, 0, 1], ["9", "10"])
    assert number(["b"], ["a", "b", "c"]) == ([1], ["a", "b", "c"])
    with pytest.raises(MotionMAEError, match="'z' is not among the 2 classes"):
        number(["a", "z"], ["a", "b"])


def test_mistakes_name_the_option(tmp_path: Path):
    touch(tmp_path, "empty/notes.md", "movie.mp4")
    for path, told in [
        ("", "there is no such"),
        (str(tmp_path / "absent"), "there is no such"),
        (str(tmp_path / "empty"), "there is no video in it"),
    ]:
        with pytest.raises(MotionMAEError, match=f"--data.path .*{told}"):
            find(Data(path=path))
    with pytest.raises(MotionMAEError, match=r"of its 2 videos none is there, not 'gone\.mp4'; --data\.root"):
        listed(tmp_path, "list.txt", "gone.mp4 1\nlost.mp4 2\n")
    (tmp_path / "real.mp4").write_bytes(b"\0\0\0\x18ftyp")
    with pytest.raises(MotionMAEError, match="not a folder, manifest or list"):
        find(Data(path=str(tmp_path / "real.mp4")))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("embed tiny {} --out f.parquet", "{}: cannot be read"),
        ("embed tiny {list} --out f.parquet", "{list}: of its 1 video none is there, not 'gone.mp4'"),
        ("scan {}", "{}: not a folder"),
        ("scan {folder} --labels {list}x", "--labels '{list}x': there is no such folder, manifest or list"),
        ("prepare {}", "{}: cannot be read"),
        ("prepare {list}", "{list}: of its 1 video none is there, not 'gone.mp4'; --root names the folder"),
        ("pretrain tiny --data.path {}", "--data.path {}: cannot be read"),
        ("finetune tiny --init none --data.path {folder} --data.test {}", "--data.test {}: cannot be read"),
        ("probe tiny --data.path {folder} --data.test {}", "--data.test {}: cannot be read"),
    ],
)
def test_a_mistake_is_told_by_what_was_typed(tmp_path: Path, capsys, monkeypatch, words: str, told: str):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "videos/a/1.mp4", "videos/b/2.mp4")
    (tmp_path / "list.txt").write_text("gone.mp4 1\n")
    named = {"list": str(tmp_path / "list.txt"), "folder": str(tmp_path / "videos")}
    address = "memory://nothing/x"
    assert cli.main(words.format(address, **named).split()) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"motionmae: {told.format(address, **named)}" in said


def test_several_splits_of_a_list_are_joined_by_a_plus(tmp_path):
    rows = [f"{split}{at}.mp4,{split}" for split in ("train", "val", "test") for at in range(2)]
    for row in rows:
        (tmp_path / row.partition(",")[0]).write_bytes(b"")
    (tmp_path / "list.csv").write_text("\n".join(["path,split", *rows]))
    found = find(Data(path=str(tmp_path / "list.csv"), split="train+val"))
    assert [path.stem for path in found.paths] == ["train0", "train1", "val0", "val1"]
