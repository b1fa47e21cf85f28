"""What a run is made of: frozen dataclasses, whose field docstrings are the help texts of the command line.

A config is never written to after parsing. `None` stands for "decided by the run" and is resolved in one place each.
A number's range stands beside its field; `check` asks all of them.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

from motionmae.config.bounds import Bounds
from motionmae.config.check import check
from motionmae.config.data import Augment, BenchData, Data, Motions, Prepare, Sampling, Scan, Short
from motionmae.config.embedding import (
    BenchEmbed,
    By,
    Embed,
    EmbedPool,
    Engine,
    Map,
    Pooling,
    Projection,
    Search,
    Stored,
)
from motionmae.config.exporting import Export, ExportKind, Written
from motionmae.config.model import (
    Adjacent,
    Decoder,
    DecoderAttention,
    DecoderKind,
    Distance,
    Loss,
    Mask,
    MaskKind,
    Model,
    MotionKind,
    Normalise,
    Pairs,
    PositionsKind,
    Second,
    Target,
)
from motionmae.config.pretraining import (
    BenchPretrain,
    BenchRun,
    BenchSizes,
    Demo,
    Planned,
    Pretrain,
    Reconstruct,
    Report,
)
from motionmae.config.recognition import (
    BenchEvaluate,
    Evaluate,
    Finetune,
    Labelled,
    Mix,
    Pool,
    Predict,
    Probe,
    ProbeData,
    ProbeKind,
    TestData,
    Viewing,
)
from motionmae.config.run import (
    Compute,
    Device,
    EngineKind,
    Hardware,
    Optim,
    OptimKind,
    Parallel,
    Precision,
    Run,
    Spread,
)
from motionmae.config.segmentation import (
    BenchSegment,
    Davis,
    Entry,
    Features,
    Propagation,
    Protocol,
    SegmentDavis,
    SegmentScore,
    SegmentVideo,
)
from motionmae.config.study import Measure, Study
from motionmae.errors import MotionMAEError

__all__ = [
    "Adjacent",
    "Augment",
    "BenchData",
    "BenchEmbed",
    "BenchEvaluate",
    "BenchPretrain",
    "BenchRun",
    "BenchSegment",
    "BenchSizes",
    "Bounds",
    "By",
    "Compute",
    "Data",
    "Davis",
    "Decoder",
    "DecoderAttention",
    "DecoderKind",
    "Demo",
    "Device",
    "Distance",
    "Embed",
    "EmbedPool",
    "Engine",
    "EngineKind",
    "Entry",
    "Evaluate",
    "Export",
    "ExportKind",
    "Features",
    "Finetune",
    "Hardware",
    "Labelled",
    "Loss",
    "Map",
    "Mask",
    "MaskKind",
    "Measure",
    "Mix",
    "Model",
    "MotionKind",
    "Motions",
    "Normalise",
    "Optim",
    "OptimKind",
    "Pairs",
    "Parallel",
    "Planned",
    "Pool",
    "Pooling",
    "PositionsKind",
    "Precision",
    "Predict",
    "Prepare",
    "Pretrain",
    "Probe",
    "ProbeData",
    "ProbeKind",
    "Projection",
    "Propagation",
    "Protocol",
    "Reconstruct",
    "Report",
    "Run",
    "Sampling",
    "Scan",
    "Search",
    "Second",
    "SegmentDavis",
    "SegmentScore",
    "SegmentVideo",
    "Short",
    "Spread",
    "Stored",
    "Study",
    "Target",
    "TestData",
    "Viewing",
    "Written",
    "anonymous",
    "check",
    "from_dict",
]

T = TypeVar("T")


def from_dict(kind: type[T], values: Any) -> T:
    """The dataclass `kind` from the nested dict that `dataclasses.asdict` and JSON make of it; missing fields default.

    Raises MotionMAEError for a field that the class does not have, and for what is no dict. It asks no bounds: `check`
    does.
    """
    if not isinstance(values, dict):
        raise MotionMAEError(f"expected the fields of {kind.__name__}, there is {values!r:.80}")
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise MotionMAEError(f"{kind.__name__} has no field {name!r:.80}")
        hint = hints[name]
        if is_dataclass(hint) and isinstance(hint, type):
            value = from_dict(hint, value)
        found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


def flat(settings: Any, name: str = "") -> dict[str, Any]:
    """A plain config's values by the dotted names of their options."""
    if isinstance(settings, dict):
        return {k: v for key in settings for k, v in flat(settings[key], f"{name}.{key}").items()}
    return {name[1:]: settings}


def anonymous(settings: Any) -> Any:
    """Without the names of this machine's files and folders: what is published says what was done, not where."""
    if isinstance(settings, dict):
        hidden = ("path", "root", "test", "out", "model", "init", "fetched")
        return {
            name: "" if name in hidden and isinstance(value, str) else anonymous(value)
            for name, value in settings.items()
        }
    return settings
