"""Shared by all tests: one thread, and where the optional real data lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ABOVE = (folder / "shared" for folder in Path(__file__).resolve().parents[2:])
SHARED = next((folder for folder in ABOVE if (folder / "golden").is_dir()), Path("shared"))


@pytest.fixture
def shared() -> Path:
    """The folder of real data and golden numbers beside or above the checkout; without it tests that need it skip."""
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the checkout")
    return SHARED
