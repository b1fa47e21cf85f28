"""Completion: commands, choices, options and their values, in a real bash too."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from motionmae import cli
from motionmae.completion import SCRIPTS, completions


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["pret"], ["pretrain"]),
        (["pretrain", "hm"], ["hmdb51", "hmdb51-huge", "hmdb51-large", "hmdb51-small"]),
        (["segment", ""], ["--help", "davis", "score", "video"]),
        (["bench", "pretrain", "ti"], ["tiny"]),
        (["pretrain", "tiny", "--dev"], ["--device"]),
        (["pretrain", "tiny", "--run.dev"], ["--run.device"]),
        (["pretrain", "tiny", "--device", "c"], ["cpu", "cuda"]),
        (["embed", "MODEL", "--poo"], ["--pool"]),
        (["embed", "MODEL", "--pool", ""], ["attentive", "mean", "none", "time"]),
        (["embed", ""], []),  # then the shell completes names of files
        (["embed", "--out", "x"], []),
        (["pretrain", "tiny", "--data.no-f"], ["--data.no-flip"]),
        (["fly", ""], []),
    ],
)
def test_a_word_is_completed(words, found):
    assert completions(words) == found


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_a_shells_script_is_written_to_where_it_looks(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert cli.main(["--install-completion"]) == 0
    (file,) = (path for path in tmp_path.rglob("*motionmae*") if path.is_file())
    assert capsys.readouterr().out.splitlines()[0] == str(file)
    assert file.read_text() == SCRIPTS[shell]
    assert cli.main(["--install-completion", "cmd"]) == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_asks_and_gets_the_words(tmp_path):
    program = tmp_path / "motionmae"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m motionmae.cli "$@"\n')
    program.chmod(0o755)
    line = (
        f"PATH={tmp_path}:$PATH; {SCRIPTS['bash']}\nCOMP_WORDS=(motionmae pretrain tiny --dev); COMP_CWORD=3\n"
        '_motionmae; echo "${COMPREPLY[@]}"'
    )
    told = subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True)
    assert told.stdout == "--device\n"
