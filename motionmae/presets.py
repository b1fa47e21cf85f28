"""Named sizes, recipes and commands, in plain Python: a preset is a config, and every field of it can be overridden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from motionmae.config import (
    BenchData,
    BenchLoop,
    BenchPretrain,
    BenchSegment,
    Data,
    Decoder,
    Demo,
    Loss,
    Mask,
    Model,
    Optim,
    Prepare,
    Pretrain,
    Report,
    Run,
    Scan,
    SegmentDavis,
    SegmentScore,
    SegmentVideo,
    Target,
)


@dataclass(frozen=True)
class Command:
    """One command: its sentence in the help, and its configs by choice; the choice "" is a command without one."""

    summary: str
    choices: dict[str, Any]


def vit(width: int, depth: int, heads: int, decoder_width: int, decoder_heads: int) -> Model:
    """VideoMAE's sizes: clips of 16 x 224 x 224, cubes of 2 x 16 x 16, a decoder of half the width and 4 blocks."""
    return Model(
        width=width, depth=depth, heads=heads, decoder=Decoder(width=decoder_width, depth=4, heads=decoder_heads)
    )


SIZES: dict[str, Model] = {
    "tiny": Model(
        frames=8,
        size=64,
        cube=(2, 8, 8),
        width=128,
        depth=4,
        heads=4,
        decoder=Decoder(width=64, depth=2, heads=2),
    ),
    "small": vit(384, 12, 6, 192, 3),
    "base": vit(768, 12, 12, 384, 6),
    "large": vit(1024, 24, 16, 512, 8),
    "huge": vit(1280, 32, 16, 640, 8),
}

# Published pretraining recipes (VideoMAE, arXiv 2203.12602, and its repository).
RECIPES: dict[str, Pretrain] = {
    "ssv2": Pretrain(data=Data(stride=2, flip=False)),
    "k400": Pretrain(data=Data(stride=4)),
    "ucf101": Pretrain(mask=Mask(ratio=0.75), data=Data(stride=4), optim=Optim(epochs=3200.0, lr=3e-4, batch=192)),
    "hmdb51": Pretrain(mask=Mask(ratio=0.75), data=Data(stride=2), optim=Optim(epochs=4800.0, lr=3e-4, batch=192)),
}

# Ours, chosen by experiment (docs/log.md). Differences on one scale for the whole clip are learnt by the time head,
# those normalised cube by cube hardly; but with a weight of 1 they keep the space head on its first plateau.
TINY = Pretrain(
    model=SIZES["tiny"],
    mask=Mask(kind="random", ratio=0.85, decode_ratio=0.5),
    target=Target(appearance_floor=0.05, motion_normalise="clip"),
    loss=Loss(motion=0.02),
    data=Data(stride=2, flip=False, scales=(1.0,), cache=True, workers=0),
    optim=Optim(batch=32, steps=1800, lr=1.6e-2, clip=1.0),
)


def _pretrain() -> dict[str, Pretrain]:
    """Sizes by their own names with Kinetics' recipe, recipes for ViT-B, and recipes for other sizes (ssv2-large)."""
    configs = {"tiny": TINY} | {size: replace(RECIPES["k400"], model=SIZES[size]) for size in list(SIZES)[1:]}
    for recipe, config in RECIPES.items():
        configs |= {recipe: replace(config, model=SIZES["base"])}
        configs |= {f"{recipe}-{size}": replace(config, model=SIZES[size]) for size in ("small", "large", "huge")}
    return {name: replace(config, run=Run(out=f"runs/pretrain-{name}")) for name, config in configs.items()}


COMMANDS: dict[str, Command] = {
    "demo": Command("Make videos, pretrain, measure and report: the whole chain in minutes on a CPU.", {"": Demo()}),
    "scan": Command("Examine a folder: what videos are there, and what can be used.", {"": Scan()}),
    "prepare": Command("Re-encode videos so that training reads them faster.", {"": Prepare()}),
    "bench": Command(
        "Measure speed against a reference.",
        {"pretrain": BenchPretrain(), "data": BenchData(), "segment": BenchSegment(), "loop": BenchLoop()},
    ),
    "pretrain": Command("Learn an encoder from a folder of unlabelled videos.", _pretrain()),
    "report": Command("Make one HTML page of one or several runs.", {"": Report()}),
    "segment": Command(
        "Segment objects through a video from the masks of one frame, and score masks as DAVIS does.",
        {"davis": SegmentDavis(), "video": SegmentVideo(), "score": SegmentScore()},
    ),
}
