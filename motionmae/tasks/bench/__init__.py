"""`motionmae bench CHOICE`: measure one thing; each choice has a module of its own."""

from __future__ import annotations

from importlib import import_module

from motionmae.config import (
    BenchData,
    BenchEmbed,
    BenchEvaluate,
    BenchPretrain,
    BenchRun,
    BenchSegment,
    BenchSizes,
)

HOME = {
    BenchData: "bench.data",
    BenchEmbed: "bench.inference",
    BenchEvaluate: "bench.inference",
    BenchPretrain: "bench.pretrain",
    BenchRun: "bench.whole",
    BenchSegment: "segment.bench",
    BenchSizes: "bench.sizes",
}


def run(config: object) -> None:
    """Run the bench that the config is for: one of HOME's."""
    import_module(f"motionmae.tasks.{HOME[type(config)]}").run(config)
