"""The grids of `motionmae study`: arms as changes to a base config, and what each is compared with. Data, no work.

An arm of one name is the same run in every grid, so grids on the same data share their runs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from motionmae.config import Pretrain

Changes = dict[str, Any]
"""Fields by their dotted names, with new values, or functions of the base's values."""
UNTRAINED = "untrained"
UNLEARNED_ARMS = ("pixels", "energy")
"""Arms without an encoder: linear classifiers of the frames themselves, and of the absolute differences of them."""


def _times(factor: float) -> Any:
    return lambda value: max(1, round(factor * value))


def _faster(factor: float) -> Any:
    return lambda value: factor * value


APPEARANCE: Changes = {"loss.motion": 0.0, "loss.second": 0.0}
ADAMW: Changes = {"optim.kind": "adamw"}
ARMS: dict[str, Changes] = {
    **{name: {} for name in (UNTRAINED, *UNLEARNED_ARMS)},
    "both": {},
    "appearance": APPEARANCE,
    "appearance-longer": {**APPEARANCE, "optim.steps": _times(1.25)},
    "both-shorter": {"optim.steps": _times(0.9)},
    "appearance-tripled": {**APPEARANCE, "optim.steps": _times(3.0)},
    "both-tripled": {"optim.steps": _times(3.0)},
    "both-tripled-shorter": {"optim.steps": _times(3.0 * 0.9)},
    "motion-tripled": {"loss.appearance": 0.0, "optim.steps": _times(3.0)},
    "motion": {"loss.appearance": 0.0},
    "separate": {"model.decoder.kind": "separate"},
    # the optimiser, at the base's rates and others
    "appearance-adamw": {**APPEARANCE, **ADAMW},
    "appearance-adamw-fast": {**APPEARANCE, **ADAMW, "optim.lr": _faster(4.0)},
    "appearance-adamw-longer": {**APPEARANCE, **ADAMW, "optim.steps": _times(2.0)},
    "both-adamw": ADAMW,
    "both-adamw-fast": {**ADAMW, "optim.lr": _faster(4.0)},
    "appearance-muon-slow": {**APPEARANCE, "optim.lr_hidden": _faster(0.3)},
    "appearance-muon-fast": {**APPEARANCE, "optim.lr_hidden": _faster(3.0)},
    "both-muon-slow": {"optim.lr_hidden": _faster(0.3)},
    "both-muon-fast": {"optim.lr_hidden": _faster(3.0)},
    # the target of the time head
    "absolute": {"target.motion": "absolute", "target.second": "none"},
    "absolute-clip": {"target.motion": "absolute", "target.motion_normalise": "clip"},
    "signed-clip": {"target.motion_normalise": "clip"},
    "signed-raw": {"target.motion_normalise": "none"},
    "velocity": {"target.motion": "velocity", "target.second": "none"},
    "velocity-clip": {"target.motion": "velocity", "target.motion_normalise": "clip"},
    "with-velocity": {"target.second": "velocity"},
    "with-velocity-tripled": {"target.second": "velocity", "optim.steps": _times(3.0)},
    "inside": {"target.pairs": "inside"},
    "across": {"target.pairs": "across"},
    # weights of the two heads, appearance : motion
    "weights-2-1": {"loss.motion": 0.5},
    "weights-1-2": {"loss.motion": 2.0},
    "weights-1-2-tripled": {"loss.motion": 2.0, "optim.steps": _times(3.0)},
    # which frames are subtracted
    "gap-2": {"target.gap": 2},
    "gap-4": {"target.gap": 4},
    "source-gap-1": {"target.adjacent": "video"},
    "source-gap-2": {"target.adjacent": "video", "target.gap": 2},
    # the decoder
    "decoder-narrow": {"model.decoder.width": _times(0.5)},
    "decoder-wide": {"model.decoder.width": _times(2.0)},
    "decoder-1": {"model.decoder.depth": 1},
    "decoder-4": {"model.decoder.depth": 4},
    "decoder-cross": {"model.decoder.attention": "cross"},
    # masks
    "random-90": {"mask.ratio": 0.9},
    "random-50": {"mask.ratio": 0.5},
    "tube-75": {"mask.kind": "tube"},
    "tube-90": {"mask.kind": "tube", "mask.ratio": 0.9},
    "frame-75": {"mask.kind": "frame"},
    "motion-75": {"mask.kind": "motion"},
    "motion-half": {"mask.kind": "motion-half"},
    # the rest of what the paper tried or left open
    "l1": {"loss.kind": "l1"},
    "smooth-l1": {"loss.kind": "smooth_l1"},
    "sincos1d": {"model.positions": "sincos1d"},
    "learned": {"model.positions": "learned"},
    "decode-all": {"mask.decode_ratio": 1.0},
    "decode-quarter": {"mask.decode_ratio": 0.25},
    "dense-1": {"data.sampling": "dense", "data.stride": 1},
    "dense-2": {"data.sampling": "dense", "data.stride": 2},
    "dense-4": {"data.sampling": "dense", "data.stride": 4},
}


