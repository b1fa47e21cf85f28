"""Small machines: accumulation, recomputation, compilation and its fallback, and the plan that is said first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import runs
import torch
from torch import nn

from motionmae.config import Decoder, Mask, Model, Optim, Run, Target
from motionmae.config import Loss as Weights
from motionmae.errors import MotionMAEError
from motionmae.library.sources import Videos
from motionmae.models.autoencoder import MotionMAE
from motionmae.objectives.reconstruction import Reconstruction
from motionmae.training import rehearsal
from motionmae.training.optim import plan


@pytest.mark.parametrize(("micro", "kind"), [(1, "adamw"), (2, "adamw"), (4, "adamw"), (2, "muon")])
def test_accumulated_micro_batches_equal_the_big_batch(tmp_path, micro, kind):
    for out, size in (("big", 8), ("small", micro)):
        runs.fit_toy(runs.toy_config(tmp_path / out, micro_batch=size, clip=0.5, kind=kind), runs.Toy(0.0))
    for name, value in runs.newest(tmp_path / "small").items():
        torch.testing.assert_close(value, runs.newest(tmp_path / "big")[name], rtol=1e-5, atol=1e-6)
    for small, big in zip(runs.readings(tmp_path / "small"), runs.readings(tmp_path / "big"), strict=True):
        assert small["loss"] == pytest.approx(big["loss"], rel=1e-5)
        assert small["gradient_norm"] == pytest.approx(big["gradient_norm"], rel=1e-5)


def objective(recompute: bool) -> tuple[Reconstruction, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    autoencoder = MotionMAE(Model(4, 32, (2, 8, 8), 24, 3, 3, decoder=Decoder("shared", 12, 2, 2)))
    autoencoder.recompute(recompute)
    clip = torch.randint(0, 256, (4, 3, 5, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Reconstruction(autoencoder, Mask("random", 0.5), Target(), Weights()), {"clip": clip, "key": torch.arange(4)}


def test_recomputed_activations_give_the_same_gradient_in_less_memory():
    gradients, needed = [], []
    for recompute in (False, True):
        module, batch = objective(recompute)
        weights = sum(value.numel() for value in module.parameters()) * 4
        needed.append(rehearsal.rehearse(module, batch, runs.CPU, warm=False).memory - 4 * weights)
        module(batch)["loss"].backward()
        gradients.append([value.grad for value in module.parameters()])
    assert needed[1] < 0.6 * needed[0]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_rehearsal_changes_nothing():
    module, batch = objective(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = rehearsal.rehearse(module, batch, runs.CPU, warm=True)
    assert found.seconds > 0
    assert runs.same(before, module.state_dict())
    assert all(value.grad is None for value in module.parameters())


def test_expected_memory_grows_by_the_clip_and_counts_the_optimiser():
    module, batch = objective(False)
    weights = sum(value.numel() for value in module.parameters()) * 4
    small, large = (
        rehearsal.rehearse(module, {n: v[:size] for n, v in batch.items()}, runs.CPU, False).memory - 4 * weights
        for size in (1, 4)
    )
    assert 3 * small < large < 4.5 * small


def test_auto_takes_the_largest_micro_batch_that_fits(monkeypatch):
    module, batch = objective(False)
    one, two = (
        rehearsal.rehearse(module, {n: v[:size] for n, v in batch.items()}, runs.CPU, False).memory for size in (1, 2)
    )
    for room, expected in (
        (5, 4),
        (13, 12),
        (1000, 24),
    ):  # clips that the memory has room for, and sizes that divide 24
        monkeypatch.setattr(
            rehearsal, "free_memory", lambda device, r=room: (one + (r - 1) * (two - one) + 1) / rehearsal.ROOM
        )
        assert rehearsal.fitting(module, batch, 24, 1, runs.CPU)[0] == expected
    monkeypatch.setattr(rehearsal, "free_memory", lambda device: 0)
    assert rehearsal.fitting(module, batch, 24, 2, runs.CPU)[0] == 2  # the smallest there is, whole repeats


def test_a_batch_that_does_not_fit_is_named():
    class Greedy(nn.Module):
        def forward(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB")

    with pytest.raises(
        MotionMAEError, match=r"--run.micro-batch: 8 clips at once, for which cpu has no room.*--run.checkpointing"
    ):
        rehearsal.rehearse(Greedy(), runs.clips(0, range(8), 8), runs.CPU, False)


def test_a_compiler_that_fails_is_named_and_done_without(tmp_path, capsys, monkeypatch):
    def broken(module):
        def call(batch):
            raise RuntimeError("no C++ compiler found\nmany more lines")

        stand_in = nn.Module()
        stand_in.forward = call
        return stand_in

    monkeypatch.setattr(torch, "compile", broken)
    runs.fit_toy(runs.toy_config(tmp_path / "a", compile=True))
    assert "--run.compile: goes on without, as compiling failed: RuntimeError: no C++ compiler found\n" in (
        capsys.readouterr().out
    )
    runs.fit_toy(runs.toy_config(tmp_path / "b"))
    assert runs.same(runs.newest(tmp_path / "a"), runs.newest(tmp_path / "b"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_a_compiled_run_learns_the_same(tmp_path, capsys):
    for out, compiled in (("a", True), ("b", False)):
        runs.fit_toy(runs.toy_config(tmp_path / out, compile=compiled), runs.Toy(0.0))
    assert "goes on without" not in capsys.readouterr().out
    for name, value in runs.newest(tmp_path / "a").items():
        torch.testing.assert_close(value, runs.newest(tmp_path / "b")[name], rtol=1e-4, atol=1e-5)


def test_bf16_keeps_the_weights_in_float32(tmp_path):
    toy, _ = runs.fit_toy(runs.toy_config(tmp_path), runtime=replace(runs.CPU, dtype=torch.bfloat16))
    assert {value.dtype for value in toy.parameters()} == {torch.float32}
    assert runs.readings(tmp_path)[-1]["toy_ratio"] < 0.9


def test_the_plan_is_said_before_the_first_step(tmp_path, capsys):
    from motionmae.data.synthetic import render
    from motionmae.tasks.pretrain import fit_videos
    from motionmae.video.writing import write_video

    write_video(tmp_path / "a.mp4", render(0, "left", 8, 16).frames, 12)
    config = runs.pretraining(tmp_path, tmp_path / "run", steps=2)
    config = replace(config, optim=replace(config.optim, batch=4), run=replace(config.run, micro_batch=2))
    fit_videos(config, Videos([tmp_path / "a.mp4"], [], []))
    told = capsys.readouterr().out.splitlines()
    said = [line for line in told if not line.startswith("precision auto: ")]  # of CPUs that have bf16
    assert said[0] == ("1 video, clips of 4 x 16 x 16, 8 tokens: 4 visible, 4 masked (random, 0.5), 4 predicted")
    assert "encoder 0.0 M parameters" in said[1]
    assert said[2].startswith("2 steps of 4 clips = 2 x 2 accumulated x 1 rank, into ")
    assert said[3].startswith("learning rate from 1.56e-08 in 0 steps to 3.13e-03, then down to 1.56e-07: ")
    assert "GiB of memory for each rank" in said[4]
    assert said[5].startswith("step 2/2  0:00 left  loss")
    kept = [line.split("  ", 1)[1] for line in (tmp_path / "run/log.txt").read_text().splitlines()]
    assert told[:-1] == kept[:-1]
    assert kept[-1].startswith(told[-1])  # log.txt has room for more than 80 columns


def test_auto_is_refused_where_weights_are_sharded():
    with pytest.raises(MotionMAEError, match=r"--run.micro-batch auto measures a whole model"):
        plan(Optim(batch=8, steps=3), Run(micro_batch="auto", parallel="fsdp"), 8, 1, 2)


def test_micro_batches_of_auto_are_of_the_plan(tmp_path):
    made = plan(Optim(batch=8, steps=3), Run(micro_batch="auto"), 8, 1, 2)
    assert (made.micro, made.accumulation) == (4, 1)  # the whole share, until it is known what fits
