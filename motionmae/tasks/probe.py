"""`motionmae probe`: what k-NN and small classifiers make of a frozen encoder's features, computed once and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from motionmae import runtime
from motionmae.config import Data, Probe, Viewing
from motionmae.errors import MotionMAEError
from motionmae.evaluation import probing
from motionmae.evaluation.recognition import labelled
from motionmae.inference.views import cut, settle, watch
from motionmae.library.sources import Videos, find, share
from motionmae.library.tars import holder
from motionmae.models import weights
from motionmae.models.encoder import VideoEncoder
from motionmae.models.tokens import grid_of
from motionmae.runtime import Runtime
from motionmae.training.checkpoint import checksum

HELD = 0.2  # share of the training videos by which a probe's setting is chosen

Features = dict[str, Tensor]
"""Of n videos: `slots`, float32 [n t d], each time slot's mean token; where they are needed, `change`, float32 [n s d],
the standard deviation over time of the tokens at each place, and `tokens`, float16 [n k d], all of them."""
Scores = dict[Any, Float[Tensor, "m classes"]]
Fit = Callable[[Features, Int[Tensor, " n"], Features], Scores]


def run(config: Probe) -> None:
    """Fit the probes on `config.data.path`, test them on `config.data.test`; prints and writes a table."""
    here = runtime.start_for(config.compute)
    with runtime.leaving(here):
        check(config)
        found = weights.read(config.model, config.heads)
        views = settle(config.views, found.config, found.model)
        videos, tests = sources(config)
        known = labelled(videos, sorted(set(videos.labels)), config.data.path)
        if len(known.names) < 2:
            raise MotionMAEError(f"--data.path {config.data.path}: a probe needs two classes, it has {known.names}")
        test = labelled(tests, known.names, config.data.test or config.data.path)
        kept = share(known.numbers, config.data.fraction, config.seed)
        train = replace(known, files=[known.files[at] for at in kept], numbers=[known.numbers[at] for at in kept])
        encoder = encoder_of(config, found)
        name = "probe-untrained" if config.untrained else "probe"
        folder = Path(config.out) if config.out else runtime.beside(config.model, name)
        parts = [
            features(encoder, files, views, config, here, folder / f"features-{split}.safetensors")
            for split, files in (("train", train.files), ("test", test.files))
        ]
        if here.main:
            parts = [{name: value.to(here.device) for name, value in part.items()} for part in parts]
            labels = [torch.tensor(numbers, device=here.device) for numbers in (train.numbers, test.numbers)]
            table = measure(config, parts[0], labels[0], parts[1], labels[1])
            content = {"train": len(train.files), "test": len(test.files), "views": asdict(views), "probes": table}
            (folder / "probe.json").write_text(json.dumps(content, indent=1) + "\n")
            here.say(f"{len(train.files)} videos to fit on, {len(test.files)} to test on\n{told(table)}\n{folder}")


def check(config: Probe) -> None:
    """Raise MotionMAEError for settings that no probe can be fitted with."""
    if not config.model:
        raise MotionMAEError("say which model: a run folder, or a checkpoint with an encoder")
    if not config.kinds:
        raise MotionMAEError("--kinds names no probe")
    for name in ("neighbours", "rates"):
        values = getattr(config, name)
        if not values or min(values) <= 0:
            raise MotionMAEError(f"--{name} must be numbers above 0, they are {values}")
    for name in ("temperature", "epochs"):
        if getattr(config, name) <= 0:
            raise MotionMAEError(f"--{name} must be above 0, it is {getattr(config, name)}")
    if config.penalty < 0:
        raise MotionMAEError(f"--penalty must not be negative, it is {config.penalty}")


def sources(config: Probe) -> tuple[Videos, Videos]:
    """The videos to fit on and to test on."""
    if not (config.data.test or config.data.test_split):
        raise MotionMAEError("--data.test names the videos to test on; a probe is not tested on what it was fitted on")
    data = Data(path=config.data.path, root=config.data.root, split=config.data.split)
    tests = replace(data, path=config.data.test or config.data.path, split=config.data.test_split)
    return find(data), find(tests)


def encoder_of(config: Probe, found: weights.Checkpoint) -> VideoEncoder:
    """The checkpoint's encoder, or one of the same shape at its start."""
    torch.manual_seed(config.seed)
    encoder = VideoEncoder(found.model)
    if not config.untrained:
        state = {name[8:]: value for name, value in found.state.items() if name.startswith("encoder.")}
        weights.fill(encoder, state, config.model)
    return encoder.eval()


