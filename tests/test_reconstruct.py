"""Looking at a model: a perfect prediction gives the original back, and what is shown is what was asked for."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from motionmae.cli import main
from motionmae.config import Data, Loss, Mask, Model, Pretrain, Target
from motionmae.data.synthetic import render
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.weights import save
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.report.pictures import captioned, coloured, errors
from motionmae.tasks.pretrain import build
from motionmae.tasks.reconstruct import look
from motionmae.video.reading import probe
from motionmae.video.writing import write_video

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = Pretrain(model=SMALL, mask=Mask("random", 0.5), target=Target(motion="signed"), data=Data(stride=2))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(path, build(config).autoencoder, asdict(config))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, render(3, "left", 24, 32).frames, 10)
    return path


class Oracle(Reconstruction):
    """An objective whose model says what is wanted."""

    def draw(self, now, after, keys):
        self.now, self.after = now, after
        return super().draw(now, after, keys)


@pytest.mark.parametrize("kind", ["cube", "clip", "none"])
@pytest.mark.parametrize("motion", ["absolute", "signed", "velocity"])
def test_a_perfect_prediction_gives_the_original_back(kind, motion, monkeypatch):
    target = Target(appearance=kind, motion=motion, motion_normalise=kind)
    config = Pretrain(model=SMALL, mask=Mask("random", 0.5), target=target)
    built = build(config)
    objective = Oracle(built.autoencoder, config.mask, target, Loss())
    monkeypatch.setattr(
        objective.autoencoder,
        "forward",
        lambda clip, visible, masked: {
            name: objective.wanted(name, objective.now, objective.after, masked)[0] for name in ("appearance", "motion")
        },
    )
    clip = render(1, "up", 5, 16).frames.permute(3, 0, 1, 2)[None]
    found = look(objective, {"clip": clip, "key": torch.tensor([7])})
    shown = found.pictures
    torch.testing.assert_close(shown["predicted_appearance"], clip[:, :, :4] / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(shown["predicted_motion"], shown["motion"], atol=1e-4, rtol=0)
    assert shown["error"].max() < 2e-3
    assert found.figures["appearance_ratio"] < 1e-6
    hidden = (shown["alone"] != 0.5).any(1)
    torch.testing.assert_close(
        shown["alone"].movedim(1, -1)[hidden], (clip[:, :, :4] / 255).movedim(1, -1)[hidden], atol=1e-4, rtol=0
    )
    assert ("guessed" in shown) == (kind == "cube")


def test_colours_tell_directions_signs_and_sizes():
    velocity = torch.zeros(1, 2, 1, 1, 4)
    velocity[0, 1, 0, 0, 0], velocity[0, 1, 0, 0, 1], velocity[0, 0, 0, 0, 2] = (
        1.0,
        -1.0,
        1.0,
    )  # right, left, down; still
    red, cyan, green, black = coloured({"motion": velocity})["motion"][0, :, 0, 0].T
    assert red[0] == 1
    assert cyan[0] == 0
    assert cyan[1] > 0.7
    assert green[1] == green.max()
    assert black.max() == 0
    signed = torch.tensor([1.0, -1.0, 0.0]).expand(1, 3, 1, 1, 3)
    up, down, still = coloured({"motion": signed})["motion"][0, :, 0, 0].T
    assert up[0] > up[2]
    assert down[2] > down[0]
    assert (still == 0.5).all()
    heat = coloured({"motion": torch.tensor([0.0, 1.0]).expand(1, 3, 1, 1, 2)})["motion"][0, :, 0, 0].T
    assert heat.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert (
        errors({"input": torch.zeros(1, 3, 1, 1, 1), "predicted_appearance": torch.full((1, 3, 1, 1, 1), 0.25)}).min()
        == 1
    )


def test_the_command_writes_a_video_and_a_page(model, video, tmp_path, capsys):
    out = tmp_path / "r.mp4"
    words = ["--out", str(out), "--device", "cpu", "--side", "64"]
    assert main(["reconstruct", str(model), str(video), *words, "--clips", "0"]) == 0
    told = capsys.readouterr().out
    assert "mean of 3 clips" in told
    assert "of what no motion costs" in told
    about = probe(out)
    assert about.frames == 12
    assert (about.height, about.width) == (2 * 86, 4 * 68)
    page = out.with_suffix(".html").read_text()
    assert "data:video/mp4;base64" in page
    assert "red becomes brighter" in page
    assert main(["reconstruct", str(model), str(video), *words]) == 2
    assert "exists already" in capsys.readouterr().err


def test_every_picture_has_its_name_above_it():
    clips = {name: torch.rand(1, 3, 2, 8, 8) for name in ("input", "masked", "predicted_appearance", "motion")}
    assert captioned(clips, 32, columns=3).shape == (2, 2 * 54, 3 * 36, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["MODEL"], "reconstruct needs VIDEO"),
        (["MODEL", "VIDEO", "--out", "r.avi"], "--out 'r.avi': expected a name that ends in .mp4"),
        (["MODEL", "VIDEO", "--out", "r.mp4", "--at", "9s"], "--at 9s: the video lasts 2.4 s"),
        (["MODEL", "VIDEO", "--out", "r.mp4", "--at", "soon"], "--at 'soon'"),
        (["MODEL", "nothing.mp4", "--out", "r.mp4"], "nothing.mp4"),
        (["ENCODER", "VIDEO", "--out", "r.mp4"], "holds an encoder without a decoder"),
    ],
)
def test_bad_input_is_one_sentence(model, video, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    encoder = torch.nn.ModuleDict({"encoder": MotionMAE(SMALL).encoder})
    save(tmp_path / "encoder.safetensors", encoder, asdict(Pretrain(model=replace(SMALL))))
    names = {"MODEL": str(model), "VIDEO": str(video), "ENCODER": "encoder.safetensors"}
    assert main(["reconstruct", *(names.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("r.*"))
