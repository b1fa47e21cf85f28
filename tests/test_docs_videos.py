"""The commands of docs/your-own-videos.md work, in their order, on a messy folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import zoo
from PIL import Image

from motionmae.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-videos.md"


@pytest.mark.slow
def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    videos = tmp_path / "videos"
    (videos / "my dog, 2024" / "still").mkdir(parents=True)
    good = zoo.encode(videos / "my dog, 2024" / "a.mp4", "libx264", options={"g": "250"})
    (videos / "copy.mp4").write_bytes(good.read_bytes())
    zoo.encode(videos / "b.mkv", "libx264", times=zoo.jittered, clock=zoo.SLOW_CLOCK)
    zoo.encode(videos / "ж.webm", "libvpx-vp9", size=(144, 192))
    (videos / "broken.mp4").write_bytes(good.read_bytes()[:900])
    (videos / "empty.mov").touch()
    (videos / "notes.txt").write_text("notes")
    for i in range(20):
        Image.fromarray(zoo.numbered(i)).save(videos / "my dog, 2024" / "still" / f"{i}.jpg")
    commands = re.findall(r"^```\n(motionmae .+)\n```$", PAGE.read_text(), re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["scan", "scan", "prepare", "bench", "pretrain"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        code = main(shlex.split(command)[1:])
        told = capfd.readouterr()
        assert code == 0, f"{command}: {told.err}"
        if "scan" in command:
            words = " ".join(told.out.replace("│", " ").split())
            assert "5 usable" in words, words
            assert "1 quarantined: zero bytes" in words, words
    assert (tmp_path / "runs" / "mine" / "config.json").exists()


def test_every_option_on_the_page_exists():
    from motionmae import config

    text = PAGE.read_text()
    kinds = (config.Data, config.Labelled, config.ProbeData)
    fields = {name for kind in kinds for name in kind.__dataclass_fields__}
    assert all(name.replace("-", "_") in fields for name in re.findall(r"--data\.([a-z-]+)", text))
