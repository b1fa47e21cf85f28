"""Long work shows itself: soon, in few columns, also while one piece takes long, and a run's plan within seconds."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from motionmae import cli, progress
from motionmae.data.synthetic import write_videos
from motionmae.presets import COMMANDS
from motionmae.progress import Progress, then
from motionmae.training import loop

TEXT = "loss 0.1234  appearance 0.812x  motion 0.933x  12.3 clips/s  data wait 3%"


def test_a_line_has_the_parts_that_fit_and_says_what_is_left():
    work = Progress("step", 10_000, speak=False)
    assert work.line() == "step 0/10000  0:00 so far"
    work.begun -= 60
    work.show(100, TEXT)
    assert work.line() == "step 100/10000  1:39:00 left  loss 0.1234  appearance 0.812x  motion 0.933x"
    assert work.line(200).endswith("0.933x  12.3 clips/s  data wait 3%")
    assert [len(work.line(wide)) <= wide for wide in range(5, 200)] == [True] * 195
    assert Progress("loading", speak=False).line() == "loading  0:00 so far"
    cells = Progress("cells", 9, speak=False, alike=False)
    cells.begun -= 60
    cells.show(1, "untrained-0")
    assert cells.line() == "cells 1/9  1:00 so far  untrained-0"


def test_piped_work_that_takes_long_says_so_every_few_seconds_and_short_work_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.2)
    with Progress("videos", 3) as work:
        work.step("a.mp4")
        while not (said := capsys.readouterr().err):
            time.sleep(0.05)
    assert said.startswith("videos 1/3  0:0")
    assert "a.mp4" in said
    with Progress("videos", 3):
        pass
    with Progress("videos", 3, speak=False):
        time.sleep(0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"bench", "study"}))  # whose tables are their results
def test_every_command_ends_with_what_to_type_next(command):
    task = Path(progress.__file__).parent / "tasks" / command
    files = [task.with_suffix(".py")] if task.with_suffix(".py").exists() else [*task.glob("[a-z]*.py")]
    for file in files:
        text = file.read_text()
        assert "then(" in text or "def run(config" not in text or file.stem in ("bench", "given"), file


def test_what_to_type_next_is_said_once(capsys, monkeypatch):
    then("motionmae report runs/x")
    then("look", aside=True)
    monkeypatch.setenv("RANK", "1")
    then("nothing")
    assert capsys.readouterr() == ("next: motionmae report runs/x\n", "next: look\n")


@pytest.mark.parametrize(("rank", "words"), [("0", "motionmae finetune, into runs/finetune-tiny\n"), ("1", "")])
def test_of_many_ranks_the_first_alone_says_what_begins(rank, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(cli, "import_module", lambda name: time.sleep(0.6) or SimpleNamespace(run=lambda config: None))
    assert cli.main(["finetune", "tiny", "--init", "none", "--data.path", "videos"]) == 0
    told = capsys.readouterr()
    assert told.out == words
    assert ("loading" in told.err) == (rank == "0")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("bench data --data.path videos --frames 4 --size 32 --clips 3 --reads 8 --data.workers 1 --data.stride 1",
         {"reads in turns 3/3", "batches from workers 9/9", "reads 8/8"}),
        ("bench sizes --presets tiny --frames 4 --sizes 32 --run.device cpu", {"rows 0/1  tiny, 4 x 32 x 32"}),
        ("bench segment --model tiny --frames 2 --height 32 --width 32 --short 32 --strides 8 --no-reference "
         "--device cpu",
         {"strides 0/1  cells of 8"}),
        ("bench pretrain tiny --data.path videos --model.size 32 --model.frames 4 --optim.batch 1 --turns 1 "
         "--data.workers 0 --data.stride 1 --no-alternatives --no-reference",
         {"measuring  turn 1 of 1", "measuring  parts of a step", "measuring  steps fed by workers"}),
        ("probe tiny --data.path videos --kinds knn linear --pool mean --views.frames 4 --views.size 32 "
         "--views.clips 1 --workers 0 --device cpu --out probed",
         {"probes fitted 0/2  knn mean", "probes fitted 1/2  linear mean"}),
    ],
)  # fmt: skip
def test_what_a_bench_or_a_probe_is_at_is_shown(words, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(write_videos(tmp_path / "videos", "train", 2, seed=0, frames=8, size=32))
    said, show = set(), Progress.show

    def heard(work: Progress, *state):
        show(work, *state)
        said.add(re.sub(r"  [\d:]+ (so far|left)", "", work.line()))

    monkeypatch.setattr(Progress, "show", heard)
    assert cli.main(words.split()) == 0
    assert shown <= said


def test_a_run_that_others_will_stop_may_lose_its_reader(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Path(os.devnull).open() as gone, Progress("videos", 3):
        monkeypatch.setattr(sys, "stderr", gone)  # not for writing
        time.sleep(0.4)


def test_on_a_terminal_one_line_of_its_width_is_rewritten():
    code = (
        "import time\nfrom motionmae.progress import Progress\nwith Progress('videos', 8) as work:\n"
        f"    for at in range(8):\n        time.sleep(0.15); work.step({TEXT!r})\n        print('a word', at)"
    )
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    ended = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=os.environ | size)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal tells that nobody writes any more
        while select.select([ours], [], [], 20)[0] and (more := os.read(ours, 4096)):
            shown += more
    assert ended.wait(20) == 0
    text = shown.decode()
    assert "videos 3/8" in text
    assert "a word 7" in text
    assert text.count("\n") < 60


def test_the_plan_with_memory_and_time_takes_seconds_of_computing(tmp_path, monkeypatch, capsys):
    """Not of the clock, as this machine may do other work beside: 10 s are what a user was promised on a free one."""
    list(write_videos(tmp_path / "five", "train", 1, seed=0, frames=24, size=64))

    monkeypatch.setattr(loop, "fit", lambda *given: pytest.fail(given[-1]))
    monkeypatch.setattr("motionmae.training.settling.refusal", lambda *given: "enough")
    begun = time.process_time()
    assert (
        cli.main(["pretrain", "small", "--data.path", str(tmp_path / "five"), "--run.out", str(tmp_path / "run")]) == 2
    )
    assert time.process_time() - begun < 6
    said = capsys.readouterr()
    assert said.out.startswith(f"motionmae pretrain, into {tmp_path / 'run'}\n")
    assert said.err == "motionmae: enough\n"
    assert "GiB of memory for each rank" in said.out
    assert not (tmp_path / "run").exists()
