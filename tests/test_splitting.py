"""Test videos that nobody named: by a column, by whole groups, or by the seed and the class; told, the same again."""

from __future__ import annotations

from pathlib import Path

import pytest

from motionmae.config import Data
from motionmae.errors import MotionMAEError
from motionmae.library.sources import Videos, find
from motionmae.library.splitting import apart, by_class, by_group, write_split


def listed(folder: Path, columns: str, rows: list[str]) -> Data:
    """A list of files that are there."""
    for row in rows:
        (folder / row.split(",")[0]).touch()
    (folder / "list.csv").write_text("\n".join((columns, *rows)))
    return Data(path=str(folder / "list.csv"))


def test_a_fifth_of_each_class_is_drawn_by_the_seed():
    labels = ["a"] * 10 + ["b"] * 5 + ["c"] * 2 + ["d"]
    held = by_class(labels, 0)
    assert [labels[at] for at in held] == ["a", "a", "b", "c"]
    assert by_class(labels, 0) == held
    assert any(by_class(labels, seed) != held for seed in range(1, 5))


def test_a_group_is_on_one_side_and_no_class_is_left_untaught():
    groups, labels = [f"p{at % 5}" for at in range(20)], [f"c{at % 2}" for at in range(20)]
    held = by_group(groups, labels, 0)
    assert len(held) == 4
    assert {groups[at] for at in held}.isdisjoint({groups[at] for at in range(20) if at not in held})
    assert by_group(["x", "y"], ["a", "b"], 0) == []


def test_a_folder_is_split_and_says_so(tmp_path):
    videos = Videos([Path(f"{at}.mp4") for at in range(10)], list("aaaaabbbbb"), [])
    train, test, said = apart(Data(path=str(tmp_path)), videos, "", 3)
    assert (len(train.paths), test.labels) == (8, ["a", "b"])
    assert said == (
        "--data.test is not given: 8 videos to learn from, 2 to test on (a fifth of each class, drawn by --seed 3)"
    )
    write_split(tmp_path / "split.csv", train, test)
    for path in videos.paths:
        (tmp_path / path).touch()
    assert (tmp_path / "split.csv").read_text().count(",test") == 2


def test_a_lists_columns_decide(tmp_path):
    rows = [f"{at}.mp4,{'ab'[at % 2]},{'train' if at < 6 else 'test'},{'xyz'[at % 3]}" for at in range(9)]
    data = listed(tmp_path, "path,label,split,group", rows)
    videos = find(data)
    train, test, said = apart(data, videos, "", 0)
    assert [path.stem for path in test.paths] == ["6", "7", "8"]
    assert len(train.paths) == 6
    assert "'test' in the column split" in said
    train, test, _ = apart(data, videos, "y", 0)
    assert [path.stem for path in test.paths] == ["1", "4", "7"]
    with pytest.raises(MotionMAEError, match=r"--data.leave-out w: .*its groups are x, y, z"):
        apart(data, videos, "w", 0)
    with pytest.raises(MotionMAEError, match="no column 'group'"):
        apart(Data(path=str(tmp_path)), videos, "w", 0)
