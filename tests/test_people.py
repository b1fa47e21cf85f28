"""A check on real people: how tokens change over time tells the actions of a person that was not seen."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from motionmae.cli import main
from motionmae.models.encoder import VideoEncoder
from motionmae.models.weights import save
from motionmae.presets import SIZES


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_probe_tells_the_actions_of_a_person_that_is_left_out(shared, tmp_path):
    """72 clips, 4 actions, 9 people; mirror images stay with their person. The encoder is untrained: this holds the
    way from files to figures through the command, not a representation. Chance is 25 %."""
    files = sorted((shared / "actions" / "people64").rglob("*.mp4"))
    assert len(files) == 72
    torch.manual_seed(0)
    model = SIZES["tiny"]
    save(tmp_path / "m.safetensors", torch.nn.ModuleDict({"encoder": VideoEncoder(model)}), {"model": asdict(model)})
    right = 0.0
    for person in range(1, 10):
        rows = [f"{file},{file.parent.name},{'test' if file.name[1] == str(person) else 'train'}" for file in files]
        (tmp_path / "people.csv").write_text("\n".join(["path,label,split", *rows]))
        views = "--views.sampling uniform --views.size 32 --views.clips 4"
        options = f"{views} --pool change --kinds knn --neighbours 1 --workers 0 --out {tmp_path / 'p'}"
        data = f"--data.path {tmp_path / 'people.csv'} --data.split train --data.test-split test --device cpu"
        assert main(["probe", str(tmp_path / "m.safetensors"), *data.split(), *options.split()]) == 0
        found = json.loads((tmp_path / "p" / "probe.json").read_text())
        assert (found["train"], found["test"]) == (64, 8)
        right += 8 * found["probes"]["knn"]["change"]["top1"]
    assert right / 72 >= 0.97
