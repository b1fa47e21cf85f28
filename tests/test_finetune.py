"""Fine-tuning and testing from files to figures, on synthetic videos whose classes are motions."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from motionmae.config import Compute, Data, Finetune, Labelled, Mix, Model, Optim, Run, Viewing
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.evaluation import recognition
from motionmae.inference import views as views_of
from motionmae.inference.views import View
from motionmae.library.classes import share
from motionmae.library.sources import Videos
from motionmae.models.classifier import Classifier, read_classifier
from motionmae.models.weights import newest_checkpoint
from motionmae.presets import FINETUNE
from motionmae.runtime import Runtime
from motionmae.tasks import finetune
from motionmae.video.writing import write_video

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)
MOTIONS = ("left", "right")
CPU = Runtime(torch.device("cpu"), None)


def write(folder, count, seed):
    """`count` videos of each class."""
    for motion in MOTIONS:
        (folder / motion).mkdir(parents=True)
        for index in range(count):
            write_video(folder / motion / f"{index}.mp4", render(seed + index, motion, 12, 32).frames, 12)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return write(root / "train", 8, 0), write(root / "test", 5, 5000)


def config_of(videos, out, **changes):
    data = Labelled(
        path=str(videos[0]), test=str(videos[1]), sampling="uniform", stride=1, flip=False, scales=(1.0,), cache=True,
        workers=0,
    )  # fmt: skip
    optim = Optim(batch=16, epochs=20.0, lr=4e-2, lr_end=1e-6, warmup_epochs=1.0, betas=(0.9, 0.999), clip=1.0)
    run = Run(out=str(out), device="cpu", inspect_every=20)
    config = Finetune("none", SMALL, drop_path=0.0, mix=Mix(0.0, 0.0, 0.1), data=data, views=Viewing(2, 1), optim=optim)
    return replace(config, run=run, **changes)


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    finetune.run(config_of(videos, out))
    return out


def test_the_test_at_the_end_is_written(trained):
    figures = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert figures["videos"] == 10
    assert set(figures["orders"]) == {"forwards", "backwards", "shuffled", "one frame"}
    assert sum(map(sum, figures["confusion"])) == 10
    page = (trained / "evaluation" / "report.html").read_text()
    assert "Motion or appearance" in page
    assert "://" not in page


@pytest.mark.slow
def test_motion_is_learnt_from_files_and_the_report_says_that_it_is_motion(tmp_path):
    folders = write(tmp_path / "train", 100, 0), write(tmp_path / "test", 20, 5000)
    model = Model(frames=4, size=32, cube=(2, 8, 8), width=48, depth=2, heads=3)
    finetune.run(config_of(folders, tmp_path / "run", model=model))
    figures = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    # Of 40 videos; the files differ from writing to writing, and with them the run by a video or two.
    assert figures["top1"] >= 0.75
    assert figures["orders"]["forwards"] >= 0.7  # of one view
    assert figures["orders"]["backwards"] <= 0.25  # left played backwards is right
    assert 0.2 < figures["orders"]["shuffled"] < 0.8
    assert 0.2 < figures["orders"]["one frame"] < 0.8


def test_the_predictions_file_alone_gives_the_figures_again(trained):
    """Read by place, as classes may have any names: video, class, prediction, then a probability for each class."""
    header, *rows = csv.reader((trained / "evaluation" / "predictions.csv").read_text().splitlines())
    figures = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    names, scores = header[3:], np.array([row[3:] for row in rows], dtype=float)
    labels, guess = np.array([names.index(row[1]) for row in rows]), scores.argmax(1)
    assert len({row[0] for row in rows}) == len(rows) == figures["videos"]
    assert [names[at] for at in guess] == [row[2] for row in rows]
    table = np.zeros((len(names), len(names)), int)
    np.add.at(table, (labels, guess), 1)
    assert table.tolist() == figures["confusion"]
    assert (guess == labels).mean() == pytest.approx(figures["top1"])
    assert (table.diagonal() / table.sum(1)).mean() == pytest.approx(figures["mean_class"])
    sure, right = scores.max(1), guess == labels
    bins = np.ceil(sure * 15)
    error = sum(abs((sure - right)[bins == at].sum()) for at in np.unique(bins)) / len(rows)
    assert error == pytest.approx(figures["calibration_error"], abs=1e-6)


def test_evaluate_of_the_run_folder_gives_the_figures_that_fine_tuning_ended_with(trained, videos, tmp_path):
    from motionmae.cli import main

    args = ["evaluate", str(trained), "--data.path", str(videos[1]), "--out", str(tmp_path), "--workers", "0"]
    assert main([*args, "--batch", "3"]) == 0
    again, before = (json.loads((f / "evaluation.json").read_text()) for f in (tmp_path, trained / "evaluation"))
    for name in ("calibration", "calibration_error"):  # sums in other orders differ in the last digits
        np.testing.assert_allclose(again.pop(name), before.pop(name), atol=1e-6)
    assert again == before


def test_a_run_starts_from_another_runs_encoder_and_from_the_originals_checkpoint(trained, videos, tmp_path, shared):
    encoder = read_classifier(trained)[0].encoder.state_dict()
    settled = finetune.settle(config_of(videos, tmp_path, init=str(trained)), MOTIONS)
    built = finetune.build(settled.config, settled.start).encoder.state_dict()
    assert all(torch.equal(value, built[name]) for name, value in encoder.items())
    foreign = shared / "golden" / "videomae_tiny" / "pretrain-checkpoint.pth"
    asked = config_of(videos, tmp_path / "foreign", init=str(foreign), heads=3, optim=Optim(batch=4, steps=1))
    finetune.run(replace(asked, data=replace(asked.data, size=16, test="")))
    assert read_classifier(tmp_path / "foreign")[0].names == MOTIONS


def test_views_are_averaged_and_every_video_counted_once_on_any_number_of_ranks(videos):
    """Ten videos on three ranks: shares of 4, 3 and 3."""
    files = sorted(videos[1].rglob("*.mp4"))
    views = views_of.settle(Viewing(2, 3, sampling="dense", stride=1), {}, SMALL)
    torch.manual_seed(0)
    classifier = Classifier(SMALL, MOTIONS).eval()
    dataset, compute = views_of.as_views(files, views), Compute(batch=8, workers=0)

    def probabilities(clip):
        return classifier(clip).softmax(1)

    alone = views_of.watch(probabilities, dataset, compute, CPU, ("backwards",), quiet=True)
    with torch.no_grad():
        clips = [torch.stack([view["clip"] for view in dataset[at]]) for at in range(10)]
        slow = torch.stack([probabilities(clip).mean(0) for clip in clips])
        turned = torch.cat([probabilities(clip[4:5].flip(2)) for clip in clips])
    assert clips[0].shape == (6, 3, 4, 16, 16)
    torch.testing.assert_close(alone["views"], slow, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone["backwards"], turned, atol=1e-6, rtol=0)
    told = []

    class Rank(Runtime):
        def gather(self, value):
            told.append(value)
            return told if len(told) == 3 else [value]

    for rank in range(2):
        with pytest.raises(AssertionError):  # the other ranks' shares are not there yet
            views_of.watch(probabilities, dataset, compute, Rank(CPU.device, None, rank, 3), quiet=True)
    joined = views_of.watch(probabilities, dataset, compute, Rank(CPU.device, None, 2, 3), quiet=True)
    assert [len(places) for places, _ in told] == [4, 3, 3]
    torch.testing.assert_close(joined["views"], alone["views"], atol=1e-6, rtol=0)


TWO_VIEWS = View(2, 1, "dense", 1, None, "clamp", 4, 16)


def test_a_test_averages_the_views_probabilities_and_not_their_scores(monkeypatch):
    """As VideoMAE's merge of its views does, softmax first: two timid views against a very sure one tell them apart."""
    scores = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    classifier = Classifier(SMALL, ("left", "right"))
    monkeypatch.setattr(classifier, "forward", lambda clip: clip)
    monkeypatch.setattr(views_of, "watch", lambda model, *rest: {"views": model(scores).mean(0, keepdim=True)})
    labels = views_of.LabelledVideos([Path("a.mp4")], [1], ("left", "right"))
    found = views_of.examine_classifier(classifier, labels, TWO_VIEWS, Compute(), CPU, False, 0)
    assert found.probabilities[0].tolist() == pytest.approx(scores.double().softmax(1).mean(0).tolist())
    assert (scores.mean(0).argmax().item(), found.figures["top1"]) == (0, 1.0)


