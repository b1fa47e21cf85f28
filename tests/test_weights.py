"""Foreign checkpoints give the numbers of the programs that wrote them."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

import motionmae
from motionmae.config import Loss, Mask, Model, Target
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.encoder import VideoEncoder
from motionmae.models.weights import read, save
from motionmae.objectives.reconstruction import Reconstruction

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "videomae_tiny"
    expected = load_file(folder / "expected.safetensors")
    masked = expected["masked_bool_bn"].bool()
    expected["masked"] = masked.nonzero()[:, 1].unflatten(0, (len(masked), -1))
    expected["visible"] = (~masked).nonzero()[:, 1].unflatten(0, (len(masked), -1))
    return folder, expected


def near(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


def test_videomae_pretraining_checkpoint_gives_its_golden_tokens_predictions_targets_and_loss(golden):
    folder, expected = golden
    clip = expected["clip_uint8_bcthw"]
    autoencoder = motionmae.load(folder / "pretrain-checkpoint.pth", heads=3, decoder_heads=3, train=True)
    encoder = motionmae.load(folder / "pretrain-checkpoint.pth", heads=3)
    objective = Reconstruction(autoencoder, Mask(), Target(), Loss(motion=0.0))
    with torch.no_grad():
        near(encoder(clip), expected["encoder_all_bnd"])
        near(autoencoder.encoder(clip, expected["visible"]), expected["encoder_visible_bkd"])
        predicted = autoencoder(clip, expected["visible"], expected["masked"])["appearance"]
        near(predicted, expected["prediction_masked_bmp"])
        wanted, _ = objective.wanted("appearance", clip, clip, expected["masked"])
        near(wanted, expected["target_masked_bmp"])
        near(objective.distance(predicted, wanted)[None], expected["loss"])


def test_videomae_finetuning_checkpoint_gives_its_golden_features(golden):
    folder, expected = golden
    found = read(folder / "finetune-checkpoint.pth", heads=3)
    encoder = motionmae.load(folder / "finetune-checkpoint.pth", heads=3)
    with torch.no_grad():
        pooled = encoder(expected["clip_uint8_bcthw"]).mean(1)
    weight, bias = found.state["head.norm.weight"], found.state["head.norm.bias"]
    features = torch.nn.functional.layer_norm(pooled, weight.shape, weight, bias, 1e-6)
    near(features, expected["finetune_features_bd"])
    near(
        features @ found.state["head.linear.weight"].T + found.state["head.linear.bias"], expected["finetune_logits_bc"]
    )


def test_a_file_with_an_unknown_width_asks_for_the_heads(golden):
    with pytest.raises(motionmae.MotionMAEError, match="heads"):
        motionmae.load(golden[0] / "pretrain-checkpoint.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("pool", [True, False])
def test_transformers_folder_gives_the_tokens_and_predictions_of_transformers(tmp_path, pool):
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, decoder_num_attention_heads=2, decoder_hidden_size=12, decoder_num_hidden_layers=1,
        decoder_intermediate_size=24, use_mean_pooling=pool, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.VideoMAEForPreTraining(config).eval()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    theirs.save_pretrained(tmp_path)
    clip = torch.rand(2, 3, 4, 16, 16)
    masked = torch.zeros(2, 8, dtype=torch.bool)
    masked[0, [0, 3, 5]] = masked[1, [1, 2, 7]] = True
    ids = masked.nonzero()[:, 1].unflatten(0, (2, -1))
    visible = (~masked).nonzero()[:, 1].unflatten(0, (2, -1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((clip - mean[:, None, None, None]) / std[:, None, None, None]).transpose(1, 2)
    ours = motionmae.load(tmp_path, train=True)
    with torch.no_grad():
        near(ours.encoder(clip), theirs.videomae(pixels).last_hidden_state)
        # transformers ends its decoder with a LayerNorm of eps 1e-5, the original and we with 1e-6
        near(ours(clip, visible, ids)["appearance"], theirs(pixels, masked).logits, 1e-3)


def test_saved_weights_load_back_equal_and_carry_their_config(tmp_path):
    autoencoder = MotionMAE(SMALL)
    save(tmp_path / "a.safetensors", autoencoder, {"model": asdict(SMALL)})
    again = motionmae.load(tmp_path / "a.safetensors", train=True)
    assert again.config == SMALL
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in autoencoder.state_dict().items())
    assert isinstance(motionmae.load(tmp_path / "a.safetensors"), VideoEncoder)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_broken_file_is_one_sentence_that_names_it(tmp_path, content, suffix):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(motionmae.MotionMAEError, match=f"broken{suffix}"):
        motionmae.load(file)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"model": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(motionmae.MotionMAEError, match=r"harm\.pth"):
        motionmae.load(tmp_path / "harm.pth")


def test_a_time_head_of_another_size_is_loaded_as_it_is(tmp_path):
    autoencoder = MotionMAE(SMALL, {"appearance": 384, "motion": 4})
    save(tmp_path / "velocity.safetensors", autoencoder, {"model": asdict(SMALL)})
    loaded = motionmae.load(tmp_path / "velocity.safetensors", train=True)
    assert loaded.decoders[0].heads["motion"].out_features == 4
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in autoencoder.state_dict().items())
