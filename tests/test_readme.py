"""What README says is run as it stands there: its command lines one after another, then its Python."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from motionmae import cli
from motionmae.data.synthetic import write_videos
from motionmae.video.writing import write_video

README = (Path(__file__).parents[1] / "README.md").read_text()
MODEL = {
    "size": 32, "frames": 4, "width": 24, "depth": 1, "heads": 2,
    "decoder.width": 16, "decoder.depth": 1, "decoder.heads": 2,
}  # fmt: skip
RUN = "--optim.steps 2 --optim.batch 4 --data.workers 0 --run.device cpu --run.micro-batch 4"
# What is added to a line so that it takes a moment; nothing that stands in it is taken away.
MORE = {
    "scan": "--workers 1",
    "pretrain": " ".join([RUN, *(f"--model.{name} {value}" for name, value in MODEL.items())]),
    "probe": "--workers 0 --device cpu --epochs 1",
    "finetune": RUN,
    "predict": "--workers 0 --device cpu",
    "segment": "--device cpu --short 96",
    "embed": "--workers 0 --device cpu",
}


def lines() -> list[str]:
    """README's command lines in order."""
    section = README.split("## Your videos")[1].split("\n## ")[0]
    return [line.split("#")[0].strip() for line in section.splitlines() if line.startswith("    motionmae ")]


@pytest.mark.slow
def test_the_command_lines_and_the_python_of_readme_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(write_videos(Path("VIDEOS"), "train", 1, seed=0, frames=20, size=32))
    list(write_videos(Path("LABELLED"), "train", 4, seed=1, frames=20, size=32))
    list(write_videos(Path("TESTS"), "test", 1, seed=2, frames=20, size=32))
    for name in ("any.mp4", "my.mp4", "QUERY.mp4"):
        write_video(Path(name), torch.arange(96 * 128 * 3).view(1, 96, 128, 3).expand(12, -1, -1, -1).byte(), 8)
    assert len(lines()) >= 7
    for line in lines():
        if line.startswith("motionmae export") and find_spec("onnxscript") is None:
            continue
        command, *args = shlex.split(line)[1:]
        assert cli.main([command, *args, *shlex.split(MORE.get(command, ""))]) == 0, line
    assert Path("report.html").is_file()
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    told: dict = {}
    exec(compile(code, "README.md", "exec"), told)
    assert told["tokens"].shape == (1, 8 * 14 * 14, 24)
    assert torch.isfinite(told["tokens"]).all()
