"""The figures of a study to tables, a drawing and a page: nothing is in them that the files do not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.evaluation import comparing
from motionmae.files import read_json, read_text, write_text
from motionmae.grids import GRIDS, Grid
from motionmae.report import page
from motionmae.report.page import Finding

Figures = dict[str, dict[int, dict[str, Any]]]
"""Of each arm and seed."""
Column = tuple[str, ...]
"""The way through an arm's figures to a share in [0, 1]."""
MINUS = "\u2212"


def write(name: str, results: Path, page_file: str) -> str:
    """Write NAME.md, NAME.svg and NAME.html into the folder of results, renew the table in a page, and give it.

    In the page it stands between `<!-- study FOLDER NAME -->` and `<!-- end -->`; the drawing comes to lie beside the
    page as study-FOLDER-NAME.svg. Raises MotionMAEError for figures that no study has written.
    """
    figures, cost = read(results, GRIDS[name].arms), steps(results)
    try:
        told, made = table(name, figures, cost), as_page(name, figures, cost, results)
        drawn = drawing(GRIDS[name], figures)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MotionMAEError(f"{results}: holds figures that no study has written ({error!r})") from error
    results.mkdir(parents=True, exist_ok=True)
    write_text(results / f"{name}.md", told + "\n")
    write_text(results / f"{name}.html", made)
    if drawn:
        write_text(results / f"{name}.svg", drawn + "\n")
        if page_file:
            write_text(Path(page_file).parent / f"study-{results.name}-{name}.svg", drawn + "\n")
    if page_file:
        renew(Path(page_file), f"{results.name} {name}", told)
    return told


def read(results: Path, arms: Sequence[str]) -> Figures:
    """What has been measured of these arms, the cells that have failed among it."""
    found: Figures = {}
    for arm in arms:
        for file in sorted(results.glob(f"{arm}-*.json")):
            if (seed := re.fullmatch(rf"{re.escape(arm)}-(\d+)", file.stem)) is not None:
                found.setdefault(arm, {})[int(seed[1])] = read_json(file)
    return found


def steps(results: Path) -> dict[str, float]:
    """What a step of each arm costs over one of appearance alone, where it was timed."""
    file = results / "steps.json"
    return read_json(file) if file.exists() else {}


