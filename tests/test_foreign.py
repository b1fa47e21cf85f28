"""Other projects' layouts are recognised by themselves, and what is not known, missing or misshapen is named."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import motionmae
from motionmae.errors import MotionMAEError
from motionmae.models.classifier import read_classifier
from motionmae.models.tokens import sincos1d, sincos3d
from motionmae.models.weights import read

WIDTH, NARROW, CUBE = 24, 12, (2, 8, 8)
CLIP = torch.rand(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
ARGS = Namespace(num_frames=4, input_size=16)


def random(*shape: int) -> Tensor:
    return torch.randn(shape) * 0.1


def blocks(prefix: str, width: int, depth: int, bias: str = "parts") -> dict[str, Tensor]:
    """The blocks of a plain transformer under timm's names; attention's biases in parts, whole, or none."""
    state: dict[str, Tensor] = {}
    for number in range(depth):
        at = f"{prefix}blocks.{number}."
        for norm in ("norm1", "norm2"):
            state |= {f"{at}{norm}.weight": 1 + random(width), f"{at}{norm}.bias": random(width)}
        state[f"{at}attn.qkv.weight"] = random(3 * width, width)
        if bias == "parts":
            state |= {f"{at}attn.q_bias": random(width), f"{at}attn.v_bias": random(width)}
        elif bias == "whole":
            state[f"{at}attn.qkv.bias"] = random(3 * width)
        state |= {f"{at}attn.proj.weight": random(width, width), f"{at}attn.proj.bias": random(width)}
        state |= {f"{at}mlp.fc1.weight": random(2 * width, width), f"{at}mlp.fc1.bias": random(2 * width)}
        state |= {f"{at}mlp.fc2.weight": random(width, 2 * width), f"{at}mlp.fc2.bias": random(width)}
    return state


def norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + random(width), f"{name}.bias": random(width)}


def linear(name: str, out: int, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": random(out, width), f"{name}.bias": random(out)}


def encoder(prefix: str = "", bias: str = "parts") -> dict[str, Tensor]:
    embed = {
        f"{prefix}patch_embed.proj.weight": random(WIDTH, 3, *CUBE),
        f"{prefix}patch_embed.proj.bias": random(WIDTH),
    }
    return embed | blocks(prefix, WIDTH, 2, bias)


def pretraining(bias: str = "parts", head: int = 3 * 2 * 8 * 8) -> dict[str, Tensor]:
    return {
        "mask_token": random(1, 1, NARROW),
        **encoder("encoder.", bias),
        **norm("encoder.norm", WIDTH),
        **blocks("decoder.", NARROW, 1, bias),
        **norm("decoder.norm", NARROW),
        **linear("decoder.head", head, NARROW),
        "encoder_to_decoder.weight": random(NARROW, WIDTH),
    }


def finetuning(bias: str = "parts") -> dict[str, Tensor]:
    return encoder(bias=bias) | norm("fc_norm", WIDTH) | linear("head", 5, WIDTH)


def mvd() -> dict[str, Tensor]:
    state = encoder() | norm("norm", WIDTH) | {"pos_embed": sincos3d((2, 2, 2), WIDTH)[None]}
    for kind in ("img", "vid"):
        state |= {f"mask_token_{kind}": random(1, 1, WIDTH), f"pos_embed_{kind}": random(1, 8, WIDTH)}
        state |= linear(f"down_{kind}", WIDTH, WIDTH) | blocks(f"decoder_{kind}.", WIDTH, 1)
        state |= norm(f"decoder_{kind}.norm", WIDTH) | linear(f"decoder_{kind}.head", 7, WIDTH)
    return state


def sigma() -> dict[str, Tensor]:
    return pretraining(head=256) | {"prototypes": random(9, 256)} | linear("head.0", 10, 8) | linear("head.2", 8, 10)


def trackmae() -> dict[str, Tensor]:
    tables = {"encoder.pos_embed": sincos1d(8, WIDTH)[None], "decoder_pos_embed": sincos1d(8, NARROW)[None]}
    task = blocks("tracker_decoder.", NARROW, 1, "whole") | norm("tracker_decoder.norm", NARROW)
    task |= linear("tracker_decoder.head", 8, NARROW) | {"encoder_to_tracker.weight": random(NARROW, WIDTH)}
    return pretraining("whole") | tables | task


LAYOUTS = {
    "VideoMAE, pretraining": lambda: {"model": pretraining(), "args": ARGS, "epoch": 3},
    "VideoMAE, fine-tuning": lambda: {"model": finetuning(), "args": ARGS},
    "DeepSpeed": lambda: {"module": finetuning(), "args": ARGS},
    "DDP": lambda: {"model": {f"module.{name}": value for name, value in pretraining().items()}, "args": ARGS},
    "without biases": lambda: {"model": pretraining("none"), "args": ARGS},
    "VideoMAE V2 and MGMAE": lambda: {"model": pretraining(), "optimizer": {"state": {}}, "args": ARGS},
    "VideoMAE V2, distilled": lambda: {"module": finetuning("whole"), "args": ARGS},
    "SIGMA": lambda: {"model": sigma(), "args": ARGS},
    "MVD": lambda: {"model": mvd(), "args": ARGS},
    "TrackMAE": lambda: {"model": trackmae(), "args": ARGS},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_encoder_of_every_layout_gives_the_tokens_of_a_plain_reference(tmp_path, layout):
    torch.manual_seed(0)
    content = LAYOUTS[layout]()
    torch.save(content, tmp_path / "theirs.pth")
    ours = motionmae.load(tmp_path / "theirs.pth", heads=3)
    state = next(content[key] for key in ("model", "module") if key in content)
    state = {name.removeprefix("module.").removeprefix("encoder."): value for name, value in state.items()}
    with torch.no_grad():
        torch.testing.assert_close(ours(CLIP), reference(state, CLIP), atol=1e-5, rtol=1e-5)


def reference(state: dict[str, Tensor], clip: Tensor, cls: bool = False) -> Tensor:
    """A transformer of three heads written plainly, from the tensors under timm's names."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (clip - mean[:, None, None, None]) / std[:, None, None, None]
    kernel = state["patch_embed.proj.weight"]
    kernel = kernel if kernel.ndim == 5 else kernel[:, :, None]
    conv = torch.nn.functional.conv3d(pixels, kernel, state["patch_embed.proj.bias"], kernel.shape[2:])
    x = conv.flatten(2).transpose(1, 2)
    x = x + (state["pos_embed"][:, int(cls) :] if "pos_embed" in state else sincos1d(x.shape[1], WIDTH))
    layer, linear = torch.nn.functional.layer_norm, torch.nn.functional.linear
    for number in range(2):
        get = {name.removeprefix(f"blocks.{number}."): value for name, value in state.items()}.get
        y = layer(x, (WIDTH,), get("norm1.weight"), get("norm1.bias"), 1e-6)
        zero = torch.zeros(WIDTH)
        bias = get("attn.qkv.bias")
        bias = torch.cat((get("attn.q_bias", zero), zero, get("attn.v_bias", zero))) if bias is None else bias
        q, k, v = linear(y, get("attn.qkv.weight"), bias).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2) / (WIDTH // 3) ** 0.5).softmax(-1)
        y = linear((scores @ v).transpose(1, 2).flatten(2), get("attn.proj.weight"), get("attn.proj.bias"))
        x = x + y * get("ls1.gamma", get("gamma_1", torch.ones(WIDTH)))
        y = layer(x, (WIDTH,), get("norm2.weight"), get("norm2.bias"), 1e-6)
        y = torch.nn.functional.gelu(linear(y, get("mlp.fc1.weight"), get("mlp.fc1.bias")))
        x = x + linear(y, get("mlp.fc2.weight"), get("mlp.fc2.bias")) * get(
            "ls2.gamma", get("gamma_2", torch.ones(WIDTH))
        )
    return layer(x, (WIDTH,), state["norm.weight"], state["norm.bias"], 1e-6) if "norm.weight" in state else x


def test_a_decoder_is_loaded_where_its_heads_are_told_and_its_targets_are_pixels(tmp_path):
    torch.save({"model": pretraining(), "args": ARGS}, tmp_path / "a.pth")
    with pytest.raises(MotionMAEError, match=r"decoder of width 12 is not known; say load\(…, decoder_heads=N\)"):
        motionmae.load(tmp_path / "a.pth", heads=3, train=True)
    two, three = (motionmae.load(tmp_path / "a.pth", heads=3, decoder_heads=n, train=True) for n in (2, 3))
    ids = torch.arange(8).expand(2, -1)
    with torch.no_grad():
        one = [model(CLIP, ids[:, :4], ids[:, 4:])["appearance"] for model in (two, three)]
    assert (one[0] - one[1]).abs().max() > 1e-4
    torch.save({"model": sigma(), "args": ARGS}, tmp_path / "s.pth")
    with pytest.raises(MotionMAEError, match=r"s\.pth: .*its decoder predicts 256 numbers a token, not the 384 pixels"):
        motionmae.load(tmp_path / "s.pth", heads=3, decoder_heads=3, train=True)


def test_a_fine_tuned_model_keeps_its_classifier(tmp_path):
    state = finetuning()
    torch.save({"module": state, "args": ARGS}, tmp_path / "a.pth")
    classifier, _ = read_classifier(tmp_path / "a.pth", heads=3)
    with torch.no_grad():
        pooled = reference(state, CLIP).mean(1)
        pooled = torch.nn.functional.layer_norm(pooled, (WIDTH,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)
        torch.testing.assert_close(classifier(CLIP), pooled @ state["head.weight"].T + state["head.bias"])


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("kind", ["MAE", "timm"])
def test_image_weights_give_a_still_clip_the_tokens_of_the_image(tmp_path, cls, kind):
    torch.manual_seed(0)
    state = encoder(bias="whole") | norm("norm", WIDTH) | {"pos_embed": random(1, 4 + cls, WIDTH)}
    state["patch_embed.proj.weight"] = random(WIDTH, 3, 8, 8)
    if cls:
        state["cls_token"] = random(1, 1, WIDTH)
    if kind == "MAE":
        more = {"mask_token": random(1, 1, 8), "decoder_pos_embed": random(1, 5, 8)}
        more |= linear("decoder_embed", 8, WIDTH) | linear("decoder_blocks.0.attn.qkv", 24, 8) | norm("decoder_norm", 8)
        torch.save({"model": state | more | linear("decoder_pred", 9, 8)}, tmp_path / "image.pth")
    else:
        scales = {f"blocks.{n}.ls{part}.gamma": random(WIDTH) for n in range(2) for part in (1, 2)}
        state |= scales | linear("head", 10, WIDTH)
        save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "image.pth")
        (tmp_path / "image.pth").rename(tmp_path / "image.safetensors")
    ours = motionmae.load(next(tmp_path.glob("image.*")), heads=3)
    assert (ours.config.frames, ours.config.size, ours.config.cube) == (16, 16, (2, 8, 8))
    still = CLIP[:, :, :1].expand(-1, -1, 16, -1, -1)
    with torch.no_grad():
        found = ours(still).unflatten(1, (8, 4))
        expected = reference(state, CLIP[:, :, :1], cls)
    for slot in range(8):
        torch.testing.assert_close(found[:, slot], expected, atol=1e-5, rtol=1e-5)


WRONG = {
    "holds encoder.blocks.0.rel, which no layout": lambda s: s | {"encoder.blocks.0.rel": random(3)},
    "holds rubbish.0, rubbish.1, rubbish.2 and 2 more": lambda s: s | {f"rubbish.{n}": random(1) for n in range(5)},
    "lacks encoder.blocks.1.mlp.2.bias": lambda s: {n: v for n, v in s.items() if n != "encoder.blocks.1.mlp.fc2.bias"},
    r"encoder.blocks.1.attention.out.weight of shape \(3, 24\), not \(24, 24\)": lambda s: (
        s | {"encoder.blocks.1.attn.proj.weight": random(3, WIDTH)}
    ),
    "lacks encoder.blocks.0": lambda s: {n: v for n, v in s.items() if ".blocks.0." not in n},
    "not finite, in encoder.norm.bias": lambda s: s | {"encoder.norm.bias": torch.full((WIDTH,), float("nan"))},
    "clips of 1 channels": lambda s: s | {"encoder.patch_embed.proj.weight": random(WIDTH, 1, *CUBE)},
    "has no patch_embed": lambda s: {n: v for n, v in s.items() if "patch_embed" not in n},
    "not square": lambda s: s | {"encoder.patch_embed.proj.weight": random(WIDTH, 3, 2, 8, 4)},
    "learned positions are not those": lambda s: s | {"encoder.pos_embed": random(1, 7, WIDTH)},
    "larger than what the file holds": lambda s: s | {"encoder.norm.bias": torch.zeros(1).expand(10**9)},
}  # fmt: skip


@pytest.mark.parametrize("reason", WRONG)
def test_what_does_not_fit_is_one_sentence_that_names_it(tmp_path, reason):
    torch.save({"model": WRONG[reason](pretraining()), "args": ARGS}, tmp_path / "a.pth")
    with pytest.raises(MotionMAEError, match=rf"a\.pth: .*({reason})"):
        motionmae.load(tmp_path / "a.pth", heads=3)


def test_what_is_not_known_is_left_behind_with_a_warning_where_that_is_asked_for(tmp_path):
    torch.save({"model": pretraining() | {"rubbish": random(1)}, "args": ARGS}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="holds rubbish, which no layout that is known here has: left behind"):
        motionmae.load(tmp_path / "a.pth", heads=3, strict=False)


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, decoder_num_attention_heads=2, decoder_hidden_size=12, decoder_num_hidden_layers=1,
        decoder_intermediate_size=24, layer_norm_eps=1e-6, num_labels=4,
    )  # fmt: skip
    torch.manual_seed(0)
    made = {}
    for name in ("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"):
        model = getattr(transformers, name)(config).eval()
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value) * 0.1)
        made[name] = model
    return made


