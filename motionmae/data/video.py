"""Video files to frames and back: the only file that knows the decoder (PyAV)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from motionmae.errors import MotionMAEError


class VideoError(MotionMAEError):
    """A file that cannot be read or written as a video; the message names it."""


def read_frames(path: str | Path, indices: Sequence[int] | None = None) -> UInt8[Tensor, "t h w c"]:
    """RGB frames at the indices, in their order, or all frames."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{path}: cannot be read as a video ({error})") from error
    if not frames:
        raise VideoError(f"{path}: no frame can be decoded")
    if indices is None:
        return torch.from_numpy(np.stack(frames))
    if max(indices) >= len(frames):
        raise VideoError(f"{path}: has {len(frames)} frames, frame {max(indices)} was asked for")
    return torch.from_numpy(np.stack([frames[index] for index in indices]))


def write_video(path: str | Path, frames: UInt8[Tensor, "t h w c"], rate: float | Fraction) -> None:
    """RGB frames as an H.264 mp4 at `rate` frames a second, visually lossless; odd sides are padded by one pixel.

    Written to a temporary name and renamed, so that no half file is left behind.
    """
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        padded = frames.permute(0, 3, 1, 2).float()
        padded = torch.nn.functional.pad(padded, (0, width % 2, 0, height % 2), mode="replicate")
        frames = padded.byte().permute(0, 2, 3, 1)
    temporary = Path(f"{path}.part")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(65535))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "g": "12"}
        stream.codec_context.thread_count = 1
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    os.replace(temporary, path)
