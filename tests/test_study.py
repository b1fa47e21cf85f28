"""Studies: every arm is a config that can run, the figures say what they say, and a broken cell costs no other one."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import newest, same, until

import motionmae
from motionmae import cli, grids
from motionmae.config import (
    Compute,
    Data,
    Decoder,
    Finetune,
    Labelled,
    Mask,
    Mix,
    Model,
    Optim,
    Pretrain,
    Probe,
    ProbeData,
    Run,
    Study,
    Viewing,
)
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.evaluation import comparing
from motionmae.presets import COMMANDS, STUDY
from motionmae.report import study as report
from motionmae.tasks import pretrain, study
from motionmae.tasks.study import cells
from motionmae.video.writing import write_video

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("arm", sorted(grids.ARMS))
def test_every_arm_builds_and_is_like_no_other(arm):
    config = grids.arm_of(STUDY.base, arm, 3, "runs/x")
    assert (config.seed, config.run.out) == (3, f"runs/x/{arm}-3")
    pretrain.build(config)
    plain = ("both", grids.UNTRAINED, *grids.UNLEARNED_ARMS)  # nothing is changed in these
    alike = [name for name in grids.ARMS if replace(grids.arm_of(STUDY.base, name, 3, ""), run=config.run) == config]
    assert alike == [arm] or (arm in plain and set(alike) == set(plain))


def test_every_grid_has_its_pairs_among_its_arms_and_every_arm_a_grid():
    for grid in grids.GRIDS.values():
        assert {name for pair in grid.pairs for name in pair} <= set(grid.arms)
    assert {arm for grid in grids.GRIDS.values() for arm in grid.arms} == set(grids.ARMS)
    assert set(COMMANDS["study"].choices) == set(grids.GRIDS)


def test_a_field_that_is_none_is_refused():
    with pytest.raises(KeyError, match="motoin"):
        grids.changed(STUDY.base, {"loss.motoin": 1.0})


def test_the_interval_over_seeds_is_students():
    """Three differences 1, 2, 3: mean 2, deviation 1, half-width 4.303 / sqrt(3)."""
    assert comparing.over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert comparing.over_seeds([1.0]) is None
    assert comparing.deviation([1.0, 3.0]) == pytest.approx(2**0.5)


def test_the_interval_over_videos_covers_the_truth_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for trial in range(200):
        left, right = (["".join(map(str, (random.random(100) < chance).astype(int)))] for chance in (0.6, 0.4))
        low, high = comparing.over_videos(left, right, draws=400, seed=trial)
        covered += low <= 0.2 <= high
    assert 180 <= covered <= 199


def test_the_interval_over_videos_pairs_them():
    """The same videos right but one: unpaired, the difference of two shares of 50 % would be anything."""
    low, high = comparing.over_videos(["10" * 50 + "1"], ["10" * 50 + "0"])
    assert low >= 0
    assert high < 0.05


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of two arms that takes a second; its cells run in forks, which need no imports."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)
    rows = ["path,label,split"]
    for index in range(12):
        motion, split = ("left", "right")[index % 2], ("train", "val", "test")[index // 4]
        write_video(tmp_path / f"{index}.mp4", render(index, motion, 6, 16).frames, 12)
        rows.append(f"{index}.mp4,{motion},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    path = str(tmp_path / "list.csv")
    grid = grids.Grid("Does it?", ("untrained", "appearance", "both"), (("both", "appearance"),))
    monkeypatch.setitem(grids.GRIDS, "headline", grid)
    return Study(
        grid="headline",
        base=Pretrain(
            model=Model(4, 16, (2, 8, 8), 24, 1, 2, decoder=Decoder("shared", 12, 1, 2)),
            mask=Mask("random", 0.5),
            data=Data(path=path, split="train+val", stride=1, workers=0, cache=True),
            optim=Optim(batch=4, steps=2, epochs=10.0, warmup_epochs=1.0),
            run=Run(device="cpu", log_every=1, threads=1),
        ),
        seeds=(0, 1),
        probe=Probe(
            kinds=("logistic",),
            pool=("mean", "grid"),
            data=ProbeData(path=path, split="train", val_split="val", test_split="test"),
            compute=Compute(device="cpu", workers=0),
        ),
        finetune=Finetune(
            mix=Mix(0.0, 0.0),
            data=Labelled(path=path, split="train+val", test_split="test", stride=1, workers=0),
            views=Viewing(1, 1),
            optim=Optim(batch=4, steps=2, epochs=10.0, warmup_epochs=1.0),
            run=Run(device="cpu", threads=1),
        ),
        timed=0,
        out=str(tmp_path / "runs"),
        results=str(tmp_path / "results"),
    )


def figures(config: Study, name: str):
    return json.loads((Path(config.results) / f"{name}.json").read_text())


def test_a_study_runs_its_cells_once_and_adds_what_is_asked_later(small, tmp_path, capsys):
    study.run(small)
    told = capsys.readouterr().out
    assert "6 of 6 cells" in told
    assert re.search(r"\| both \| 2 \| 2 \|", told)
    assert re.search(r"\| both − appearance \| 2 \|", told)
    assert {file.stem for file in Path(small.results).glob("*-?.json")} == {
        f"{arm}-{seed}" for arm in ("untrained", "appearance", "both") for seed in (0, 1)
    }
    first = figures(small, "both-1")
    assert len(first["probe"]["logistic"]["grid"]["right"]) == 4
    assert first["pretrain"]["steps"] == 2
    assert str(tmp_path) not in "".join(file.read_text() for file in Path(small.results).glob("*"))
    study.run(small)
    assert "0 of 6 cells" in capsys.readouterr().out
    more = replace(small, arms=("both",), seeds=(1,), measures=("probe", "finetune"), timed=1)
    study.run(more)
    study.run(replace(more, fractions=(0.5,)))
    after = figures(small, "both-1")
    assert set(after["finetune"]) == {"1", "0.1", "0.5"}
    assert after["probe"] == first["probe"]
    assert json.loads((Path(small.results) / "steps.json").read_text())["both"] == 1.0


def test_a_cell_is_what_pretrain_gives(small):
    cell = study.cells.of_grid(replace(small, arms=("both",)))[1]
    study.claim(small)
    study.cells.do(small, cell)
    other = replace(cell.config, run=replace(cell.config.run, out=str(Path(small.out) / "by-hand")))
    pretrain.run(other)
    assert motionmae.load(other.run.out).config == other.model  # nothing beside its checkpoints hinders a run folder
    assert same(newest(Path(cell.config.run.out)), newest(Path(other.run.out)))


def test_a_broken_cell_is_a_row_with_its_reason_and_the_others_are_kept(small, monkeypatch, capsys):
    monkeypatch.setitem(grids.ARMS, "appearance", {"loss.motion": 0.0, "mask.ratio": 0.01})
    config = replace(small, seeds=(0,))
    with pytest.raises(MotionMAEError, match=r"1 of 3 cells failed, first appearance-0: mask.ratio=0.01"):
        study.run(config)
    assert "- appearance, seed 0, failed: mask.ratio=0.01" in capsys.readouterr().out
    assert "probe" in figures(config, "both-0")
    monkeypatch.setitem(grids.ARMS, "appearance", {"loss.motion": 0.0})
    study.run(config)  # what failed is tried again, and nothing else
    assert "1 of 3 cells" in capsys.readouterr().out
    assert "failed" not in figures(config, "appearance-0")


def test_a_cell_whose_process_was_killed_is_a_row_too(small, monkeypatch):
    import os
    import signal

    monkeypatch.setattr(pretrain, "run", lambda config: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(MotionMAEError, match=r"both-0: its process ended with code -9"):
        study.run(replace(small, seeds=(0,), arms=("both",)))
    assert figures(small, "both-0")["failed"]


def test_a_cell_that_the_user_stopped_is_no_failure(small, monkeypatch):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        study.run(replace(small, seeds=(0,), arms=("both",)))
    assert not (Path(small.results) / "both-0.json").exists()


def test_a_folder_of_another_study_or_of_something_else_is_refused(small):
    one = replace(small, arms=("untrained",), seeds=(0,))
    study.run(one)
    with pytest.raises(MotionMAEError, match=r"base.optim.steps \(2 there, 3 here\)"):
        study.run(replace(one, base=replace(small.base, optim=replace(small.base.optim, steps=3))))
    file = Path(small.out) / "study.json"
    there = json.loads(file.read_text())
    del there["base"]["target"]["gap"]  # as a version would have written it that had no such field
    file.write_text(json.dumps(there))
    study.run(one)
    there["base"]["device"] = "auto"  # as one that had a field that is gone
    file.write_text(json.dumps(there))
    with pytest.raises(MotionMAEError, match=r"runs/study\.json: its base is of another version .*'device'"):
        study.run(one)
    other = Path(small.out).parent / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(MotionMAEError, match="something else"):
        study.run(replace(one, out=str(other)))


@pytest.mark.parametrize(
    ("changes", "match"), [({"arms": ("bth",)}, "bth"), ({"processes": 0}, "processes"), ({"seeds": ()}, "seeds")]
)
def test_what_cannot_be_run_is_refused_by_name(small, changes, match):
    with pytest.raises(MotionMAEError, match=match):
        study.run(replace(small, **changes))
    assert not Path(small.out).exists()


def test_an_unknown_grid_is_one_sentence(capsys):
    assert cli.main(["study", "headlines"]) == 2
    assert "headlines" in capsys.readouterr().err


def test_a_page_is_renewed_between_its_comments_or_refused(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("a\n<!-- study lips headline -->\nold\n<!-- end -->\nb <!-- end -->")
    report.renew(file, "lips headline", "new")
    assert file.read_text() == "a\n<!-- study lips headline -->\nnew\n<!-- end -->\nb <!-- end -->"
    with pytest.raises(MotionMAEError, match="lips target"):
        report.renew(file, "lips target", "new")


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*/study.json")), ids=lambda file: file.parent.name)
def test_the_studies_kept_here_are_understood_and_so_can_go_on(file):
    there = json.loads(file.read_text())
    assert set(there) >= {"base", "probe"}
    for name, section in there.items():
        study.complete(section, name, file)


def test_the_tables_in_the_docs_are_those_of_the_figures():
    text = (ROOT / "docs" / "results.md").read_text()
    found = re.findall(r"<!-- study (\S+) (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    for folder, name, told in found:
        results = ROOT / "studies" / folder
        assert told == report.table(name, report.read(results, grids.GRIDS[name].arms), report.steps(results))


def test_the_page_of_a_study_has_its_answer_every_run_and_the_cells_that_failed(tmp_path):
    probe = {"fitted": 2, "tested": 4}
    for arm, right in (("appearance", "0011"), ("both", "0111")):
        row = {"top1": right.count("1") / 4, "setting": 1.0, "right": right}
        cell = {"arm": arm, "seed": 0, "probe": probe | {"logistic": {"time": row}}}
        (tmp_path / f"{arm}-0.json").write_text(json.dumps(cell))
    (tmp_path / "motion-0.json").write_text(json.dumps({"arm": "motion", "seed": 0, "failed": "no <disk>"}))
    report.write("headline", tmp_path, "")
    told = (tmp_path / "headline.html").read_text()
    assert "both − appearance, linear, time: +25.0 (" in told
    assert told.count("<circle") == 2
    assert "motion, seed 0, failed: no &lt;disk&gt;" in told


def _cell(seen: Path) -> None:
    def rest(*_) -> None:
        seen.write_text(str(os.getpid()))
        time.sleep(600)

    cells.do = rest
    config = STUDY.base
    cells.work(STUDY, cells.Cell("both", 0, replace(config, run=replace(config.run, out=str(seen.parent / "run")))))


def _study(seen: Path) -> None:
    multiprocessing.get_context("spawn").Process(target=_cell, args=(seen,)).start()
    time.sleep(600)


def test_a_cell_stops_when_its_study_is_killed(tmp_path):
    study_of = multiprocessing.get_context("spawn").Process(target=_study, args=(tmp_path / "cell",))
    study_of.start()
    until(lambda: (tmp_path / "cell").exists() and (tmp_path / "cell").read_text(), "no cell has begun")
    study_of.kill()
    study_of.join()
    cell = Path("/proc") / (tmp_path / "cell").read_text()
    until(lambda: not cell.exists() or "Z" in (cell / "stat").read_text().split()[2], "the cell lives on")


@pytest.mark.parametrize(
    "figures",
    [
        [],
        7,
        {"arm": "both", "seed": 0, "probe": {"logistic": {"mean": {"top1": "x", "setting": 1, "right": "01"}}}},
    ],
)
def test_figures_that_no_study_wrote_are_one_sentence(figures, tmp_path):
    sound = {
        "arm": "appearance",
        "seed": 0,
        "probe": {"logistic": {"mean": {"top1": 0.5, "setting": 1, "right": "01"}}},
    }
    for name, found in (("appearance", sound), ("both", figures)):
        (tmp_path / f"{name}-0.json").write_text(json.dumps(found))
    with pytest.raises(MotionMAEError, match="holds figures that no study has written"):
        report.write("headline", tmp_path, "")
