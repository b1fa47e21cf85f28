"""`motionmae export KIND MODEL`: a model for other programs, held against the model itself before it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motionmae import stored
from motionmae.config import Export, anonymous, check
from motionmae.errors import MotionMAEError
from motionmae.files import replacing, write_json, write_text
from motionmae.models import export, weights
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.classifier import read_classifier
from motionmae.models.encoder import VideoEncoder
from motionmae.models.export import Exported
from motionmae.progress import then
from motionmae.report.card import card

NEAR = {"onnx": 1e-4, "pt2": 1e-5}
"""How far an exported model's numbers may lie from the model's own, where those are of the order of 1."""


LOADED = {
    "hf": "in Python, transformers.AutoModel.from_pretrained({})",
    "onnx": "in Python, onnxruntime.InferenceSession({})",
    "pt2": "in Python, torch.export.load({}).module()",
    "weights": "in Python, safetensors.torch.load_file({})",
}
"""How another program opens what was written."""


def run(config: Export) -> None:
    """Write aside, compare, rename; nothing is left where something went wrong."""
    check(config)
    out = Path(config.out)
    if not config.model:
        raise MotionMAEError("say which model: a run folder, or a checkpoint")
    ending = {"onnx": ".onnx", "pt2": ".pt2", "weights": ".safetensors", "hf": ""}[config.kind]
    if not config.out or (ending and out.suffix != ending):
        raise MotionMAEError(
            f"--out {config.out!r}: expected {'a name that ends in ' + ending if ending else 'a folder'}"
        )
    if out.exists():
        raise MotionMAEError(f"--out {out}: exists already; choose another name, or remove it")
    module, found = opened(config)
    made_with = anonymous(found)  # what is given away says what was done, not where
    with replacing(out) as aside:
        print(_WRITE[config.kind](module, made_with, aside, config))
    print(f"{out}, {sum(f.stat().st_size for f in [out, *out.rglob('*')] if f.is_file()) / 1e6:.1f} MB")
    if config.push:
        push(out, config.push)
    then(LOADED[config.kind].format(repr(config.out)))


def opened(config: Export) -> tuple[Exported, dict[str, Any]]:
    """The classifier, autoencoder or encoder that the checkpoint holds, in eval mode, and its run's config."""
    found = weights.read(config.model, config.heads, config.size)
    if "head.linear.weight" in found.state and not config.encoder:
        return read_classifier(config.model, config.heads, config.size)
    whole = any(name.startswith("decoders.") for name in found.state) and config.kind in ("hf", "weights")
    if whole and not config.encoder:
        return weights.load(config.model, train=True, heads=config.heads, size=config.size), found.config
    return weights.load(config.model, heads=config.heads, size=config.size), found.config


def write_hf(module: Exported, made_with: dict[str, Any], out: Path, config: Export) -> str:
    """A folder that transformers loads: config, weights, image processor, model card."""
    about, state = export.to_transformers(module, config.code)
    encoder = module if isinstance(module, VideoEncoder) else module.encoder
    out.mkdir()
    stored.save(out / "model.safetensors", state, {"format": "pt"})
    write_json(out / "config.json", about)
    write_json(out / "preprocessor_config.json", export.preprocessor(encoder.config.size))
    kind, trust = about["architectures"][0], ""
    if "auto_map" in about:
        write_text(out / export.CODE, export.code_file())
        kind, trust = next(iter(about["auto_map"])), ", trust_remote_code=True"
    name = config.push or Path(config.out).name
    lines = ("```python", f"from transformers import {kind}, VideoMAEImageProcessor", "")
    lines += (f'model = {kind}.from_pretrained("{name}"{trust})', "```")
    classes = tuple(getattr(module, "names", ()))
    write_text(out / "README.md", card(name, encoder.config, made_with, "hf", classes, "\n".join(lines)))
    told = " (the time head is left out: VideoMAE has none)" if _has_motion(module) else ""
    return f"{about['architectures'][0]} of transformers{told}"


def write_onnx(module: Exported, made_with: dict[str, Any], out: Path, config: Export) -> str:
    """ONNX, equal to the model under onnxruntime; says both's times."""
    export.to_onnx(module, out)
    session = export.onnx_session(out)
    return _compared(module, lambda clip: torch.from_numpy(session.run(None, {"clip": clip.numpy()})[0]), "onnx")


def write_pt2(module: Exported, made_with: dict[str, Any], out: Path, config: Export) -> str:
    """PyTorch's exported program, equal to the model."""
    export.to_program(module, out)
    return _compared(module, torch.export.load(str(out)).module(), "pt2")


def write_weights(module: Exported, made_with: dict[str, Any], out: Path, config: Export) -> str:
    """Safetensors with the config in its metadata, which `motionmae.load` reads."""
    kept = module.half() if config.written == "fp16" else module
    weights.save(out, kept, made_with)
    return f"{sum(value.numel() for value in kept.state_dict().values()) / 1e6:.2f} M numbers in {config.written}"


def push(out: Path, name: str) -> None:
    """Send the result to the hub."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise MotionMAEError("--push needs the hub's library: pip install huggingface_hub") from error
    try:
        hub = HfApi()
        hub.create_repo(name, exist_ok=True)
        if out.is_dir():
            hub.upload_folder(repo_id=name, folder_path=str(out))
        else:
            hub.upload_file(repo_id=name, path_or_fileobj=str(out), path_in_repo=out.name)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        told = str(error).strip().splitlines()[0][:200]
        raise MotionMAEError(f"--push {name}: the hub refused or is out of reach ({told}); {out} is whole") from error
    print(f'sent: motionmae.load("hf://{name}")')


def _has_motion(module: Exported) -> bool:
    return isinstance(module, MotionMAE) and any("motion" in decoder.heads for decoder in module.decoders)  # pyright: ignore


@torch.inference_mode()
def _compared(module: Exported, other: Callable[[Tensor], Tensor], kind: str) -> str:
    """Says how near the exported model is, and both's times; raises MotionMAEError where it is not near enough."""
    clip = export.example_of(module)
    wanted, found = module(clip[:1]), other(clip[:1])  # not the batch that it was traced with
    far = ((wanted - found).abs().max() / wanted.abs().max().clamp_min(1)).item()
    if not far <= NEAR[kind]:
        raise MotionMAEError(f"the {kind} model differs by {far:.2g}, more than {NEAR[kind]:g}: it is not kept")
    ours, theirs = (_milliseconds(lambda call=call: call(clip[:1])) for call in (module, other))
    return f"differs by at most {far:.1e}; one clip in {theirs:.1f} ms there, {ours:.1f} ms by the model itself"


def _milliseconds(call: Callable[[], Any], times: int = 5) -> float:
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found) * 1e3


_WRITE = {"hf": write_hf, "onnx": write_onnx, "pt2": write_pt2, "weights": write_weights}
