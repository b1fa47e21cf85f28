"""Frames to a video file: H.264 that is light to decode, there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from motionmae.files import replacing
from motionmae.video.errors import VideoError
from motionmae.video.reading import Real

# Light to decode for sparse reads: no picture needs a B picture, and no arithmetic coding. 1.6x faster, 4 % larger.
LIGHT = "bframes=3:b-adapt=0:b-pyramid=none:cabac=0"


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[UInt8[Tensor, "h w c"]] | UInt8[Tensor, "t h w c"],
    rate: Real,
    *,
    spacing: int = 12,
    quality: int = 18,
) -> None:
    """RGB frames as an H.264 mp4 at `rate` frames a second; odd sides are padded by one pixel.

    A key frame every `spacing` frames; `quality` is x264's constant rate factor (0 is lossless, 18 looks so, 51 is
    the worst). Written to a temporary name and renamed: no half file is left behind. Raises VideoError without frames.
    """
    stream = None
    options = {"crf": str(quality), "preset": "veryfast", "g": str(spacing), "sc_threshold": "0", "x264-params": LIGHT}
    with replacing(path) as aside, av.open(f"file:{aside}", "w", format="mp4") as container:
        for frame in frames:
            picture = np.pad(frame.numpy(), [(0, side % 2) for side in frame.shape[:2]] + [(0, 0)], mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(65535))
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
                stream.options, stream.codec_context.thread_count = options, 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        if stream is None:
            raise VideoError(path, "there are no frames to write")
        container.mux(stream.encode(None))
