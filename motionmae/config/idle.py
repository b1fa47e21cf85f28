"""Options that were typed and change nothing beside the others: each is told, none is an error."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator
from typing import Any

from motionmae.config import Planned


def idle(config: Any, typed: Collection[str]) -> Iterator[str]:
    """A sentence for each of the options `typed` (data.fps, …) that has no effect in this config."""
    for section in ("data", "views"):
        part = getattr(config, section, None)
        if getattr(part, "sampling", None) == "uniform" and f"{section}.fps" in typed:
            yield f"--{section}.fps has no effect with --{section}.sampling uniform, which takes a share of any video"
    init = getattr(config, "init", "")
    models = sorted(name for name in typed if name.startswith("model."))
    if init and init != "none" and models:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in models)
        yield f"{shown}: no effect beside --init {init}, which brings its own model"
    path = getattr(getattr(config, "data", None), "path", "")
    if path and os.path.isdir(path) and not glob.glob(os.path.join(glob.escape(path), "*_test_split[0-9].txt")):
        for name in sorted({"data.split", "data.test_split", "data.val_split"} & set(typed)):
            if name != "data.test_split" or not getattr(config.data, "test", ""):
                yield f"--{name.replace('_', '-')} has no effect: --data.path {path} is a folder, which has no parts"
    if path and isinstance(config, Planned):
        yield f"--data.path {path} has no effect: --videos {config.videos} says how many videos there are"
    optim = getattr(config, "optim", None)
    if "optim.epochs" in typed and getattr(optim, "steps", None) is not None:
        yield "--optim.epochs changes the warm-up's share alone, as --optim.steps says how long the run is"
    if "optim.lr_hidden" in typed and getattr(optim, "kind", "") != "muon":
        yield "--optim.lr-hidden has no effect without --optim.kind muon"
    loss = getattr(config, "loss", None)
    if loss and "loss.motion" in typed and loss.motion == 0 and loss.second and config.target.second != "none":
        yield "--loss.motion 0 leaves the head of --target.second; with --loss.second 0 appearance alone is learnt"
    spread = getattr(config, "spread", None)
    if spread is not None and spread.engine != "ray" and "ray_address" in typed:
        yield "--ray-address has no effect without --engine ray"
    if spread is not None and spread.engine == "ray" and "workers" in typed and not hasattr(config, "compute"):
        yield "--workers has no effect with --engine ray, which uses all processors of the cluster"