def features(
    encoder: VideoEncoder, files: Sequence[Path], views: Viewing, config: Probe, here: Runtime, path: Path
) -> Features:
    """The features that the probes of `config` need, averaged over the views. Read from `path` where the same encoder,
    precision, views and videos made them, else computed and kept there."""
    wanted = [
        name for name, use in (("change", config.pool == "change"), ("tokens", "attentive" in config.kinds)) if use
    ]
    wanted.insert(0, "slots")
    made_by = json.dumps(
        {
            "encoder": checksum(encoder.state_dict()),
            "precision": str(here.dtype),
            "views": asdict(views),
            "videos": [stamp(file) for file in files],
        }
    )
    if path.is_file():
        with safe_open(str(path), "pt") as content:
            if (content.metadata() or {}).get("made_by") == made_by and set(wanted) <= set(content.keys()):
                return {name: content.get_tensor(name) for name in wanted}
    encoder.to(here.device)
    here.say(f"features of {len(files)} videos")
    assert views.frames is not None
    assert views.size is not None
    slots, rows, columns = grid_of(views.frames, views.size, views.size, encoder.config.cube)
    counts = {"slots": slots, "change": rows * columns, "tokens": slots * rows * columns}

    def seen(clip: Tensor) -> Tensor:
        tokens = encoder(clip).float()
        at_places = tokens.unflatten(1, (slots, -1))
        parts = {"slots": at_places.mean(2), "change": at_places.std(1, correction=0), "tokens": tokens}
        return torch.cat([parts[name] for name in wanted], 1)

    found = watch(seen, cut(files, views), config.compute, here)["views"]
    encoder.cpu()
    result = dict(zip(wanted, found.split([counts[name] for name in wanted], 1), strict=True))
    if "tokens" in result:
        result["tokens"] = result["tokens"].half()
    if here.main:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in result.items()}, str(path), {"made_by": made_by})
    return result


def stamp(file: Path) -> tuple[str, int, int]:
    """What tells whether a video has changed: its path, and size and time of change of it or of its shard."""
    about = os.stat(holder(file))
    return str(file), about.st_size, about.st_mtime_ns


def probes(config: Probe, most: int) -> dict[str, Fit]:
    """Each kind of probe as a function from features and labels to the scores of each of its settings; `most` is the
    number of neighbours that there are in any case."""

    def pool(found: Features) -> Tensor:
        if config.pool == "mean":
            return found["slots"].mean(1)
        return found["slots" if config.pool == "time" else "change"].flatten(1)

    def knn(train: Features, labels: Tensor, test: Features) -> Scores:
        few = [k for k in config.neighbours if k <= most] or [most]
        votes = {k: probing.knn(pool(train), labels, pool(test), k, config.temperature) for k in few}
        return {k: (vote / vote.sum(1, keepdim=True)).clamp_min(1e-6).log() for k, vote in votes.items()}

    def logistic(train: Features, labels: Tensor, test: Features) -> Scores:
        return {config.penalty: probing.linear(pool(train), labels, pool(test), config.penalty)}

    def linear(batch_norm: bool) -> Fit:
        return lambda train, labels, test: probing.linear_sweep(
            pool(train), labels, pool(test), config.rates, batch_norm, config.epochs, config.seed
        )

    def attentive(train: Features, labels: Tensor, test: Features) -> Scores:
        rates, width = [rate / 100 for rate in sorted(config.rates)[:5]], train["tokens"].shape[2]
        heads = next(count for count in (16, 12, 8, 6, 4, 3, 2, 1) if width % count == 0 and width // count >= 16)
        passes = max(1, config.epochs // 5)
        return probing.attentive_sweep(train["tokens"], labels, test["tokens"], heads, rates, passes, config.seed)

    return {
        "knn": knn,
        "logistic": logistic,
        "linear": linear(False),
        "linear-bn": linear(True),
        "attentive": attentive,
    }


def measure(
    config: Probe, train: Features, labels: Int[Tensor, " n"], test: Features, answers: Int[Tensor, " m"]
) -> dict[str, dict[str, Any]]:
    """For each kind: top-1 in [0, 1] of the setting chosen on held-out training videos, and of all settings.

    The chosen setting is fitted again on all training videos; the test videos choose nothing. Where no class has two
    videos, none can be held out, and the middle setting is taken.
    """
    kept, held = probing.held_out(labels, HELD, config.seed)
    fits, table = probes(config, len(kept)), {}
    for kind in config.kinds:
        scores = fits[kind](train, labels, test)
        setting = sorted(scores)[len(scores) // 2]
        if len(held):
            tried = fits[kind](_rows(train, kept), labels[kept], _rows(train, held))
            setting = probing.choose(tried, labels[held])
        all_of_them = {str(key): probing.accuracy(value, answers) for key, value in scores.items()}
        table[kind] = {"top1": all_of_them[str(setting)], "setting": setting, "all": all_of_them}
    return table


def told(table: dict[str, dict[str, Any]]) -> str:
    """The table as lines."""
    lines = []
    for kind, row in table.items():
        others = "  ".join(f"{setting}: {value:.1%}" for setting, value in row["all"].items())
        lines.append(
            f"{kind:10} {row['top1']:7.1%}  at {row['setting']:g}" + (f"  ({others})" if len(row["all"]) > 1 else "")
        )
    return "\n".join(lines)


def _rows(found: Features, rows: Int[Tensor, " n"]) -> Features:
    return {name: value[rows] for name, value in found.items()}
