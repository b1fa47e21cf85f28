"""What a run's own files say of it, in sentences: what is learnt, whether it still falls, and what went wrong.

Its one rule: a sentence names the figure that it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from motionmae.report.page import Finding
from motionmae.words import many

Metrics = Sequence[Mapping[str, Any]]

LEARNT = 0.97
"""Below this share of the trivial prediction's cost something is learnt, as the run itself counts plateaus."""
FALLING = 0.01
"""By this share of itself a loss falls over a tenth of the run if it is said to fall still."""
WAITING = 0.25
"""Above this share of the time spent on waiting for videos, the disk or the decoder is what limits the run."""
TRIVIAL = {"appearance": "the mean patch", "motion": "no motion"}


def findings(metrics: Metrics, config: Mapping[str, Any], log: str = "") -> list[Finding]:
    """The sentences of one run, from its readings, its config and the words of its log."""
    found = [_learnt(name[:-6], _values(metrics, name)) for name in _ratios(metrics)]
    accuracies = _values(metrics, "test_top1")
    if accuracies:
        best = max(accuracies)
        found.append(Finding("plain", f"top-1 on the watched test videos {accuracies[-1]:.1%}, at best {best:.1%}"))
    return [*found, *_course(metrics), *_wrong(metrics, config, log)]


def _ratios(metrics: Metrics) -> list[str]:
    return list(dict.fromkeys(name for line in metrics for name in line if name.endswith("_ratio")))


def _values(metrics: Metrics, name: str) -> list[float]:
    return [
        float(line[name]) for line in metrics if isinstance(line.get(name), (int, float)) and line[name] == line[name]
    ]


def end(values: Sequence[float]) -> float:
    """The mean of the last tenth of the readings: one reading is noise."""
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last)


def _learnt(part: str, values: Sequence[float]) -> Finding:
    if not values:
        return Finding("bad", f"{part}: has no finite reading")
    share, than = end(values), TRIVIAL.get(part, "a trivial prediction")
    if share < LEARNT:
        return Finding("good", f"{part} is learnt: its loss is {share:.2f} of what predicting {than} costs")
    return Finding("bad", f"{part}: nothing is learnt yet, its loss is {share:.2f} of what predicting {than} costs")


def _course(metrics: Metrics) -> list[Finding]:
    losses = _values(metrics, "loss")
    tenth = len(losses) // 10
    if tenth < 1:
        return [Finding("plain", f"too few readings, {len(losses)}, to say whether the loss still falls")]
    now, before = end(losses), sum(losses[-2 * tenth : -tenth]) / tenth
    fall = (before - now) / abs(before) if before else 0.0
    if fall > FALLING:
        return [
            Finding("plain", f"the loss still falls, by {fall:.1%} over the last tenth: a longer run would go lower")
        ]
    if fall < -2 * FALLING:
        return [Finding("bad", f"the loss rises, by {-fall:.1%} over the last tenth")]
    return [Finding("plain", f"the loss is level: it changed by {abs(fall):.1%} over the last tenth")]


def _wrong(metrics: Metrics, config: Mapping[str, Any], log: str) -> list[Finding]:
    found = []
    if skipped := sum(_values(metrics, "skipped")):
        found.append(f"skipped, as loss or gradient was not finite: {many(round(skipped), 'step')}")
    planned = re.findall(r"^\S+ \S+  (\d+) steps? of ", log, re.MULTILINE)
    last = max((int(line["step"]) for line in metrics if "step" in line), default=0)
    wanted = int(planned[-1]) if planned else (config.get("optim") or {}).get("steps") or 0
    if last < wanted:
        found.append(f"the run stands at step {last} of {wanted}: the same command goes on")
    waited = _values(metrics, "data_wait")
    if waited and sum(waited) / len(waited) > WAITING:
        found.append(f"{sum(waited) / len(waited):.0%} of the time the model waited for videos")
    found += [
        f"the log says: {words}"
        for words in re.findall(r"^\S+ \S+  (step \d+: \w+ is on a plateau)", log, re.MULTILINE)[-1:]
    ]
    ranks = _values(metrics, "effective_rank")
    if ranks and ranks[-1] < 2:
        found.append(f"the features of all videos are nearly the same: their effective rank is {ranks[-1]:.1f}")
    return [Finding("bad", words) for words in found] or [Finding("good", "no step was skipped, nothing stands out")]
