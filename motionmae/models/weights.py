"""Checkpoints to models. One carries its own config; other projects' files are converted, never unpickled freely.

Our names: `encoder.…`, `decoders.N.…` and, in classifiers, `head.…`. Ours are safetensors files with a `config` in
their metadata (`stored.py`); those of others are read by `foreign/`, a file for each source. Nothing is built before
the config was checked and the tensors' shapes were compared with it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import safe_open
from torch import Tensor

from motionmae import stored
from motionmae.config import Data, Loss, Mask, Model, Optim, Target, Viewing, check, from_dict
from motionmae.errors import MotionMAEError
from motionmae.files import parsed
from motionmae.models import hub
from motionmae.models.autoencoder import HEADS, MotionMAE
from motionmae.models.encoder import VideoEncoder
from motionmae.models.foreign import images, transformers, videomae
from motionmae.models.foreign.files import Foreign, is_foreign_folder, open_foreign
from motionmae.models.foreign.found import Checkpoint, Told
from motionmae.words import many

__all__ = ["Checkpoint", "fill", "load", "load_autoencoder", "newest_checkpoint", "read", "save"]

MOST = 2**28
"""Numbers that a table of positions may have: what the config alone asks for, without a tensor in the file."""


SECTIONS: dict[str, type] = {
    "data": Data, "views": Viewing, "mask": Mask, "target": Target, "loss": Loss, "optim": Optim,
}  # fmt: skip
"""Of a run's config: what is read from a checkpoint again."""
CUTTING = ("clips", "crops", "sampling", "stride", "fps", "short", "frames", "size")
"""What a saved encoder keeps of the run that made it: how clips are cut from a video."""


