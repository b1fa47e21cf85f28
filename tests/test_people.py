"""A check on real people: actions of a person that training has not seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from motionmae.config import Labelled, Mix, Model, Run
from motionmae.data.sources import Videos
from motionmae.presets import FINETUNE
from motionmae.tasks import finetune

MODEL = Model(frames=8, size=32, cube=(2, 8, 8), width=96, depth=3, heads=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_leaving_one_person_out_actions_are_recognised_from_scratch(shared, tmp_path):
    """72 clips, 4 actions, 9 people; mirror images stay with their person. Chance is 25 %."""
    files = sorted((shared / "actions" / "people64").rglob("*.mp4"))
    assert len(files) == 72
    right = 0
    for person in range(1, 10):
        out = [file for file in files if file.name.startswith(f"p{person}_")]
        rest = [file for file in files if file not in out]
        train, test = (Videos(part, [file.parent.name for file in part], []) for part in (rest, out))
        data = Labelled(sampling="uniform", stride=1, flip=False, scales=(1.0, 0.875), cache=True, workers=0)
        recipe = FINETUNE["tiny"]
        config = replace(
            recipe, init="none", model=MODEL, data=data, mix=Mix(0.0, 0.0), seed=person,
            optim=replace(recipe.optim, epochs=50.0), run=Run(out=str(tmp_path / f"p{person}"), device="cpu"),
        )  # fmt: skip
        assert finetune.fit_videos(config, train, test)
        figures = json.loads((tmp_path / f"p{person}" / "evaluation" / "evaluation.json").read_text())
        assert figures["videos"] == 8
        right += round(figures["top1"] * 8)
    assert right / 72 >= 0.95
