"""Named sizes, recipes and commands, in plain Python: a preset is a config, and every field of it can be overridden."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from motionmae.config import (
    Augment,
    BenchData,
    BenchEmbed,
    BenchEvaluate,
    BenchPretrain,
    BenchRun,
    BenchSegment,
    BenchSizes,
    Compute,
    Data,
    Demo,
    Embed,
    Evaluate,
    Export,
    Finetune,
    Labelled,
    Map,
    Mask,
    Mix,
    Motions,
    Optim,
    Planned,
    Predict,
    Prepare,
    Pretrain,
    Probe,
    Propagation,
    Reconstruct,
    Report,
    Run,
    Scan,
    Search,
    SegmentDavis,
    SegmentScore,
    SegmentVideo,
    Study,
    Target,
    Viewing,
)
from motionmae.config.sizes import SIZES
from motionmae.grids import GRIDS


@dataclass(frozen=True)
class Command:
    """One command: its sentence in the help, and its configs by choice; the choice "" is a command without one.

    A choice may have choices of its own.
    """

    summary: str
    choices: dict[str, Any]


OPEN = ("optim.batch", "optim.steps", "run.micro_batch", "data.workers", "data.prefetch")
"""What published recipes leave to the videos and the machine (`training/settling.py`), unless it is typed."""

# Published pretraining recipes (VideoMAE, arXiv 2203.12602, and its repository).
RECIPES: dict[str, Pretrain] = {
    "ssv2": Pretrain(data=Data(stride=2, flip=False)),
    "k400": Pretrain(data=Data(stride=4)),
    "ucf101": Pretrain(mask=Mask(ratio=0.75), data=Data(stride=4), optim=Optim(epochs=3200.0, lr=3e-4, batch=192)),
    "hmdb51": Pretrain(mask=Mask(ratio=0.75), data=Data(stride=2), optim=Optim(epochs=4800.0, lr=3e-4, batch=192)),
}

# Ours, chosen by experiment (docs/results.md, docs/log.md). With AdamW both heads stay near their first plateau at this
# scale, and motion then only disturbs; with Muon both learn, and the paper's 1 : 1, cube by cube, is best; velocity
# beside it helps as much again.
TINY = Pretrain(
    model=SIZES["tiny"],
    mask=Mask(kind="random", ratio=0.85, decode_ratio=0.5),
    target=Target(appearance_floor=0.05, motion_floor=0.02, second="velocity"),
    data=Data(stride=2, flip=False, scales=(1.0,), cache=True, workers=0),
    optim=Optim(kind="muon", batch=32, steps=1800, lr=1.6e-2, clip=1.0),
)


def _pretrain() -> dict[str, Pretrain]:
    """Sizes by their own names with Kinetics' recipe, recipes for ViT-B, and recipes for other sizes (ssv2-large)."""
    configs = {"tiny": TINY} | {size: replace(RECIPES["k400"], model=SIZES[size]) for size in list(SIZES)[1:]}
    for recipe, config in RECIPES.items():
        configs |= {recipe: replace(config, model=SIZES["base"])}
        configs |= {f"{recipe}-{size}": replace(config, model=SIZES[size]) for size in ("small", "large", "huge")}
    return {
        name: replace(config, run=Run(out=f"runs/pretrain-{name}"), open=() if name == "tiny" else OPEN)
        for name, config in configs.items()
    }


def _measured(kind: type[Any]) -> dict[str, Any]:
    """The pretraining presets as configs that are measured: 8 clips a step, read and decoded anew by one worker."""
    return {
        name: replace(
            config,
            data=replace(config.data, workers=1, cache=False),
            optim=replace(config.optim, batch=8),
            run=Run(),
            open=(),
        )
        for name, config in _as(kind).items()
    }


def _as(kind: type[Any]) -> dict[str, Any]:
    """The pretraining presets as configs of a class that has their fields and more."""
    return {
        name: kind(**{each.name: getattr(config, each.name) for each in fields(config)})
        for name, config in _pretrain().items()
    }


def _schedule(lr: float, epochs: float, batch: int, repeats: int = 1) -> Optim:
    """VideoMAE's fine-tuning: five epochs of warm-up, no clipping. Its batch counts videos and its rates are for 256 of
    them; ours count clips, of which each video gives `repeats`."""
    rate, low, clips = lr / repeats, 1e-6 / repeats, batch * repeats
    return Optim(batch=clips, epochs=epochs, lr=rate, lr_start=low, lr_end=low, warmup_epochs=5.0, betas=(0.9, 0.999))


