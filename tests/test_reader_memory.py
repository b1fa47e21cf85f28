"""What a reader leaves behind: nothing, however often it opens files and gives up half-way."""

from __future__ import annotations

import ctypes
import gc
import random
from pathlib import Path

import pytest
import torch

from motionmae.config import Data
from motionmae.data.clips import Clips
from motionmae.tasks.bench.data import memory_of_reads
from motionmae.video.packets import Demuxer
from motionmae.video.reading import open_video
from motionmae.video.writing import write_video

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
VIDEOS = Path(__file__).parents[2] / "shared" / "videos"


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def in_use() -> int:
    """Bytes that the C library has given out and that nobody has given back."""
    try:
        tell = ctypes.CDLL("libc.so.6").mallinfo2
    except (OSError, AttributeError):
        pytest.skip("the C library does not tell what is in use")
    tell.restype = Mallinfo
    gc.collect()
    found = tell()
    return found.uordblks + found.hblkhd


def read(path: Path, draw: random.Random) -> None:
    with open_video(path) as video:
        video.read([draw.randrange(20), draw.randrange(20)])


def plainly(path: Path, draw: random.Random) -> None:
    source = Demuxer(path, 60.0)
    source.plainly([draw.randrange(20)])
    source.close()


@pytest.mark.parametrize("way", [read, plainly])
def test_reads_that_are_given_up_half_way_leave_nothing_behind(way, tmp_path):
    write_video(path := tmp_path / "a.mp4", torch.randint(0, 256, (24, 32, 32, 3), dtype=torch.uint8), 25)
    draw = random.Random(0)
    grown = []
    for _ in range(3):  # the first may warm something up
        before = in_use()
        for _ in range(40):
            way(path, draw)
        grown.append((in_use() - before) / 40)
    assert min(grown) < 50, "bytes a read; a packet of a demuxer is 150"


@pytest.mark.slow
@pytest.mark.skipif(not VIDEOS.is_dir(), reason="no real videos here")
def test_a_readers_memory_is_flat():
    paths = sorted(path for path in VIDEOS.iterdir() if path.is_file())
    found = list(memory_of_reads(Clips(paths, Data(path="videos", workers=0), range(0, 32, 4), 64, seed=0), 2000))
    assert found[-1].resident < 1.05 * found[0].resident, found
