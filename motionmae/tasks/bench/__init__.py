"""`motionmae bench CHOICE`: measure one thing; each choice has a module of its own."""

from __future__ import annotations

from importlib import import_module

from motionmae.config import BenchData, BenchLoop, BenchPretrain, BenchSegment

HOME = {
    BenchData: "bench.data",
    BenchLoop: "bench.loop",
    BenchPretrain: "bench.pretrain",
    BenchSegment: "segment.bench",
}


def run(config: BenchData | BenchLoop | BenchPretrain | BenchSegment) -> None:
    """Run the bench that the config is for."""
    import_module(f"motionmae.tasks.{HOME[type(config)]}").run(config)