def tokens_of(model, clip: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((clip - mean[:, None, None, None]) / std[:, None, None, None]).transpose(1, 2)
    return getattr(model, "videomae", model)(pixels).last_hidden_state


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["whole", "sharded", "bin", "bin in parts", "file", "key biases"])
@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_every_form_of_transformers_folder_gives_its_tokens(tmp_path, theirs, name, form):
    model = theirs[name]
    model.save_pretrained(tmp_path, max_shard_size="10KB" if form == "sharded" else "1GB")
    path = tmp_path
    if form in ("bin", "bin in parts", "key biases"):
        state = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        if form == "key biases":
            for key in [key for key in state if key.endswith("attention.key.weight")]:
                state[key.replace("weight", "bias")] = random(len(state[key]))
        if form == "bin in parts":
            for number in range(2):
                names = sorted(state)[number::2]
                torch.save({key: state[key] for key in names}, tmp_path / f"pytorch_model-{number}.bin")
            places = {key: f"pytorch_model-{at % 2}.bin" for at, key in enumerate(sorted(state))}
            (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
        else:
            torch.save(state, tmp_path / "pytorch_model.bin")
    elif form == "file":
        path = tmp_path / "model.safetensors"
    ours = motionmae.load(path)
    with torch.no_grad():
        torch.testing.assert_close(ours(CLIP), tokens_of(model, CLIP), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "relu"}, "its perceptrons use relu; only exact GELU"),
        ({"image_size": [16, 32]}, "only square ones"),
        ({"model_type": "timesformer"}, "timesformer, not its VideoMAE"),
        ({"num_attention_heads": 5}, "24 does not part into 5 heads"),
    ],
)
def test_a_transformers_folder_that_our_model_cannot_be_is_refused(tmp_path, theirs, change, reason):
    theirs["VideoMAEModel"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MotionMAEError, match=reason):
        motionmae.load(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_classifier_of_the_first_token_is_refused(tmp_path, theirs):
    theirs["VideoMAEForVideoClassification"].save_pretrained(tmp_path)
    assert read_classifier(tmp_path)[0].names == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    config = json.loads((tmp_path / "config.json").read_text()) | {"use_mean_pooling": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MotionMAEError, match="looks at the first token alone"):
        read_classifier(tmp_path)


def test_a_folder_that_lacks_a_part_names_it(tmp_path):
    places = {"blocks.0.attn.q_bias": "model-00001.safetensors"}
    (tmp_path / "config.json").write_text('{"model_type": "videomae"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(MotionMAEError, match=r"lacks model-00001\.safetensors"):
        motionmae.load(tmp_path)
    places = {"blocks.0.attn.q_bias": "../model-00001.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(MotionMAEError, match="not a file beside it"):
        motionmae.load(tmp_path)


def test_an_encoder_of_transformers_alone_gives_its_published_tokens(shared):
    folder = shared / "cases" / "hf_encoder_only"
    true = load_file(folder / "true.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(motionmae.load(folder / "base")(true["clip"]), true["tokens"], atol=1e-5, rtol=1e-5)
    with pytest.raises(MotionMAEError, match="clips of 1 channels"):
        motionmae.load(folder / "gray")


def test_videomae_v2_says_its_heads_in_the_config_beside_it(tmp_path: Path):
    state = {f"model.{name}": value for name, value in finetuning().items()}
    save_file(state, tmp_path / "model.safetensors")
    about = {"model_type": "VideoMAEv2_Base", "model_config": {"img_size": 16, "num_frames": 4, "num_heads": 3}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    found = read(tmp_path)
    assert (found.model.heads, found.model.frames, found.model.size) == (3, 4, 16)
