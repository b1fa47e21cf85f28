"""`motionmae bench run`: a whole run, from files to gradients, by the loop itself: clips per second and data wait."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from motionmae.config import BenchRun
from motionmae.library.sources import find
from motionmae.tasks.bench.pretrain import videos
from motionmae.tasks.pretrain import fit_videos
from motionmae.words import many


def run(config: BenchRun) -> None:
    """Train for a few stretches in a folder that is thrown away, and print what its log says of all but the first."""
    with videos(config) as config, tempfile.TemporaryDirectory() as out:
        steps = (config.turns + 1) * config.run.log_every
        once = replace(config.run, out=out, save_every=2 * steps, inspect_every=2 * steps)
        settings = replace(config, optim=replace(config.optim, steps=steps), run=once)
        with contextlib.redirect_stdout(io.StringIO()):
            if not fit_videos(settings, find(config.data)):
                raise KeyboardInterrupt
        lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    readings = [line for line in lines if "data_wait" in line][1:]
    speed, wait = (statistics.median(line[name] for line in readings) for name in ("clips_per_second", "data_wait"))
    print(
        f"{speed:.2f} clips/s from files to gradients, {config.optim.batch} a step, "
        f"{many(config.data.workers, 'worker')}; data wait {wait:.1%} of the time (medians of "
        f"{many(len(readings), 'stretch')} of {many(config.run.log_every, 'step')})"
    )
    if wait > 0.02:
        print("above 2 %: more --data.workers or motionmae prepare would help; motionmae bench data says which")
