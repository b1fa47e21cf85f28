"""`motionmae probe`: what k-NN and small classifiers make of a frozen encoder's features, computed once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from motionmae.config import Data, Probe, Viewing
from motionmae.data.sources import Videos, find
from motionmae.errors import MotionMAEError
from motionmae.models import weights
from motionmae.models.encoder import VideoEncoder
from motionmae.models.tokens import clip_grid
from motionmae.objectives import probing
from motionmae.tasks import evaluate, finetune
from motionmae.training import runtime
from motionmae.training.checkpoint import checksum
from motionmae.training.runtime import Runtime

HELD = 0.2  # share of the training videos by which a probe's setting is chosen

Features = dict[str, Tensor]
Scores = dict[Any, Float[Tensor, "m classes"]]
Fit = Callable[[Features, Int[Tensor, " n"], Features], Scores]


def run(config: Probe) -> None:
    """Fit the probes on `config.data.path`, test them on `config.data.test`; prints and writes a table."""
    here = evaluate.start(config.compute)
    with runtime.leaving(here):
        if not config.model:
            raise MotionMAEError("say which model: a run folder, or a checkpoint with an encoder")
        found = weights.read(config.model, config.heads)
        views = evaluate.settle(config.views, found.config, found.model)
        videos, tests = sources(config)
        known = evaluate.labelled(videos, sorted(set(videos.labels)), config.data.path)
        test = evaluate.labelled(tests, known.names, config.data.test or config.data.path)
        kept = finetune.share(known.numbers, config.data.fraction, config.seed)
        train = replace(known, files=[known.files[at] for at in kept], numbers=[known.numbers[at] for at in kept])
        encoder = encoder_of(config, found)
        name = "probe-untrained" if config.untrained else "probe"
        folder = Path(config.out) if config.out else evaluate.beside(config.model, name)
        whole = "attentive" in config.kinds
        parts = [
            features(encoder, files, views, config, here, folder / f"features-{split}.safetensors", whole)
            for split, files in (("train", train.files), ("test", test.files))
        ]
        if here.main:
            parts = [{name: value.to(here.device) for name, value in part.items()} for part in parts]
            labels = [torch.tensor(numbers, device=here.device) for numbers in (train.numbers, test.numbers)]
            table = measure(config, parts[0], labels[0], parts[1], labels[1])
            content = {"train": len(train.files), "test": len(test.files), "views": asdict(views), "probes": table}
            (folder / "probe.json").write_text(json.dumps(content, indent=1) + "\n")
            here.say(f"{len(train.files)} videos to fit on, {len(test.files)} to test on\n{told(table)}\n{folder}")


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
    encoder: VideoEncoder, files: Sequence[Path], views: Viewing, config: Probe, here: Runtime, path: Path, whole: bool
) -> Features:
    """`slots`, float32 [n t d]: each time slot's mean token, averaged over the views; and, if `whole`, `tokens`,
    float16 [n k d]. Read from `path` where the same encoder, views and videos made it, else computed and kept there."""
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    made_by = json.dumps({"encoder": checksum(encoder.state_dict()), "views": asdict(views), "videos": stamps})
    if path.is_file():
        with safe_open(str(path), "pt") as content:
            names = {"slots", "tokens"} if whole else {"slots"}
            if (content.metadata() or {}).get("made_by") == made_by and names <= set(content.keys()):
                return {name: content.get_tensor(name) for name in sorted(names)}
    encoder.to(here.device)
    here.say(f"features of {len(files)} videos")
    dataset = evaluate.cut(files, views)

    def pooled(clip: Tensor) -> Tensor:
        tokens, (slots, _, _) = encoder(clip).float(), clip_grid(clip, encoder.config.cube)
        return tokens if whole else tokens.unflatten(1, (slots, -1)).mean(2)

    found = evaluate.watch(pooled, dataset, config.compute, here)["views"]
    encoder.cpu()
    slots = (views.frames or 0) // encoder.config.cube[0]
    result = {"slots": found.unflatten(1, (slots, -1)).mean(2)} | ({"tokens": found.half()} if whole else {})
    if here.main:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in result.items()}, str(path), {"made_by": made_by})
    return result


def probes(config: Probe) -> dict[str, Fit]:
    """Each kind of probe as a function from features and labels to the scores of each of its settings."""

    def pool(found: Features) -> Tensor:
        return found["slots"].mean(1) if config.pool == "mean" else found["slots"].flatten(1)

    def knn(train: Features, labels: Tensor, test: Features) -> Scores:
        few = [k for k in config.neighbours if k <= len(labels)] or [len(labels)]
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

    The chosen setting is fitted again on all training videos; the test videos choose nothing.
    """
    fits, table = probes(config), {}
    kept, held = probing.held_out(labels, HELD, config.seed)
    for kind in config.kinds:
        tried = fits[kind](_rows(train, kept), labels[kept], _rows(train, held))
        scores = fits[kind](train, labels, test)
        common = {setting: tried[setting] for setting in scores if setting in tried}
        setting = probing.choose(common, labels[held])
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
