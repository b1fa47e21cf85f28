"""Checkpoints to models. One carries its own config; other projects' files are converted, never unpickled freely.

Our names: `encoder.…`, `decoders.N.…` and, in classifiers, `head.…`. Ours are safetensors files with a `config` in
their metadata. Read too: VideoMAE's own .pth files (pretraining and fine-tuning) and transformers' VideoMAE folders.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motionmae import stored
from motionmae.config import Decoder, Model, from_dict
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import TARGETS, MotionMAE
from motionmae.models.encoder import VideoEncoder

# Heads of the published widths: VideoMAE's S, B, L, H (arXiv 2203.12602) and VideoMAE V2's g (arXiv 2303.16727).
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, in our names: the model's config, the weights, and the metadata of our own files."""

    model: Model
    state: dict[str, Tensor]
    config: dict[str, Any]


@overload
def load(
    path: str | Path, *, train: Literal[False] = False, heads: int | None = None, size: int | None = None
) -> VideoEncoder: ...
@overload
def load(path: str | Path, *, train: Literal[True], heads: int | None = None, size: int | None = None) -> MotionMAE: ...
def load(
    path: str | Path, *, train: bool = False, heads: int | None = None, size: int | None = None
) -> VideoEncoder | MotionMAE:
    """The encoder of a run folder or checkpoint, in eval mode on the CPU, float32; with `train`, the whole autoencoder.

    `path` is a run folder (its newest checkpoint), one of our files or sharded folders, VideoMAE's .pth, or a folder of
    transformers'. A run with `optim.ema` gives the weights' running mean. `heads` and `size` (pixels) are needed only
    for foreign files that do not say them.
    Raises MotionMAEError, naming the path, where there is no such checkpoint or it does not fit.
    """
    found = read(path, heads, size)
    if not train:
        encoder = VideoEncoder(found.model)
        fill(encoder, {name[8:]: value for name, value in found.state.items() if name.startswith("encoder.")}, path)
        return encoder.eval()
    targets = [target for target in TARGETS if any(f"heads.{target}." in name for name in found.state)]
    if not targets:
        raise MotionMAEError(f"{path}: holds an encoder without a decoder, which cannot go on with pretraining")
    autoencoder = MotionMAE(found.model, targets)
    fill(autoencoder, {n: v for n, v in found.state.items() if n.startswith(("encoder.", "decoders."))}, path)
    return autoencoder.eval()


def save(path: str | Path, module: torch.nn.Module, config: dict[str, Any]) -> None:
    """The module's weights as one safetensors file with the config in its metadata; `load` needs nothing else."""
    stored.save_checked(path, module.state_dict(), {"config": json.dumps(config)})


