"""The page of probes: what each kind of classifier makes of frozen features, with the interval of its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motionmae.evaluation import comparing
from motionmae.files import write_text
from motionmae.report import page
from motionmae.report.page import Finding
from motionmae.words import many


def write(
    path: Path, content: Mapping[str, Any], about: Mapping[str, str], chance: float, groups: Sequence[int] = ()
) -> None:
    """The page of what `probe` found. `chance` is the share of the commonest class of the test, `groups` the group of
    each video of the test where groups were left out in turn: then whole groups are drawn for the intervals."""
    rows, best = [], ("", 0.0, 0.0, 0.0)
    for kind, pools in content["probes"].items():
        for pool, found in pools.items():
            low, high = comparing.of_share([mark == "1" for mark in found["right"]], groups)
            name, top1 = f"{kind}, {pool}", found["top1"]
            best = max(best, (name, top1, low, high), key=lambda row: row[1])
            rows.append((name, top1, f"{top1:.1%}", f"{low:.1%} to {high:.1%}", f"{found['setting']:g}"))
    others = [
        (f"{kind}, {pool}", setting, f"{value:.1%}")
        for kind, pools in content["probes"].items()
        for pool, found in pools.items()
        for setting, value in found["all"].items()
        if len(found["all"]) > 1
    ]
    name, top1, low, high = best
    words = f"the best probe is {name}: {top1:.1%}, 95 % interval {low:.1%} to {high:.1%}; "
    verdict = [Finding("good" if low > chance else "bad", f"{words}the commonest class is {chance:.1%}")]
    drawn = "groups" if groups else "videos"
    note = f"Settings were chosen on videos that are not in the test. Intervals are a bootstrap over {drawn}."
    header = ("probe, features", "top-1", "95 % interval", "setting")
    sections = [page.section("Accuracy", page.part("bars", header, rows), page.text(note))]
    if others:
        words = "The test's own accuracy with every setting, to see how much it moves: nobody may choose by it."
        table = page.table(("probe, features", "setting", "top-1"), others)
        sections.append(page.section("Every setting", page.text(words), table))
    lead = f"{many(content['train'], 'video')} to fit on, {content['test']} to test on"
    write_text(path, page.page("Probes of frozen features", lead, sections, verdict, about), "replace")
