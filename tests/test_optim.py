"""The optimiser and its schedule against slow references written out here."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch
from hypothesis import given
from hypothesis import strategies as st

from motionmae.config import Decoder, Mix, Model, Optim, Run
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.classifier import Classifier
from motionmae.objectives.classification import Classification
from motionmae.training import loop, optim
from motionmae.training.optim import average, learning_rate, move_average, optimiser, parameter_groups, plan, told

SMALL = Model(4, 16, (2, 8, 8), 24, 3, 3, positions="learned", decoder=Decoder("shared", 12, 1, 2))


def test_adamw_takes_the_published_steps():
    """Loshchilov and Hutter, 2017, arXiv 1711.05101, algorithm 2, number by number in float64."""
    toy, settings = runs.Toy(0.0).double(), Optim(lr=0.05, weight_decay=0.1, betas=(0.9, 0.95))
    optimizer = optimiser(toy, settings, 0.05)
    weights = {name: value.detach().clone() for name, value in toy.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    second = {name: torch.zeros_like(value) for name, value in weights.items()}
    for step in range(1, 6):
        batch = {name: value.double() for name, value in runs.clips(step, range(8), 8).items()}
        optimizer.zero_grad()
        toy(batch)["loss"].backward()
        for name, value in toy.named_parameters():
            gradient = value.grad
            assert gradient is not None
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            moved = (first[name] / (1 - 0.9**step)) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
            decay = 0.1 if value.ndim > 1 else 0.0
            weights[name] = weights[name] - 0.05 * (moved + decay * weights[name])
        optimizer.step()
        for name, value in toy.named_parameters():
            torch.testing.assert_close(value.detach(), weights[name], rtol=1e-9, atol=1e-12)


def test_matrices_alone_decay():
    """Each kind of parameter by its role, as VideoMAE has it: no bias, norm, position or mask token decays."""
    autoencoder = MotionMAE(SMALL)
    decaying = {
        id(value)
        for group in parameter_groups(autoencoder, Optim(), 1.0)
        if group["weight_decay"]
        for value in group["params"]
    }
    for name, value in autoencoder.named_parameters():
        exempt = name.endswith(("bias", "mask_token", "positions.table")) or "norm" in name
        assert (id(value) in decaying) != exempt, name


def test_every_learnt_parameter_is_in_one_group():
    autoencoder = MotionMAE(SMALL)
    autoencoder.encoder.embed.weight.requires_grad_(False)
    for layer_decay, kind in ((1.0, "adamw"), (0.75, "adamw"), (0.75, "muon")):
        members = [
            id(v)
            for group in parameter_groups(autoencoder, Optim(kind=kind), 1.0, layer_decay)
            for v in group["params"]
        ]
        assert sorted(members) == sorted(id(v) for v in autoencoder.parameters() if v.requires_grad)


def test_layers_decay_from_the_head_down():
    """Bao et al., 2021, arXiv 2106.08254: embedding first, then blocks, the head at the full rate."""
    classifier = Classification(Classifier(SMALL, ("a", "b")), Mix())
    groups = parameter_groups(classifier, Optim(), 1.0, 0.5)
    scales = {id(value): group["scale"] for group in groups for value in group["params"]}
    wanted = {"encoder.embed": 0.5**4, "encoder.positions": 0.5**4, "head": 1.0}
    wanted |= {f"encoder.blocks.{block}": 0.5 ** (3 - block) for block in range(3)}
    for name, value in classifier.named_parameters():
        start = next(start for start in wanted if name.startswith(f"{start}."))
        assert scales[id(value)] == pytest.approx(wanted[start]), name


def test_the_scale_multiplies_the_rate_in_the_loop(tmp_path):
    """AdamW's first step is the rate: at layer decay 0.5 the embedding moves by a sixteenth of it."""
    config = runs.toy_config(tmp_path, steps=1, warmup_epochs=0.0, weight_decay=0.0)

    class Sum(Classification):
        def forward(self, batch):
            return {"loss": torch.stack([value.sum() for value in self.parameters()]).sum() * batch["x"].mean().abs()}

    module = Sum(Classifier(SMALL, ("a", "b")), Mix())
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    made = plan(config.optim, config.run, 8, 1, 1)
    loop.fit(module, runs.batches(8, 8), made, runs.CPU, config, layer_decay=0.5)
    for name, scale in {
        "encoder.embed.bias": 1 / 16,
        "encoder.blocks.2.norm1.bias": 1 / 2,
        "head.norm.bias": 1.0,
    }.items():
        moved = (before[name] - dict(module.named_parameters())[name]).detach()
        torch.testing.assert_close(moved, torch.full_like(moved, made.lr * scale), rtol=1e-3, atol=0)


