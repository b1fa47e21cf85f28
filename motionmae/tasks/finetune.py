"""`motionmae finetune`: labelled videos, and a pretrained encoder or none, to a run folder with a classifier."""

from __future__ import annotations

import functools
import os
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np
import torch

from motionmae import runtime
from motionmae.config import Augment, Compute, Data, Finetune, Viewing, check
from motionmae.data import transforms
from motionmae.data.clips import Clips, told_short
from motionmae.errors import MotionMAEError
from motionmae.evaluation.metrics import top_k
from motionmae.evaluation.recognition import (
    LabelledVideos,
    labelled,
    measure,
    option_of_tests,
    read_predictions,
    summary,
)
from motionmae.files import read_json
from motionmae.inference.views import View, as_views, examine_classifier, fits, watch
from motionmae.inference.views import settle as settle_views
from motionmae.library.classes import number, share
from motionmae.library.sources import Videos, find
from motionmae.library.splitting import apart, groups_of, in_turn, write_split
from motionmae.models import weights
from motionmae.models.classifier import Classifier, read_classifier
from motionmae.objectives.classification import AugmentClips, Classification
from motionmae.progress import then
from motionmae.report import evaluation as report
from motionmae.runtime import Runtime
from motionmae.training import optim, settling
from motionmae.training.learning import learn
from motionmae.words import many

WATCHED = 256  # videos of the test set that are looked at during training, once each


class Settled(NamedTuple):
    """A config with nothing left open (model, clip, classes, views), and what was open in it as plain values."""

    config: Finetune
    frames: int
    size: int
    view: View
    start: weights.Checkpoint | None
    """What to start from."""


def run(config: Finetune) -> None:
    """Fine-tune on the labelled videos of `config.data.path`, or go on; test at the end where test videos are named."""
    check(config)
    videos = find(config.data)
    if not videos.labels:
        raise MotionMAEError(
            f"--data.path {config.data.path}: fine-tuning needs the class of every video: class folders, or a list"
        )
    if config.data.test or config.data.test_split:
        tests, said = find(testing(config.data), option_of_tests(config.data)), ""
    elif names := in_turn(config.data, videos):
        in_each(config, videos, names)
        return
    else:
        videos, tests, said = apart(config.data, videos, config.data.leave_out, config.seed)
    if not fit_videos(config, videos, tests if tests.paths else None, said):
        raise KeyboardInterrupt
    then(f"motionmae predict {quote(config.run.out)} VIDEO")


