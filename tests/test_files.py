"""The one door for what is written; a disk, output or folder that fails is one sentence, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys

import pytest
import runs
import torch
from PIL import Image

from motionmae import cli, files, stored
from motionmae.data.synthetic import write_videos
from motionmae.errors import MotionMAEError
from motionmae.training import checkpoint

BIG = b"x" * 4000
WRITERS = {
    "bytes": lambda place: files.write_bytes(place, BIG),
    "text": lambda place: files.write_text(place, BIG.decode()),
    "json": lambda place: files.write_json(place, [BIG.decode()]),
    "csv": lambda place: files.write_csv(place, [["a"], [BIG.decode()]]),
    "tensors": lambda place: stored.save(place, {"a": torch.zeros(1000)}, {}),
    "picture.png": lambda place: files.write_image(place, Image.effect_noise((64, 64), 90)),
}


@contextlib.contextmanager
def full_disk(most: int = 1000):
    """Within it no file may grow beyond `most` bytes."""
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, name):
    place = tmp_path / name
    place.write_text("before")
    with full_disk(), pytest.raises(MotionMAEError, match=f"{name}: could not be written"):
        WRITERS[name](place)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert place.read_text() == "before"
    WRITERS[name](place)
    assert place.read_bytes() != b"before"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").touch()
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "made") as aside:  # noqa: PT012
        aside.mkdir()
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.rglob("*")] == ["made", "old"]
    with files.replacing(tmp_path / "made") as aside:
        aside.mkdir()
        (aside / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["made", "new"]


@pytest.mark.parametrize("name", ["text", "tensors"])
def test_modes_follow_the_umask(tmp_path, name):
    before = os.umask(0o027)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_names_that_are_not_utf8_are_written_and_read_again(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    files.write_csv(tmp_path / "a.csv", [["path"], [name]])
    assert files.read_text(tmp_path / "a.csv", "surrogateescape").splitlines() == ["path", name]
    with pytest.raises(MotionMAEError, match=r"a.csv: is not UTF-8 text \(.*at byte 9\)"):
        files.read_text(tmp_path / "a.csv")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(MotionMAEError, match=r"b.json: is not readable as JSON"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(MotionMAEError, match=r"c.json: cannot be read \(No such file"):
        files.read_json(tmp_path / "c.json")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    """A line of bash, in which `motionmae` is this one."""
    program = f'motionmae() {{ "{sys.executable}" -m motionmae.cli "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("motionmae --help > /dev/full", 2, "standard output: No space left on device"),
        ("motionmae scan --help > /dev/full", 2, "standard output: No space left on device"),
        ("motionmae --help >&-", 2, "standard output: Bad file descriptor"),
        ("(sleep 0.5; motionmae --help) | true", 1, "stopped, as nobody reads its output any more"),
        ("motionmae scan /nowhere 2>&-", 2, ""),
    ],
)
def test_output_that_cannot_be_written_is_one_sentence_and_no_success(line, code, told):
    done = shell(line)
    assert done.returncode == code
    assert done.stderr == (f"motionmae: {told}\n" if told else "")


def test_names_that_the_output_lacks_letters_for_are_shown_with_backslashes(tmp_path):
    folder = tmp_path / "vidéos"
    list(write_videos(folder, "train", 1, seed=0, frames=8, size=16))
    out = folder / "m.csv"
    done = shell(f"motionmae scan '{folder}' --out '{out}' --workers 1", PYTHONIOENCODING="ascii:strict")
    said = [line for line in done.stderr.splitlines() if "so far" not in line]  # of a busy machine
    assert (done.returncode, said) == (0, [])
    assert "vid\\xe9os" in done.stdout


def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys, tmp_path):
    def refuse(config):
        raise OSError(24, "Too many open files", "x.mp4")

    from motionmae.tasks import report

    monkeypatch.setattr(report, "run", refuse)
    assert cli.main(["report", "a"]) == 2
    assert capsys.readouterr().err == "motionmae: x.mp4: Too many open files\n"


class Deaf:
    """An output that fails as a full disk does."""

    def write(self, text):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise OSError(28, "No space left on device")

    def isatty(self):
        return False


def test_a_run_outlives_its_console(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Deaf())
    _, done = runs.fit_toy(runs.toy_config(tmp_path))
    assert done
    assert len(runs.readings(tmp_path)) == 6
    said = (tmp_path / "log.txt").read_text()
    assert said.count("the console takes no more output (No space left on device)") == 1
    assert "12/12" in said
    assert "log.txt" in capsys.readouterr().err


def test_a_run_whose_folder_goes_ends_with_a_sentence_and_makes_no_other(tmp_path):
    def spoil(step, batch):
        if step == 5:
            shutil.rmtree(tmp_path / "run")
        return batch

    with pytest.raises(MotionMAEError, match="run: the run's folder was removed or moved while it ran"):
        runs.fit_toy(runs.toy_config(tmp_path / "run", inspect_every=6), spoil=spoil)
    assert not (tmp_path / "run").exists()


def test_stray_names_among_checkpoints_are_no_checkpoints(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    for name in ("step-last.safetensors", "step-.safetensors", "step-1 (copy).safetensors", "notes.txt"):
        (tmp_path / "checkpoints" / name).write_text("stray")
    assert [checkpoint.step_of(file) for file in checkpoint.found(tmp_path)] == [8, 12]
    assert runs.fit_toy(runs.toy_config(tmp_path))[1]


def test_a_config_that_is_no_json_is_named(tmp_path):
    runs.fit_toy(runs.toy_config(tmp_path))
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    before = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(MotionMAEError, match=r"config.json: is not UTF-8 text"):
        runs.fit_toy(runs.toy_config(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (tmp_path / "config.json").read_bytes() == b"\xff\xfe"
