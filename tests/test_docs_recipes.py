"""The programs of docs/recipes.md run as they stand, on small videos and models made here."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import test_foreign as foreign
import torch

import motionmae
from motionmae.data.synthetic import write_videos

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"^## (.*?)\n.*?```python\n(.*?)```", PAGE, re.S | re.M))
NEEDS = {"transformers": ("accelerate",), "onnxruntime": ("onnx", "onnxscript")}
"""What a library needs for a recipe beside itself."""
LONG = {"Lightning", "The Trainer of transformers", "ONNX", "A training loop of your own", "scikit-learn on embeddings"}


def libraries(code: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names | {other for name in names for other in NEEDS.get(name, ())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    list(write_videos(folder / "videos", "train", 2, seed=0, frames=14, size=64))
    torch.manual_seed(0)
    motionmae.save(folder / "encoder.safetensors", motionmae.vit_tiny(depth=2))
    image = foreign.encoder(bias="whole") | foreign.norm("norm", foreign.WIDTH)
    image |= {"pos_embed": foreign.random(1, 4, foreign.WIDTH)}
    torch.save(image | {"patch_embed.proj.weight": foreign.random(foreign.WIDTH, 3, 8, 8)}, folder / "vit.pth")
    return folder


def test_there_are_ten_recipes():
    assert len(RECIPES) == PAGE.count("```python") == 10
    assert set(RECIPES) >= LONG


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RECIPES]
)
def test_each_recipe_runs_as_it_stands(name, made, monkeypatch, capsys):
    missing = sorted(library for library in libraries(RECIPES[name]) if find_spec(library) is None)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    monkeypatch.chdir(made)
    exec(compile(RECIPES[name], f"recipes.md, {name}", "exec"), {"__name__": "recipe"})
    assert capsys.readouterr().out
