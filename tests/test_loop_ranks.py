"""Several ranks learn what one rank learns; they stop together, end together, and go on in another number."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

import motionmae
from motionmae import runtime
from motionmae.config import Run
from motionmae.data.loading import Order
from motionmae.data.synthetic import render
from motionmae.errors import MotionMAEError
from motionmae.training import checkpoint, shards
from motionmae.training.parallel import SHARDS_ON_CPU, place
from motionmae.video.writing import write_video

SHARDS = pytest.mark.skipif(not SHARDS_ON_CPU, reason="PyTorch shards on a CPU from 2.13 on")
WAYS = ["ddp", pytest.param("fsdp", marks=SHARDS)]


def toy(config: runs.Config, spoil=None, drop: float = 0.0) -> int:
    """One rank of a run of the toy, or the whole run."""
    here = runtime.start(config.run)
    try:
        with runtime.leaving(here):
            _, done = runs.fit_toy(config, runs.Toy(drop), spoil, here)
    except MotionMAEError as error:
        print(f"motionmae: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if done else 1


def joined(processes, limit: float = 200) -> list[int]:
    for process in processes:
        process.join(limit)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def whole(folder: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's weights, sharded or not."""
    file = checkpoint.found(folder)[-1]
    if file.suffix == ".safetensors":
        return {name: value for name, value in runs.newest(folder).items() if name.startswith("model/")}
    return {name: value for name, value in shards.read(file, {}, {})[0].items() if name.startswith("model/")}


def close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=atol)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    assert toy(runs.toy_config(out, micro_batch=8)) == 0
    return out


@pytest.mark.parametrize("parallel", WAYS)
def test_two_ranks_equal_one_by_muon(tmp_path, parallel):
    """Sharded weights are gathered for the step; a stack of matrices is cut by the ranks, not by the stack."""
    for name, way in (("one", "ddp"), ("two", parallel)):
        config = runs.toy_config(tmp_path / name, kind="muon", clip=1.0, parallel=way)
        assert name == "two" or toy(config) == 0
    log = tmp_path / "log"
    assert joined(runs.ranks(toy, 2, config, log=log)) == [0, 0], Path(f"{log}0").read_text()
    close(whole(tmp_path / "one"), whole(tmp_path / "two"), atol=1e-3)  # a rounding in bfloat16; a step is 1e-2


