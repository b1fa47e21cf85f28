"""Prediction on any video: as a whole, along time, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from fractions import Fraction

import pytest
import torch
import zoo

from motionmae.cli import main
from motionmae.config import Compute, Finetune, Labelled, Model, Viewing
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.inference import views as views_of
from motionmae.inference import windows
from motionmae.inference.views import View
from motionmae.models.classifier import Classifier
from motionmae.models.weights import save
from motionmae.runtime import Runtime
from motionmae.tasks import predict
from motionmae.video.frames import Frames
from motionmae.video.reading import Video, open_video, probe, read_frames
from motionmae.video.writing import write_video

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3, norm=False)
NAMES = ("left", "right", "up")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    classifier = Classifier(SMALL, NAMES)
    with torch.no_grad():
        classifier.head.linear.weight.normal_()
    views = Viewing(2, 3, "uniform", 1, None, "loop", 4, 16)
    config = Finetune(model=SMALL, classes=NAMES, views=views, data=Labelled(frames=4, size=16))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(path, classifier, asdict(config))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "a b.mp4"
    write_video(path, render(3, "left", 31, 48).frames, 10)  # 3.1 s
    return path


def ask(model, *words):
    return main(["predict", str(model), *map(str, words), "--device", "cpu"])


def test_a_whole_video_gets_what_evaluate_gives_it(model, video, capsys):
    assert ask(model, video, "--json", "-", "--top", "3") == 0
    told = json.loads(capsys.readouterr().out)
    classifier, made_with = predict.read_classifier(model)
    views = views_of.settle(Viewing(), made_with, SMALL)
    here = Runtime(torch.device("cpu"), None)
    wanted = views_of.watch(
        lambda clip: classifier(clip).double().softmax(1), views_of.as_views([video], views), Compute(workers=0), here,
        quiet=True,
    )["views"][0]  # fmt: skip
    found = {row["name"]: row["probability"] for row in told[0]["windows"][0]["classes"]}
    assert set(found) == set(NAMES)
    assert sum(found.values()) == pytest.approx(1)
    for name, value in zip(NAMES, wanted.tolist(), strict=True):
        assert found[name] == pytest.approx(value, abs=1e-6)


def test_windows_cover_the_video_and_see_their_own_frames(model, video, capsys):
    assert ask(model, video, "--every", "1s", "--json", "-", "--top", "1", "--batch", "2") == 0
    rows = json.loads(capsys.readouterr().out)[0]["windows"]
    assert [(row["start"], row["end"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, pytest.approx(3.1))]

    class Ten(Frames):
        path = "ten.mp4"
        duration, slack = Fraction(31, 10), Fraction(0)

        def __len__(self):
            return 31

        def at(self, times):
            return [min(int(time * 10), 30) for time in times]

    uniform, dense = View(1, 1, "uniform", 1, None, "loop", 4, 16), View(1, 1, "dense", 2, None, "clamp", 4, 16)
    frames = windows.inside(Ten(), (Fraction(1), Fraction(2)), uniform)
    assert all(10 <= frame <= 20 for frame in frames)
    assert len(set(frames)) == 4
    assert windows.inside(Ten(), (Fraction(1), Fraction(2)), dense) == [12, 14, 16, 18]
    assert windows.inside(Ten(), (Fraction(3), Fraction(31, 10)), dense) == [24, 26, 28, 30]
    overlapping = windows.spaced(Ten(), "1s", "2s", dense)
    spans = [(0, 2), (1, 3), (2, Fraction(31, 10)), (3, Fraction(31, 10))]
    assert [(window.start, window.end) for window in overlapping] == spans
    assert overlapping[1].frames == windows.inside(Ten(), (Fraction(1), Fraction(3)), dense)
    for every, long, named in (("0s", "", "--every '0s'"), ("1s", "long", "--window 'long'")):
        with pytest.raises(MotionMAEError, match=f"^{named}: expected seconds, 0.001 or more"):
            windows.spaced(Ten(), every, long, dense)


@pytest.mark.parametrize("frames", [1, 2, 3, 50])
def test_any_length_size_and_rate(model, tmp_path, frames, capsys):
    write_video(
        tmp_path / "v.mp4", torch.randint(0, 255, (frames, 18, 70, 3), dtype=torch.uint8), Fraction(30000, 1001)
    )
    assert ask(model, tmp_path / "v.mp4", "--every", "0.3") == 0
    assert "0:00.0 to 0:0" in capsys.readouterr().out
    assert ask(model, tmp_path / "v.mp4", "--views.sampling", "dense", "--views.stride", "3") == 0


def test_rendering_keeps_the_video_and_writes_into_its_foot(model, video, tmp_path):
    out = tmp_path / "out.mp4"
    assert ask(model, video, "--every", "1", "--render", out) == 0
    before, after = probe(video), probe(out)
    assert (after.frames, after.rate, after.height, after.width) == (before.frames, before.rate, 48, 48)
    change = (read_frames(out).float() - read_frames(video).float()).abs().mean((0, 2, 3))
    assert change[20:].mean() > 3 * change[:14].mean()


def test_a_video_of_variable_rate_keeps_its_time_when_rendered(model, tmp_path):
    """Each frame shows its number; after half of the 2.4 s it is the one that was then on screen."""
    source = zoo.encode(tmp_path / "v.mkv", "libx264", times=zoo.jittered, clock=zoo.SLOW_CLOCK, size=(96, 128))
    assert ask(model, source, "--top", "1", "--render", tmp_path / "out.mp4") == 0
    with open_video(source) as before, open_video(tmp_path / "out.mp4") as after:
        assert float(after.duration) == pytest.approx(float(before.duration), rel=0.01)
        for time in (0.1, 0.6, 1.2, 1.9):
            shown, wanted = after.read(after.at([time + 0.02]))[0], before.at([time])[0]
            assert abs(zoo.number_of(shown.numpy()) - wanted) <= 1


def test_a_long_video_may_take_longer_than_one_read_may(model, video, tmp_path, monkeypatch):
    """The clock jumps by 40 s with each read; the limit of 60 s is one read's, not the video's."""
    jump, read = [0.0], Video.read
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + jump[0])

    def slow(self, indices=None):
        found = read(self, indices)
        jump[0] += 40
        return found

    monkeypatch.setattr(Video, "read", slow)
    assert ask(model, video, "--every", "0.2s", "--batch", "1", "--render", tmp_path / "out.mp4") == 0


def test_a_folder_is_searched_and_a_broken_file_is_passed_over(model, video, tmp_path, capsys):
    (tmp_path / "good.mp4").write_bytes(video.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    assert ask(model, tmp_path) == 0
    told = capsys.readouterr()
    assert "good.mp4" in told.out
    assert "broken.mp4" in told.err
    assert ask(model, tmp_path / "broken.mp4") == 2


@pytest.mark.parametrize("every", ["0", "-1", "soon", "1/0"])
def test_a_wrong_time_is_one_sentence(every):
    with pytest.raises(MotionMAEError, match="--every"):
        windows.parse_seconds(every, "--every")


def test_mistakes_are_one_sentence(model, video, tmp_path, capsys):
    assert ask(model) == 2
    assert ask(model, tmp_path / "nothing.mp4") == 2
    (other := tmp_path / "other.mp4").write_bytes(video.read_bytes())
    assert ask(model, video, other, "--render", tmp_path / "x.mp4") == 2
    assert ask(model, other, "--render", tmp_path / "x.avi") == 2
    assert ask(model, other, "--render", other) == 2
    assert other.read_bytes() == video.read_bytes()
    assert ask(model, video, "--top", "0") == 2
    assert ask(model, video, "--window", "1s") == 2
    assert ask(model, video, "--json", other / "x.json") == 2
    assert ask("", video) == 2
    assert capsys.readouterr().err.count("motionmae:") == 9
