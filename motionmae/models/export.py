"""Models for other programs: transformers' folders, ONNX and exported programs, each held against the model itself.

Its one rule: what another form cannot express is refused with the reason, never written as something near it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.blocks import EPS
from motionmae.models.classifier import Classifier
from motionmae.models.encoder import MEAN, STD, VideoEncoder

Exported = VideoEncoder | Classifier | MotionMAE
CODE = "modeling_motionmae.py"

# transformers' VideoMAE computes its own sines and has no place for others in its weights: a subclass has.
_CODE = '''"""VideoMAE with a table of positions among its weights. Apache-2.0. Written by motionmae export hf."""

import torch
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel


def _settle(embeddings, config):
    patches = config.num_frames // config.tubelet_size * (config.image_size // config.patch_size) ** 2
    table = torch.zeros(1, patches, config.hidden_size)
    del embeddings.position_embeddings
    embeddings.register_buffer("position_embeddings", table)


class MotionMAEModel(VideoMAEModel):
    def __init__(self, config):
        super().__init__(config)
        _settle(self.embeddings, config)


class MotionMAEForVideoClassification(VideoMAEForVideoClassification):
    def __init__(self, config):
        super().__init__(config)
        _settle(self.videomae.embeddings, config)
'''


def example_of(module: Exported) -> Float[Tensor, "2 c t h w"]:
    """Two clips, float in [0, 1], such as the model was made for; raises MotionMAEError where it does not say."""
    model = _encoder(module).config
    if not model.size:
        raise MotionMAEError("the checkpoint does not say the size of its frames: set --size")
    random = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, model.frames, model.size, model.size, generator=random)


def to_transformers(module: Exported, code: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the weights of the model as one of transformers' VideoMAE classes.

    An encoder becomes VideoMAEModel, a classifier VideoMAEForVideoClassification, an autoencoder with a space head
    VideoMAEForPreTraining (the time head has no place in it). With `code`, positions that VideoMAE cannot compute are
    among the weights, for the classes in CODE. Raises MotionMAEError for what cannot be expressed, with the reason.
    """
    encoder = _encoder(module)
    model, (time, rows, columns) = encoder.config, encoder.config.cube
    if rows != columns:
        raise MotionMAEError(f"transformers' VideoMAE has square patches, the model's are {rows}x{columns}")
    if not model.size:
        raise MotionMAEError("the checkpoint does not say the size of its frames: set --size")
    apart = model.positions != "sincos1d"
    if apart and (not code or isinstance(module, MotionMAE)):
        what = "leave the decoder out with --encoder" if code else "add --code to write them as weights, with code"
        raise MotionMAEError(
            f"transformers' VideoMAE knows its own sines alone, the model's positions are {model.positions}: {what}, "
            "or export onnx, pt2 or weights"
        )
    bare, state = not isinstance(module, Classifier | MotionMAE), _encoder_state(encoder)
    if apart:
        state["embeddings.position_embeddings"] = encoder.positions.table.detach()[None]
    state = state if bare else {f"videomae.{name}": value for name, value in state.items()}
    about: dict[str, Any] = {
        "model_type": "videomae",
        "architectures": ["VideoMAEModel"],
        "image_size": model.size,
        "num_frames": model.frames,
        "patch_size": rows,
        "tubelet_size": time,
        "num_channels": 3,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "intermediate_size": int(model.width * model.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": EPS,
        "qkv_bias": True,
        "use_mean_pooling": not model.norm,
        "torch_dtype": "float32",
    }
    if isinstance(module, Classifier):
        numbered = {str(number): name for number, name in enumerate(module.names)}
        about |= {"architectures": ["VideoMAEForVideoClassification"], "id2label": numbered}
        about |= {"label2id": {name: int(number) for number, name in numbered.items()}, "use_mean_pooling": True}
        state |= {f"fc_norm.{part}": value for part, value in module.head.norm.state_dict().items()}
        state |= {f"classifier.{part}": value for part, value in module.head.linear.state_dict().items()}
    if isinstance(module, MotionMAE):
        about |= _decoder_config(module) | {"architectures": ["VideoMAEForPreTraining"]}
        state |= _decoder_state(module)
    if apart:
        own = "MotionMAEModel" if bare else "MotionMAEForVideoClassification"
        auto = "AutoModel" if bare else "AutoModelForVideoClassification"
        about |= {"architectures": [own], "auto_map": {auto: f"{CODE.removesuffix('.py')}.{own}"}}
    return about, {name: value.detach().clone().contiguous() for name, value in state.items()}


def code_file() -> str:
    """The text of CODE, that lies beside weights whose positions VideoMAE cannot compute."""
    return _CODE


def preprocessor(size: int) -> dict[str, Any]:
    """The preprocessor_config.json of the model's clips: middle square, in ImageNet's normalisation."""
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "resample": 2,
    }


