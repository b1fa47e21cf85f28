"""Tensors in files: what is read is what was written, to the bit, or a reason; and nothing in a file ever runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import runs
import torch
from safetensors.torch import load_file, save_file

import motionmae
from motionmae import stored
from motionmae.errors import MotionMAEError
from motionmae.stored import Damaged, Stored
from motionmae.training import checkpoint

WHOLE = {
    "cut": torch.arange(35.0).view(5, 7),
    "other": torch.randn(3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "number": torch.tensor(3),
    "none": torch.empty(0, 4),
}


def parts(folder: Path, dim: int = 0, ranks: int = 2) -> Path:
    """WHOLE as ranks write it, with `cut` cut along `dim`."""
    folder.mkdir()
    headers = {}
    for rank in range(ranks):
        held = dict(WHOLE) if rank == 0 else {}
        each = -(-WHOLE["cut"].shape[dim] // ranks)
        held["cut"] = WHOLE["cut"].narrow(dim, rank * each, min(each, WHOLE["cut"].shape[dim] - rank * each))
        pieces = json.dumps({"cut": [rank * each, dim, [5, 7]]})
        headers[f"part-{rank:05d}.safetensors"] = stored.save_checked(
            folder / f"part-{rank:05d}.safetensors", held, {"pieces": pieces}
        )["header"]
    stored.write_about(folder, {"step": "7"}, headers)
    return folder


def test_a_file_gives_what_was_written(tmp_path):
    stored.save_checked(tmp_path / "a.safetensors", WHOLE, {"step": "7"})
    opened = Stored(tmp_path / "a.safetensors")
    assert opened.about["step"] == "7"
    assert opened.shapes == {name: tuple(value.shape) for name, value in WHOLE.items()}
    assert all(torch.equal(opened.tensor(name), value) for name, value in WHOLE.items())


@pytest.mark.parametrize("dim", [0, 1])
def test_parts_give_the_whole_and_any_stretch_of_it(tmp_path, dim):
    opened = Stored(parts(tmp_path / "a.shards", dim))
    opened.verify()
    assert opened.about == {"step": "7"}
    assert all(torch.equal(opened.tensor(name), value) for name, value in WHOLE.items())
    for along in (0, 1):
        size = WHOLE["cut"].shape[along]
        for start in range(size + 1):
            for stop in range(start, size + 1):
                expected = WHOLE["cut"].narrow(along, start, stop - start)
                assert torch.equal(opened.stretch("cut", along, start, stop), expected)


def test_every_flipped_bit_of_a_file_is_found(tmp_path):
    file = tmp_path / "a.safetensors"
    stored.save_checked(file, WHOLE, {"step": "7", "config": "{}"})
    good = file.read_bytes()
    silent = []
    for place in range(0, len(good), 3):
        content = bytearray(good)
        content[place] ^= 1 << place % 8
        file.write_bytes(content)
        try:
            opened = Stored(file)
            opened.verify()
        except Exception:  # any reason will do
            continue
        same = all(torch.equal(opened.tensor(name), WHOLE[name]) for name in opened.shapes)
        if not same or opened.shapes.keys() != WHOLE.keys() or opened.about["step"] != "7":
            silent.append(place)
    assert not silent


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    good = parts(tmp_path / "a.shards")
    other = shutil.copytree(good, tmp_path / "b.shards")
    stored.save_checked(other / "part-00001.safetensors", {"cut": torch.zeros(2, 7)}, {"pieces": "{}"})
    with pytest.raises(Damaged, match=r"part-00001\.safetensors is not of this checkpoint"):
        Stored(other)
    (other / "part-00001.safetensors").unlink()
    with pytest.raises(Damaged, match=r"it lacks part-00001"):
        Stored(other)
    about = json.loads((good / "about.json").read_text())
    about["about"]["step"] = "8"
    (good / "about.json").write_text(json.dumps(about))
    with pytest.raises(Damaged, match=r"the checksum of about\.json"):
        Stored(good)


@pytest.mark.parametrize(
    "pieces", [[[0, 0, [5, 7]]], [[1, 0, [5, 7]], [3, 0, [5, 7]]], [[0, 0, [9, 7]], [3, 0, [9, 7]]]]
)
def test_parts_that_leave_a_gap_are_refused(tmp_path, pieces):
    folder = tmp_path / "a.shards"
    folder.mkdir()
    headers = {}
    for rank, piece in enumerate(pieces):
        name = f"{rank}.safetensors"
        about = {"pieces": json.dumps({"cut": piece})}
        headers[name] = stored.save_checked(folder / name, {"cut": torch.zeros(3 - rank, 7)}, about)["header"]
    stored.write_about(folder, {}, headers)
    with pytest.raises(Damaged, match="cut"):
        Stored(folder)


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        stored.save_checked(tmp_path / "a.safetensors", WHOLE, {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_file_of_the_first_cut_is_read_and_checked(tmp_path):
    import zlib

    file, value = tmp_path / "a.safetensors", 0
    for name in sorted(WHOLE):
        value = zlib.crc32(f"{name}{tuple(WHOLE[name].shape)}".encode(), value)
        if WHOLE[name].numel():
            value = zlib.crc32(WHOLE[name].reshape(-1).view(torch.uint8).numpy().data, value)
    save_file(WHOLE, file, {"format": "pt", "config": "{}", "checksum": str(value)})
    assert torch.equal(Stored(file).tensor("cut"), WHOLE["cut"])
    save_file(load_file(file) | {"cut": torch.zeros(5, 7)}, file, {"config": "{}", "checksum": str(value)})
    with pytest.raises(Damaged, match="its checksum does not match"):
        Stored(file)


class Harm:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_sharded_checkpoint_that_would_run_code_is_refused_and_stays(tmp_path):
    """The folder as torch.distributed.checkpoint writes it, whose list of tensors is a pickle."""
    folder, ran = tmp_path / "run/checkpoints/step-00000004.shards", tmp_path / "ran"
    folder.mkdir(parents=True)
    (folder / ".metadata").write_bytes(pickle.dumps(Harm(str(ran))))
    (folder / "__0_0.distcp").write_bytes(pickle.dumps(Harm(str(ran))))
    for about in ({"config": "{}", "files": {}}, {"about": {}, "parts": {"__0_0.distcp": "1"}}):
        (folder / "about.json").write_text(json.dumps({**about, "header": stored.header_of(about)}))
        for path in (folder, tmp_path / "run"):
            with pytest.raises(MotionMAEError, match=r"step-00000004\.shards: .* can hold code, and is not read"):
                motionmae.load(path)
        toy = runs.Toy()
        state = checkpoint.State(
            toy, torch.optim.AdamW(toy.parameters()), torch.amp.GradScaler("cpu", enabled=False), {}
        )
        with pytest.raises(MotionMAEError, match="can hold code, and is not read"):
            checkpoint.restore(tmp_path / "run", state, runs.CPU)
    (folder / ".metadata").unlink()
    with pytest.raises(MotionMAEError, match=r"step-00000004\.shards"):
        motionmae.load(folder)
    assert not ran.exists()
    assert folder.is_dir()
