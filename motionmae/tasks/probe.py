"""`motionmae probe`: what k-NN and small classifiers make of a frozen encoder's features, computed once and kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from motionmae import runtime, stored
from motionmae.config import Data, Probe, ProbeData, check
from motionmae.errors import MotionMAEError
from motionmae.evaluation import probing
from motionmae.evaluation.probes import HELD, Features, Fold, leave_out, measure, told
from motionmae.evaluation.recognition import LabelledVideos, labelled, option_of_tests
from motionmae.files import replacing, write_json
from motionmae.inference.embedding import fingerprint
from motionmae.inference.views import View, as_views, settle, watch
from motionmae.library.classes import share
from motionmae.library.sources import column, find
from motionmae.library.splitting import apart
from motionmae.library.tars import holder
from motionmae.models import weights
from motionmae.models.attentive import AttentiveHead, save_head
from motionmae.models.encoder import VideoEncoder
from motionmae.models.tokens import grid_of
from motionmae.models.unlearned import SIDE, UNLEARNED, Pixels
from motionmae.progress import then
from motionmae.report import probing as report
from motionmae.runtime import Runtime
from motionmae.video import remote
from motionmae.words import many


def run(config: Probe) -> dict[str, Any]:
    """Fit the probes on `config.data.path` and test them; prints, writes and gives a table (on rank 0 alone)."""
    check(config)
    if not config.model:
        raise MotionMAEError("say which model: a run folder, or a checkpoint with an encoder")
    here = runtime.start_for(config.compute)
    with runtime.leaving(here):
        encoder, made_with = encoder_of(config)
        view = settle(config.views, made_with, encoder.config)
        videos, folds, how = sources(config.data, config.seed)
        if how:
            here.say(how)
        name = "probe-untrained" if config.untrained else "probe"
        folder = Path(config.out) if config.out else runtime.out_beside(config.model, name)
        seen = kept_features(encoder, videos.files, view, config, here, folder / "features.safetensors")
        if not here.main:
            return {}
        seen = {name: value if name == "tokens" else value.to(here.device) for name, value in seen.items()}
        heads: dict[float, AttentiveHead] = {}
        table = measure(config, seen, torch.tensor(videos.numbers, device=here.device), folds, heads)
        if heads and len(folds) == 1 and isinstance(encoder, VideoEncoder):
            best = heads[table["attentive"]["tokens"]["setting"]]
            save_head(folder / "attentive.safetensors", best, fingerprint(encoder))
        fitted, tests = len(folds[0].kept) + len(folds[0].held), sum(len(fold.test) for fold in folds)
        content = {"train": fitted, "test": tests, "views": asdict(view), "probes": table}
        write_json(folder / "probe.json", content)
        write_page(folder / "report.html", config, content, videos.numbers, folds)
        turns = f", each of {many(len(folds), 'value')} of {config.data.leave} in turn" if config.data.leave else ""
        here.say(
            f"{many(fitted, 'video')} to fit on, {tests} to test on{turns}\n{told(table)}\n{folder / 'report.html'}"
        )
        then(f"open {folder / 'report.html'} in a browser, or motionmae finetune custom --init {quote(config.model)}")
        return content


def write_page(
    path: Path, config: Probe, content: dict[str, Any], numbers: Sequence[int], folds: Sequence[Fold]
) -> None:
    """The page of the probes; where groups were left out in turn, intervals are over groups."""
    tested = [numbers[row] for fold in folds for row in fold.test.tolist()]
    groups = [at for at, fold in enumerate(folds) for _ in fold.test] if config.data.leave else []
    chance = max(tested.count(number) for number in set(tested)) / len(tested)
    about = {"model": f"{config.model}{', untrained' * config.untrained}", "data": config.data.path}
    report.write(path, content, about, chance, groups)


def sources(asked: ProbeData, seed: int) -> tuple[LabelledVideos, list[Fold], str]:
    """All videos, and their rows to fit on, to choose by and to test on: one fold, or one for each group; and how those
    to test on were told apart where nobody named them."""
    data = Data(path=asked.path, root=asked.root, split=asked.split)
    videos = find(data)
    train = labelled(videos, sorted(set(videos.labels)), f"--data.path {asked.path}")
    if len(train.names) < 2:
        raise MotionMAEError(f"--data.path {asked.path}: a probe needs two classes, it has {train.names}")
    if asked.leave:
        return train, leave_out(column(data, asked.leave, videos.paths)), ""
    if not (asked.test or asked.test_split):
        videos, test, how = apart(data, videos, "", seed)
        if not test.paths:
            raise MotionMAEError(
                f"--data.test names the videos to test on: --data.path {data.path} has too few to part"
            )
        train = labelled(videos, train.names, "")
    else:
        place, how = replace(data, path=asked.test or asked.path, split=asked.test_split), ""
        test = find(place, option_of_tests(asked))
    parts = [train]
    if asked.val_split:
        parts.append(labelled(find(replace(data, split=asked.val_split)), train.names, f"--data.path {asked.path}"))
    parts.append(labelled(test, train.names, f"{option_of_tests(asked)} {asked.test or asked.path}"))
    files = [file for part in parts for file in part.files]
    numbers = [number for part in parts for number in part.numbers]
    used = [torch.tensor(share(part.numbers, asked.fraction, seed)) for part in parts[:-1]]
    if asked.val_split:
        kept, held = used[0], used[1] + len(train.files)
    else:
        rows = probing.held_out(torch.tensor(train.numbers)[used[0]], HELD, seed)
        kept, held = used[0][rows[0]], used[0][rows[1]]
    tested = torch.arange(len(files) - len(parts[-1].files), len(files))
    return LabelledVideos(files, numbers, train.names), [Fold(kept, held, tested)], how


def encoder_of(config: Probe) -> tuple[VideoEncoder | Pixels, dict[str, Any]]:
    """The checkpoint's encoder, or one of the same shape at its start, and the config of the run that made it; or what
    stands for an encoder."""
    if config.model in UNLEARNED:
        size = config.views.size or 224
        return Pixels(config.views.frames or 16, size, UNLEARNED[config.model]), {}
    found = weights.read(config.model, config.heads)
    torch.manual_seed(config.seed)
    encoder = VideoEncoder(found.model)
    if not config.untrained:
        state = {name[8:]: value for name, value in found.state.items() if name.startswith("encoder.")}
        weights.fill(encoder, state, config.model)
    return encoder.eval(), found.config


def kept_features(
    encoder: VideoEncoder | Pixels, files: Sequence[Path], view: View, config: Probe, here: Runtime, path: Path
) -> Features:
    """The features that the probes of `config` need, averaged over the views. Read from `path` where the same encoder,
    precision, views and videos made them, else computed and kept there; `tokens` lie beside it, in a file of their own
    of which memory holds what is being read."""
    wanted = ["mean", *(pool for pool in ("time", "grid", "change") if pool in config.pool)]
    wanted += ["tokens"] if "attentive" in config.kinds else []
    made_by = json.dumps(
        {
            "encoder": [stored.crc_of(name, value) for name, value in sorted(encoder.state_dict().items())],
            "precision": str(here.dtype),
            "views": asdict(view),
            "videos": [stamp(file) for file in files],
        }
    )
    small, beside = [name for name in wanted if name != "tokens"], path.with_suffix(".tokens.npy")
    if (kept := read_kept(path, small, made_by)) and (small == wanted or beside.is_file()):
        return kept if small == wanted else kept | {"tokens": on_disk(beside)}
    here.share(None)  # no rank looks for what the next lines remove
    if here.main:
        path.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    encoder.to(here.device)
    slots, rows, columns = grid_of(view.frames, view.size, view.size, encoder.config.cube)
    slots -= isinstance(encoder, Pixels) and encoder.change  # a pair less than there are frames
    counts = {"mean": 1, "time": slots, "grid": 4 * slots, "change": rows * columns, "tokens": slots * rows * columns}

    def seen(clip: Tensor) -> Tensor:
        tokens = encoder(clip).float()
        at_places = tokens.unflatten(1, (slots, rows, columns))
        makers = {
            "mean": lambda: tokens.mean(1, keepdim=True),
            "time": lambda: at_places.mean((2, 3)),
            "grid": lambda: quarters(at_places),
            "change": lambda: at_places.flatten(2, 3).std(1, correction=0),
            "tokens": lambda: tokens,
        }
        return torch.cat([makers[name]() for name in wanted], 1)

    sizes = [counts[name] for name in small]
    width = 3 * SIDE**2 if isinstance(encoder, Pixels) else encoder.config.width
    shape = (len(files), counts["tokens"], width)
    size = told_size(sum(sizes) * len(files) * width * 4, shape, wanted, path)
    here.say(f"features of {many(len(files), 'video')}: {size}")
    with filling(beside, shape, here) if small != wanted else contextlib.nullcontext(np.empty(0)) as table:

        def take(videos: list[int], means: Tensor) -> Tensor:
            if small != wanted:
                table[videos] = means[:, sum(sizes) :].half().numpy()
            return means[:, : sum(sizes)].clone()

        found = watch(seen, as_views(files, view), config.compute, here, take=take)["views"]
    encoder.cpu()
    result: Features = dict(zip(small, found.split(sizes, 1), strict=True))
    result["mean"] = result["mean"].flatten(1)
    if here.main:
        stored.save(path, result, {"made_by": made_by})
        result |= {} if small == wanted else {"tokens": on_disk(beside)}
    return result


def read_kept(path: Path, names: Sequence[str], made_by: str) -> Features:
    """The features of these names that the file holds; none where it is not there, lacks one or was made otherwise."""
    if path.is_file():
        with safe_open(str(path), "pt") as content:
            if (content.metadata() or {}).get("made_by") == made_by and set(names) <= set(content.keys()):
                return {name: content.get_tensor(name) for name in names}
    return {}


def told_size(memory: int, shape: tuple[int, ...], wanted: Sequence[str], path: Path) -> str:
    """What the features take, in words."""
    if "tokens" not in wanted:
        return f"{memory / 1e6:.0f} MB"
    place = next(folder for folder in path.absolute().parents if folder.is_dir())
    disk, free = 2 * int(np.prod(shape)), shutil.disk_usage(place).free
    return (
        f"{memory / 1e6:.0f} MB, and {disk / 1e9:.3g} GB of tokens for the attentive probe in {path.parent}, where "
        f"{free / 1e9:.3g} GB are free"
    )


@contextlib.contextmanager
def filling(file: Path, shape: tuple[int, ...], here: Runtime) -> Iterator[Any]:
    """A table of float16 on the disk that all ranks fill, each its own rows; it gets its name when it is whole.

    Raises MotionMAEError before anything is computed where the disk has no room for it.
    """
    with contextlib.ExitStack() as held:
        aside = file.with_name(f"{file.name}.part")
        if here.main:
            aside = held.enter_context(replacing(file))
            np.lib.format.open_memmap(aside, "w+", np.float16, shape).flush()
            if hasattr(os, "posix_fallocate"):  # writing to a map of a full disk would end the process
                with aside.open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, aside.stat().st_size)
        here.share(None)
        table = np.lib.format.open_memmap(aside, "r+")
        yield table
        table.flush()
        here.gather(None)


def on_disk(file: Path) -> Tensor:
    """A table of numbers of which only what is asked for is read."""
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))


def quarters(tokens: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b n d"]:
    """The mean tokens of each slot's quarters, slot by slot; where rows are odd in number the middle one is in two."""
    b, t = tokens.shape[:2]
    pooled = F.adaptive_avg_pool2d(tokens.flatten(0, 1).permute(0, 3, 1, 2), 2)  # (b t) d 2 2
    return pooled.flatten(2).transpose(1, 2).reshape(b, t * 4, -1)


def stamp(file: Path) -> tuple[str, int, int]:
    """What tells whether a video has changed: its path, and size and time of change of it or of its shard."""
    about = remote.about(holder(file))
    return str(file), about.size, about.modified
