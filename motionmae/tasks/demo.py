"""`motionmae demo`: from nothing to the claim: with motion beside appearance the encoder knows more. Minutes on a CPU.

Two encoders are pretrained at the same time, on a processor each, and measured as `motionmae study` measures.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from motionmae.config import (
    Davis,
    Demo,
    Features,
    Pretrain,
    Probe,
    ProbeData,
    Propagation,
    Run,
    SegmentDavis,
    Study,
    Viewing,
    check,
)
from motionmae.data.synthetic import MOTIONS, sequences, write_videos
from motionmae.evaluation.comparing import over_videos
from motionmae.evaluation.davis import write_sequence
from motionmae.files import read_json, write_text
from motionmae.library.processes import available
from motionmae.presets import TINY
from motionmae.progress import Progress, clock, then
from motionmae.report import page
from motionmae.report.run import columns, last_picture, loss_charts
from motionmae.tasks import study
from motionmae.words import many

ARMS = ("untrained", "appearance", "both")
COLUMNS = {
    "linear probe, by time": ("linear", "time"),
    "linear probe, pooled": ("linear", "mean"),
    "k-NN, by time": ("knn", "time"),
}
SCORES = ("J&F-Mean", "J-Mean", "F-Mean")


def run(config: Demo) -> None:
    """Render, pretrain on appearance alone and on both, measure beside the untrained encoder, report."""
    check(config)
    begun, out = time.perf_counter(), Path(config.out)
    make_videos(config, out)
    settings = study_of(config, out)
    study.run(settings)
    rows = {arm: read_json(Path(settings.results) / f"{arm}-{config.seed}.json") for arm in ARMS}
    elapsed = clock(time.perf_counter() - begun)
    write_text(out / "report.html", write_page(config, settings.base, rows, elapsed, out))
    print(as_text(rows))
    print(f"\n{elapsed} in all. The report: {out / 'report.html'}")
    then(f"open {out / 'report.html'} in a browser")


def make_videos(config: Demo, out: Path) -> None:
    """Write the videos to learn from, those to test on, and the sequences with masks; what is there is kept."""
    for split, count, seed in (("train", config.videos, 1), ("test", config.tests, 2)):
        made = write_videos(out / "videos", split, count, seed=seed)
        with Progress(f"videos to {'learn from' if split == 'train' else 'test on'}", count * len(MOTIONS)) as progress:
            for _ in made:
                progress.step()
    with Progress("sequences with masks", config.sequences) as progress:
        for name, made in sequences(config.sequences, seed=3):
            write_sequence(out / "davis", "val", name, made.frames.numpy(), made.masks.numpy().astype("uint8"))
            progress.step()


def study_of(config: Demo, out: Path) -> Study:
    """The demo as a study: three arms of the grid `headline` at one seed, probed and propagated."""
    videos, cores = out / "videos", available()
    return Study(
        grid="headline",
        arms=ARMS,
        seeds=(config.seed,),
        base=replace(
            TINY,
            data=replace(TINY.data, path=str(videos / "train")),
            optim=replace(TINY.optim, steps=config.steps),
            run=Run(log_every=25, inspect_every=config.steps, save_every=200, device="cpu", threads=max(1, cores // 2)),
        ),
        measures=("probe", "davis"),
        probe=Probe(
            kinds=("linear", "knn"),
            pool=("mean", "time"),
            data=ProbeData(path=str(videos / "train"), test=str(videos / "test")),
            views=Viewing(clips=3, crops=1),
        ),
        davis=SegmentDavis(
            data=Davis(str(out / "davis")),
            features=Features(entry="repeat", stride=TINY.model.cube[1] // 2, layer=TINY.model.depth),
            propagation=Propagation(short=0, multiple=0),
        ),
        processes=min(2, cores),
        timed=0,
        out=str(out / "runs"),
        results=str(out / "figures"),
    )


def in_percent(row: dict[str, Any]) -> list[float]:
    """A row of the table, in percent."""
    probed = [row["probe"][kind][pool]["top1"] for kind, pool in COLUMNS.values()]
    return [100 * value for value in (*probed, *(row["davis"][name] for name in SCORES))]


def gains(rows: dict[str, Any]) -> list[str]:
    """What motion adds, in points: for the probes with the 95 % interval over test videos."""
    told = []
    for (kind, pool), both, alone in zip(
        COLUMNS.values(), in_percent(rows["both"]), in_percent(rows["appearance"]), strict=False
    ):
        left, right = ([rows[arm]["probe"][kind][pool]["right"]] for arm in ("both", "appearance"))
        low, high = over_videos(left, right)
        told.append(f"{both - alone:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    scores = zip(in_percent(rows["both"])[3:], in_percent(rows["appearance"])[3:], strict=True)
    return told + [f"{both - alone:+.1f}" for both, alone in scores]


def table_of(rows: dict[str, Any]) -> list[list[str]]:
    """The table's rows as text: chance, the three encoders, and what motion adds."""
    chance = ["chance", *[f"{100 / len(MOTIONS):.1f}"] * 3, "", "", ""]
    cells = [[arm, *(f"{value:.1f}" for value in in_percent(row))] for arm, row in rows.items()]
    return [chance, *cells, ["both − appearance", *gains(rows)]]


def write_page(config: Demo, base: Pretrain, rows: dict[str, Any], elapsed: str, out: Path) -> str:
    """The page."""
    header = ("in percent", *COLUMNS, "J&F", "J", "F")
    both = out / "runs" / f"both-{config.seed}"
    parts = [
        page.section(
            "What the frozen encoder knows",
            page.table(header, table_of(rows), strong=[3]),
            page.text(
                f"Accuracy over {len(MOTIONS)} motions ({', '.join(MOTIONS)}) on {config.tests} unseen videos of each, "
                f"and region J and contour F of first-frame masks propagated through "
                f"{many(config.sequences, 'sequence')}. Brackets: the 95 % interval of the difference, were other test "
                f"videos drawn. One seed ({config.seed}): another seed moves figures by some points too."
            ),
        ),
        page.section(
            "Is the loss normal?",
            page.text("A head has learnt something where its line is below the dashed one."),
            loss_charts(both),
        ),
    ]
    picture = last_picture(both)
    if picture:
        parts.append(page.section("What the two heads predict", page.picture(picture, "", columns(both))))
    lines = (
        "motionmae pretrain small --data.path YOUR_VIDEOS      # an encoder of your own",
        f"motionmae reconstruct {both} MY.mp4 --out looks.mp4   # what it sees, guesses and misses",
        f"motionmae segment video MY.mp4 --model {both} --box 10,20,80,90",
        "motionmae pretrain --help                             # presets and recipes",
    )
    parts.append(page.section("What to run next", page.code("\n".join(lines))))
    videos = config.videos * len(MOTIONS)
    learnt = f"{many(config.steps, 'step')} of {many(base.optim.batch, 'clip')} on {many(videos, 'video')}"
    lead = f"{learnt}, twice; {elapsed} in all."
    return page.page("MotionMAE demo", lead, parts)


def as_text(rows: dict[str, Any]) -> str:
    """The table for a terminal of 80 columns: a line for each figure."""
    body = table_of(rows)
    names = (*COLUMNS, "J&F", "J", "F")
    lines = [["", *(row[0] for row in body)]] + [
        [name, *(row[at + 1] for row in body)] for at, name in enumerate(names)
    ]
    wide = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(line, wide, strict=True)) for line in lines)
