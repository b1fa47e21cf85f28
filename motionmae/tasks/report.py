"""`motionmae report RUN [RUN ...]`: run folders to one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from motionmae.config import Report, check
from motionmae.errors import MotionMAEError
from motionmae.files import write_text
from motionmae.report import page
from motionmae.report.comparison import compare, names_of


def run(config: Report) -> None:
    """Write the page and say where it is."""
    check(config)
    if not config.runs:
        raise MotionMAEError("motionmae report: name at least one run folder")
    folders, out = [Path(name) for name in config.runs], Path(config.out)
    sections = compare(folders)
    write_text(out, page.page(" and ".join(names_of(folders)), "MotionMAE, one line a run.", sections), "replace")
    print(f"the report: {out}")
