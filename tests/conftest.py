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


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Lines that say how long something has taken depend on what else the machine does: tests ask for them."""
    monkeypatch.setattr("motionmae.progress.EVERY", 1e9)
    monkeypatch.setattr("motionmae.progress.LATER", 1e9)