def renew(file: Path, mark: str, told: str) -> None:
    """Put the table between its comments in a Markdown page. Raises MotionMAEError where they are not there."""
    text = read_text(file)
    pattern = re.compile(rf"(<!-- study {re.escape(mark)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise MotionMAEError(f"--page {file}: has no comment <!-- study {mark} --> with an <!-- end --> after it")
    write_text(file, pattern.sub(lambda match: match[1] + told + "\n" + match[2], text))


def table(name: str, figures: Figures, cost: dict[str, float]) -> str:
    """Each arm's mean and spread, the pairs' differences with their intervals, and the cells that have failed."""
    grid, columns = GRIDS[name], _columns(figures)
    parts = [f"**{grid.question}**", "", *_lines(_arms(grid, figures, columns, cost))]
    if pairs := _pairs(grid, figures, columns):
        parts += ["", *_lines(pairs)]
    failed = [f"- {words}" for words in _failed(figures)]
    return "\n".join([*parts, *([""] if failed else []), *failed])


def as_page(name: str, figures: Figures, cost: dict[str, float], results: Path) -> str:
    """The same as one HTML page: the answer, a dot for each run in every column, and the tables."""
    grid, columns = GRIDS[name], _columns(figures)
    arms, pairs = _arms(grid, figures, columns, cost), _pairs(grid, figures, columns)
    verdict = [Finding("plain", f"{row[0]}, {head}: {row[at]} points") for row in pairs[1:2]
               for at, head in enumerate(pairs[0]) if at > 1 and row[at]]  # fmt: skip
    verdict += [Finding("bad", words) for words in _failed(figures)]
    note = (
        "Accuracies and J&F in percent, mean and deviation over seeds; heads' losses over the trivial prediction's; "
        "what a step costs over one of appearance alone. Differences are paired by seed, in points: [95 % interval "
        "over seeds], (95 % interval over test videos)."
    )
    sections = [
        page.section("Every run", page.drawings([page.dots([panel]) for panel in _panels(grid, figures, columns)])),
        page.section("Arms", page.table(arms[0], arms[1:]), page.text(note)),
    ]
    if pairs:
        sections.append(page.section("Differences", page.table(pairs[0], pairs[1:])))
    return page.page(grid.question, f"the grid {name} on {results.name}", sections, verdict)


def _failed(figures: Figures) -> list[str]:
    return [
        f"{arm}, seed {seed}, failed: {found['failed']}"
        for arm, runs in figures.items()
        for seed, found in runs.items()
        if "failed" in found
    ]


def _columns(figures: Figures) -> dict[str, Column]:
    """What has been measured of any arm, in a fixed order, under the names of the table's head."""
    known: dict[str, Column] = {}
    for kind, word in (("logistic", "linear"), ("linear", "SGD"), ("linear-bn", "SGD-bn"), ("knn", "k-NN")):
        known |= {f"{word}, {pool}": ("probe", kind, pool, "top1") for pool in ("mean", "time", "grid", "change")}
    known["attentive"] = ("attentive", "attentive", "tokens", "top1")
    shares = {share for runs in figures.values() for run in runs.values() for share in run.get("finetune", ())}
    known |= {
        f"fine-tuned, {float(share):.0%} of labels": ("finetune", share, "top1")
        for share in sorted(shares, key=float, reverse=True)
    }
    known |= {"J&F": ("davis", "J&F-Mean")}
    return {word: way for word, way in known.items() if any(_values(figures, arm, way) for arm in figures)}


def _values(figures: Figures, arm: str, way: Column) -> dict[int, Any]:
    """What stands at the end of the way in each seed of an arm that has it."""
    found: dict[int, Any] = {}
    for seed, value in figures.get(arm, {}).items():
        for step in way:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[seed] = value
    return found


def _arms(grid: Grid, figures: Figures, columns: dict[str, Column], cost: dict[str, float]) -> list[list[str]]:
    rows = [["pretrained with", "seeds", "steps", "a step", "appearance", "motion", *columns]]
    for arm in (arm for arm in grid.arms if arm in figures):
        runs = [run for run in figures[arm].values() if "failed" not in run]
        course = [run["pretrain"] for run in runs if "pretrain" in run]
        done = f"{course[0]['steps']:,}" if course else ""
        losses = [
            _mean([run[key] for run in course if key in run], lambda value: f"{value:.2f}".lstrip("0"))
            for key in ("appearance_ratio", "motion_ratio")
        ]
        measured = [
            _mean([100 * value for value in _values(figures, arm, way).values()], lambda value: f"{value:.1f}", True)
            for way in columns.values()
        ]
        step = f"{cost[arm]:.2f}" if arm in cost else ""
        rows.append([arm, str(len(runs)), done, step, *losses, *measured])
    return _filled(rows)


def _mean(values: Sequence[float], tell: Callable[[float], str], spread: bool = False) -> str:
    """The mean, with `spread` and the deviation of two values or more beside it."""
    if not values:
        return ""
    deviation = comparing.deviation(values)
    return tell(comparing.mean(values)) + (f" ± {deviation:.1f}" if spread and deviation is not None else "")


def _pairs(grid: Grid, figures: Figures, columns: dict[str, Column]) -> list[list[str]]:
    """Of each pair the mean difference in points, its interval over seeds and that over videos."""
    rows = [["difference", "seeds", *columns]]
    for left, right in grid.pairs:
        cells, counts = [], set()
        for way in columns.values():
            ours, theirs = _values(figures, left, way), _values(figures, right, way)
            seeds = sorted(ours.keys() & theirs.keys())
            counts.add(len(seeds))
            cells.append(_difference(figures, left, right, way, seeds) if seeds else "")
        if any(cells):
            rows.append([f"{left} − {right}", str(max(counts)), *cells])
    return _filled(rows) if len(rows) > 1 else []


def _difference(figures: Figures, left: str, right: str, way: Column, seeds: Sequence[int]) -> str:
    ours, theirs = _values(figures, left, way), _values(figures, right, way)
    gains = [100 * (ours[seed] - theirs[seed]) for seed in seeds]
    told = _signed(comparing.mean(gains))
    if interval := comparing.over_seeds(gains):
        told += f" [{_signed(interval[0])}, {_signed(interval[1])}]"
    hits = [_values(figures, arm, (*way[:-1], "right")) for arm in (left, right)]
    if all(set(seeds) <= found.keys() for found in hits):
        our_hits, their_hits = ([found[seed] for seed in seeds] for found in hits)
        low, high = comparing.over_videos(our_hits, their_hits)
        told += f" ({_signed(100 * low)}, {_signed(100 * high)})"
    return told


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def _filled(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows without the columns that have no value in any but the first."""
    kept = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    return [[row[at] for at in kept] for row in rows]


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    told = [f"| {' | '.join(row)} |" for row in rows]
    return [told[0], "|" + "---|" * len(rows[0]), *told[1:]]


def drawing(grid: Grid, figures: Figures) -> str:
    """A dot for each run, by arm, in one panel for each of the first three columns; empty where nothing is measured."""
    panels = _panels(grid, figures, _columns(figures))[:3]
    return page.dots(panels) if panels else ""


def _panels(grid: Grid, figures: Figures, columns: dict[str, Column]) -> list[tuple[str, dict[str, Sequence[float]]]]:
    """Of each column the values of all runs in percent, by arm."""
    panels: list[tuple[str, dict[str, Sequence[float]]]] = []
    for word, way in columns.items():
        points = {arm: [100 * value for value in _values(figures, arm, way).values()] for arm in grid.arms}
        panels.append((word, {arm: values for arm, values in points.items() if values}))
    return panels
