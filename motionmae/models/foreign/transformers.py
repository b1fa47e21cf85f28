"""transformers' VideoMAE (VideoMAEModel, ForPreTraining, ForVideoClassification) in the original's names, then ours."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, replace

import torch
from torch import Tensor

from motionmae.errors import MotionMAEError
from motionmae.models.foreign import videomae
from motionmae.models.foreign.files import Foreign
from motionmae.models.foreign.found import Checkpoint, Told

RENAMES = (
    (r"^videomae\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^decoder\.decoder_layers\.", "decoder.blocks."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(?:(q|v)_bias|(query|value)\.bias)$", lambda hit: f".attn.{(hit[1] or hit[2])[0]}_bias"),
    (r"\.attention\.attention\.key\.bias$", ".attn.k_bias"),
)
"""In turn; both the older and the newer names of biases."""


def is_transformers(foreign: Foreign) -> bool:
    """Whether a file is transformers' VideoMAE, by its config or its names."""
    return foreign.hub.get("model_type") == "videomae" or any(
        "embeddings.patch_embeddings." in n for n in foreign.state
    )


def convert(foreign: Foreign, told: Told) -> Checkpoint:
    """A folder of transformers in our names. Raises MotionMAEError for what our model cannot be."""
    path, hub = foreign.path, foreign.hub
    if not hub:
        raise MotionMAEError(f"{path}: is transformers' VideoMAE; its config.json must lie beside it")
    if hub.get("model_type") != "videomae":
        raise MotionMAEError(f"{path.parent}: is transformers' {hub.get('model_type')}, not its VideoMAE")
    if (activation := hub.get("hidden_act", "gelu")) not in ("gelu", "gelu_python"):
        raise MotionMAEError(f"{path.parent}: its perceptrons use {activation}; only exact GELU can be loaded")
    size = hub.get("image_size", 224)
    sides = set(size) if isinstance(size, list) else {size}
    if len(sides) != 1:
        raise MotionMAEError(f"{path.parent}: is of frames of {size} pixels; only square ones can be loaded")
    state = _joined({_name(name): value for name, value in foreign.state.items()})
    args = argparse.Namespace(
        input_size=sides.pop(), num_frames=hub.get("num_frames", 16), num_heads=hub.get("num_attention_heads", 12)
    )
    told = replace(told, decoder_heads=told.decoder_heads or hub.get("decoder_num_attention_heads", 6))
    found = videomae.convert(Foreign(path, state, args), told)
    return _classes(found, hub)


def _name(name: str) -> str:
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one layer."""
    for name in [name for name in state if name.endswith(".attention.attention.query.weight")]:
        stem = name.removesuffix("attention.attention.query.weight")
        parts = [f"{stem}attention.attention.{part}.weight" for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            state[f"{stem}attn.qkv.weight"] = torch.cat([state.pop(part) for part in parts])
    return state


def _classes(found: Checkpoint, hub: dict[str, object]) -> Checkpoint:
    """The classes' names; and without the classifier where it looks at the first token alone, as ours never does."""
    state, lacks = dict(found.state), dict(found.lacks)
    names = hub.get("id2label")
    classes = [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else []
    if "head.linear.weight" in state and not hub.get("use_mean_pooling", True):
        for name in [name for name in state if name.startswith("head.")]:
            del state[name]
        lacks["head"] = "its classifier looks at the first token alone (use_mean_pooling is false)"
    return Checkpoint(found.model, state, {"model": asdict(found.model), "classes": classes}, lacks)
