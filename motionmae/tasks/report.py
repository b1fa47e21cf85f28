"""`motionmae report RUN [RUN ...]`: run folders to one self-contained HTML page."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from motionmae.config import Report, check
from motionmae.errors import MotionMAEError
from motionmae.files import write_text
from motionmae.presets import COMMANDS
from motionmae.progress import then
from motionmae.report.comparison import report


def run(config: Report) -> None:
    """Write the page and say where it is."""
    check(config)
    if not config.runs:
        raise MotionMAEError("motionmae report: name at least one run folder")
    out = Path(config.out)
    write_text(out, report([Path(name) for name in config.runs], presets()), "replace")
    print(f"the report: {out}")
    then(f"open {out} in a browser")


def presets() -> dict[str, Any]:
    """The presets of the commands that train, as plain settings, by their names on the command line."""
    return {
        f"{command} {name}": asdict(preset)
        for command in ("pretrain", "finetune")
        for name, preset in COMMANDS[command].choices.items()
        if is_dataclass(preset) and not isinstance(preset, type)
    }