def in_each(config: Finetune, videos: Videos, names: Sequence[str]) -> None:
    """Leave each group out in turn, in a run of its own below `config.run.out`; then all their tests as one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise MotionMAEError("--data.leave-out each runs on one rank; under torchrun name one group after another")
    out, found, files, labels, groups = Path(config.run.out), [], [], [], []
    classes, view = (), {}
    for turn, name in enumerate(names, 1):
        run = replace(config.run, out=str(out / f"group-{urllib.parse.quote(name, safe='')}"))
        part = replace(config, data=replace(config.data, leave_out=name), run=run)
        train, tests, said = apart(part.data, videos, name, config.seed)
        print(f"group {turn} of {len(names)}: {name}", flush=True)
        if not fit_videos(part, train, tests, said):
            raise KeyboardInterrupt
        told = Path(run.out) / "evaluation"
        values, paths, known, classes = read_predictions(told / "predictions.csv")
        view = read_json(told / "evaluation.json")["views"]
        found.append(values)
        files, labels, groups = files + paths, labels + known, groups + [name] * len(paths)
    numbers = [classes.index(label) for label in labels]
    figures = measure({"views": torch.cat(found)}, torch.tensor(numbers), classes) | {"views": view}
    about = {
        "model": f"{out}/group-*",
        "data": f"{config.data.path}, {many(len(files), 'video')} of {many(len(names), 'group')}",
    }
    figures = report.write(out, figures, torch.cat(found), LabelledVideos(files, numbers, classes, groups), [], about)
    print(f"{summary(figures)}\n{out / 'report.html'}")
    then(f"open {out / 'report.html'} in a browser")


def fit_videos(config: Finetune, videos: Videos, tests: Videos | None = None, how: str = "") -> bool:
    """Fine-tune on these videos; True when the run is finished, False when the user stopped it. `how` says how they
    and those of the test were told apart, where they were; split.csv in the run folder says which are which then."""
    here = runtime.start(config.run)
    with runtime.leaving(here):
        settled = settle(config, videos.labels)
        config = settled.config
        labels, _ = number(videos.labels, config.classes)
        kept = share(labels, config.data.fraction, config.seed)
        config, few = settling.settle(config, len(kept), here.ranks)
        settled = settled._replace(config=config)
        dataset = clips_of(settled, [videos.paths[at] for at in kept], [labels[at] for at in kept])
        test = None
        if tests is not None:
            place = testing(config.data)
            asked = f"{option_of_tests(config.data)} {place.path}"
            test = labelled(tests, config.classes, asked, groups_of(place, tests))
        classifier, short = build(config, settled.start), told_short(dataset)
        objective = Classification(classifier, config.mix, augmentation(config.augment), config.data.repeats)
        look = None if test is None else watching(settled, classifier, test, here)

        def about(plan: optim.Plan) -> str:
            return "\n".join(
                filter(None, (describe(config, plan, classifier, videos, len(dataset), here), how, few, short))
            )

        done = learn(config, objective, dataset, here, about, look, config.layer_decay)
        if how and tests is not None and here.main and not config.run.replay:
            write_split(Path(config.run.out) / "split.csv", videos, tests)
        if done and test is not None and not config.run.replay:
            final, _ = read_classifier(config.run.out)  # with optim.ema these are the weights' running mean
            folder, found = (
                Path(config.run.out) / "evaluation",
                examine_classifier(final, test, settled.view, compute(config), here),
            )
            if here.main:
                told = {
                    "model": config.run.out,
                    "data": f"{config.data.test or config.data.path}, {many(len(test.files), 'video')}",
                }
                figures = report.write(folder, found.figures, found.probabilities, test, found.mistakes, told)
                here.say(f"{summary(figures)}\n{folder / 'report.html'}")
        return done


def testing(data: Data) -> Data:
    """The data section that finds the test videos."""
    test, split = getattr(data, "test", ""), getattr(data, "test_split", "")
    return replace(data, path=test or data.path, split=split)


def settle(config: Finetune, labels: Sequence[str]) -> Settled:
    """The config with nothing left open, and the checkpoint to start from."""
    if not config.init:
        raise MotionMAEError("--init names a run folder or checkpoint to start from; --init none trains from scratch")
    start = None if config.init == "none" else weights.read(config.init, config.heads)
    model = replace(config.model if start is None else start.model, norm=False)
    frames, size = config.data.frames or model.frames, config.data.size or model.size
    if not size:
        raise MotionMAEError(f"--init {config.init} does not say the size of its frames: set --data.size")
    fits("data", frames, size, model)
    data = replace(config.data, frames=frames, size=size)
    own = {"sampling": data.sampling, "stride": data.stride, "fps": data.fps, "short": data.short}
    view = settle_views(config.views, {"views": own | {"frames": frames, "size": size}}, model)
    classes = tuple(number(labels, config.classes)[1])
    views = Viewing(**asdict(view))  # config.json has the same fields whether they were asked for or settled
    return Settled(replace(config, model=model, data=data, views=views, classes=classes), frames, size, view, start)


def clips_of(settled: Settled, files: Sequence[Path], labels: Sequence[int]) -> Clips:
    """The videos as training clips."""
    data = settled.config.data
    offsets = [data.stride * step for step in range(settled.frames)]
    return Clips(files, data, offsets, settled.size, settled.config.seed, labels)


def build(config: Finetune, start: weights.Checkpoint | None) -> Classifier:
    """The classifier of a settled config: seeded weights, and the encoder's from the checkpoint if there is one."""
    torch.manual_seed(config.seed)
    classifier = Classifier(config.model, config.classes, config.drop_path, config.dropout)
    if start is not None:
        classifier.start_from(start, config.init)
    classifier.encoder.recompute = config.run.checkpointing
    return classifier


def augmentation(config: Augment) -> AugmentClips | None:
    """RandAugment, colour and erasing as one function of clips and keys; None where nothing is changed."""
    return functools.partial(transforms.augment, config=config) if config != Augment() else None


def compute(config: Finetune) -> Compute:
    """How the test at the end runs: as the training, a micro-batch at a time."""
    micro = config.run.micro_batch
    batch = micro if isinstance(micro, int) else 16
    return Compute(batch=min(batch, 64), workers=config.data.workers)


def watching(
    settled: Settled, classifier: Classifier, test: LabelledVideos, here: Runtime
) -> Callable[[int], dict[str, float]]:
    """An inspection: top-1 on at most WATCHED test videos spread over the set, the middle view of each."""
    places = np.unique(np.linspace(0, len(test.files) - 1, min(WATCHED, len(test.files))).round().astype(int)).tolist()
    numbers = torch.tensor([test.numbers[at] for at in places])
    dataset = as_views([test.files[at] for at in places], replace(settled.view, clips=1, crops=1))
    alone = replace(here, rank=0, ranks=1)

    def look(step: int) -> dict[str, float]:
        scores = watch(lambda clip: classifier(clip).float(), dataset, compute(settled.config), alone, quiet=True)
        top1 = top_k(scores["views"], numbers, 1)
        here.say(f"step {step}: top-1 on {many(len(places), 'test video')}, one view each: {top1:.1%}")
        return {"test_top1": top1}

    return look


def describe(
    config: Finetune, plan: optim.Plan, classifier: Classifier, videos: Videos, used: int, here: Runtime
) -> str:
    """What is about to happen, in a few lines."""
    millions = sum(value.numel() for value in classifier.parameters()) / 1e6
    return (
        f"{videos.told()}, {used} used, clips of {config.data.frames} x {config.data.size} x {config.data.size}\n"
        f"{millions:.1f} M parameters from {config.init}, on {here.device}\n"
        f"{optim.in_numbers(plan)}, into {config.run.out}\n{optim.told(plan, config.optim)}"
    )
