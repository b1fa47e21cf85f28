"""Probes on the features of many videos: fitted on some rows, their setting chosen by others, tested on yet others.

Its one rule: the videos of the test choose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motionmae.config import Probe
from motionmae.evaluation import probing
from motionmae.models.attentive import AttentiveHead
from motionmae.progress import Progress

HELD = 0.2
"""Share of the training videos, or of the groups, by which a setting is chosen where no others are named."""

Features = dict[str, Tensor]
"""Of n videos, by pool: `mean`, float32 [n d], the mean token; where they are needed, `time`, float32 [n t d], each
time slot's mean token; `grid`, float32 [n t*4 d], those of each slot's quarters; `change`, float32 [n s d], the
standard deviation over time of the tokens at each place; and `tokens`, float16 [n k d], all of them, which may be
larger than the memory: they lie on the disk and are never copied as a whole."""
Rows = Int[Tensor, " rows"]
Scores = dict[Any, Float[Tensor, "m classes"]]
Fit = Callable[[Any, Int[Tensor, " n"], Any], Scores]


class Fold(NamedTuple):
    """Rows of the features: to fit on, to choose the setting by, and to test on."""

    kept: Rows
    held: Rows
    test: Rows


def leave_out(groups: Sequence[str]) -> list[Fold]:
    """A fold for each group in turn: it is tested, and the next fifth of the groups chooses the setting."""
    names = sorted(set(groups))
    places = torch.tensor([names.index(group) for group in groups])
    choosing = max(1, round(HELD * (len(names) - 1))) if len(names) > 2 else 0
    folds = []
    for turn in range(len(names)):
        after = (places - turn) % len(names)
        parts = (after > choosing, (after > 0) & (after <= choosing), after == 0)
        folds.append(Fold(*(part.nonzero()[:, 0] for part in parts)))
    return folds


def fitters(config: Probe, most: int, heads_of: dict[float, AttentiveHead]) -> dict[str, Fit]:
    """Each kind of probe as a function from features and labels to the scores of each of its settings; `most` is the
    number of neighbours that there are in any case, `heads_of` takes the attentive heads of the first call."""

    def knn(train: Tensor, labels: Tensor, test: Tensor) -> Scores:
        few = [k for k in config.neighbours if k <= most] or [most]
        votes = {k: probing.knn(train, labels, test, k, config.temperature) for k in few}
        return {k: (vote / vote.sum(1, keepdim=True)).clamp_min(1e-6).log() for k, vote in votes.items()}

    def logistic(train: Tensor, labels: Tensor, test: Tensor) -> Scores:
        return {penalty: probing.linear(train, labels, test, penalty) for penalty in config.penalties}

    def linear(batch_norm: bool) -> Fit:
        return lambda train, labels, test: probing.linear_sweep(
            train, labels, test, config.rates, batch_norm, config.epochs, config.seed
        )

    def attentive(train: probing.Rows, labels: Tensor, test: probing.Rows) -> Scores:
        rates, width = [rate / 100 for rate in sorted(config.rates)[:5]], train.shape[2]
        heads = next(count for count in (16, 12, 8, 6, 4, 3, 2, 1) if width % count == 0 and width // count >= 16)
        passes = max(1, config.epochs // 5)
        fitted = None if heads_of else heads_of
        return probing.attentive_sweep(train, labels, test, heads, rates, passes, config.seed, fitted=fitted)

    return {
        "knn": knn,
        "logistic": logistic,
        "linear": linear(False),
        "linear-bn": linear(True),
        "attentive": attentive,
    }


def measure(
    config: Probe,
    features: Features,
    labels: Int[Tensor, " n"],
    folds: Sequence[Fold],
    heads: dict[float, AttentiveHead] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """For each kind and pool: top-1 in [0, 1] over the tests of all folds, which of them are right, and the settings.

    A fold's setting is chosen by its held rows; then it is fitted again on them too. Where there are none, the middle
    setting is taken. `all` has each setting's own top-1, for the curious: nobody may choose by it. `heads` takes the
    attentive heads by their settings, fitted on the first fold's kept and held rows.
    """
    fits = fitters(config, min(len(fold.kept) for fold in folds), {} if heads is None else heads)
    answers = torch.cat([labels[fold.test] for fold in folds])
    table: dict[str, dict[str, dict[str, Any]]] = {}
    wanted = [(kind, pool) for kind in config.kinds for pool in (("tokens",) if kind == "attentive" else config.pool)]
    with Progress("probes fitted", len(wanted) * len(folds), alike=False) as progress:
        for kind, pool in wanted:
            found = features[pool] if kind == "attentive" else features[pool].flatten(1)
            chosen, right, tried = [], [], []
            for fold in folds:
                progress.show(progress.done, f"{kind} {pool}")
                setting, scores = _fold(fits[kind], found, labels, fold)
                progress.step()
                chosen.append(setting)
                right.append(scores[setting].argmax(1) == labels[fold.test])
                tried.append(scores)
            hits = torch.cat(right)
            every = {str(key): torch.cat([scores[key] for scores in tried]) for key in tried[0]}
            table.setdefault(kind, {})[pool] = {
                "top1": hits.float().mean().item(),
                "setting": max(set(chosen), key=chosen.count),
                "all": {name: probing.accuracy(scores, answers) for name, scores in every.items()},
                "right": "".join(str(int(hit)) for hit in hits),
            }
    return table


def _fold(fit: Fit, found: Tensor, labels: Tensor, fold: Fold) -> tuple[Any, Scores]:
    """The setting that the held rows choose, and every setting's scores of the test."""

    def part(rows: Rows) -> Any:
        return found[rows] if found.ndim == 2 else probing.Rows(found, rows)

    rows = torch.cat((fold.kept, fold.held)).sort().values
    scores = fit(part(rows), labels[rows], part(fold.test))
    if not len(fold.held):
        return sorted(scores)[len(scores) // 2], scores
    return probing.choose(fit(part(fold.kept), labels[fold.kept], part(fold.held)), labels[fold.held]), scores


def told(table: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table as lines."""
    lines = []
    for kind, pools in table.items():
        for pool, row in pools.items():
            others = "  ".join(f"{setting}: {value:.1%}" for setting, value in row["all"].items())
            line = f"{kind:10} {pool:6} {row['top1']:7.1%}  at {row['setting']:g}"
            lines.append(line + (f"  ({others})" if len(row["all"]) > 1 else ""))
    return "\n".join(lines)
