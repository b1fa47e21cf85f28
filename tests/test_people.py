"""A check on real people: how tokens change over time tells the actions of a person that was not seen."""

from __future__ import annotations

import pytest
import torch

from motionmae.config import Compute, Model, Viewing
from motionmae.models.encoder import VideoEncoder
from motionmae.objectives import probing
from motionmae.tasks import evaluate
from motionmae.training.runtime import Runtime

MODEL = Model(frames=8, size=64, cube=(2, 8, 8), width=128, depth=4, heads=4)


@pytest.mark.slow
def test_leaving_one_person_out_neighbours_in_how_tokens_change_have_the_same_action(shared):
    """72 clips, 4 actions, 9 people; mirror images stay with their person. The encoder is untrained: this holds the
    way from files to neighbours, not a representation. Chance is 25 %."""
    files = sorted((shared / "actions" / "people64").rglob("*.mp4"))
    people = torch.tensor([int(file.name[1]) for file in files])
    names = sorted({file.parent.name for file in files})
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    assert len(files) == 72
    torch.manual_seed(0)
    encoder = VideoEncoder(MODEL).eval()
    views = evaluate.settle(Viewing(1, 1, "uniform", 1), {}, MODEL)
    here = Runtime(torch.device("cpu"), None)
    tokens = evaluate.watch(encoder, evaluate.cut(files, views), Compute(workers=0), here, quiet=True)["views"]
    change = tokens.unflatten(1, (4, 64)).std(1).flatten(1)
    right = 0
    for person in range(1, 10):
        rest, out = people != person, people == person
        votes = probing.knn(change[rest], labels[rest], change[out], 1)
        right += int((votes.argmax(1) == labels[out]).sum())
    assert right / 72 >= 0.95
