"""Lists and manifests as people, pandas and spreadsheets leave them: read as meant, or refused by the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.evaluation.recognition import labelled
from motionmae.library.classes import number
from motionmae.library.manifest import Entry, read_manifest, write_manifest
from motionmae.library.sources import Videos, find

ENTRIES = [("broken", "zero bytes", ""), ("j", "ok", "jump"), ("w", "ok", "wave"), ("copy", "excluded", "wave")]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for name, _, _ in ENTRIES:
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    write_manifest(
        tmp_path / "m.csv",
        [Entry(str(tmp_path / f"{name}.mp4"), status, label, frames=3) for name, status, label in ENTRIES],
    )
    return tmp_path / "m.csv"


def seen(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    found = find(Data(path=str(path)))
    return sorted(zip((file.name for file in found.paths), found.labels, strict=True)), sorted(
        Path(name).name for name in found.missing
    )


def spreadsheet(text: str) -> str:
    return "\ufeff" + text.replace("true", "TRUE").replace("false", "FALSE").replace(",3,", ",3.0,")


def moved(text: str) -> str:
    return "\n".join(",".join(reversed(line.split(","))) for line in text.splitlines())


EDITS = {
    "spreadsheet": spreadsheet,
    "pandas": lambda text: text.replace("true", "True").replace("false", "False"),
    "a column more": lambda text: "\n".join(
        f"{line},{'note' if not at else 'x'}" for at, line in enumerate(text.splitlines())
    ),
    "a column less": lambda text: "\n".join(line.rpartition(",")[0] for line in text.splitlines()),
    "an index": lambda text: "\n".join(f"{at - 1 if at else ''},{line}" for at, line in enumerate(text.splitlines())),
    "semicolons": lambda text: text.replace(",", ";").replace("0.0", "0,0"),
    "moved": moved,
    "empty lines": lambda text: text.replace("\n", "\n\n").replace("path", " Path ").replace(",ok", ", ok"),
}


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_an_edited_manifest_stays_one(edit: str, plain: Path):
    edited = plain.with_name("edited.csv")
    edited.write_text(EDITS[edit](plain.read_bytes().decode().replace("\r\n", "\n")), encoding="utf-8")
    assert seen(edited) == ([("j.mp4", "jump"), ("w.mp4", "wave")], ["broken.mp4", "copy.mp4"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.mp4,,jump,3", "line 3 has no value for 'status'"),
        (",ok,jump,3", "line 3 has no value for 'path'"),
        ("a.mp4,ok,jump,3,more", "line 3 has 5 values, the header 4"),
        ("a.mp4", "line 3 has no value for 'status'"),
        ("a.mp4,ok,jump,many", "line 3 has 'many' for 'frames', not int"),
    ],
)
def test_an_unclear_line_of_a_manifest_is_named(line: str, told: str, tmp_path: Path):
    (tmp_path / "m.csv").write_text(f"path,status,label,frames\nb.mp4,ok,jump,2\n{line}\n")
    with pytest.raises(MotionMAEError, match=told):
        read_manifest(tmp_path / "m.csv")


LINES = {
    "words": "set/j.mp4 jump\nset/w.mp4 wave\n",
    "commas": "set/j.mp4,jump\nset/w.mp4,wave\n",
    "tabs": "set/j.mp4\tjump\nset/w.mp4\twave\n",
    "windows": "path,label\nset\\j.mp4,jump\nset\\w.mp4,wave\n",
    "blanks": "path, label\nset/j.mp4, jump\nset/w.mp4,wave \n",
}


@pytest.mark.parametrize("kind", sorted(LINES))
def test_lists_of_words_are_read(kind: str, tmp_path: Path):
    (tmp_path / "set").mkdir()
    for name in ("j.mp4", "w.mp4"):
        (tmp_path / "set" / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text(LINES[kind])
    assert seen(tmp_path / "list.txt") == ([("j.mp4", "jump"), ("w.mp4", "wave")], [])
    (tmp_path / "videomae.txt").write_text("set/j.mp4 0 -1\nset/w.mp4 0 -1\n")
    found = find(Data(path=str(tmp_path / "videomae.txt")))
    assert (len(found.paths), found.labels) == (2, [])


def test_numbers_are_one_class_however_they_are_written():
    names = [str(at) for at in range(12)]
    assert number([f"{at}.0" for at in range(12)], names)[0] == list(range(12))
    assert number([f"{at}.0" for at in range(12)]) == (list(range(12)), names)
    assert number([" wave", "wave ", "jump"]) == ([1, 1, 0], ["jump", "wave"])
    assert number(["\u00b9", "1"])[1] == ["1", "\u00b9"]


def test_names_are_never_matched_with_numbers_by_their_order():
    found = Videos([Path("w.mp4"), Path("j.mp4")], ["wave", "jump"], [])
    with pytest.raises(MotionMAEError, match=r"label 'jump' is not among the 2 classes known \(0, 1…\) \(these are n"):
        labelled(found, ["0", "1"], "list.csv")
    with pytest.raises(MotionMAEError, match="label '0' is not among"):
        labelled(Videos([Path("w.mp4")], ["0"], []), ["jump", "wave"], "list.csv")
    assert labelled(found, ["wave", "jump"], "list.csv").numbers == [0, 1]


def test_a_video_without_a_class_is_named_where_others_have_one(tmp_path: Path):
    for name in ("j.mp4", "w.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text("path,label\nj.mp4,jump\nw.mp4,\n")
    found = find(Data(path=str(tmp_path / "list.csv")))
    assert found.told() == f"2 videos; classes are not used, as {tmp_path / 'w.mp4'} has none"
    with pytest.raises(MotionMAEError, match=r"w\.mp4 has none"):
        labelled(found, ["jump"], "list.csv")


def case(shared: Path, name: str) -> Path:
    if not (shared / "cases" / name).is_dir():
        pytest.skip("no such case")
    return shared / "cases" / name


def test_the_edited_manifests_of_users(shared: Path):
    folder = case(shared, "manifest_edited")
    truth = seen(folder / "plain.csv")
    assert (len(truth[0]), {label for _, label in truth[0]}) == (6, {"jump", "wave"})
    for name in ("note", "dropped", "pandas", "bom"):
        assert seen(folder / f"{name}.csv") == truth, name


def test_the_lists_of_users(shared: Path):
    folder = case(shared, "lists_refused")
    for name in ("words.csv", "words.txt", "tabs.txt", "floats.txt", "windows.csv", "videomae.txt", "superscript.csv"):
        found = find(Data(path=str(folder / name)))
        assert not found.missing, name
        number(found.labels)
        assert len(set(found.labels)) == (0 if name == "videomae.txt" else 2), name
    folder = case(shared, "label_spaces")
    for name in ("leading.csv", "trailing.csv"):
        assert set(find(Data(path=str(folder / name))).labels) == {"jump", "wave"}