def test_views_that_are_not_asked_for_are_those_of_the_models_own_run():
    finetuned = {"views": asdict(Viewing(2, 3, "uniform", 1, None, "clamp", 4, 16)), "data": {"stride": 7}}
    assert views_of.settle(Viewing(clips=9), finetuned, SMALL) == View(9, 3, "uniform", 1, None, "clamp", 4, 16)
    pretrained = {"data": asdict(Data(sampling="dense", stride=2, short="clamp"))}
    assert views_of.settle(Viewing(crops=1), pretrained, SMALL) == View(5, 1, "dense", 2, None, "clamp", 4, 16)
    assert views_of.settle(Viewing(), {}, SMALL) == View(5, 3, "dense", 4, None, "clamp", 4, 16)
    with pytest.raises(MotionMAEError, match=r"--views\.stride must be .*, it is 0"):
        views_of.settle(Viewing(), {"views": {"stride": 0}}, SMALL)


def test_what_is_settled_is_field_by_field_what_can_be_asked_and_is_kept_in_the_config(videos, tmp_path):
    """Runs that were begun before a test's views were settled into a type of their own go on."""
    assert [item.name for item in fields(View)] == [item.name for item in fields(Viewing)]
    settled = finetune.settle(config_of(videos, tmp_path, init="none"), MOTIONS)
    assert asdict(settled.config.views) == asdict(settled.view)
    assert (settled.config.data.frames, settled.config.data.size) == (settled.frames, settled.size)
    assert finetune.settle(settled.config, MOTIONS) == settled