STRONG = Augment(layers=4, magnitude=7.0, spread=0.5, erase=0.25)

# Published fine-tuning recipes of ViT-B (VideoMAE, arXiv 2203.12602, and its repository). HMDB51's head dropout is not
# published: UCF101's is taken. Directions are classes of Something-Something, so nothing is mirrored there. Of the two
# schedules published for ssv2 and k400 these are those with one clip a video.
FINETUNE: dict[str, Finetune] = {
    "ssv2": Finetune(
        augment=STRONG,
        data=Labelled(sampling="uniform", stride=2, flip=False, area=(0.08, 1.0)),
        views=Viewing(clips=2, crops=3),
        optim=_schedule(5e-4, 50.0, 512),
    ),
    "k400": Finetune(
        augment=STRONG,
        data=Labelled(stride=4, area=(0.08, 1.0)),
        views=Viewing(clips=5, crops=3),
        optim=_schedule(1e-3, 100.0, 512),
    ),
    "ucf101": Finetune(
        drop_path=0.2,
        dropout=0.5,
        layer_decay=0.7,
        augment=STRONG,
        data=Labelled(stride=4, repeats=2, area=(0.08, 1.0)),
        views=Viewing(clips=5, crops=3),
        optim=_schedule(5e-4, 100.0, 128, repeats=2),
    ),
    "hmdb51": Finetune(
        drop_path=0.2,
        dropout=0.5,
        layer_decay=0.7,
        augment=STRONG,
        data=Labelled(stride=2, area=(0.08, 1.0)),
        views=Viewing(clips=10, crops=3),
        optim=_schedule(1e-3, 50.0, 128),
    ),
    # Our own: a few hundred videos of any length on one GPU. What the classes are is unknown, so nothing is mirrored.
    "custom": Finetune(
        dropout=0.5,
        augment=STRONG,
        data=Labelled(sampling="uniform", stride=1, flip=False, area=(0.3, 1.0)),
        views=Viewing(clips=2, crops=3),
        optim=_schedule(2e-3, 60.0, 32),
        run=Run(micro_batch=8, inspect_every=100),
    ),
    # Our own: small clips on a processor, in minutes.
    "tiny": Finetune(
        model=SIZES["tiny"],
        drop_path=0.0,
        mix=Mix(mixup=0.0, cutmix=0.0),
        data=Labelled(sampling="uniform", stride=1, flip=False, scales=(1.0, 0.875), cache=True, workers=0),
        views=Viewing(clips=2, crops=1),
        optim=replace(_schedule(1e-2, 40.0, 32), clip=1.0),
    ),
}


def _finetune() -> dict[str, Finetune]:
    return {
        name: replace(
            config,
            run=replace(config.run, out=f"runs/finetune-{name}"),
            open={"tiny": (), "custom": OPEN[3:]}.get(name, OPEN),
        )
        for name, config in FINETUNE.items()
    }


# Our own: small enough for a grid of runs on a processor, with an optimiser by which both heads learn in 1,000 steps.
STUDY = Study(
    base=Pretrain(
        model=replace(SIZES["tiny"], size=48),
        mask=Mask(kind="random", ratio=0.75, decode_ratio=0.5),
        target=Target(appearance_floor=0.05, motion="signed"),
        data=Data(sampling="uniform", stride=1, flip=False, scales=(1.0,), cache=True, workers=0),
        optim=Optim(kind="muon", batch=64, steps=1000, lr=4e-3, clip=1.0),
        run=Run(threads=1, log_every=25, save_every=500, inspect_every=10**6),
    ),
    probe=Probe(
        kinds=("logistic", "knn"),
        pool=("mean", "time", "grid"),
        views=Viewing(clips=1, crops=1, sampling="uniform", stride=1),
        compute=Compute(threads=1, workers=0),
    ),
    finetune=replace(
        FINETUNE["tiny"],
        optim=replace(FINETUNE["tiny"].optim, kind="muon", steps=600),
        run=Run(threads=1, log_every=25, inspect_every=10**6),
    ),
    davis=SegmentDavis(propagation=Propagation(short=160), overlays=False),
)


def _study() -> dict[str, Study]:
    return {name: replace(STUDY, grid=name, out="runs/study") for name in GRIDS}


