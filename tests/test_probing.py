"""Probes against scikit-learn on the same features, slow references, and what they must be able to see."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import motionmae
from motionmae.config import Compute, Model, Probe, ProbeData, Viewing
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.evaluation import metrics, probing
from motionmae.evaluation.probes import Fold, leave_out, measure
from motionmae.inference.embedding import fingerprint
from motionmae.models.attentive import AttentiveHead, read_head
from motionmae.models.encoder import VideoEncoder
from motionmae.models.unlearned import Pixels
from motionmae.models.weights import save
from motionmae.tasks import probe
from motionmae.video.writing import write_video

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)


def blobs(count: int, classes: int = 4, width: int = 12, spread: float = 1.0, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + spread * torch.randn(count, width, generator=random), labels


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learns_with_the_same_weights(k):
    sklearn = pytest.importorskip("sklearn.neighbors")
    (train, labels), (test, _) = blobs(120), blobs(60, seed=1)
    theirs = sklearn.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    theirs.fit(train.double().numpy(), labels.numpy())
    ours = probing.knn(train.double(), labels, test.double(), k, 0.07)
    ours = ours / ours.sum(1, keepdim=True)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(test.double().numpy()), atol=1e-9)


def test_logistic_regression_equals_scikit_learns_at_the_same_penalty():
    sklearn = pytest.importorskip("sklearn.linear_model")
    (train, labels), (test, _) = blobs(200, spread=2.0), blobs(80, spread=2.0, seed=1)
    penalty = 1e-2
    ours = probing.linear(train, labels, test, penalty, steps=500).softmax(1)
    a, b = probing.standardise(train, test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sklearn.LogisticRegression(C=1 / (2 * penalty * len(train)), tol=1e-8, max_iter=5000)
        theirs.fit(a.double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(b.double().numpy()), atol=2e-3)


def test_the_linear_probe_without_decay_nears_scikit_learns_logistic_regression():
    sklearn = pytest.importorskip("sklearn.linear_model")
    (train, labels), (test, answers) = blobs(400, spread=2.0), blobs(400, spread=2.0, seed=1)
    theirs = sklearn.LogisticRegression(C=1e6, max_iter=5000).fit(train.numpy(), labels.numpy())
    wanted = theirs.score(test.numpy(), answers.numpy())
    for batch_norm in (False, True):
        scores = probing.linear_sweep(train, labels, test, (0.1,), batch_norm, 100, 0, batch=100)[0.1]
        assert abs(probing.accuracy(scores, answers) - wanted) < 0.03
        assert (scores.argmax(1).numpy() == theirs.predict(test.numpy())).mean() > 0.95


@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_rate_of_a_sweep_gives_what_it_gives_alone_and_what_autograd_gives(batch_norm):
    (train, labels), (test, _) = blobs(60), blobs(20, seed=1)
    rates = (0.01, 0.1, 1.0)
    swept = probing.linear_sweep(train, labels, test, rates, batch_norm, 5, 3, batch=16)
    for rate in rates:
        alone = probing.linear_sweep(train, labels, test, (rate,), batch_norm, 5, 3, batch=16)[rate]
        torch.testing.assert_close(swept[rate], alone)
    torch.testing.assert_close(swept[0.1], reference(train, labels, test, 0.1, batch_norm, 5, 3, 16))


def reference(train, labels, test, rate, batch_norm, epochs, seed, batch):
    """The same probe with PyTorch's own layers, optimiser and schedule."""
    random = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(train.shape[1], 4)
    linear.weight.data = torch.randn(train.shape[1], 4, generator=random).mul(0.01).T.contiguous()
    linear.bias.data.zero_()
    norm = torch.nn.BatchNorm1d(train.shape[1], eps=1e-6, affine=False) if batch_norm else torch.nn.Identity()
    if batch_norm:
        norm.running_mean, norm.running_var = train.mean(0), train.var(0, correction=0)
    model = torch.nn.Sequential(norm, linear)
    steps = len(train) // batch * epochs
    optimizer = torch.optim.SGD(linear.parameters(), rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, at = torch.empty(0, dtype=torch.int64), 0
    for _ in range(steps):
        if at + batch > len(order):
            order, at = torch.randperm(len(train), generator=random), 0
        chosen, at = order[at : at + batch], at + batch
        if batch_norm:  # PyTorch's running variance is unbiased, the sweep's is not
            kept = norm.running_var.clone()
        optimizer.zero_grad()
        F.cross_entropy(model(train[chosen]), labels[chosen]).backward()
        if batch_norm:
            norm.running_var = torch.lerp(kept, train[chosen].var(0, correction=0), 0.1)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return model.eval()(test)


def test_probes_reproduce_to_the_digit_under_a_seed():
    (train, labels), (test, _) = blobs(60), blobs(20, seed=1)
    tokens, others = train.unflatten(1, (3, 4)), test.unflatten(1, (3, 4))
    for seed in (0, 1):
        one, two = (probing.linear_sweep(train, labels, test, (0.1,), True, 3, seed)[0.1] for _ in range(2))
        assert torch.equal(one, two)
        one, two = (probing.attentive_sweep(tokens, labels, others, 2, (1e-3,), 3, seed)[1e-3] for _ in range(2))
        assert torch.equal(one, two)


def test_the_attentive_probe_finds_the_one_token_that_tells_where_the_mean_cannot():
    """The class is in the token that is marked; another, unmarked, token says another class."""

    def tokens(count, seed):
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 4, (count,), generator=random)
        x = torch.randn(count, 6, 16, generator=random) * 0.1
        places = torch.rand(count, 6, generator=random).argsort(1)
        rows = torch.arange(count)
        x[rows, places[:, 0], labels] += 2
        x[rows, places[:, 0], 8] += 2
        x[rows, places[:, 1], torch.randint(0, 4, (count,), generator=random)] += 2
        return x, labels

    (train, labels), (test, answers) = tokens(400, 0), tokens(200, 1)
    seen = probing.attentive_sweep(train, labels, test, 2, (3e-3,), 50, 0)[3e-3]
    mean = probing.linear(train.mean(1), labels, test.mean(1))
    assert probing.accuracy(seen, answers) > 0.9
    assert probing.accuracy(mean, answers) < 0.8