def read(path: str | Path, heads: int | None = None, size: int | None = None) -> Checkpoint:
    """Any checkpoint, in our names and on the CPU."""
    path = Path(path)
    if not path.exists():
        raise MotionMAEError(f"{path}: there is no such checkpoint or run folder")
    try:
        if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
            hub = json.loads((path / "config.json").read_text())
            if hub.get("model_type") == "videomae":
                return _from_transformers(load_file(path / "model.safetensors"), hub)
        file = newest_checkpoint(path) if path.is_dir() else path
        if file.suffix in stored.SUFFIXES:
            state, metadata = _tensors(file)
            if "config" not in metadata:
                raise MotionMAEError(f"{file}: is not a checkpoint of this project: its metadata has no config")
            config = json.loads(metadata["config"])
            return Checkpoint(from_dict(Model, config["model"]), state, config)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MotionMAEError:
        raise
    except (SafetensorError, ValueError, RuntimeError, KeyError, EOFError, OSError) as error:
        raise MotionMAEError(f"{path}: cannot be read as a checkpoint ({error})") from error
    except Exception as error:  # pickle's own error class; the message names what was refused
        if type(error).__name__ != "UnpicklingError":
            raise
        raise MotionMAEError(f"{path}: holds more than tensors and is not read ({str(error)[:200]})") from error
    for key in ("model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return _from_videomae(content[key], content.get("args"), path, heads, size)
    raise MotionMAEError(f"{path}: holds neither 'model' nor 'module' nor 'state_dict', so it is no known checkpoint")


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run folder with the most steps."""
    if (folder / "about.json").is_file():
        return folder
    kept = [file for file in folder.glob("checkpoints/step-*") if file.suffix in stored.SUFFIXES]
    files = sorted(kept, key=lambda file: file.stem) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise MotionMAEError(f"{folder}: has no checkpoint (checkpoints/step-*.safetensors or .shards)")
    return files[-1]


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of the model, without the trainer's, under the names they have in the model alone.

    Where a run has kept the weights' running mean (`average/…`), it stands in for the weights.
    """
    opened = stored.Stored(file)
    wanted = [name for name in opened.shapes if not name.startswith(("optimizer/", "scaler/"))]
    state: dict[str, Tensor] = {}
    for part in ("", "model/", "average/"):
        for name in wanted:
            if name.startswith(part) and (part or not name.startswith(("model/", "average/"))):
                state[name.removeprefix(part).removeprefix("autoencoder.")] = opened.tensor(name)
    return state, opened.about


def fill(module: torch.nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load exactly this state into the module. Raises MotionMAEError, naming the path, where they do not fit."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    if missing or unexpected:
        names = ", ".join([f"lacks {name}" for name in missing[:3]] + [f"has {name}" for name in unexpected[:3]])
        raise MotionMAEError(f"{path}: does not fit the model its config describes: it {names}")


# VideoMAE's names and ours, for the parts that both its original files and transformers' can be brought to.
_BLOCK = {
    "attn.qkv.": "attention.qkv.",
    "attn.q_bias": "attention.q_bias",
    "attn.v_bias": "attention.v_bias",
    "attn.proj.": "attention.out.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.2.",
}
_TOP = {
    r"^(encoder\.)?patch_embed\.proj\.": "encoder.embed.",
    r"^(encoder\.)?blocks\.": "encoder.blocks.",
    r"^(encoder\.)?norm\.": "encoder.norm.",
    r"^encoder_to_decoder\.": "decoders.0.enter.",
    r"^mask_token$": "decoders.0.mask_token",
    r"^decoder\.head\.": "decoders.0.heads.appearance.",
    r"^decoder\.": "decoders.0.",
    r"^fc_norm\.": "head.norm.",
    r"^head\.": "head.linear.",
}


def _from_videomae(state: dict[str, Tensor], args: Any, path: Path, heads: int | None, size: int | None) -> Checkpoint:
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        for old, new in _TOP.items():
            renamed, hits = re.subn(old, new, name)
            if hits:
                break
        else:
            continue  # fixed sines saved as a buffer
        for old, new in _BLOCK.items():
            renamed = renamed.replace(old, new)
        ours[renamed] = value.flatten() if name == "mask_token" else value.float()
    if "encoder.embed.weight" not in ours:
        raise MotionMAEError(f"{path}: is not a VideoMAE checkpoint: it has no patch_embed.proj.weight")
    kernel = ours["encoder.embed.weight"]
    ours["encoder.embed.weight"] = kernel.permute(0, 2, 3, 4, 1).flatten(1)  # channel first to channel last in a cube
    width, cube = len(kernel), (kernel.shape[2], kernel.shape[3], kernel.shape[4])
    heads = heads or HEADS.get(width)
    if heads is None:
        raise MotionMAEError(
            f"{path}: the number of heads of a width of {width} is not known; say --heads N, or load(…, heads=N)"
        )
    size = size or int(getattr(args, "input_size", 0)) or (224 if cube == (2, 16, 16) else 0)
    model = Model(
        frames=int(getattr(args, "num_frames", 16)), size=size, cube=cube, width=width, depth=_depth(ours, "encoder"),
        heads=heads, mlp_ratio=len(ours["encoder.blocks.0.mlp.0.bias"]) / width, positions="sincos1d",
        norm="encoder.norm.weight" in ours,
    )  # fmt: skip
    if "decoders.0.enter.weight" in ours:
        narrow = len(ours["decoders.0.enter.weight"])
        few = DECODER_HEADS.get(narrow) or (heads if narrow % heads == 0 else 1)
        model = replace(model, decoder=Decoder(width=narrow, depth=_depth(ours, "decoders.0"), heads=few))
    return Checkpoint(model, ours, {"model": asdict(model)})


def _from_transformers(state: dict[str, Tensor], hub: dict[str, Any]) -> Checkpoint:
    """Bring transformers' names to the original's, whose converter does the rest."""
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.replace("videomae.embeddings.patch_embeddings.projection", "patch_embed.proj")
        name = re.sub(r"^videomae\.encoder\.layer\.", "blocks.", name)
        name = name.replace("decoder.decoder_layers.", "decoder.blocks.").replace("videomae.layernorm", "norm")
        name = name.replace("attention.output.dense", "attn.proj").replace("intermediate.dense", "mlp.fc1")
        name = name.replace("output.dense", "mlp.fc2").replace("layernorm_before", "norm1")
        name = name.replace("layernorm_after", "norm2").replace("classifier.", "head.")
        theirs[re.sub(r"attention\.attention\.(query|value)\.bias|attention\.attention\.([qv])_bias", _bias, name)] = (
            value
        )
    for name in [name for name in theirs if name.endswith("attention.attention.query.weight")]:
        stem = name.removesuffix("attention.attention.query.weight")
        parts = [theirs.pop(f"{stem}attention.attention.{part}.weight") for part in ("query", "key", "value")]
        theirs[f"{stem}attn.qkv.weight"] = torch.cat(parts)
    args = argparse.Namespace(input_size=hub["image_size"], num_frames=hub["num_frames"])
    found = _from_videomae(theirs, args, Path("model.safetensors"), hub["num_attention_heads"], None)
    decoder = replace(found.model.decoder, heads=hub["decoder_num_attention_heads"])
    names = {int(number): name for number, name in hub.get("id2label", {}).items()}
    model = replace(found.model, decoder=decoder)
    return Checkpoint(model, found.state, {"model": asdict(model), "classes": [names[n] for n in sorted(names)]})


def _bias(match: re.Match[str]) -> str:
    return f"attn.{(match[1] or match[2])[0]}_bias"


def _depth(state: dict[str, Tensor], part: str) -> int:
    return len(
        {name.removeprefix(f"{part}.blocks.").split(".")[0] for name in state if name.startswith(f"{part}.blocks.")}
    )
