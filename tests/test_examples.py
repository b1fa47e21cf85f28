"""The examples in docstrings are run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import motionmae

ROOT = Path(motionmae.__file__).parent
WITH = [file for file in sorted(ROOT.rglob("*.py")) if ">>> " in file.read_text()]


@pytest.mark.parametrize("file", WITH, ids=lambda file: str(file.relative_to(ROOT)))
def test_examples_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write videos
    name = ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