def test_attention_equals_a_sum_written_out():
    torch.manual_seed(0)
    head, tokens = AttentiveHead(8, 2, 3), torch.randn(2, 5, 8)
    with torch.no_grad():
        found = head(tokens)
        keys, values = head.keys_values(head.norm1(tokens)).chunk(2, dim=2)
        x = head.query.expand(2, -1).clone()
        for part in (slice(0, 4), slice(4, 8)):
            weight = (keys[:, :, part] @ head.query[part] / 2).softmax(1)
            x[:, part] += (weight[:, :, None] * values[:, :, part]).sum(1)
        x = x + head.mlp(head.norm2(x))
        torch.testing.assert_close(found, head.linear(head.norm3(x)))


def test_held_out_rows_partition_and_hold_every_class():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2])
    kept, held = probing.held_out(labels, 0.2, 0)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(14))
    assert set(labels[kept].tolist()) == {0, 1, 2}
    assert [(labels[held] == label).sum().item() for label in range(3)] == [2, 1, 0]


def test_top_k_confusion_and_class_accuracy_equal_scikit_learns():
    sk = pytest.importorskip("sklearn.metrics")
    scores, labels = torch.rand(200, 7, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 7
    for k in (1, 3, 5):
        assert metrics.top_k(scores, labels, k) == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=k))
    table = metrics.confusion(scores.argmax(1), labels, 7)
    assert table.tolist() == sk.confusion_matrix(labels, scores.argmax(1)).tolist()
    mean = metrics.class_accuracy(table).mean().item()
    assert mean == pytest.approx(sk.balanced_accuracy_score(labels, scores.argmax(1)))


def test_a_class_without_examples_has_no_accuracy():
    each = metrics.class_accuracy(metrics.confusion(torch.tensor([0, 0]), torch.tensor([0, 0]), 2))
    assert each[0] == 1
    assert each[1].isnan()


