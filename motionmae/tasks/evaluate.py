"""`motionmae evaluate`: a fine-tuned model on labelled videos, each counted once whatever the number of ranks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote

from motionmae import runtime
from motionmae.config import Data, Evaluate, check
from motionmae.evaluation.recognition import labelled, summary
from motionmae.inference.views import examine_classifier, settle
from motionmae.library.sources import find
from motionmae.library.splitting import groups_of
from motionmae.models.classifier import read_classifier
from motionmae.progress import then
from motionmae.report import evaluation as report
from motionmae.runtime import out_beside
from motionmae.words import many


def run(config: Evaluate) -> None:
    """Test `config.model` on `config.data.path`; prints the figures and writes them, the predictions and a report."""
    check(config)
    here = runtime.start_for(config.compute)
    with runtime.leaving(here):
        classifier, made_with = read_classifier(config.model, config.heads)
        view = settle(config.views, made_with, classifier.encoder.config)
        data = Data(**asdict(config.data))
        videos = find(data)
        labels = labelled(videos, classifier.names, f"--data.path {data.path}", groups_of(data, videos))
        folder = Path(config.out) if config.out else out_beside(config.model, "evaluation")
        found = examine_classifier(classifier, labels, view, config.compute, here, config.orders, config.mistakes)
        if here.main:
            about = {"model": config.model, "data": f"{config.data.path}, {many(len(labels.files), 'video')}"}
            figures = report.write(folder, found.figures, found.probabilities, labels, found.mistakes, about)
            here.say(f"{summary(figures)}\n{folder / 'report.html'}")
    then(f"open {folder / 'report.html'} in a browser, or motionmae predict {quote(config.model)} VIDEO")
