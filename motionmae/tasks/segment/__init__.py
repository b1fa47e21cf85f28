"""`motionmae segment`: propagate the first frame's masks through a video, and score masks as DAVIS does."""

from __future__ import annotations

from motionmae.config import SegmentScore
from motionmae.tasks.segment import score


def run(config: SegmentScore) -> None:
    """Score a folder of predictions."""
    score.run(config)