def test_calibration_of_a_hand_made_case():
    """Two videos at 0.9, one right; one at 0.6, right: (2 x |0.9 - 0.5| + 1 x |0.6 - 1|) / 3."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    error, bins = metrics.calibration(probabilities, torch.tensor([0, 1, 1]), bins=10)
    assert error == pytest.approx((2 * 0.4 + 0.4) / 3, abs=1e-6)
    assert [count for _, _, count in bins] == [1, 2]


@pytest.fixture
def settings(tmp_path):
    for split, count, seed in (("train", 6, 0), ("test", 3, 50)):
        for motion in ("left", "right", "grow"):
            (tmp_path / split / motion).mkdir(parents=True)
            for index in range(count):
                frames = render(seed + index, motion, 8, 32).frames
                write_video(tmp_path / split / motion / f"{index}.mp4", frames, 12)
    torch.manual_seed(0)
    save(
        tmp_path / "encoder.safetensors",
        torch.nn.ModuleDict({"encoder": VideoEncoder(SMALL)}),
        {"model": asdict(SMALL)},
    )
    return Probe(
        str(tmp_path / "encoder.safetensors"),
        data=ProbeData(path=str(tmp_path / "train"), test=str(tmp_path / "test")),
        views=Viewing(clips=1, crops=1, stride=2),
        compute=Compute(device="cpu", workers=0),
        epochs=10,
        out=str(tmp_path / "probe"),
    )


def test_probe_fits_all_kinds_reuses_its_features_and_says_the_same_again(settings, tmp_path, capsys):
    probe.run(settings)
    first = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert set(first["probes"]) == set(settings.kinds)
    assert set(first["probes"]["linear"]) == {"mean"}
    assert (first["train"], first["test"]) == (18, 9)
    assert "features of 27 videos" in capsys.readouterr().out
    head = read_head(tmp_path / "probe" / "attentive.safetensors", fingerprint(motionmae.load(settings.model)))
    tokens = probe.on_disk(tmp_path / "probe" / "features.tokens.npy")[18:].float()  # of the test
    with torch.no_grad():
        right = (head(tokens).argmax(1) == torch.arange(3).repeat_interleave(3)).float().mean().item()
    assert right == pytest.approx(first["probes"]["attentive"]["tokens"]["top1"]), "the head that the table tells of"
    probe.run(settings)
    assert "features of" not in capsys.readouterr().out
    assert json.loads((tmp_path / "probe" / "probe.json").read_text()) == first
    probe.run(replace(settings, untrained=True, seed=5))  # other weights, other features
    assert "features of 27 videos" in capsys.readouterr().out


def test_features_are_the_encoders_tokens(settings, tmp_path):
    from motionmae import load
    from motionmae.inference import views as views_of
    from motionmae.runtime import Runtime

    views = views_of.settle(settings.views, {}, SMALL)
    files = sorted((tmp_path / "test").rglob("*.mp4"))
    encoder, here = load(settings.model), Runtime(torch.device("cpu"), None)
    found = probe.kept_features(encoder, files, views, settings, here, tmp_path / "f.safetensors")
    with torch.no_grad():
        tokens = encoder(torch.stack([views_of.as_views(files, views)[at][0]["clip"] for at in range(len(files))]))
    torch.testing.assert_close(found["tokens"].float(), tokens, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(found["mean"], tokens.mean(1), atol=1e-5, rtol=1e-5)
    config = replace(settings, pool=("time", "grid"), kinds=("knn",))
    found = probe.kept_features(encoder, files, views, config, here, tmp_path / "f.safetensors")
    assert set(found) == {"mean", "time", "grid"}  # the old file had none of the last two: it is made again
    torch.testing.assert_close(found["time"][:, 1], tokens[:, 4:].mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["grid"], tokens, atol=1e-5, rtol=1e-5)  # here a quarter is one token


def test_tokens_stay_on_the_disk_and_rows_of_them_probe_as_copies_do(settings, tmp_path):
    table = np.lib.format.open_memmap(tmp_path / "t.npy", "w+", np.float16, (9, 4, 24))
    table[:] = np.random.default_rng(0).normal(size=table.shape)
    table.flush()
    found, labels = probe.on_disk(tmp_path / "t.npy"), torch.arange(6) % 3
    rows, test = torch.tensor([8, 0, 3, 1, 5, 7]), torch.tensor([2, 4, 6])
    lazy = probing.attentive_sweep(probing.Rows(found, rows), labels, probing.Rows(found, test), 3, (1e-3,), 2, 0, 4)
    whole = probing.attentive_sweep(found[rows].float(), labels, found[test].float(), 3, (1e-3,), 2, 0, 4)
    assert torch.equal(lazy[1e-3], whole[1e-3])
    few = replace(settings, kinds=("attentive",), epochs=5)
    probe.run(few)
    assert np.load(tmp_path / "probe/features.tokens.npy", mmap_mode="r").shape == (27, 8, 24)
    (tmp_path / "probe/features.tokens.npy").unlink()
    first = (tmp_path / "probe/probe.json").read_text()
    probe.run(few)  # without its tokens a file of features is made again
    assert (tmp_path / "probe/probe.json").read_text() == first


def test_a_disk_without_room_for_the_tokens_is_told_before_they_are_computed(settings, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr(probe, "watch", None)
    with pytest.raises(MotionMAEError, match=r"tokens\.npy: could not be written \(No space left"):
        probe.run(replace(settings, kinds=("attentive",)))
    assert "GB of tokens for the attentive probe" in capsys.readouterr().out
    assert not list((tmp_path / "probe").glob("features*"))


def test_knn_in_chunks_is_knn(monkeypatch):
    (train, labels), (test, _) = blobs(120), blobs(60, seed=1)
    whole = probing.knn(train, labels, test)
    monkeypatch.setattr(probing, "CHUNK", 120 * 7)
    torch.testing.assert_close(probing.knn(train, labels, test), whole)


def test_quarters_are_means_over_a_slots_quarters():
    tokens = torch.randn(2, 3, 4, 6, 5)
    found = probe.quarters(tokens)
    assert found.shape == (2, 12, 5)
    torch.testing.assert_close(found[:, 4 * 1 + 2], tokens[:, 1, 2:, :3].mean((1, 2)))  # slot 1, below, left


def test_change_is_each_places_deviation_over_time_averaged_over_the_views(settings, tmp_path):
    from motionmae import load
    from motionmae.inference import views as views_of
    from motionmae.runtime import Runtime

    config = replace(settings, pool=("change",), kinds=("knn",), views=Viewing(clips=2, crops=1, stride=2))
    views = views_of.settle(config.views, {}, SMALL)
    files = sorted((tmp_path / "test").rglob("*.mp4"))
    encoder, here = load(settings.model), Runtime(torch.device("cpu"), None)
    found = probe.kept_features(encoder, files, views, config, here, tmp_path / "f.safetensors")
    with torch.no_grad():
        clips = torch.stack([torch.stack([v["clip"] for v in views_of.as_views(files, views)[at]]) for at in range(9)])
        slots = encoder(clips.flatten(0, 1)).view(9, 2, 2, 4, 24)
    torch.testing.assert_close(
        found["change"], (slots[:, :, 0] - slots[:, :, 1]).abs().mean(1) / 2, atol=1e-5, rtol=1e-5
    )
    assert set(found) == {"mean", "change"}


def test_a_video_of_each_class_alone_leaves_none_to_choose_by_and_more_neighbours_than_videos_are_all(
    settings, tmp_path
):
    few = replace(settings, kinds=("knn", "linear"), neighbours=(100,))
    probe.run(replace(few, data=replace(few.data, fraction=0.1)))
    found = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert found["train"] == 3
    assert found["probes"]["knn"]["mean"]["setting"] == 3
    assert found["probes"]["linear"]["mean"]["setting"] == sorted(few.rates)[len(few.rates) // 2]


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("kinds", {"kinds": ()}),
        ("neighbours", {"neighbours": (0, 1)}),
        ("rates", {"rates": (0.0,)}),
        ("temperature", {"temperature": 0.0}),
        ("epochs", {"epochs": 0}),
        ("penalties", {"penalties": (-1.0,)}),
        ("pool", {"pool": ()}),
    ],
)
def test_settings_that_fit_no_probe_are_refused_by_name(option, changes):
    with pytest.raises(MotionMAEError, match=f"--{option}"):
        probe.check(replace(Probe("model"), **changes))


def test_a_video_in_a_shard_changes_with_its_shard(tmp_path):
    from motionmae.tasks.probe import stamp

    (tmp_path / "a.tar").write_bytes(b"123")
    video = tmp_path / "a.tar::512+9::b.mp4"
    assert stamp(video)[:2] == (str(video), 3)
    (tmp_path / "c.mp4").write_bytes(b"1")
    assert stamp(tmp_path / "c.mp4")[:2] == (str(tmp_path / "c.mp4"), 1)


def test_each_group_is_tested_once_by_probes_that_never_saw_it():
    groups = [*"aabbbcdde"]
    folds = leave_out(groups)
    assert sorted(torch.cat([fold.test for fold in folds]).tolist()) == list(range(9))
    for fold in folds:
        seen = [{groups[row] for row in rows.tolist()} for rows in fold]
        assert all(seen)
        assert not seen[0] & seen[1]
        assert not (seen[0] | seen[1]) & seen[2]
        assert sum(map(len, fold)) == 9


def test_the_chosen_setting_is_that_of_the_held_rows_never_the_tests_best():
    """The features of the test's rows are those of another class: what is best there is worst on the held rows."""
    (found, labels), held, test = blobs(40, spread=0.3), torch.arange(20, 30), torch.arange(30, 40)
    found[test] = -found[test]
    config = Probe("m", kinds=("knn",), neighbours=(1, 20))
    row = measure(config, {"mean": found}, labels, [Fold(torch.arange(20), held, test)])["knn"]["mean"]
    wanted = probing.choose({k: probing.knn(found[:20], labels[:20], found[held], k) for k in (1, 20)}, labels[held])
    assert row["setting"] == wanted
    assert row["right"].count("1") == round(10 * row["top1"])