COMMANDS: dict[str, Command] = {
    "demo": Command("Make videos, pretrain, measure and report: the whole chain in minutes on a CPU.", {"": Demo()}),
    "scan": Command("Examine a folder: what videos are there, and what can be used.", {"": Scan()}),
    "prepare": Command("Re-encode videos so that training reads them faster.", {"": Prepare()}),
    "bench": Command(
        "Measure speed against a reference.",
        {
            "pretrain": _measured(BenchPretrain),
            "run": _measured(BenchRun),
            "sizes": BenchSizes(),
            "data": BenchData(),
            "embed": BenchEmbed(),
            "evaluate": BenchEvaluate(),
            "segment": BenchSegment(),
        },
    ),
    "pretrain": Command("Learn an encoder from a folder of unlabelled videos.", _pretrain()),
    "reconstruct": Command("Look at what a pretrained model sees of a video, guesses and misses.", {"": Reconstruct()}),
    "plan": Command("Tell what a pretraining run would take: steps, memory, hours.", _as(Planned)),
    "report": Command("Make one HTML page of one or several runs.", {"": Report()}),
    "segment": Command(
        "Segment objects through a video from the masks of one frame, and score masks as DAVIS does.",
        {"davis": SegmentDavis(), "video": SegmentVideo(), "score": SegmentScore()},
    ),
    "finetune": Command("Learn to tell the classes of labelled videos, from a pretrained encoder.", _finetune()),
    "motions": Command("Cut real clips that are labelled by motion alone from any videos.", {"": Motions()}),
    "study": Command("Run a grid of pretraining runs, measure each alike, and make one table.", _study()),
    "probe": Command("Measure a frozen encoder by k-NN and small classifiers on its features.", {"": Probe()}),
    "predict": Command("Tell the classes of any video, as a whole or along its time.", {"": Predict()}),
    "embed": Command("Make vectors of any videos: a table of clips, seconds or videos.", {"": Embed()}),
    "search": Command("Find the videos most like a query, or near-duplicates, in a table of vectors.", {"": Search()}),
    "map": Command("Draw a table of vectors as a map: what is alike lies near.", {"": Map()}),
    "export": Command(
        "Write a model for other programs: transformers, ONNX, PyTorch alone, plain weights.",
        {kind: Export(kind) for kind in ("hf", "onnx", "pt2", "weights")},
    ),
    "evaluate": Command("Test a fine-tuned model on labelled videos.", {"": Evaluate()}),
}

_TRANSFORMERS = {"small": "ViT-S, 22 M", "base": "ViT-B, 86 M", "large": "ViT-L, 304 M", "huge": "ViT-H, 632 M"}
_DATA = {
    "ssv2": "Something-Something V2: frames at a stride of 2, nothing is mirrored.",
    "k400": "Kinetics-400: frames at a stride of 4.",
    "ucf101": "UCF101: 75 % hidden, 3200 epochs.",
    "hmdb51": "HMDB51: 75 % hidden, 4800 epochs.",
}
_SIZES = {
    "tiny": "0.8 M parameters, 8 frames of 64 pixels: minutes on a CPU.",
    **{size: f"{told} parameters, by Kinetics' recipe." for size, told in _TRANSFORMERS.items()},
    **{recipe: f"{_TRANSFORMERS['base']}, by VideoMAE's recipe for {told}" for recipe, told in _DATA.items()},
    **{
        f"{recipe}-{size}": f"The same recipe with {told} parameters."
        for recipe in _DATA
        for size, told in _TRANSFORMERS.items()
        if size != "base"
    },
}
ABOUT: dict[str, dict[str, str]] = {
    "pretrain": _SIZES,
    "plan": _SIZES,
    "finetune": {
        "ssv2": "VideoMAE's recipe for Something-Something V2: nothing is mirrored, 50 epochs.",
        "k400": "VideoMAE's recipe for Kinetics-400: 100 epochs.",
        "ucf101": "VideoMAE's recipe for UCF101: two clips of each video, 100 epochs.",
        "hmdb51": "VideoMAE's recipe for HMDB51: 50 epochs.",
        "custom": "A few hundred videos of your own, of any length, on one GPU; nothing is mirrored.",
        "tiny": "Small clips on a CPU, in minutes.",
    },
    "export": {
        "hf": "A folder that transformers loads as VideoMAE.",
        "onnx": "An ONNX file, for onnxruntime and others.",
        "pt2": "PyTorch's exported program: runs without this package.",
        "weights": "The tensors alone, as safetensors.",
    },
    "study": {name: grid.question for name, grid in GRIDS.items()},
}
"""What each choice of a command is, in one line; a choice of another kind of config is told by that."""