def to_onnx(module: Exported, path: Path) -> None:
    """The model as ONNX: `clip`, float32 [batch, 3, frames, size, size] in [0, 1], the batch free, all else fixed.

    Raises MotionMAEError where the onnx libraries are missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MotionMAEError("exporting ONNX needs more libraries: pip install 'motionmae[export]'") from error
    module, batch = module.eval(), torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            module,
            (example_of(module),),
            dynamo=True,
            input_names=["clip"],
            output_names=[output_name(module)],
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


def to_program(module: Exported, path: Path) -> None:
    """The model as PyTorch's exported program, which `torch.export.load(path).module()` runs without this library."""
    with _quiet():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module.eval(), (example_of(module),), dynamic_shapes=shapes)
        torch.export.save(program, str(path))


def output_name(module: Exported) -> str:
    """What comes out: a classifier's scores before the softmax, or an encoder's tokens."""
    return "logits" if isinstance(module, Classifier) else "tokens"


def run_onnx(path: Path, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b ..."]:
    """What onnxruntime makes of a clip on the CPU."""
    return torch.from_numpy(onnx_session(path).run(None, {"clip": clip.numpy()})[0])


def onnx_session(path: Path) -> Any:
    """An onnxruntime session on the CPU; raises MotionMAEError where the library is missing."""
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MotionMAEError("checking ONNX needs onnxruntime: pip install 'motionmae[export]'") from error
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _encoder(module: Exported) -> VideoEncoder:
    return module if isinstance(module, VideoEncoder) else module.encoder


_NAMES = {
    "attention.out": "attention.output.dense",
    "attention.q_bias": "attention.attention.q_bias",  # as on the hub: newer versions rename it as they read
    "attention.v_bias": "attention.attention.v_bias",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}


def _blocks(blocks: nn.Module, theirs: str) -> dict[str, Tensor]:
    """Transformer blocks under transformers' names."""
    found: dict[str, Tensor] = {}
    for name, value in blocks.state_dict().items():
        number, rest = name.split(".", 1)
        if rest == "attention.qkv.weight":
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            found |= {f"{theirs}.{number}.attention.attention.{part}.weight": piece for part, piece in parts}
            continue
        part = next(own for own in _NAMES if rest == own or rest.startswith(f"{own}."))
        found[f"{theirs}.{number}.{_NAMES[part]}{rest.removeprefix(part)}"] = value
    return found


def _encoder_state(encoder: VideoEncoder) -> dict[str, Tensor]:
    time, rows, columns = encoder.config.cube
    pattern = "d (t h w c) -> d c t h w"
    kernel = rearrange(encoder.embed.weight, pattern, t=time, h=rows, w=columns)
    projection = "embeddings.patch_embeddings.projection"
    found = {f"{projection}.weight": kernel, f"{projection}.bias": encoder.embed.bias}
    found |= _blocks(encoder.blocks, "encoder.layer")
    return found | {f"layernorm.{part}": value for part, value in encoder.norm.state_dict().items()}


def _decoder_config(module: MotionMAE) -> dict[str, Any]:
    size, mlp = module.config.decoder, module.config.mlp_ratio
    return {
        "decoder_hidden_size": size.width,
        "decoder_num_hidden_layers": size.depth,
        "decoder_num_attention_heads": size.heads,
        "decoder_intermediate_size": int(size.width * mlp),
        "norm_pix_loss": True,
    }


def _decoder_state(module: MotionMAE) -> dict[str, Tensor]:
    decoder = next((decoder for decoder in module.decoders if "appearance" in decoder.heads), None)  # pyright: ignore
    if decoder is None:
        raise MotionMAEError("transformers' VideoMAE predicts appearance, the model has a time head alone")
    if getattr(module.config.decoder, "attention", "self") != "self":
        raise MotionMAEError("transformers' VideoMAE has no decoder of cross-attention: leave it out with --encoder")
    own = dict(decoder.state_dict())
    found = {"mask_token": own["mask_token"].reshape(1, 1, -1), "encoder_to_decoder.weight": own["enter.weight"]}
    found |= _blocks(decoder.blocks, "decoder.decoder_layers")  # pyright: ignore[reportArgumentType]
    found |= {f"decoder.{name}": value for name, value in own.items() if re.match(r"norm\.", name)}
    return found | {f"decoder.head.{part}": own[f"heads.appearance.{part}"] for part in ("weight", "bias")}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own chatter: what matters is said by comparing the result."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