@overload
def load(
    path: str | Path,
    *,
    train: Literal[False] = False,
    heads: int | None = None,
    size: int | None = None,
    decoder_heads: int | None = None,
    strict: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoEncoder: ...
@overload
def load(
    path: str | Path,
    *,
    train: Literal[True],
    heads: int | None = None,
    size: int | None = None,
    decoder_heads: int | None = None,
    strict: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MotionMAE: ...
def load(
    path: str | Path,
    *,
    train: bool = False,
    heads: int | None = None,
    size: int | None = None,
    decoder_heads: int | None = None,
    strict: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoEncoder | MotionMAE:
    """The encoder of a run folder or checkpoint, in eval mode; with `train`, the whole autoencoder, in eval mode too.

    `path` is a run folder (its newest checkpoint), one of our files or sharded folders, a file of VideoMAE's family or
    of an image transformer, or what transformers has written. A run with `optim.ema` gives the weights' running mean.
    `heads`, `size` (pixels) and `decoder_heads` are needed only for foreign files that do not say them; without
    `strict`, tensors that no known layout has are left behind.
    Raises MotionMAEError, naming the path, where there is no such checkpoint, where it is damaged or does not fit.

    Examples:
        >>> encoder = load("tiny")  # the one in the package; else a path
        >>> tokens = encoder(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8))
        >>> tokens.shape, encoder.training
        (torch.Size([1, 256, 128]), False)
    """
    found = read(path, heads, size, decoder_heads, strict)
    if not train:
        encoder = VideoEncoder(found.model)
        fill(encoder, {name[8:]: value for name, value in found.state.items() if name.startswith("encoder.")}, path)
        encoder.made_with = found.config
        return encoder.eval().to(device, dtype)
    targets = _targets(found.model, {name: tuple(value.shape) for name, value in found.state.items()})
    if not targets:
        why = found.lacks.get("decoder", "holds an encoder without a decoder")
        raise MotionMAEError(f"{path}: cannot go on with pretraining: {why}")
    autoencoder = MotionMAE(found.model, targets)
    fill(autoencoder, {n: v for n, v in found.state.items() if n.startswith(("encoder.", "decoders."))}, path)
    return autoencoder.eval().to(device, dtype)


def load_autoencoder(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **told: Any
) -> MotionMAE:
    """The encoder and its decoders, in eval mode: `load(path, train=True)`, with whose further words `told`.

    Call `.train()` before going on with its training. Raises MotionMAEError where there is no decoder.
    """
    return load(path, train=True, device=device, dtype=dtype, **told)


def save(path: str | Path, module: torch.nn.Module, config: dict[str, Any] | None = None) -> None:
    """The module's weights as one safetensors file with the config in its metadata; `load` needs nothing else.

    The module is an encoder, an autoencoder or a classifier. `config` is that of the run that made it, whose sampling
    of clips `embed` and the commands then take; without it the file says what the model is, its classes, and how clips
    were cut where the encoder was loaded from something that said so.
    """
    encoder = module if isinstance(module, VideoEncoder) else getattr(module, "encoder", None)
    if isinstance(module, VideoEncoder):  # under the names that it has in a whole model
        module = torch.nn.ModuleDict({"encoder": module})
    if config is None:
        if not isinstance(encoder, VideoEncoder):
            raise MotionMAEError(f"{path}: a {type(module).__name__} is no encoder, and has none: it cannot be saved")
        config = {"model": asdict(encoder.config)}
        names = getattr(module, "names", None)
        config |= {"classes": list(names)} if names else {}
        for name, section in encoder.made_with.items():
            if name in ("data", "views") and isinstance(section, dict):
                config[name] = {key: value for key, value in section.items() if key in CUTTING}
    stored.save_checked(path, module.state_dict(), {"config": json.dumps(config)})


def read(
    path: str | Path,
    heads: int | None = None,
    size: int | None = None,
    decoder_heads: int | None = None,
    strict: bool = True,
) -> Checkpoint:
    """Any checkpoint, in our names and on the CPU, whose shapes fit its config and whose numbers are finite."""
    path = hub.local(path)
    if not path.exists():
        raise MotionMAEError(f"{path}: there is no such checkpoint or run folder")
    try:
        file = path if not path.is_dir() or is_foreign_folder(path) else newest_checkpoint(path)
        if _is_ours(file):
            return _ours(file)
        foreign = open_foreign(file)
        found = _converted(foreign, Told(heads, size, decoder_heads, strict))
        _agree(found, {name: tuple(value.shape) for name, value in found.state.items()}, file)
        _finite(found.state, file)
        return found
    except MotionMAEError as error:
        if str(path) in str(error):
            raise
        raise MotionMAEError(f"{path}: {error}") from error
    except Exception as error:  # of json, pickle, zip, safetensors, and of whatever a file may hold
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise MotionMAEError(f"{path}: cannot be read as a checkpoint ({told})") from error


def _converted(foreign: Foreign, told: Told) -> Checkpoint:
    if transformers.is_transformers(foreign):
        return transformers.convert(foreign, told)
    return images.convert(foreign, told) if images.is_of_images(foreign) else videomae.convert(foreign, told)


def _is_ours(file: Path) -> bool:
    """Whether a file has our metadata: other projects' safetensors files have not."""
    if file.is_dir():
        return not is_foreign_folder(file)
    if file.suffix != ".safetensors":
        return False
    with safe_open(file, "pt") as content:
        return bool({"config", "sums", "header", "checksum", "pieces"} & (content.metadata() or {}).keys())


def _ours(file: Path) -> Checkpoint:
    """A checkpoint of ours: the shapes are compared with the config before a tensor is read.

    The trainer's tensors are left out. Where a run has kept the weights' running mean (`average/…`), it stands in.
    """
    opened = stored.Stored(file)
    if "config" not in opened.about:
        raise MotionMAEError(f"{file}: is not a checkpoint of this project: its metadata has no config")
    config = parsed(opened.about["config"], "its config")
    model = from_dict(Model, config["model"])
    _check_run(config)
    wanted = [name for name in opened.shapes if not name.startswith(("optimizer/", "scaler/"))]
    names: dict[str, str] = {}
    for part in ("", "model/", "average/"):
        for name in wanted:
            if name.startswith(part) and (part or not name.startswith(("model/", "average/"))):
                names[name.removeprefix(part).removeprefix("autoencoder.")] = name
    found = Checkpoint(model, {}, config)
    _agree(found, {ours: opened.shapes[name] for ours, name in names.items()}, file)
    found.state.update({ours: opened.tensor(name) for ours, name in names.items()})
    _finite(found.state, file)
    return found


def _check_run(config: dict[str, Any]) -> None:
    """Raise MotionMAEError where what a checkpoint tells of its run could not have been asked of one.

    Options that have gone since, or are yet to come, are passed over: earlier and later versions have them.
    """
    for section, kind in SECTIONS.items():
        told = config.get(section)
        if told is not None and not isinstance(told, dict):
            raise MotionMAEError(f"its {section} is {told!r:.80}, not a section of options")
        known = {field.name for field in fields(kind)} & (told or {}).keys()
        check(from_dict(kind, {name: told[name] for name in known}) if told else kind(), section)
    names = config.get("classes") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MotionMAEError(f"its classes are {names!r:.80}, not a list of names")


def _targets(model: Model, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """The heads that there are, and what each predicts of a cube: its pixels, or motion, of which there are kinds."""
    found = {t: shapes[n][0] for t in HEADS for n in shapes if n.endswith(f".heads.{t}.bias") and shapes[n]}
    return found | {name: math.prod(model.cube) * 3 for name in found if name == "appearance"}


def _agree(found: Checkpoint, shapes: dict[str, tuple[int, ...]], file: Path) -> None:
    """Raise MotionMAEError where the config asks for another model than the tensors are of.

    What a module of this config would hold is asked of one that has no memory; its depth is that of the tensors.
    """
    model = found.model
    check(model, "model")
    held = {match[1] for name in shapes if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))}
    below = {match[1] for name in shapes if (match := re.match(r"decoders\.\d+\.blocks\.(\d+)\.", name))}
    for what, said, have in (("", model.depth, held), ("decoder", model.decoder.depth, below)):
        if said != len(have) and (have or not what):
            raise MotionMAEError(
                f"{file}: its config says {many(said, (what or 'encoder') + ' block')}, it holds {len(have)}"
            )
    tokens = model.frames * model.size * model.size // math.prod(model.cube)
    if tokens * max(model.width, model.decoder.width if below else 0) > MOST:
        raise MotionMAEError(f"{file}: its config asks for {many(tokens, 'token')}, more than there is room for")
    targets = _targets(model, shapes)
    with torch.device("meta"):
        module = MotionMAE(model, targets) if targets else torch.nn.ModuleDict({"encoder": VideoEncoder(model)})
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    _compare(expected, {n: s for n, s in shapes.items() if n.startswith(("encoder.", "decoders."))}, file)


def _compare(expected: dict[str, tuple[int, ...]], held: dict[str, tuple[int, ...]], path: str | Path) -> None:
    """Raise MotionMAEError that names what is missing, unknown or of another shape."""
    wrong = [f"lacks {name}" for name in expected if name not in held]
    wrong += [f"has {name}" for name in held if name not in expected]
    wrong += [
        f"has {name} of shape {held[name]}, not {shape}"
        for name, shape in expected.items()
        if name in held and held[name] != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MotionMAEError(f"{path}: does not fit the model its config describes: it {', '.join(wrong[:3])}{more}")


def _finite(state: dict[str, Tensor], path: str | Path) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise MotionMAEError(f"{path}: holds numbers that are not finite, in {bad[0]}{more}")


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run folder with the most steps."""
    if (folder / stored.ABOUT).is_file():
        return folder
    kept = [file for file in folder.glob("checkpoints/step-*") if file.suffix in stored.SUFFIXES]
    files = sorted(kept, key=lambda file: file.stem) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise MotionMAEError(f"{folder}: has no checkpoint (checkpoints/step-*.safetensors or .shards)")
    return files[-1]


def fill(module: torch.nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load exactly this state into the module. Raises MotionMAEError, naming the path, where they do not fit."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    _compare(expected, {name: tuple(value.shape) for name, value in state.items()}, path)
    module.load_state_dict(state)