def test_shuffled_keeps_the_frames_of_each_clip_and_one_frame_has_no_motion():
    clip, keys = torch.rand(5, 3, 6, 4, 4), torch.arange(5)
    shuffled = views_of.ORDERS["shuffled"](clip, keys)
    assert not torch.equal(shuffled, clip)
    torch.testing.assert_close(shuffled.sort(2).values, clip.sort(2).values)
    for one in shuffled.unbind(0):
        assert all(any(torch.equal(frame, other) for other in clip.flatten(0, 0).transpose(1, 2).flatten(0, 1))
                   for frame in one.transpose(0, 1))  # fmt: skip
    assert (views_of.ORDERS["one frame"](clip, keys).diff(dim=2) == 0).all()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 1.0])
def test_a_fraction_is_stratified_seeded_and_grows(fraction):
    labels = [at % 3 for at in range(60)] + [3, 3]
    kept = share(labels, fraction, 1)
    counts = [sum(labels[at] == label for at in kept) for label in range(4)]
    assert counts == [max(1, round(fraction * labels.count(label))) for label in range(4)]
    assert kept == share(labels, fraction, 1) == sorted(set(kept))
    assert set(share(labels, 0.1, 1)) <= set(kept)
    assert fraction == 1 or kept != share(labels, fraction, 2)


def test_mistakes_are_one_sentence(videos, tmp_path):
    with pytest.raises(MotionMAEError, match="--init"):
        finetune.run(config_of(videos, tmp_path, init=""))
    with pytest.raises(MotionMAEError, match="class"):
        finetune.run(config_of((videos[0] / "left", videos[1]), tmp_path))
    with pytest.raises(MotionMAEError, match="no such"):
        finetune.run(config_of(videos, tmp_path, init=str(tmp_path / "nothing")))
    unknown = Videos([tmp_path], ["sideways"], [])
    with pytest.raises(MotionMAEError, match="sideways"):
        recognition.labelled(unknown, MOTIONS, "there")
    with pytest.raises(MotionMAEError, match=r"views\.clips"):
        views_of.settle(Viewing(clips=0), {}, SMALL)
    with pytest.raises(MotionMAEError, match=r"views\.size 30.*8"):
        views_of.settle(Viewing(size=30), {}, SMALL)
    with pytest.raises(MotionMAEError, match=r"set --views\.size"):
        views_of.settle(Viewing(), {}, replace(SMALL, size=0))
    with pytest.raises(MotionMAEError, match=r"views\.fps"):
        views_of.settle(Viewing(fps=0.0), {}, SMALL)


def test_published_recipes_augment_and_a_step_with_all_of_it_is_finite(videos, tmp_path):
    for recipe in ("ssv2", "k400", "ucf101", "hmdb51"):
        assert (FINETUNE[recipe].augment.layers, FINETUNE[recipe].augment.erase) == (4, 0.25)
    config = config_of(
        videos, tmp_path / "run", optim=Optim(batch=8, steps=2), mix=Mix(), augment=FINETUNE["k400"].augment
    )
    finetune.run(replace(config, data=replace(config.data, test="", area=(0.3, 1.0), repeats=2)))
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < log[0]["loss"] < 1
    parted = (tmp_path / "run" / "split.csv").read_text()  # no test was named: a fifth of each class is drawn
    assert (parted.count(",train"), parted.count(",test")) == (12, 4)


def test_the_final_test_is_that_of_the_running_mean_where_there_is_one(videos, tmp_path):
    optim = Optim(batch=16, epochs=5.0, lr=4e-2, lr_end=1e-6, warmup_epochs=1.0, betas=(0.9, 0.999), clip=1.0, ema=0.9)
    finetune.run(config_of(videos, tmp_path / "run", optim=optim))
    figures = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    mean = read_classifier(tmp_path / "run")[0]
    views = views_of.settle(Viewing(), json.loads((tmp_path / "run" / "config.json").read_text()), SMALL)
    labels = recognition.labelled(finetune.find(Labelled(path=str(videos[1]))), MOTIONS, "")
    found = views_of.examine_classifier(mean, labels, views, Compute(workers=0), CPU, False, 0).figures
    assert found["calibration_error"] == pytest.approx(figures["calibration_error"], abs=1e-6)
    with safe_open(str(newest_checkpoint(tmp_path / "run")), "pt") as content:
        average, last = (content.get_tensor(f"{part}/head.linear.weight") for part in ("average", "model"))
    assert torch.equal(mean.head.linear.weight, average)
    assert not torch.equal(average, last)


@pytest.mark.slow
def test_three_processes_give_the_figures_of_one_on_a_set_that_three_does_not_divide(trained, videos, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m"]
    command += ["motionmae.cli", "evaluate", str(trained), "--data.path", str(videos[1]), "--out", str(tmp_path)]
    subprocess.run([*command, "--workers", "0", "--device", "cpu", "--threads", "1"], check=True, timeout=200)
    again = json.loads((tmp_path / "evaluation.json").read_text())
    before = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert again["videos"] == 10
    assert again["confusion"] == before["confusion"]
    assert again["orders"] == before["orders"]
    assert again["calibration_error"] == pytest.approx(before["calibration_error"], abs=1e-6)