@given(
    steps=st.integers(1, 300),
    share=st.floats(0, 1.5),
    batch=st.sampled_from([1, 64, 256, 2048]),
    peak=st.floats(1e-4, 1),
)
def test_all_three_rates_are_for_256_clips_and_join_in_a_line_and_half_a_cosine(steps, share, batch, peak):
    """A table of all rates, made beforehand, says the same. Start, peak and end are multiplied by batch / 256, as
    VideoMAE's run_mae_pretraining.py does with warmup_lr, lr and min_lr."""
    settings = Optim(
        batch=batch, steps=steps, epochs=10.0, warmup_epochs=10 * share, lr=peak, lr_start=1e-6, lr_end=1e-5
    )
    made = plan(settings, Run(), 8, 1, 1)
    warmup = round(steps * share) if share < 1 else round(steps * 0.1)
    start, top, end = (rate * batch / 256 for rate in (1e-6, peak, 1e-5))
    rising = [start + (top - start) * at / warmup for at in range(warmup)]
    length = steps - warmup
    falling = [end + 0.5 * (top - end) * (1 + math.cos(math.pi * at / length)) for at in range(length)]
    assert [learning_rate(step, made, settings) for step in range(steps)] == pytest.approx(rising + falling)


@pytest.mark.parametrize("warmup", [5.0, 40.0])
def test_a_warmup_no_shorter_than_the_run_is_shortened_to_a_tenth_and_told(warmup):
    settings = Optim(batch=8, epochs=5.0, warmup_epochs=warmup)
    made = plan(settings, Run(), 160, 1, 1)
    assert (made.steps, made.warmup) == (100, 10)
    assert max(learning_rate(step, made, settings) for step in range(100)) == made.lr
    assert f"{warmup:g} epochs (--optim.warmup-epochs) is no shorter than the run of 5; it" in told(made, settings)
    assert "warning" not in told(made, replace(settings, warmup_epochs=4.0))


def test_the_rate_is_given_for_256_clips():
    made = plan(Optim(batch=64, lr=1.5e-4), Run(), 1000, 1, 1)
    assert made.lr == pytest.approx(1.5e-4 / 4)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("micro", [None, 4, 16])
def test_a_plans_numbers_multiply_to_the_batch(ranks, micro):
    made = plan(Optim(batch=32), Run(micro_batch=micro), 1000, 2, ranks)
    assert made.micro * made.accumulation * made.ranks == made.batch == 32
    assert made.steps == 1000 * 2 * 800 // 32


@pytest.mark.parametrize(("settings", "run", "ranks", "named"), [
    (Optim(batch=30), Run(), 4, "--optim.batch 30"),
    (Optim(batch=32), Run(micro_batch=5), 1, "--run.micro-batch 5"),
    (Optim(batch=32), Run(micro_batch=64), 1, "--run.micro-batch 64"),
    (Optim(batch=32, epochs=0.0), Run(), 1, "--optim.epochs"),
])  # fmt: skip
def test_a_batch_that_cannot_be_cut_is_named(settings, run, ranks, named):
    with pytest.raises(MotionMAEError, match=named):
        plan(settings, run, 1000, 1, ranks)


def test_the_running_mean_follows_the_weights():
    toy, settings = runs.Toy(), Optim(ema=0.9)
    mean = average(toy, settings)
    slow = {name: value.detach().double() for name, value in toy.named_parameters()}
    for step in range(40):
        with torch.no_grad():
            for value in toy.parameters():
                value.add_(torch.randn_like(value))
        move_average(mean, toy, settings, step)
        decay = min(0.9, (1 + step) / (10 + step))
        slow = {name: decay * slow[name] + (1 - decay) * v.detach().double() for name, v in toy.named_parameters()}
        for name, value in mean.items():  # at every step: a mean soon forgets how it began
            torch.testing.assert_close(value.double(), slow[name], rtol=1e-5, atol=1e-5)


def test_load_takes_the_running_mean(tmp_path):
    from dataclasses import asdict

    import motionmae
    from motionmae.config import Pretrain
    from motionmae.training.checkpoint import State, save

    autoencoder, settings = MotionMAE(SMALL), Optim(ema=0.9)
    state = State(autoencoder, optimiser(autoencoder, settings, 1.0), torch.amp.GradScaler("cpu", enabled=False), {})
    config = asdict(replace(Pretrain(), model=SMALL))
    save(tmp_path, 1, state, {"config": config}, 2, runs.CPU)
    weight = autoencoder.encoder.embed.weight.detach()
    assert torch.equal(motionmae.load(tmp_path).embed.weight, weight)
    state.average = {name: value + 1 for name, value in average(autoencoder, settings).items()}
    save(tmp_path, 2, state, {"config": config}, 2, runs.CPU)
    assert torch.equal(motionmae.load(tmp_path).embed.weight, weight + 1)
    assert torch.equal(motionmae.load(tmp_path / "checkpoints/step-00000001.safetensors").embed.weight, weight)


def test_a_decay_outside_its_range_is_named():
    with pytest.raises(MotionMAEError, match=r"--optim.ema must be above 0 and below 1, it is 1.5"):
        optim.plan(Optim(ema=1.5), Run(), 8, 1, 1)


def test_the_loops_own_optimiser_is_fused():
    assert optimiser(runs.Toy(), runs.toy_config(Path("x")).optim, 1.0).defaults["fused"]
