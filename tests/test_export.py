"""Exported models say what the model says; what a form cannot express is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

import motionmae
from motionmae.cli import main
from motionmae.config import Finetune, Labelled, Model, Pretrain, Viewing
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.classifier import Classifier
from motionmae.models.encoder import MEAN, STD
from motionmae.models.weights import save

SINES = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3, positions="sincos1d")
NAMES = ("left", "right", "up")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return make(tmp_path_factory.mktemp("m") / "pretrained.safetensors", SINES)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(1)
    model = Classifier(replace(SINES, norm=False), NAMES)
    with torch.no_grad():
        model.head.linear.weight.normal_()
    views = Viewing(1, 1, "uniform", 1, None, "clamp", 4, 16)
    config = Finetune(model=model.encoder.config, classes=NAMES, views=views, data=Labelled(frames=4, size=16))
    path = tmp_path_factory.mktemp("m") / "classifier.safetensors"
    save(path, model, asdict(config))
    return path


def make(path, model):
    torch.manual_seed(0)
    save(path, MotionMAE(model), asdict(Pretrain(model=model)))
    return path


def export(kind, model, out, *words):
    return main(["export", kind, str(model), "--out", str(out), *map(str, words)])


@pytest.fixture
def clip():
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def pixels(clip):
    """As transformers takes them: [b t c h w], normalised."""
    shape = (1, 3, 1, 1, 1)
    return ((clip / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)).transpose(1, 2)


def near(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_transformers_loads_the_encoder_and_the_autoencoder(pretrained, tmp_path, clip):
    transformers = pytest.importorskip("transformers")
    assert export("hf", pretrained, tmp_path / "hf") == 0
    theirs = transformers.VideoMAEModel.from_pretrained(tmp_path / "hf").eval()
    near(theirs(pixels(clip)).last_hidden_state, motionmae.load(pretrained)(clip))
    near(motionmae.load(tmp_path / "hf")(clip), motionmae.load(pretrained)(clip))
    whole = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "hf").eval()
    hidden = torch.tensor([[True, False, True, True, False, True, False, True]]).expand(2, -1)
    visible, masked = ((mask.nonzero()[:, 1].view(2, -1)) for mask in (~hidden, hidden))
    ours = motionmae.load(pretrained, train=True)(clip, visible, masked)["appearance"]
    near(whole(pixels(clip), bool_masked_pos=hidden).logits, ours, 1e-3)  # their decoder's last LayerNorm: another eps
    about = (tmp_path / "hf" / "README.md").read_text()
    assert "pipeline_tag: feature-extraction" in about
    processor = transformers.VideoMAEImageProcessor.from_pretrained(tmp_path / "hf")
    assert processor.crop_size["height"] == 16


@torch.no_grad()
def test_transformers_loads_the_classifier_with_its_names(classifier, tmp_path, clip):
    transformers = pytest.importorskip("transformers")
    assert export("hf", classifier, tmp_path / "hf") == 0
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "hf").eval()
    ours, _ = motionmae.models.classifier.read_classifier(classifier)
    near(theirs(pixels(clip)).logits, ours(clip), 1e-4)  # their LayerNorm before the classes: another eps
    assert theirs.config.id2label == dict(enumerate(NAMES))
    again, _ = motionmae.models.classifier.read_classifier(tmp_path / "hf")
    near(again(clip), ours(clip))
    assert again.names == NAMES


@torch.no_grad()
def test_positions_that_videomae_cannot_compute_are_refused_or_written(tmp_path, clip, capsys, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    for kind in ("sincos3d", "learned"):
        model = make(tmp_path / f"{kind}.safetensors", replace(SINES, positions=kind))
        assert export("hf", model, tmp_path / kind) == 2
        assert f"the model's positions are {kind}: add --code" in capsys.readouterr().err
        assert not (tmp_path / kind).exists()
        assert export("hf", model, tmp_path / kind, "--encoder", "--code") == 0
        theirs = transformers.AutoModel.from_pretrained(tmp_path / kind, trust_remote_code=True).eval()
        near(theirs(pixels(clip)).last_hidden_state, motionmae.load(model)(clip))


@pytest.mark.slow
@torch.no_grad()
def test_onnx_says_the_same_at_any_batch(classifier, tmp_path, clip, capsys):
    pytest.importorskip("onnxscript")
    from motionmae.models.export import run_onnx

    assert export("onnx", classifier, tmp_path / "m.onnx") == 0
    assert "differs by at most" in capsys.readouterr().out
    ours, _ = motionmae.models.classifier.read_classifier(classifier)
    for count in (1, 2):
        near(run_onnx(tmp_path / "m.onnx", clip[:count] / 255), ours(clip[:count]), 1e-4)


@pytest.mark.slow
def test_an_exported_program_runs_without_this_library(pretrained, tmp_path, clip):
    assert export("pt2", pretrained, tmp_path / "m.pt2") == 0
    torch.save(clip / 255, tmp_path / "clip.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1);"
        "run = torch.export.load('m.pt2').module(); tokens = run(torch.load('clip.pt'));"
        "assert not any(name.startswith('motionmae') for name in sys.modules); torch.save(tokens, 'tokens.pt')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        near(torch.load(tmp_path / "tokens.pt"), motionmae.load(pretrained)(clip / 255))


def test_weights_alone_load_again(pretrained, classifier, tmp_path, clip):
    assert export("weights", pretrained, tmp_path / "encoder.safetensors", "--encoder", "--written", "fp16") == 0
    assert export("weights", pretrained, tmp_path / "all.safetensors") == 0
    assert export("weights", classifier, tmp_path / "classes.safetensors") == 0
    assert (tmp_path / "encoder.safetensors").stat().st_size < (tmp_path / "all.safetensors").stat().st_size / 2
    with torch.no_grad():
        tokens = motionmae.load(pretrained)(clip)
        near(motionmae.load(tmp_path / "all.safetensors")(clip), tokens)
        near(motionmae.load(tmp_path / "encoder.safetensors")(clip), tokens, 1e-2)
    assert motionmae.load(tmp_path / "all.safetensors", train=True).decoders
    assert motionmae.models.classifier.read_classifier(tmp_path / "classes.safetensors")[0].names == NAMES


def test_pushing_sends_the_folder_and_says_what_the_hub_refuses(pretrained, tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    sent = {}
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, name, **_: sent.update(name=name))
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, repo_id, folder_path: sent.update(folder=folder_path))
    assert export("hf", pretrained, tmp_path / "hf", "--push", "me/mine") == 0
    assert sent == {"name": "me/mine", "folder": str(tmp_path / "hf")}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["hidden_size"] == 24

    def refuse(self, name, **_):
        raise OSError("no way there")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    assert export("weights", pretrained, tmp_path / "w.safetensors", "--push", "me/mine") == 2
    assert "the hub refused or is out of reach (no way there)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "onnx", "MODEL"], "motionmae export needs --out: the file"),
        (["export", "onnx", "MODEL", "--out", "m.bin"], "expected a name that ends in .onnx"),
        (["export", "weights", "MODEL", "--out", "THERE.safetensors"], "exists already"),
        (["export", "hf", "nothing", "--out", "x"], "nothing: there is no such checkpoint"),
        (["export", "hf", "--out", "x"], "export needs MODEL"),
        (["export", "jax", "MODEL"], "there is no choice 'jax'"),
    ],
)
def test_bad_input_is_one_sentence(pretrained, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "THERE.safetensors").write_bytes(b"")
    assert main([str(pretrained) if word == "MODEL" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["THERE.safetensors"]


def test_a_model_of_the_hub_loads_by_its_address(pretrained, tmp_path, monkeypatch, clip):
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "w.safetensors").write_bytes(pretrained.read_bytes())
    asked = []

    def fetch(name, revision=None, allow_patterns=()):
        asked.append((name, revision, "*.py" in allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    with torch.no_grad():
        assert torch.equal(motionmae.load("hf://me/mine@v1")(clip), motionmae.load(pretrained)(clip))
    assert asked == [("me/mine", "v1", False)]
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("out of reach")))
    with pytest.raises(motionmae.MotionMAEError, match=r"hf://me/mine: cannot be fetched \(out of reach\)"):
        motionmae.load("hf://me/mine")
    with pytest.raises(motionmae.MotionMAEError, match="expected hf://USER/NAME"):
        motionmae.load("hf://mine")


def test_the_model_in_the_box_loads_by_its_name_and_names_nothing_of_where_it_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = motionmae.load("tiny")
    assert encoder.config.width == 128
    made_with = motionmae.models.weights.read("tiny").config
    assert made_with["data"]["path"] == made_with["run"]["out"] == ""
    (tmp_path / "tiny").mkdir()
    with pytest.raises(motionmae.MotionMAEError, match="tiny: has no checkpoint"):  # a path of that name comes first
        motionmae.load("tiny")