@pytest.mark.parametrize("micro", [4, 2])
@pytest.mark.parametrize("parallel", WAYS)
def test_two_ranks_equal_one_with_the_joined_batch(tmp_path, alone, parallel, micro):
    config = runs.toy_config(tmp_path, micro_batch=micro, parallel=parallel)
    assert joined(runs.ranks(toy, 2, config, log=tmp_path / "log")) == [0, 0], (tmp_path / "log0").read_text()
    close(whole(tmp_path), whole(alone))
    for ours, theirs in zip(runs.readings(tmp_path), runs.readings(alone), strict=True):
        for name in ("loss", "toy", "gradient_norm", "lr"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert (tmp_path / "log1").read_text() == ""  # rank 0 alone speaks


def test_two_ranks_pretrain_as_one_does(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(4):
        write_video(videos / f"{index}.mp4", render(index, "left", 8, 16).frames, 12)
    configs = [runs.pretraining(videos, tmp_path / name, steps=6) for name in ("one", "two")]
    assert joined([runs.start(runs.pretrain, configs[0])]) == [0]
    log = tmp_path / "log"
    assert joined(runs.ranks(runs.pretrain, 2, configs[1], log=log)) == [0, 0], Path(f"{log}0").read_text()
    close(whole(tmp_path / "one"), whole(tmp_path / "two"))


@pytest.mark.parametrize(("length", "batch"), [(10, 4), (7, 8), (16, 8)])
def test_each_sample_is_seen_once_an_epoch(length, batch):
    seen: dict[int, list[int]] = {}
    for rank in range(2):
        order = iter(Order(length, batch, batch // 4, seed=5, rank=rank, ranks=2))
        for _ in range(length * 3 * 4 // batch + 4):
            for epoch, index in next(order):
                seen.setdefault(epoch, []).append(index)
    assert all(sorted(seen[epoch]) == list(range(length)) for epoch in range(2))


def _die(step, batch):
    if step == 5 and os.environ["RANK"] == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


@pytest.mark.parametrize("parallel", WAYS)
def test_a_rank_that_dies_ends_all_with_a_clear_error(tmp_path, parallel):
    config = runs.toy_config(tmp_path, parallel=parallel)
    codes = joined(runs.ranks(toy, 2, config, _die, log=tmp_path / "log"))
    assert codes == [2, -signal.SIGKILL]
    assert "rank 0 of 2: another rank has ended" in (tmp_path / "log0").read_text()


def _ask(step, batch):
    if step == 5 and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return batch


def test_one_rank_asked_to_stop_stops_all_at_the_same_step(tmp_path, alone):
    config = runs.toy_config(tmp_path, save_every=1000)
    assert joined(runs.ranks(toy, 2, config, _ask)) == [1, 1]
    assert [checkpoint.step_of(file) for file in checkpoint.found(tmp_path)] == [7]
    assert joined(runs.ranks(toy, 2, config)) == [0, 0]
    close(whole(tmp_path), whole(alone))


def test_dropout_differs_between_ranks_and_is_resumed(tmp_path):
    runs_of = [runs.toy_config(tmp_path / name) for name in ("a", "b")]
    assert joined(runs.ranks(toy, 2, runs_of[0], _ask, 0.3)) == [1, 1]
    assert joined(runs.ranks(toy, 2, runs_of[0], None, 0.3)) == [0, 0]
    assert joined(runs.ranks(toy, 2, runs_of[1], None, 0.3)) == [0, 0]
    assert runs.same(whole(tmp_path / "a"), whole(tmp_path / "b"))


@SHARDS
@pytest.mark.parametrize(
    ("before", "after"), [(2, 1), (1, 2), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((2, 3), (3, 2)))]
)
def test_sharded_checkpoints_go_on_with_another_number_of_ranks(tmp_path, alone, before, after):
    def config(number: int, steps: int) -> runs.Config:
        made = runs.toy_config(tmp_path, parallel="fsdp" if number > 1 else "ddp", save_every=4)
        return replace(made, optim=replace(made.optim, batch=24))

    reference = replace(runs.toy_config(tmp_path / "reference"), optim=config(1, 12).optim)
    assert toy(reference) == 0
    log = tmp_path / "log"
    codes = joined(runs.ranks(toy, before, config(before, 12), _ask_first, log=log))
    assert codes == [1] * before, Path(f"{log}0").read_text()
    stopped = checkpoint.found(tmp_path)[-1]
    assert stopped.suffix == (".shards" if before > 1 else ".safetensors")
    codes = joined(runs.ranks(toy, after, config(after, 12), log=log))
    assert codes == [0] * after, Path(f"{log}0").read_text()
    close(whole(tmp_path), whole(tmp_path / "reference"))


def _ask_first(step, batch):
    if step == 5 and os.environ.get("RANK") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return batch


@SHARDS
def test_a_damaged_shard_falls_back(tmp_path):
    config = runs.toy_config(tmp_path, parallel="fsdp")
    assert joined(runs.ranks(toy, 2, config)) == [0, 0]
    good, late = checkpoint.found(tmp_path)
    part = next(late.glob("part-00001*"))
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    with pytest.warns(UserWarning, match=r"the checksum of .* does not match"):
        assert checkpoint.newest_whole(tmp_path)[0] == good


@SHARDS
def test_load_reads_a_sharded_run(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(4):
        write_video(videos / f"{index}.mp4", render(index, "left", 8, 16).frames, 12)
    config = runs.pretraining(videos, tmp_path / "run", steps=4, parallel="fsdp", inspect_every=2)
    log = tmp_path / "log"
    assert joined(runs.ranks(runs.pretrain, 2, config, log=log)) == [0, 0], Path(f"{log}0").read_text()
    assert checkpoint.found(tmp_path / "run")[-1].suffix == ".shards"
    encoder = motionmae.load(tmp_path / "run")
    single = runs.pretraining(videos, tmp_path / "single", steps=4)
    assert joined([runs.start(runs.pretrain, single)]) == [0]
    expected = motionmae.load(tmp_path / "single")
    close(encoder.state_dict(), expected.state_dict())
    assert len(list((tmp_path / "run/pictures").iterdir())) == 2  # the inspected whole is brought up to date


@pytest.mark.slow
@pytest.mark.parametrize("parallel", WAYS)
def test_all_options_together_on_two_ranks_equal_one(tmp_path, parallel):
    """Recomputation, accumulation, clipping, the running mean, inspections, workers."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(4):
        write_video(videos / f"{index}.mp4", render(index, "left", 8, 16).frames, 12)
    options = {"micro_batch": 1, "checkpointing": True, "inspect_every": 3}
    for name, way in (("one", "ddp"), ("two", parallel)):
        config = runs.pretraining(videos, tmp_path / name, steps=6, workers=1, parallel=way, **options)
        config = replace(config, optim=replace(config.optim, clip=0.05, ema=0.9))
        number, log = (1, tmp_path / "log-one") if name == "one" else (2, tmp_path / "log-two")
        codes = joined(runs.ranks(runs.pretrain, number, config, log=log))
        assert codes == [0] * number, Path(f"{log}0").read_text()
    close(whole(tmp_path / "one"), whole(tmp_path / "two"))
    looks = [[line for line in runs.readings(tmp_path / name) if "effective_rank" in line] for name in ("one", "two")]
    assert [line["step"] for line in looks[0]] == [3, 6]
    for ours, theirs in zip(*looks, strict=True):
        assert ours["effective_rank"] == pytest.approx(theirs["effective_rank"], rel=1e-3)
    means = [motionmae.load(tmp_path / name).state_dict() for name in ("one", "two")]
    close(*means)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", WAYS)
def test_two_ranks_fine_tune_as_one_does_with_looks_at_the_test_videos(tmp_path, parallel):
    for split, first in (("train", 0), ("test", 100)):
        for motion in ("left", "right"):
            (tmp_path / split / motion).mkdir(parents=True)
            for index in range(3):
                frames = render(first + index, motion, 8, 16).frames
                write_video(tmp_path / split / motion / f"{index}.mp4", frames, 12)
    configs = [
        runs.finetuning(tmp_path / "train", tmp_path / "test", tmp_path / name, parallel=way, micro_batch=2)
        for name, way in (("one", "ddp"), ("two", parallel))
    ]
    assert joined([runs.start(runs.finetune, configs[0])]) == [0]
    log = tmp_path / "log"
    assert joined(runs.ranks(runs.finetune, 2, configs[1], log=log)) == [0, 0], Path(f"{log}0").read_text()
    assert Path(f"{log}1").read_text() == ""
    close(whole(tmp_path / "one"), whole(tmp_path / "two"))
    ours, theirs = ([line for line in runs.readings(tmp_path / name) if "test_top1" in line] for name in ("two", "one"))
    assert [line["step"] for line in ours] == [6, 12]
    assert ours == theirs
    figures = [json.loads((tmp_path / name / "evaluation/evaluation.json").read_text()) for name in ("two", "one")]
    assert figures[0]["confusion"] == figures[1]["confusion"]


def test_sharding_needs_several_ranks(tmp_path):
    with pytest.raises(MotionMAEError, match=r"--run.parallel fsdp: needs several ranks"):
        runs.fit_toy(runs.toy_config(tmp_path, parallel="fsdp"))


def test_sharding_on_a_cpu_is_refused_where_pytorch_would_get_it_wrong(monkeypatch):
    monkeypatch.setattr("motionmae.training.parallel.SHARDS_ON_CPU", False)
    with pytest.raises(MotionMAEError, match=r"--run.parallel fsdp: on a CPU it needs PyTorch 2.13 or later, this is"):
        place(runs.Toy(), Run(parallel="fsdp"), runtime.Runtime(torch.device("cpu"), None, 0, 2))


@pytest.mark.slow
def test_torchruns_restart_goes_on_from_the_last_checkpoint(tmp_path, alone):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import runs, test_loop_ranks as here\n"
        "from pathlib import Path\n"
        f"sys.exit(here.toy(runs.toy_config(Path({str(tmp_path / 'run')!r})), here._die))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = os.environ | {"PYTHONPATH": str(Path(motionmae.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    # 4, the last one due; or 5, where the rank that is left saw the other gone before torchrun ended it, and saved.
    assert re.search(r"going on from step [45]$", done.stdout, re.M), done.stdout + done.stderr
    close(whole(tmp_path / "run"), whole(alone))


def _parted(config: runs.Config) -> int:
    for name in [name for name in sys.modules if name.startswith("torch.distributed.nn")]:
        del sys.modules[name]  # as in a process that has not needed it so far
    here = runtime.start(config.run)
    with runtime.leaving(here):
        import torch.distributed.nn.functional as first_used  # as torch._dynamo does in the midst of a run

        here.gather(first_used.__name__)
    print("threads:", *((task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()))
    return 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.skipif(not runtime.SEEN, reason="older PyTorch's groups are kept")
def test_ranks_that_have_parted_leave_no_thread_behind(tmp_path):
    """Threads that go on while the interpreter is taken down abort it now and then."""
    assert joined(runs.ranks(_parted, 2, runs.toy_config(tmp_path), log=tmp_path / "log")) == [0, 0]
    last = (tmp_path / "log0").read_text().splitlines()[-1]
    assert last.startswith("threads: ")
    assert "gloo" not in last
