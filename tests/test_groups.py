"""Groups of videos (people, cameras): each left out in turn, and intervals over whole groups."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import runs

from motionmae import cli
from motionmae.config import Data, Finetune
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError
from motionmae.evaluation.recognition import accuracy_by_group, read_predictions, told_groups
from motionmae.library.sources import Videos, find
from motionmae.library.splitting import in_turn
from motionmae.report.evaluation import intervals_of
from motionmae.tasks import finetune


@pytest.fixture
def listed(tmp_path):
    """A list of videos of two motions by three people, each of whom makes both."""
    folder = tmp_path / "v"
    list(write_videos(folder, "train", 3, seed=0, frames=8, size=16))
    kinds = sorted(path.name for path in (folder / "train").iterdir())[:2]
    rows = ["path,label,group"]
    for kind in kinds:
        files = sorted((folder / "train" / kind).iterdir())
        rows += [f"{file},{kind},{person}" for file, person in zip(files, ("ann", "bo b", "cy/d"), strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return tmp_path / "list.csv"


@pytest.mark.slow
def test_each_group_is_left_out_in_turn_and_one_table_tells_them(listed, tmp_path, capsys):
    out = tmp_path / "run"
    config = runs.finetuning(listed, tmp_path, out, steps=1)
    config = replace(config, data=replace(config.data, path=str(listed), test="", leave_out="each"))
    finetune.run(config)
    told = capsys.readouterr().out
    assert "group 3 of 3: cy/d" in told
    for name in ("group-ann", "group-bo%20b", "group-cy%2Fd"):
        assert (out / name / "evaluation" / "report.html").is_file()
        learnt = [line for line in (out / name / "split.csv").read_text().splitlines() if line.endswith(",train")]
        assert len(learnt) == 4
    figures = json.loads((out / "evaluation.json").read_text())
    assert figures["videos"] == 6
    assert {name: group["videos"] for name, group in figures["groups"].items()} == {"ann": 2, "bo b": 2, "cy/d": 2}
    _, files, labels, classes = read_predictions(out / "predictions.csv")
    assert len(set(files)) == 6
    assert set(labels) == set(classes)
    assert "Groups, the hardest first" in (out / "report.html").read_text()
    assert "mean over 3 groups" in told
    assert told.splitlines()[-1].startswith("next: ")
    run = str(out / "group-ann")
    assert cli.main(["evaluate", run, "--data.path", str(listed), "--device", "cpu", "--workers", "0"]) == 0
    tested = json.loads((out / "group-ann/evaluation/evaluation.json").read_text())
    assert set(tested["groups"]) == {"ann", "bo b", "cy/d"}
    assert "95 % interval over groups" in capsys.readouterr().out


def test_groups_that_cannot_be_left_out_are_told(listed, tmp_path, monkeypatch):
    data = replace(Finetune().data, path=str(listed), leave_out="each")
    videos = find(data)
    assert in_turn(data, videos) == ["ann", "bo b", "cy/d"]
    assert in_turn(replace(data, leave_out="ann"), videos) == []
    assert in_turn(Data(path=str(listed)), videos) == []
    labels = ["rare" if "ann" in group else "b" for group in ("ann", "x", "y", "ann", "x", "y")]
    with pytest.raises(MotionMAEError, match="without the group ann no video of the class rare"):
        in_turn(data, replace(videos, labels=labels))
    with pytest.raises(MotionMAEError, match="it has no column 'group'"):
        in_turn(replace(data, path=str(tmp_path)), Videos(videos.paths, videos.labels, []))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MotionMAEError, match="on one rank"):
        finetune.in_each(Finetune(), videos, ["a", "b"])


def test_intervals_are_over_whole_groups():
    right, groups = [True] * 10 + [False] * 10, ["a"] * 10 + ["b"] * 10
    assert intervals_of(right, groups)["top1_interval"] == [0.0, 1.0]  # two people: nothing is known
    low, high = intervals_of(right, [])["top1_interval"]
    assert 0.2 < low < high < 0.8
    found = accuracy_by_group(right, groups)
    assert (found["a"]["top1"], found["b"]["interval"]) == (1.0, [0.0, 0.0])
    told = told_groups({"groups": found, "top1": 0.5, "top1_interval": [0.0, 1.0]}).splitlines()
    assert told[1].split() == ["b", "0.0%", "0.0%", "to", "0.0%", "10", "videos"]
    assert told[-1] == "mean over 2 groups 50.0%; of all videos 50.0%, 95 % interval over groups 0.0% to 100.0%"
