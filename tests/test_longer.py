"""A run that starts from weights, one that is made longer, and options that change nothing: each says what it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

from motionmae import cli
from motionmae.config import Decoder, Model
from motionmae.config.idle import idle
from motionmae.data.clips import Clips, told_short
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder
from motionmae.models.weights import save
from motionmae.tasks import pretrain
from motionmae.training.folder import plain
from motionmae.training.optim import learning_rate, plan
from motionmae.video.writing import write_video


def test_a_tail_keeps_the_rates_and_stays_at_the_lowest(tmp_path):
    config = runs.toy_config(tmp_path, 12)
    longer = replace(config.optim, steps=20, tail=8)
    before, after = plan(config.optim, config.run, 8, 1, 1), plan(longer, config.run, 8, 1, 1)
    rates = [learning_rate(step, after, longer) for step in range(20)]
    assert rates[:12] == [learning_rate(step, before, config.optim) for step in range(12)]
    assert rates[12:] == [config.optim.lr_end * 8 / 256] * 8


@pytest.mark.parametrize(
    ("tail", "said"), [(8, "the lowest rate stays for the last 8 steps"), (0, r"the cosine now ends there.*tail 8")]
)
def test_a_finished_run_is_made_longer_by_its_steps(tmp_path, capsys, tail, said):
    runs.fit_toy(runs.toy_config(tmp_path, 12))
    config = runs.toy_config(tmp_path, 12)
    longer = replace(config, optim=replace(config.optim, steps=20, tail=tail))
    assert runs.fit_toy(longer)[1]
    told = capsys.readouterr().out
    assert "--optim.steps 20 in place of 12: " in told
    assert "going on from step 12" in told
    assert runs.readings(tmp_path)[-1]["step"] == 20
    with pytest.raises(MotionMAEError, match=r"optim.steps \(20 there, 12 here\)"):
        runs.fit_toy(config)


def begun(config, path: Path):
    settled, start = pretrain.begin(replace(config, init=str(path), model=Model(decoder=config.model.decoder)))
    objective = pretrain.build(settled)
    assert start is not None
    return settled, objective.autoencoder, pretrain.start_from(objective.autoencoder, start, str(path))


def test_pretraining_starts_from_a_run_an_encoder_or_one_with_other_heads(tmp_path):
    config = runs.pretraining(tmp_path, tmp_path)
    file = tmp_path / "a.safetensors"
    first = pretrain.build(replace(config, seed=5)).autoencoder
    save(file, first, plain(config))
    settled, model, said = begun(config, file)
    assert settled.model == config.model
    assert runs.same(model.state_dict(), first.state_dict())
    assert said.endswith("decoder and heads included")
    other = replace(config, target=replace(config.target, motion="velocity"))
    _, model, said = begun(other, file)
    assert said.endswith("new: decoders.0.heads.motion")
    assert torch.equal(model.decoders[0].enter.weight, first.decoders[0].enter.weight)
    encoder = VideoEncoder(config.model)
    save(file, torch.nn.ModuleDict({"encoder": encoder}), plain(config))
    _, model, said = begun(config, file)
    assert said.endswith("new: the decoder")
    assert runs.same(model.encoder.state_dict(), encoder.state_dict())


def test_options_without_effect_are_told(tmp_path, capsys):
    def told(*args: str) -> str:
        cli.parse([*args])
        return capsys.readouterr().err

    folder = ("--data.path", str(tmp_path))
    assert told("pretrain", "tiny", *folder) == ""
    assert "--data.fps has no effect with" in told(
        "pretrain", "tiny", *folder, "--data.fps", "8", "--data.sampling", "uniform"
    )
    assert "--model.depth: no effect beside --init x" in told(
        "pretrain", "tiny", *folder, "--init", "x", "--model.depth", "4"
    )
    assert "--data.split has no effect" in told("pretrain", "tiny", *folder, "--data.split", "train")
    assert "the warm-up's share alone" in told("pretrain", "tiny", *folder, "--optim.epochs", "3")
    assert "with --loss.second 0 appearance alone" in told("pretrain", "tiny", *folder, "--loss.motion", "0")
    assert told("pretrain", "tiny", *folder, "--loss.motion", "0", "--loss.second", "0") == ""
    assert told("pretrain", "small", *folder, "--loss.motion", "0") == ""
    assert "has no effect: --videos 100000 says how many" in told("plan", "tiny", *folder)
    assert list(idle(Decoder(), {"heads"})) == []


def test_videos_shorter_than_a_clip_are_told(tmp_path):
    write_video(tmp_path / "a.mp4", render(0, "left", 8, 16).frames, 12)
    config = runs.pretraining(tmp_path, tmp_path)
    clips = Clips([tmp_path / "a.mp4"], replace(config.data, stride=4), [0, 4, 8, 12], 16, 0)
    assert "shorter than a clip, which spans 13 frames: 1 of 1 video looked at; one of 8" in told_short(clips)
    assert told_short(Clips([tmp_path / "a.mp4"], config.data, [0, 1, 2, 3], 16, 0)) == ""
