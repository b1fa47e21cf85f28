"""`motionmae pretrain`: a folder of videos to a run folder with an encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motionmae import runtime
from motionmae.config import Pretrain, check
from motionmae.data.clips import Clips, pretraining_offsets, told_short
from motionmae.data.loading import collate
from motionmae.errors import MotionMAEError
from motionmae.evaluation import probing
from motionmae.library.classes import number
from motionmae.library.sources import Videos, find
from motionmae.models import weights
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.tokens import grid_of
from motionmae.objectives import masking
from motionmae.objectives.reconstruction import Reconstruction, heads_of
from motionmae.progress import then
from motionmae.report.pictures import save_animation, side_by_side
from motionmae.runtime import Runtime
from motionmae.training import optim, settling
from motionmae.training.learning import learn
from motionmae.words import many

LOOKED_AT = 256
"""Videos whose clips tell how the representation is doing, at each inspection."""


def run(config: Pretrain) -> None:
    """Pretrain on the videos that `config.data.path` names, or go on with the run that `config.run.out` holds."""
    check(config)
    if not fit_videos(config, find(config.data)):
        raise KeyboardInterrupt
    out = quote(config.run.out)
    then(f"motionmae report {out}, or motionmae probe {out} --data.path LABELLED")


def fit_videos(config: Pretrain, videos: Videos) -> bool:
    """Pretrain on these videos; True when the run is finished, False when the user stopped it.

    Their classes, if known, are used to look at the representation, never to learn.
    """
    here = runtime.start(config.run)
    with runtime.leaving(here):
        config, settled = settling.settle(config, len(videos.paths), here.ranks)
        config, start = begin(config)
        dataset, objective = clips_of(config, videos.paths), build(config)
        said = [
            told_short(dataset),
            settled,
            "" if start is None else start_from(objective.autoencoder, start, config.init),
        ]
        inspect = inspection(objective, dataset, videos.labels, Path(config.run.out) / "pictures", here)

        def about(plan: optim.Plan) -> str:
            return "\n".join(filter(None, (describe(config, plan, objective, videos.told(), here), *said)))

        return learn(config, objective, dataset, here, about, inspect)


def clips_of(config: Pretrain, files: Sequence[Path]) -> Clips:
    """The videos as pretraining clips: the encoder's frames and those that close the differences."""
    data, target = config.data, config.target
    if data.sampling == "uniform":  # the stride then only tells a part's frame from its neighbours, `gap` after it
        data = replace(data, stride=max(data.stride, target.gap + 1))
    offsets = pretraining_offsets(config.model.frames, data.stride, target.adjacent, target.gap)
    return Clips(files, data, offsets, config.model.size, config.seed)


def build(config: Pretrain) -> Reconstruction:
    """The objective with freshly seeded weights."""
    torch.manual_seed(config.seed)
    autoencoder = MotionMAE(config.model, heads_of(config.loss, config.target, config.model.cube))
    autoencoder.recompute(config.run.checkpointing)
    return Reconstruction(autoencoder, config.mask, config.target, config.loss)


def begin(config: Pretrain) -> tuple[Pretrain, weights.Checkpoint | None]:
    """The config with the model of what it starts from, and that."""
    if not config.init:
        return config, None
    found = weights.read(config.init, config.heads, decoder_heads=config.decoder_heads)
    decoded = any(name.startswith("decoders.") for name in found.state)
    model = replace(
        found.model,
        norm=True,
        size=found.model.size or config.model.size,
        decoder=found.model.decoder if decoded else config.model.decoder,
    )
    return replace(config, model=model), found


