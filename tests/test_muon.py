"""Muon against torch's own and against its definition; skipped steps, stacked matrices, ranks, and what it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import runs
import torch
from torch import nn

from motionmae.config import Decoder, Loss, Mask, Mix, Model, Optim, Run, Target
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.classifier import Classifier
from motionmae.objectives.classification import Classification
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.training.muon import Muon, orthogonalised
from motionmae.training.optim import optimiser, parameter_groups, plan

SMALL = Model(4, 16, (2, 8, 8), 24, 3, 3, positions="learned", decoder=Decoder("separate", 12, 1, 2))
SETTINGS = Optim(kind="muon", lr=0.1, lr_hidden=0.02, weight_decay=0.1)


def group(weights: list[nn.Parameter], stacked: int = 1, **more) -> dict:
    return {"params": weights, "lr": 0.02, "weight_decay": 0.1, "scale": 1.0, "matrices": stacked, **more}


def made(groups: list[dict]) -> Muon:
    vector = nn.Parameter(torch.zeros(2))  # AdamW's
    return Muon([*groups, {"params": [vector], "weight_decay": 0.0, "scale": 1.0}], 0.1, (0.9, 0.95))


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96)])
def test_orthogonalised_matrices_keep_their_singular_vectors_and_have_values_near_one(shape):
    matrix = draws(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ orthogonalised(matrix) @ right.mT
    values = inner.diagonal()
    assert values.median() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(inner, torch.diag(values), rtol=0, atol=0.03)


def test_nothing_to_orthogonalise_is_nothing():
    assert torch.equal(orthogonalised(torch.zeros(4, 4)), torch.zeros(4, 4))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon from 2.9 on")
@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96)])
def test_it_steps_as_torchs_muon(shape):
    ours, theirs = nn.Parameter(draws(*shape)), nn.Parameter(draws(*shape))
    left = made([group([ours])])
    right = torch.optim.Muon([theirs], 0.02, weight_decay=0.1, momentum=0.95)
    for step in range(1, 6):
        for value, optimizer in ((ours, left), (theirs, right)):
            value.grad = draws(*shape, seed=step)
            optimizer.step()
        torch.testing.assert_close(ours, theirs)
        assert torch.equal(left.state[ours]["momentum"], right.state[theirs]["momentum_buffer"])


def test_stacked_matrices_step_as_each_alone():
    stacked, alone = nn.Parameter(draws(24, 8)), [nn.Parameter(part.clone()) for part in draws(24, 8).chunk(3)]
    gradient = draws(24, 8, seed=1)
    stacked.grad = gradient
    for value, part in zip(alone, gradient.chunk(3), strict=True):
        value.grad = part
    made([group([stacked], 3)]).step()
    made([group(alone)]).step()
    torch.testing.assert_close(stacked.detach(), torch.cat([value.detach() for value in alone]))


def test_matrices_inside_blocks_are_hidden_and_nothing_else_is():
    objective = Reconstruction(MotionMAE(SMALL), Mask("random", 0.5), Target(), Loss())
    hidden = {id(value): count for value, count in objective.hidden_matrices()}
    for name, value in objective.named_parameters():
        inside = "blocks." in name and value.ndim == 2
        assert hidden.get(id(value), 0) == (0 if not inside else 3 if "qkv" in name else 1), name
    classifier = Classification(Classifier(SMALL, ("a", "b")), Mix())
    hidden = {id(value) for value, _ in classifier.hidden_matrices()}
    assert {name for name, value in classifier.named_parameters() if id(value) in hidden} == {
        name for name, value in classifier.named_parameters() if "blocks." in name and value.ndim == 2
    }


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_its_rate_is_that_asked_for_at_the_peak_and_falls_by_layer(layer_decay):
    classifier = Classification(Classifier(SMALL, ("a", "b")), Mix())
    rates = {
        id(value): 0.025 * group["scale"]
        for group in parameter_groups(classifier, SETTINGS, 0.025, layer_decay)
        for value in group["params"]
    }
    for number, block in enumerate(classifier.encoder.blocks):
        scale = layer_decay ** (3 - number)
        assert rates[id(block.attention.qkv.weight)] == pytest.approx(0.02 * scale)
        assert rates[id(block.attention.q_bias)] == pytest.approx(0.025 * scale)
    assert rates[id(classifier.head.linear.weight)] == pytest.approx(0.025)


@pytest.mark.parametrize("first", [0, 2])
def test_a_step_that_is_not_finite_changes_no_bit(first):
    toy = runs.Toy(0.0)
    optimizer = optimiser(toy, SETTINGS, 0.1)
    for step in range(first + 1):
        toy.zero_grad()
        toy(runs.clips(step, range(8), 8))["loss"].backward()
        if step == first:
            before = [value.detach().clone() for value in toy.parameters()]
            kept = {k: v.clone() for value in toy.parameters() for k, v in optimizer.state[value].items()}
            for value in toy.parameters():
                value.grad = torch.full_like(value, float("nan"))
            optimizer.found_inf = torch.ones(())
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, toy.parameters(), strict=True))
    after = {k: v for value in toy.parameters() for k, v in optimizer.state[value].items()}
    assert all(torch.equal(value, after[name]) for name, value in kept.items())
    optimizer.found_inf = torch.zeros(())
    toy.zero_grad()
    toy(runs.clips(9, range(8), 8))["loss"].backward()
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, toy.parameters(), strict=True))


@pytest.mark.parametrize("half", [False, True])
def test_a_run_skips_a_bad_step_and_learns_on(tmp_path, half):
    def spoil(step, batch):
        return batch | {"x": batch["x"] * float("nan")} if step == 5 else batch

    runtime = replace(runs.CPU, dtype=torch.float16) if half else runs.CPU
    config = runs.toy_config(tmp_path, kind="muon", lr_hidden=0.05, log_every=1, clip=1.0)
    runs.fit_toy(config, runs.Toy(0.0), spoil, runtime)
    lines = runs.readings(tmp_path)
    assert [line["skipped"] for line in lines] == [float(half)] + 4 * [0.0] + [1.0] + 6 * [0.0]  # fp16 begins too high
    assert lines[-1]["loss"] < lines[1]["loss"]
    assert all(value.isfinite().all() for value in runs.newest(tmp_path).values())


@pytest.mark.parametrize(("named", "changes"), [
    ("optim.lr must", {"lr": 0.0}),
    ("optim.lr-hidden must", {"lr_hidden": 0.0}),
    ("optim.lr-hidden must", {"lr_hidden": 1.5}),
    ("optim.lr-hidden must", {"lr_hidden": float("nan")}),
    ("optim.momentum must", {"momentum": 1.0}),
])  # fmt: skip
def test_numbers_outside_their_range_are_named(named, changes):
    with pytest.raises(MotionMAEError, match=named):
        plan(replace(SETTINGS, **changes), Run(), 1024, 1, 1)


def test_its_rate_does_not_grow_with_the_batch():
    for batch in (256, 1024):
        peak = plan(replace(SETTINGS, batch=batch), Run(), 4096, 1, 1).lr
        hidden = next(g for g in parameter_groups(runs.Toy(), SETTINGS, peak) if "matrices" in g)
        assert hidden["scale"] * peak == pytest.approx(0.02)


def test_its_momentum_is_in_the_checkpoint(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path, kind="muon"))
    names = set(runs.newest(tmp_path))
    assert {"optimizer/blocks.0.weight/momentum", "optimizer/enter.weight/exp_avg"} <= names
    assert not {"optimizer/blocks.0.weight/exp_avg", "optimizer/enter.weight/momentum"} & names
