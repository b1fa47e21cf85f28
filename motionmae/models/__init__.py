"""Clips to tokens to predictions.

Its one rule: no model knows what a file is, or how one is cut into clips. The package, which knows both, gives `embed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

embed: Callable[..., Any]
"""`motionmae.embed`, by which `VideoEncoder.encode` takes a path: set where the package begins."""
