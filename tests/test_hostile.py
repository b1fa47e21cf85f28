"""What a hostile or damaged checkpoint costs its reader is one sentence: no code, no memory, no silent number."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import motionmae
from motionmae import stored
from motionmae.config import Model
from motionmae.errors import MotionMAEError
from motionmae.models.autoencoder import MotionMAE
from motionmae.models.weights import save

SMALL = Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=2, heads=3)
TINY = json.loads(json.dumps(asdict(SMALL)))
TINY["decoder"] |= {"width": 12, "depth": 1, "heads": 3}

CONFIGS = {
    "frames": 10**9, "frames of text": {"frames": "4"}, "size": 10**9, "size below 0": {"size": -16},
    "depth": 10**7, "no depth": {"depth": 0}, "width": 10**9, "width of a fraction": {"width": 24.5},
    "width below 0": {"width": -24}, "heads": 5, "no heads": {"heads": 0}, "mlp_ratio": 1e30,
    "mlp_ratio of nan": {"mlp_ratio": float("nan")}, "positions": "xyz", "norm": {"norm": [1]},
    "cube": [0, 8, 8], "cube of two": {"cube": [2, 8]}, "cube of text": {"cube": "288"}, "unknown": 1,
    "decoder": 5, "decoder's width": {"decoder": {"width": 10**9, "depth": 1, "heads": 3}},
    "decoder's depth": {"decoder": {"width": 12, "depth": 10**8, "heads": 3}},
    "decoder's kind": {"decoder": {"width": 12, "depth": 1, "heads": 3, "kind": "xyz"}},
    "nothing": {"depth": None}, "heads of truth": {"heads": True}, "learned": {"positions": "learned"},
}  # fmt: skip


def good(path: Path) -> Path:
    """A sound checkpoint of ours."""
    config = Model(**{**asdict(SMALL), "decoder": motionmae.config.Decoder(width=12, depth=1, heads=3)})
    save(path, MotionMAE(config), {"model": TINY})
    return path


def refused(path: Path) -> str:
    """The sentence with which a file is refused, which names it, without a megabyte spent on it to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MotionMAEError) as error:
        motionmae.load(path, train=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    told = str(error.value)
    assert path.name in told
    assert "\n" not in told
    assert len(told) < 500
    return told


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_not_that_of_the_tensors_is_refused_before_anything_is_built(tmp_path, name):
    change = CONFIGS[name] if isinstance(CONFIGS[name], dict) else {name: CONFIGS[name]}
    tensors = load_file(good(tmp_path / "a.safetensors"))
    stored.save_checked(tmp_path / "a.safetensors", tensors, {"config": json.dumps({"model": TINY | change})})
    refused(tmp_path / "a.safetensors")


def test_configs_are_refused_without_the_checks_of_types_that_tests_add(tmp_path):
    """As a user runs it: the values below would build a model that is not the one that was saved."""
    tensors, files = load_file(good(tmp_path / "a.safetensors")), []
    for number, name in enumerate(CONFIGS):
        change = CONFIGS[name] if isinstance(CONFIGS[name], dict) else {name: CONFIGS[name]}
        files.append(tmp_path / f"{number}.safetensors")
        stored.save_checked(files[-1], tensors, {"config": json.dumps({"model": TINY | change})})
    code = (
        "import sys, motionmae\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        motionmae.load(path, train=True)\n"
        "    except motionmae.MotionMAEError:\n"
        "        continue\n"
        "    print(path)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


ABOUTS = {
    "no config": {}, "no json": {"config": "{"}, "a list": {"config": "[1]"}, "no model": {"config": "{}"},
    "a model of text": {"config": '{"model": "x"}'}, "deep": {"config": "[" * 100_000},
}  # fmt: skip


@pytest.mark.parametrize("name", ABOUTS)
def test_metadata_that_is_none_is_refused(tmp_path, name):
    tensors = load_file(good(tmp_path / "a.safetensors"))
    stored.save_checked(tmp_path / "a.safetensors", tensors, ABOUTS[name])
    refused(tmp_path / "a.safetensors")


TENSORS = {
    r"encoder\.norm\.bias of shape \(5,\), not \(24,\)": {"encoder.norm.bias": torch.zeros(5)},
    r"lacks encoder\.norm\.bias": {"encoder.norm.bias": None},
    r"has encoder\.more": {"encoder.more": torch.zeros(5)},
    r"not finite, in encoder\.norm\.bias": {"encoder.norm.bias": torch.full((24,), torch.nan)},
    r"not finite, in decoders\.0\.norm": {"decoders.0.norm.bias": torch.full((12,), torch.inf)},
}


@pytest.mark.parametrize("reason", TENSORS)
def test_tensors_that_do_not_fit_are_named(tmp_path, reason):
    tensors = load_file(good(tmp_path / "a.safetensors")) | TENSORS[reason]
    held = {name: value for name, value in tensors.items() if value is not None}
    stored.save_checked(tmp_path / "a.safetensors", held, {"config": json.dumps({"model": TINY})})
    assert re.search(reason, refused(tmp_path / "a.safetensors"))


def test_every_flipped_bit_that_changes_a_checkpoint_is_told(tmp_path):
    file = good(tmp_path / "a.safetensors")
    content, whole = file.read_bytes(), load_file(file)
    draw = torch.Generator().manual_seed(0)
    for place in torch.randint(len(content), (60,), generator=draw).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            found = motionmae.load(file, train=True).state_dict()
        except MotionMAEError:
            continue
        else:  # a bit that says nothing, such as padding
            assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_files_cut_anywhere_are_told(tmp_path):
    file = good(tmp_path / "a.safetensors")
    content = file.read_bytes()
    for end in (0, 1, 7, 8, 9, 100, 5000, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:end])
        refused(file)
    file.write_bytes(content + b"more")
    refused(file)


def test_weights_without_checksums_are_refused(tmp_path):
    tensors = load_file(good(tmp_path / "a.safetensors"))
    save_file(tensors, tmp_path / "a.safetensors", {"config": json.dumps({"model": TINY})})
    assert "it lacks its checksums" in refused(tmp_path / "a.safetensors")


class Harm:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["a.pth", "pytorch_model.bin", "mp_rank_00_model_states.pt", "model.safetensors"])
@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_no_pickle_runs(tmp_path, name, way):
    harm = {"model": {"encoder.norm.bias": Harm(tmp_path / "ran")}, "args": Harm(tmp_path / "ran")}
    if way == "torch":
        torch.save(harm, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(harm))
    (tmp_path / "config.json").write_text('{"model_type": "videomae"}')
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(MotionMAEError):
            motionmae.load(path)
    assert not (tmp_path / "ran").exists()


