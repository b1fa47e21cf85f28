"""`motionmae segment`: propagate the masks of one frame through a video, and score masks as DAVIS does."""

from __future__ import annotations

from motionmae.config import SegmentDavis, SegmentScore, SegmentVideo
from motionmae.tasks.segment import davis, pick, score, video


def run(config: SegmentDavis | SegmentVideo | SegmentScore) -> None:
    """The choice that the config belongs to."""
    if isinstance(config, SegmentDavis):
        davis.run(config)
    elif isinstance(config, SegmentVideo):
        (pick if config.pick else video).run(config)
    else:
        score.run(config)
