"""What goes into the encoder is what it takes it for, or one sentence that names the axis."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from motionmae.config import Model
from motionmae.errors import MotionMAEError
from motionmae.models.encoder import VideoEncoder, check_clip, to_unit

CLIP = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
WRONG = {
    r"must be a tensor of PyTorch, \[b, c, t, h, w\] .*, not ndarray": CLIP.numpy(),
    r"five axes.*these have 4, \[3, 4, 16, 16\]: a single clip needs its axis b": CLIP[0],
    r"3 channels .* in axis 1 of \[b, c, t, h, w\].*\[2, 1, 4, 16, 16\]": CLIP[:, :1],
    r"\[2, 4, 4, 16, 16\]": torch.cat((CLIP, CLIP[:, :1]), 1),
    "axes 1 and 2 seem to be swapped": CLIP.transpose(1, 2),
    "the channels seem to be last": CLIP.movedim(1, -1),
    r"float clips must be in \[0, 1\].*in \[0, 255\]": CLIP.float(),
    r"in \[-0\.5, 0\.5\]": CLIP.float() / 255 - 0.5,
    r"in \[nan, nan\]": torch.full_like(CLIP, torch.nan, dtype=torch.float32),
    **{f"are {kind}": CLIP.to(kind) for kind in (torch.int16, torch.int32, torch.int64, torch.uint16, torch.bool)},
}  # fmt: skip


@pytest.mark.parametrize("reason", WRONG)
def test_what_is_no_batch_of_clips_is_named(reason):
    with pytest.raises(MotionMAEError, match=reason):
        check_clip(WRONG[reason], True)


def test_the_encoder_asks():
    encoder = VideoEncoder(Model(frames=4, size=16, cube=(2, 8, 8), width=24, depth=1, heads=3)).eval()
    with torch.no_grad():
        for clip in (CLIP, CLIP.float() / 255, (CLIP / 255).half()):
            assert encoder(clip).shape == (2, 8, 24)
        assert encoder(CLIP.float() / 255 + 0.005).shape == (2, 8, 24)
        for clip in (CLIP.float(), CLIP.int(), CLIP[:, :1]):
            with pytest.raises(MotionMAEError, match="clips must"):
                encoder(clip, torch.tensor([[0, 1], [2, 3]]))
        encoder.check_range = False
        assert encoder(CLIP.float()).shape == (2, 8, 24)
        with pytest.raises(MotionMAEError, match=r"torch\.int32"):
            encoder(CLIP.int())


def test_pixels_of_other_numbers_are_never_taken_for_units():
    with pytest.raises(MotionMAEError, match=r"torch\.int16"):
        to_unit(CLIP.short(), torch.float32)


def test_the_published_cases_are_refused(shared):
    """As a user runs them: without the checks of types that the tests add."""
    script = shared / "cases" / "encoder_inputs" / "run.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert all("refused" in line or "MotionMAEError" in line for line in lines), done.stdout