FOREIGN = {
    "a list": [1], "a tensor": torch.zeros(3), "no tensors": {"model": {"a": 1}}, "empty": {"model": {}},
    "names of numbers": {"model": {1: torch.zeros(3), 2: torch.zeros(3)}}, "nothing": {},
    "strange options": {"model": {"patch_embed.proj.weight": torch.zeros(24, 3, 2, 8, 8)}, "args": "x"},
    "scalars": {"model": {"patch_embed.proj.weight": torch.tensor(1.0), "blocks.0.attn.qkv.bias": torch.tensor(1.0)}},
    "no rows": {"model": {"patch_embed.proj.weight": torch.zeros(0, 3, 2, 8, 8)}},
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_that_are_no_checkpoints_are_refused(tmp_path, name):
    torch.save(FOREIGN[name], tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


def test_damaged_foreign_files_and_folders_are_refused(tmp_path):
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(24, 3, 2, 8, 8)}}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    for end in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "a.pth").write_bytes(content[:end])
        refused(tmp_path / "a.pth")
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(MotionMAEError, match="has no checkpoint"):
        motionmae.load(tmp_path)
    for text in ("{", "[]", '{"about": 1, "parts": 2}', '{"about": {}, "parts": ["a"], "header": 3}'):
        (tmp_path / "about.json").write_text(text)
        with pytest.raises(MotionMAEError, match=str(tmp_path)):
            motionmae.load(tmp_path)


TOLD_OF_RUNS = {
    "data is 'x'": {"data": "x"}, r"data is \[1\]": {"data": [1]}, "views is 5": {"views": 5},
    "data.stride must be": {"data": {"stride": -4}}, "data.fps must be": {"data": {"fps": 1e-300}},
    "mask.ratio must be": {"mask": {"ratio": 5.0}}, "classes are 5": {"classes": 5}, "classes are": {"classes": [1, 2]},
    "views.clips must be": {"views": {"clips": 10**9}},
}  # fmt: skip


@pytest.mark.parametrize("reason", TOLD_OF_RUNS)
def test_what_a_checkpoint_says_of_its_run_is_asked_as_a_user_is(tmp_path, reason):
    tensors = load_file(good(tmp_path / "a.safetensors"))
    config = {"model": TINY} | TOLD_OF_RUNS[reason]
    stored.save_checked(tmp_path / "a.safetensors", tensors, {"config": json.dumps(config)})
    assert re.search(reason, refused(tmp_path / "a.safetensors"))


def test_options_of_other_versions_are_passed_over(tmp_path):
    tensors = load_file(good(tmp_path / "a.safetensors"))
    config = {"model": TINY, "data": {"stride": 3, "gone": 1}, "views": None}
    stored.save_checked(tmp_path / "a.safetensors", tensors, {"config": json.dumps(config)})
    assert motionmae.load(tmp_path / "a.safetensors").made_with["data"]["stride"] == 3


def test_a_file_of_pytorch_that_was_pressed_is_refused_unread(tmp_path):
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(4_000_000)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as file:
        held = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as file:
        for name, record in held.items():
            file.writestr(name, record)
    assert "says that it holds 16" in refused(tmp_path / "a.pth")


class Zeros:
    def __reduce__(self):
        return bytearray, (600_000_000,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_memory_gets_none(tmp_path, zipped):
    held = {"model": {"patch_embed.proj.weight": torch.zeros(3)}, "args": Zeros()}
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert "asks for memory" in refused(tmp_path / "a.pth")
