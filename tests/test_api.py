"""What `import motionmae` offers: every name is there, says what it is, and does what its docs say."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import asdict, replace

import pytest
import torch
from torch.utils.data import DataLoader

import motionmae
from motionmae import MotionMAEError
from motionmae.config import Data, Decoder, Loss, Mask, Model, Target
from motionmae.data.loading import Order, loader
from motionmae.data.synthetic import write_videos

MODEL = Model(4, 16, (2, 8, 8), 24, 1, 2, decoder=Decoder(width=16, depth=1, heads=2))
SMALL = {"frames": 4, "size": 16, "cube": (2, 8, 8), "width": 24, "depth": 3, "heads": 2}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return motionmae.VideoEncoder(Model(**SMALL)).eval()


def clip(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 4, 16, 16), generator=torch.Generator().manual_seed(1)).byte()


def test_dir_lists_the_public_names_and_each_is_there_with_its_docs():
    assert set(motionmae.__all__) <= set(dir(motionmae))
    assert sorted(motionmae.__all__) == sorted(motionmae._HOME)
    for name in motionmae.__all__:
        assert inspect.getdoc(getattr(motionmae, name)), name


@torch.no_grad()
def test_layers_are_the_tokens_after_each_block_under_the_norm_in_the_order_asked(encoder):
    slow, x = [], encoder.tokens(clip())
    for block in [None, *encoder.blocks]:
        x = x if block is None else block(x)
        slow.append(encoder.norm(x))
    found = encoder(clip(), layers=(3, 0, 2, 3))
    assert all(torch.equal(a, slow[layer]) for a, layer in zip(found, (3, 0, 2, 3), strict=True))
    assert torch.equal(found[0], encoder(clip()))
    visible = torch.tensor([[0, 5], [2, 7]])
    assert torch.equal(encoder(clip(), visible, layers=[3])[0], encoder(clip(), visible))
    assert encoder(clip(), layers=()) == ()
    for wrong in (-1, 4):
        with pytest.raises(MotionMAEError, match=rf"layers has {wrong}: the encoder has the layers 0 to 3"):
            encoder(clip(), layers=(1, wrong))


def test_no_block_above_the_highest_layer_is_run(encoder, monkeypatch):
    monkeypatch.setattr(encoder.blocks[2], "forward", lambda *_: pytest.fail("the third block was run"))
    encoder(clip(), layers=(2,))


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_encoders_by_name_are_those_of_the_presets(size):
    from motionmae.presets import SIZES

    with torch.device("meta"):
        encoder = getattr(motionmae, f"vit_{size}")(drop_path=0.1, frames=4)
    assert encoder.config == replace(SIZES[size], frames=4)
    assert encoder.blocks[-1].drop_path == pytest.approx(0.1)
    with pytest.raises(MotionMAEError, match=f"vit_{size}: a model has no field 'frame'"):
        getattr(motionmae, f"vit_{size}")(frame=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    list(write_videos(folder, "train", 1, seed=0, frames=12, size=24))
    return folder


def test_clips_are_an_ordinary_data_set_that_a_plain_loader_takes(folder):
    dataset = motionmae.open_clips(folder, 4, 16, stride=2, scales=(1.0,))
    sample = dataset[3]
    assert (sample["clip"].shape, sample["clip"].dtype, sample["index"]) == ((3, 5, 16, 16), torch.uint8, 3)
    assert torch.equal(dataset[3 - len(dataset)]["clip"], dataset[(0, 3)][0]["clip"])
    assert torch.equal(sample["clip"], dataset[3]["clip"])
    assert len(list(dataset)) == len(dataset) == 8
    assert dataset[3]["label"] == sorted(path.parent.name for path in dataset.files).index(dataset.files[3].parent.name)
    with pytest.raises(IndexError, match="video 8 was asked for, there are 8"):
        dataset[8]
    dataset.set_epoch(1)
    assert dataset[3]["key"] == dataset[(1, 3)][0]["key"] != sample["key"]


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_are_those_of_a_run_whoever_reads_them(folder, workers):
    """The batches of a plain loader and of the project's own, over two epochs; the workers live through both."""
    dataset = motionmae.open_clips(folder, 4, 16, after=0, seed=3)
    passes = DataLoader(
        dataset, 4, sampler=motionmae.Epochs(dataset), num_workers=workers, persistent_workers=workers > 0
    )
    plain = [batch for _ in range(2) for batch in passes]
    own = itertools.islice(loader(dataset, Order(8, 4, 4, 3), Data(workers=0), False), 4)
    for ours, theirs in zip(own, plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_objective_takes_a_batch_by_its_names_and_gives_the_same_loss():
    torch.manual_seed(0)
    objective = motionmae.Reconstruction(motionmae.MotionMAE(MODEL), Mask(), Target(), Loss())
    batch = {"clip": torch.randint(0, 256, (2, 3, 5, 16, 16)).byte(), "key": torch.tensor([5, 7])}
    whole = objective(batch)
    assert whole["loss"].requires_grad
    assert all(torch.equal(value, objective(**batch)[name]) for name, value in whole.items())
    assert torch.equal(objective(**batch, labels=torch.tensor([0, 1]))["loss"], whole["loss"])
    torch.manual_seed(1)
    drawn = [objective(clip=batch["clip"])["loss"] for _ in range(2)]
    assert drawn[0] != drawn[1]
    torch.manual_seed(1)
    assert torch.equal(objective(clip=batch["clip"])["loss"], drawn[0])
    with pytest.raises(MotionMAEError, match="a batch has a clip"):
        objective(key=batch["key"])


@torch.no_grad()
def test_encode_pools_the_tokens_of_a_layer_and_dense_gives_them_at_their_places(encoder):
    tokens = encoder(clip())
    assert encoder.width == 24
    assert encoder.grid(clip()) == (2, 2, 2)
    torch.testing.assert_close(encoder.encode(clip()), tokens.mean(1))
    torch.testing.assert_close(encoder.encode(clip(), pool="time")[:, 24:], tokens[:, 4:].mean(1))
    assert torch.equal(encoder.encode(clip(), 1, "none"), encoder(clip(), layers=(1,))[0])
    assert torch.equal(encoder.dense(clip(), 3)[:, 1, 0, 1], tokens[:, 5])
    assert torch.equal(encoder.dense(clip()).flatten(1, 3), encoder(clip(), layers=(1,))[0])


@torch.no_grad()
def test_encode_takes_several_layers_in_the_order_asked_and_a_path(encoder, folder):
    last, first = encoder.encode(clip(), layers=(3, 1))
    assert torch.equal(last, encoder.encode(clip(), 3))
    assert torch.equal(first, encoder.encode(clip(), layers=1))
    path = sorted(folder.rglob("*.mp4"))[0]
    for every in ("clip", "0.5s", "video"):
        whole = motionmae.embed(encoder, path, every, layers=(1, 3)).vectors
        assert torch.equal(encoder.encode(path, every=every), whole[3])
        assert torch.equal(encoder.encode(str(path), (1,), every=every)[0], whole[1])
    assert torch.equal(encoder.encode(path, pool="none"), motionmae.embed(encoder, path, pool="none").vector)
    with pytest.raises(MotionMAEError, match="every='1s': is of a video's path"):
        encoder.encode(clip(), every="1s")
    with pytest.raises(MotionMAEError, match="layers 9: the encoder has the layers 0 to 3"):
        encoder.encode(path, 9)


def test_an_encoder_that_was_loaded_cuts_clips_as_its_run_did(encoder, folder, tmp_path):
    path, file = sorted(folder.rglob("*.mp4"))[0], tmp_path / "encoder.safetensors"
    made_with = {"model": asdict(encoder.config), "data": asdict(Data(path="secret", stride=1))}
    motionmae.save(file, encoder, made_with)
    loaded = motionmae.load(file)
    rows = motionmae.embed(file, path).rows
    assert motionmae.embed(loaded, path).rows == rows != motionmae.embed(encoder, path).rows
    motionmae.save(tmp_path / "again.safetensors", loaded)
    again = motionmae.load(tmp_path / "again.safetensors")
    assert motionmae.embed(again, path).rows == rows
    assert "path" not in again.made_with["data"]
    with motionmae.open_video(path) as video:
        assert [(start, end) for start, end, _ in video.clips(loaded)] == [(row.start, row.end) for row in rows]
        vectors = torch.cat([loaded.encode(clip) for _, _, clip in video.clips(loaded)])
        torch.testing.assert_close(vectors, loaded.encode(path))
        (*_, last) = video.clips(frames=4, size=16, stride=2, every="0.5s")
        assert last.clip.shape == (1, 3, 4, 16, 16)
        assert last.clip.dtype == torch.uint8
        assert last.end == float(video.duration)
        assert video.rate == 12
        with pytest.raises(MotionMAEError, match=r"views\.frames 3 must be a positive multiple"):
            next(video.clips(frames=3))


def test_what_is_saved_is_loaded_again_on_the_device_and_in_the_dtype_asked(encoder, tmp_path):
    motionmae.save(tmp_path / "encoder.safetensors", encoder)
    again = motionmae.load(tmp_path / "encoder.safetensors")
    assert torch.equal(again.encode(clip()), encoder.encode(clip()))
    assert not again.training
    half = motionmae.load(tmp_path / "encoder.safetensors", device="cpu", dtype=torch.bfloat16)
    assert half(clip()).dtype == torch.bfloat16
    torch.testing.assert_close(half.encode(clip()), encoder.encode(clip()), atol=0.05, rtol=0.05)
    autoencoder = motionmae.MotionMAE(MODEL)
    motionmae.save(tmp_path / "autoencoder.safetensors", autoencoder)
    whole = motionmae.load_autoencoder(tmp_path / "autoencoder.safetensors")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in autoencoder.state_dict().items())
    assert not whole.training
    classifier = motionmae.Classifier(MODEL, ("left", "right")).eval()
    motionmae.save(tmp_path / "classifier.safetensors", classifier)
    found = motionmae.load_classifier(tmp_path / "classifier.safetensors")
    assert (found.names, found.training) == (("left", "right"), False)
    with torch.no_grad():
        assert torch.equal(found(clip()), classifier(clip()))
    with pytest.raises(MotionMAEError, match="without a classifier"):
        motionmae.load_classifier(tmp_path / "encoder.safetensors")
    with pytest.raises(MotionMAEError, match="a Linear is no encoder"):
        motionmae.save(tmp_path / "linear.safetensors", torch.nn.Linear(1, 1))


def test_an_opened_video_has_frames_by_number_and_by_the_second(folder):
    with motionmae.open_video(sorted(folder.rglob("*.mp4"))[0]) as video:
        assert len(video) == 12
        assert video.read(video.at([0.0, float(video.duration)])).shape == (2, 24, 24, 3)
