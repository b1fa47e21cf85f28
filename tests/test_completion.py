"""Completion: commands, choices, options and their values, in a real bash, zsh and fish too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; fpath+=~/.zfunc; autoload -Uz compinit; compinit -u; bindkey '^I' complete-word; print READ''Y"
zpty -r shell out '*READY*'
zpty -w -n shell "$1"$'\t'
zpty -r shell out "*$2*"
print -r -- "$out"
"""
"""A terminal in which a line is typed, and the tab key; it waits for what is to come."""


def installed(shell: str, folder: Path) -> dict[str, str]:
    """The surroundings of a shell that has `motionmae`, in a home where its completion is installed."""
    program = folder / "bin" / "motionmae"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m motionmae.cli "$@"\n')
    program.chmod(0o755)
    places = {
        "HOME": str(folder),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(["motionmae", "--install-completion", shell], check=True, env=places, capture_output=True)
    return places


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_asks_and_gets_the_words(tmp_path):
    line = (
        f"{SCRIPTS['bash']}\nCOMP_WORDS=(motionmae pretrain tiny --dev); COMP_CWORD=3\n"
        '_motionmae; echo "${COMPREPLY[@]}"'
    )
    told = subprocess.run(
        ["bash", "-c", line], check=True, capture_output=True, text=True, env=installed("bash", tmp_path)
    )
    assert told.stdout == "--device\n"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("motionmae pre", ["predict", "prepare", "pretrain"]),
        ("motionmae pretrain tiny --dev", ["--device"]),
        ("motionmae embed MODEL --pool ", ["attentive", "mean", "none", "time"]),
        ("motionmae embed vid", ["videos/"]),
    ],
)
def test_fish_asks_and_gets_the_words_alone_or_names_of_files(line, found, tmp_path):
    (tmp_path / "videos").mkdir()
    asked = ["fish", "-c", f"complete -C '{line}'"]
    told = subprocess.run(
        asked, check=True, capture_output=True, text=True, cwd=tmp_path, env=installed("fish", tmp_path)
    )
    assert [word.partition("\t")[0] for word in told.stdout.splitlines()] == found


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("motionmae pretr", "motionmae pretrain"),
        ("motionmae pretrain tiny --dev", "--device"),
        ("motionmae embed MODEL --pool ", "attentive  mean"),
        ("motionmae embed vid", "videos"),
    ],
)
def test_zsh_asks_and_gets_the_words_or_names_of_files(line, found, tmp_path):
    (tmp_path / "videos").mkdir()
    asked = ["zsh", "-f", "-c", ZSH, "zsh", line, found]
    told = subprocess.run(
        asked, capture_output=True, text=True, cwd=tmp_path, env=installed("zsh", tmp_path), timeout=60
    )
    assert found in told.stdout