@dataclass(frozen=True)
class Grid:
    """One question: its arms, and the pairs that answer it, each an arm and what it is held against."""

    question: str
    arms: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def _against(reference: str, *arms: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    return (reference, *arms), tuple((arm, reference) for arm in arms)


_HEADLINE = (
    *UNLEARNED_ARMS,
    UNTRAINED,
    "appearance",
    "appearance-longer",
    "motion",
    "both",
    "both-shorter",
    "separate",
)
_OPTIMISER = (
    "appearance", "both", "appearance-adamw", "both-adamw", "appearance-adamw-fast", "both-adamw-fast",
    "appearance-muon-slow", "both-muon-slow", "appearance-muon-fast", "both-muon-fast", "appearance-adamw-longer",
)  # fmt: skip

GRIDS: dict[str, Grid] = {
    "headline": Grid(
        "Does modelling motion beside appearance help the encoder?",
        _HEADLINE,
        (("both", "appearance"), ("both-shorter", "appearance"), ("both", "appearance-longer"),
         ("separate", "appearance"), ("motion", "appearance"),
         ("both", "motion"), ("appearance", UNTRAINED)),
    ),
    "steps": Grid(
        "Does the difference stay with three times the steps?",
        ("appearance", "both", "motion", "appearance-tripled", "both-tripled", "both-tripled-shorter",
         "weights-1-2-tripled", "with-velocity-tripled", "motion-tripled"),
        (("both", "appearance"), ("both-tripled", "appearance-tripled"), ("both-tripled-shorter", "appearance-tripled"),
         ("weights-1-2-tripled", "appearance-tripled"),
         ("with-velocity-tripled", "appearance-tripled"), ("motion-tripled", "appearance-tripled"),
         ("both-tripled", "both")),
    ),
    "optimiser": Grid(
        "Which optimiser, at which rate?",
        _OPTIMISER,
        tuple((arm.partition("-")[0], arm) for arm in _OPTIMISER[2:]),
    ),
    "target": Grid(
        "What should the time head predict, and on which scale?",
        *_against(
            "appearance", "both", "signed-clip", "signed-raw", "absolute", "absolute-clip", "velocity", "velocity-clip",
            "with-velocity"
        ),
    ),
    "pairs": Grid(
        "Differences inside a cube, which its pixels say already, or across its end?",
        *_against("both", "inside", "across"),
    ),
    "weights": Grid(
        "How should the two heads be weighted, appearance : motion?",
        *_against("appearance", "weights-2-1", "both", "weights-1-2", "motion"),
    ),
    "gap": Grid("How far apart are the frames that are subtracted?", *_against("both", "gap-2", "gap-4")),
    "adjacent": Grid(
        "Adjacent in the clip, or in the source?", *_against("both", "source-gap-1", "source-gap-2")
    ),
    "decoder": Grid(
        "How wide and deep a decoder?",
        *_against("both", "decoder-narrow", "decoder-wide", "decoder-1", "decoder-4", "decoder-cross", "separate"),
    ),
    "mask": Grid(
        "What is hidden, and how much?",
        *_against("both", "random-50", "random-90", "tube-75", "tube-90", "frame-75", "motion-75", "motion-half"),
    ),
    "loss": Grid("Which distance?", *_against("both", "l1", "smooth-l1")),
    "positions": Grid("Which positions?", *_against("both", "sincos1d", "learned")),
    "decode": Grid("How many of the hidden tokens are predicted?", *_against("both", "decode-all", "decode-quarter")),
    "time": Grid("How far apart are the frames of a clip?", *_against("both", "dense-1", "dense-2", "dense-4")),
}  # fmt: skip


def arm_of(base: Pretrain, name: str, seed: int, out: str) -> Pretrain:
    """The config of an arm at a seed, as motionmae pretrain takes it, with its run folder in `out`."""
    config = changed(base, ARMS[name])
    return replace(config, seed=seed, run=replace(config.run, out=f"{out}/{name}-{seed}"))


def changed(config: Any, changes: Changes) -> Any:
    """The config with fields changed by their dotted names. Raises KeyError for a name that is no field."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if first not in {field.name for field in fields(config)}:
            raise KeyError(name)
        old = getattr(config, first)
        new = changed(old, {rest: value}) if rest else value(old) if callable(value) else value
        config = replace(config, **{first: new})
    return config
