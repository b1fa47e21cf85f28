"""`motionmae segment`: propagate the masks of one frame through a video, and score masks as DAVIS does."""

from __future__ import annotations

from motionmae.config import SegmentDavis, SegmentScore
from motionmae.tasks.segment import davis, score


def run(config: SegmentDavis | SegmentScore) -> None:
    """The choice that the config belongs to."""
    if isinstance(config, SegmentDavis):
        davis.run(config)
    else:
        score.run(config)
