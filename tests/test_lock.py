"""The lock is what pyproject.toml asks for: every package within its range and by hash, PyTorch by version alone."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="the standard library reads TOML from Python 3.11")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pins() -> dict[str, list[Requirement]]:
    found = defaultdict(list)
    for entry in re.findall(r"^\S+==.*?(?=^\S|\Z)", (ROOT / "requirements.lock").read_text(), re.M | re.S):
        pin = Requirement(entry.split("\\")[0].split("--hash")[0])
        assert "--hash=sha256:" in entry, f"{pin} has no hash: make lock"
        found[canonicalize_name(pin.name)].append(pin)
    return found


def asked() -> list[Requirement]:
    """All that the project needs to run, to be tested and to be built."""
    project = PROJECT["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"], *PROJECT["build-system"]["requires"]]
    return [wish for wish in map(Requirement, named) if canonicalize_name(wish.name) != "torch"]


def applies(marker: Marker | None, python: str) -> bool:
    here = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    return marker is None or marker.evaluate({**here, "platform_machine": "x86_64"})


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("wish", asked(), ids=lambda wish: wish.name)
def test_what_the_project_asks_for_is_pinned_within_its_range(wish, python):
    if not applies(wish.marker, python):
        return
    found = [pin for pin in pins()[canonicalize_name(wish.name)] if applies(pin.marker, python)]
    assert len(found) == 1, f"{wish.name} has {len(found)} pins for Python {python}: make lock"
    (version,) = (pin.version for pin in found[0].specifier)
    assert wish.specifier.contains(version), f"{found[0]} is not {wish}: make lock"


def test_pytorch_has_one_exact_version():
    (version,) = re.findall(r"^TORCH := torch==(\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == [f"torch=={version}"]
    (wish,) = (text for text in PROJECT["project"]["dependencies"] if text.startswith("torch>"))
    assert Requirement(wish).specifier.contains(version)
    assert "torch" not in pins()