def start_from(autoencoder: MotionMAE, found: weights.Checkpoint, path: str) -> str:
    """Give an autoencoder of the checkpoint's model all weights of it that fit; a sentence that says what starts anew.

    Raises MotionMAEError where the encoder does not fit but for its last norm, which fine-tuned models lack.
    """
    state = autoencoder.state_dict()
    fitting = {name: v for name, v in found.state.items() if name in state and v.shape == state[name].shape}
    fresh = [name for name in state if name not in fitting]
    lacking = [name for name in fresh if name.startswith("encoder.") and not name.startswith("encoder.norm.")]
    if lacking:
        raise MotionMAEError(f"--init {path}: lacks {lacking[0]} of the shape {tuple(state[lacking[0]].shape)}")
    autoencoder.load_state_dict(state | fitting)
    anew = sorted({re.sub(r"\.(weight|bias)$", "", name) for name in fresh})
    whole = "the decoder" if not any(name.startswith("decoders.") for name in fitting) else ""
    what = whole or ", ".join(anew)
    return f"starts from {path}{f'; new: {what}' if what else ', decoder and heads included'}"


def describe(config: Pretrain, plan: optim.Plan, objective: Reconstruction, told: str, here: Runtime) -> str:
    """What is about to happen, in three lines."""
    model, mask, autoencoder = config.model, config.mask, objective.autoencoder
    encoder = sum(value.numel() for value in autoencoder.encoder.parameters()) / 1e6
    whole = sum(value.numel() for value in autoencoder.parameters()) / 1e6
    grid = grid_of(model.frames, model.size, model.size, model.cube)
    hidden = masking.count(mask.kind, mask.ratio, grid)
    predicted = max(1, int(mask.decode_ratio * hidden)) if hidden else 0
    return (
        f"{told}, clips of {model.frames} x {model.size} x {model.size}, {many(math.prod(grid), 'token')}: "
        f"{math.prod(grid) - hidden} visible, {hidden} masked ({mask.kind}, {mask.ratio}), {predicted} predicted\n"
        f"encoder {encoder:.1f} M parameters, {whole:.1f} M with the decoder, on {here.device}\n"
        f"{optim.in_numbers(plan)}, into {config.run.out}\n{optim.told(plan, config.optim)}"
    )


def inspection(
    objective: Reconstruction, dataset: Clips, labels: Sequence[str], pictures: Path, here: Runtime
) -> Callable[[int], dict[str, float]]:
    """Pictures of the same four clips each time, into a folder, and measures of the representation of up to 256."""
    indices = [int(at) for at in torch.linspace(0, len(dataset) - 1, min(LOOKED_AT, len(dataset))).tolist()]
    numbers = torch.tensor(number([labels[index] for index in indices])[0]) if len(set(labels)) > 1 else None

    def inspect(step: int) -> dict[str, float]:
        batch = here.to_device(collate([dataset[(0, index)][:1] for index in range(min(4, len(dataset)))]))
        shown = side_by_side(objective.pictures(batch))
        save_animation(pictures / f"step-{step:08d}.webp", shown)
        return measure(mean_tokens(objective, dataset, indices, here), numbers)

    return inspect


@torch.no_grad()
def mean_tokens(
    objective: Reconstruction, dataset: Clips, indices: Sequence[int], here: Runtime
) -> Float[Tensor, "n d"]:
    """The mean encoded token of one clip of each video, the same clip each time; float32 on the CPU."""
    found = []
    for at in range(0, len(indices), 16):
        batch = here.to_device(collate([dataset[(0, index)][:1] for index in indices[at : at + 16]]))
        with here.autocast():
            found.append(objective.autoencoder.encoder(objective.frames(batch["clip"])[0]).mean(1).float().cpu())
    return torch.cat(found)


def measure(features: Float[Tensor, "n d"], labels: Int[Tensor, " n"] | None) -> dict[str, float]:
    """The effective rank, and with labels the accuracy of k-NN from the even rows to the odd ones."""
    measured = {"effective_rank": probing.effective_rank(features)}
    if labels is not None and len(labels) >= 4:
        votes = probing.knn(features[::2], labels[::2], features[1::2])
        measured["knn_accuracy"] = probing.accuracy(votes, labels[1::2])
    return measured
