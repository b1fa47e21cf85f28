"""The page of runs: its verdict rests on figures, its provenance on the run's own files, and what lacks is told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from browsers import CHROMIUM, look
from PIL import Image

from motionmae.config import Report
from motionmae.errors import MotionMAEError
from motionmae.presets import TINY
from motionmae.report.comparison import at_most
from motionmae.report.run import about, columns, growth, nearest_preset, read_metrics, trained
from motionmae.report.verdict import findings
from motionmae.tasks import report


def readings(shares, **more):
    return [{"step": 10 * (at + 1), "loss": share, "motion_ratio": share, **more} for at, share in enumerate(shares)]


def words(found):
    return " / ".join(f"{kind}: {sentence}" for kind, sentence in found)


def folder_of(path: Path, shares, **more) -> Path:
    path.mkdir()
    lines = "".join(json.dumps(line) + "\n" for line in readings(shares, clips_per_second=64.0, **more))
    (path / "metrics.jsonl").write_text(lines + '{"step": 9')
    config = json.loads(json.dumps(asdict(TINY)))
    config["optim"] |= {"lr": 0.5, "steps": 10 * len(shares)}
    (path / "config.json").write_text(json.dumps(config))
    (path / "log.txt").write_text("2026-01-02 03:04:05  7 videos of 2 classes, clips of 8 x 32 x 32\n")
    return path


def test_the_verdict_tells_what_is_learnt_whether_it_falls_and_what_is_wrong():
    fell = findings(readings([1 - at / 100 for at in range(50)], skipped=0.0), {})
    assert "good: motion is learnt: its loss is 0.53 of what predicting no motion costs" in words(fell)
    assert "the loss still falls, by 8.6% over the last tenth" in words(fell)
    assert "good: no step was skipped" in words(fell)
    log = "2026-01-02 03:04:05  900 steps of 4 clips\n2026-01-02 03:04:05  step 20: motion is on a plateau: over\n"
    ill = findings(readings([1.0] * 20, skipped=2.0, data_wait=0.4, effective_rank=1.2), {}, log)
    for sentence in (
        "bad: motion: nothing is learnt yet, its loss is 1.00",
        "the loss is level",
        "bad: skipped, as loss or gradient was not finite: 40 steps",
        "step 200 of 900",
        "40% of the time",
        "step 20: motion is on a plateau",
        "effective rank is 1.2",
    ):
        assert sentence in words(ill)
    assert "the loss rises" in words(findings(readings([0.1 + at / 100 for at in range(20)]), {}))
    assert "too few" in words(findings(readings([1.0]), {}))


def test_a_run_tells_what_made_it(tmp_path):
    run = folder_of(tmp_path / "a", [1.0, 0.5])
    presets = report.presets()
    told = about(run, presets)
    assert told["config"] == "preset pretrain tiny with optim.lr 0.5, optim.steps 20"
    assert "7 videos of 2 classes" in told["data"]
    assert told["command"] == "not recorded"
    assert told["made"] == "2026-01-02 03:04"
    (run / "provenance.json").write_text(json.dumps({"command": "motionmae pretrain tiny", "hardware": "1 x GPU"}))
    assert about(run, presets)["command"] == "motionmae pretrain tiny"
    assert nearest_preset(presets["pretrain base"], presets) == ("pretrain base", [])
    assert trained(read_metrics(run), {"optim": {"batch": 128}}) == pytest.approx(2 * 10 * 128 / 64)


def test_a_run_that_lacks_something_says_so_and_the_others_are_shown(tmp_path):
    whole, bare, empty = (folder_of(tmp_path / name, [1.0, 0.5], knn_accuracy=0.5) for name in ("w", "b", "e"))
    (bare / "config.json").unlink()
    lines = [json.dumps({"step": 1, "loss": 1.0}), "not json", "[]"]
    (bare / "metrics.jsonl").write_text("\n".join(lines))
    (empty / "metrics.jsonl").unlink()
    page = tmp_path / "page.html"
    report.run(Report((str(whole), str(bare), str(empty)), str(page)))
    html = page.read_text()
    assert "b lacks config.json, clips per second, knn accuracy, motion ratio" in html
    assert "e lacks metrics.jsonl" in html
    with pytest.raises(MotionMAEError, match="has not logged a loss yet"):
        report.run(Report((str(empty),), str(page)))
    with pytest.raises(MotionMAEError, match="is not a run folder"):
        report.run(Report((str(whole), str(tmp_path)), str(page)))


def test_pictures_fit_their_share_of_the_page_and_the_last_is_among_them(tmp_path):
    run = folder_of(tmp_path / "a", [1.0, 0.5])
    assert growth(run) == ""
    (run / "pictures").mkdir()
    for step in range(1, 9):
        Image.effect_noise((60, 60), 90).convert("RGB").save(run / "pictures" / f"step-{step:08d}.webp")
    size = (run / "pictures" / "step-00000001.webp").stat().st_size
    assert growth(run).count("<img") == 8
    few = growth(run, most=4 * size)
    assert 2 <= few.count("<img") <= 4
    assert "after step 8" in few
    assert at_most([(float(at), 0.0) for at in range(1000)], 50)[-1] == (999.0, 0.0)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_of_many_runs_fits_a_browser(width, tmp_path):
    runs = [folder_of(tmp_path / f"run-{at}", [1 - at / 40] * 30, skipped=0.0) for at in range(12)]
    out = tmp_path / "page.html"
    report.run(Report(tuple(map(str, runs)), str(out)))
    found = look(out, width, tmp_path)
    assert found["wide"] <= width
    assert (found["problems"], found["fetched"]) == ([], [])
    assert found["charts"] == 13 + 12 * 3
    assert "motion: run-11 is best, 0.725 of the trivial loss" in found["text"]
    assert out.stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("target", "loss", "told"),
    [
        ({}, {}, ["motion", "velocity (hue: direction, brightness: speed)"]),
        ({}, {"second": 0.0}, ["motion"]),
        ({"motion": "signed", "second": "none"}, {}, ["motion (red: brighter, blue: darker)"]),
        ({}, {"motion": 0.0, "second": 0.0}, []),
    ],
)
def test_pictures_have_the_names_of_what_the_run_predicts(target, loss, told, tmp_path):
    folder = folder_of(tmp_path / "run", [1.0])
    config = json.loads((folder / "config.json").read_text())
    config |= {"target": config["target"] | target, "loss": config["loss"] | loss}
    (folder / "config.json").write_text(json.dumps(config))
    assert columns(folder)[3:] == [f"{of} {kind}" for kind in told for of in ("true", "predicted")]
