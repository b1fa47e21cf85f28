"""`motionmae study`: a named grid of runs, each pretrained and measured alike, as one table.

Its one rule: a cell that has failed is a row with its reason, and costs no other cell anything.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from motionmae.config import Finetune, Pretrain, Probe, SegmentDavis, Study, anonymous, check, from_dict
from motionmae.errors import MotionMAEError
from motionmae.files import read_json, write_json
from motionmae.grids import GRIDS
from motionmae.progress import Progress, clock
from motionmae.report import study as report
from motionmae.tasks.study import cells, timing
from motionmae.tasks.study.cells import Cell
from motionmae.training.folder import plain, same_config
from motionmae.words import many

SECTIONS = {"base": Pretrain, "probe": Probe, "finetune": Finetune, "davis": SegmentDavis}


def run(config: Study) -> None:
    """Run what is missing of the grid, measure it, and make the table. Raises MotionMAEError where cells failed."""
    check(config)
    grid, results = GRIDS[config.grid], Path(config.results)
    unknown = [arm for arm in config.arms if arm not in grid.arms]
    if unknown:
        raise MotionMAEError(f"--arms {unknown[0]}: the grid {config.grid} has {', '.join(grid.arms)}")
    failed: list[str] = []
    if not config.tables:
        claim(config)
        wanted = [cell for cell in cells.of_grid(config) if cells.unmeasured(config, cell)]
        print(
            f"{config.grid}: {len(wanted)} of {many(len(cells.of_grid(config)), 'cell')} to do, into {config.results}"
        )
        failed = work(config, wanted)
        if config.timed:
            timing.measure(config, results / "steps.json")
    print(report.write(config.grid, results, config.page))
    if failed:
        raise MotionMAEError(
            f"{len(failed)} of {many(len(cells.of_grid(config)), 'cell')} failed, first {failed[0]}; the others are "
            "kept, and the same command tries again"
        )


def claim(config: Study) -> None:
    """Write down what the cells of the folders have in common, or check that it is what is there.

    That is the base, and how each measure was taken that has been asked for so far.
    """
    here = {"base": plain(config.base)}
    for name in config.measures:
        section = "probe" if name == "attentive" else name
        here[section] = plain(getattr(config, section))
    for folder, told in ((Path(config.out), here), (Path(config.results), anonymous(here))):
        file = folder / "study.json"
        if not file.exists() and folder == Path(config.out) and folder.is_dir() and any(folder.iterdir()):
            raise MotionMAEError(f"--out {folder}: holds something else than a study; choose another folder")
        there = read_json(file) if file.exists() else {}
        known = {name: complete(value, name, file) for name, value in there.items() if name in told}
        same_config(known, {name: told[name] for name in known}, f"{folder} holds a study", "choose another folder")
        write_json(file, there | told)


def complete(section: Any, name: str, file: Path) -> Any:
    """A section of `file` as an earlier version wrote it, with the fields that have come since at their defaults."""
    try:
        return plain(from_dict(SECTIONS[name], section)) if name in SECTIONS else section
    except (MotionMAEError, TypeError) as error:
        raise MotionMAEError(f"{file}: its {name} is of another version ({error}); choose another folder") from error


def work(config: Study, wanted: list[Cell]) -> list[str]:
    """Do the cells, `config.processes` at a time, each in a process of its own; says which failed, and why."""
    context, begun = multiprocessing.get_context("spawn"), time.perf_counter()
    progress = Progress("cells", len(wanted), alike=False)
    waiting, running, failed, done = list(wanted), {}, [], 0
    progress.start()
    try:
        while waiting or running:
            while waiting and len(running) < config.processes:
                cell = waiting.pop(0)
                process = context.Process(target=cells.work, args=(config, cell), name=cell.name)
                process.start()
                running[process.sentinel] = (process, cell)
            progress.show(done, "  ".join(cell.name for _, cell in running.values()))
            for sentinel in wait(list(running)):
                process, cell = running.pop(sentinel)
                process.join()
                done += 1
                if process.exitcode == cells.STOPPED:
                    raise KeyboardInterrupt
                why = cells.reason(config, cell, process.exitcode)
                if why:
                    failed.append(f"{cell.name}: {why}")
                told = f"failed: {why}" if why else "done"
                print(f"{done}/{len(wanted)}  {cell.name} {told}, {clock(time.perf_counter() - begun)}", flush=True)
    finally:
        progress.close()
        for process, _ in running.values():
            process.terminate()  # as a stop by the user: a run saves where it is
            process.join()
    return failed