@pytest.mark.parametrize("model", ["pixels", "energy"])
def test_pixels_and_their_changes_are_probed_as_an_encoder_is(settings, tmp_path, model):
    views = replace(settings.views, frames=4, size=16)
    found = probe.run(replace(settings, model=model, kinds=("logistic",), pool=("mean", "time"), views=views))
    assert set(found["probes"]["logistic"]) == {"mean", "time"}


def test_energy_is_the_absolute_difference_of_adjacent_frames():
    clip = torch.rand(2, 3, 4, 48, 48)
    frames, energy = (Pixels(4, 48, change)(clip) for change in (False, True))
    shrunk = clip.unflatten(4, (24, 2)).unflatten(3, (24, 2)).mean((4, 6))
    torch.testing.assert_close(frames[:, 1], shrunk[:, :, 1].flatten(1))
    wanted = (clip[:, :, 3] - clip[:, :, 2]).abs().unflatten(3, (24, 2)).unflatten(2, (24, 2)).mean((3, 5))
    torch.testing.assert_close(energy[:, 2], wanted.flatten(1))
    assert energy.shape == (2, 3, 24 * 24 * 3)


def test_a_list_names_what_to_choose_by_and_what_to_leave_out(settings, tmp_path):
    rows = [
        (path, path.parent.name, path.parents[1].name, str(int(path.stem) % 3))
        for path in sorted(tmp_path.rglob("*.mp4"))
    ]
    lines = ["path,label,split,person", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    quick = replace(settings, kinds=("logistic",), pool=("time",))
    data = ProbeData(path=str(tmp_path / "list.csv"), split="train", val_split="test", test_split="train+test")
    found = probe.run(replace(quick, data=data))
    assert (found["train"], found["test"]) == (27, 27)
    found = probe.run(replace(quick, data=ProbeData(path=data.path, leave="person")))
    assert (found["train"], found["test"]) == (18, 27)
    assert len(found["probes"]["logistic"]["time"]["right"]) == 27
    with pytest.raises(MotionMAEError, match="column 'place'"):
        probe.run(replace(quick, data=ProbeData(path=data.path, leave="place")))
