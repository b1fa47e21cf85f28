"""Which pictures of a damaged file are wrong, of those that the decoder gives as good ones.

Its one rule: a picture that was made from a damaged one is damaged too. The decoder marks where it met damage, and
nothing of what it made from that; so all is damaged from a marked picture to the next key frame, and before it as far
as pictures are shown in another order than they are decoded in.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

import av
from av.video.frame import PictureType

REORDERED = {"h264": 16, "hevc": 16, "vp8": 0, "vp9": 0, "av1": 0, "mjpeg": 0}
"""How many pictures a codec may show before one that it decodes first, at most; 1 where it is not named."""
STRICT = {"hevc": "crccheck+explode", **dict.fromkeys(("mjpeg", "mpeg1video", "mpeg2video"), "explode")}
"""Codecs whose damage is an error when asked for, by these words of `err_detect`, and mostly unmarked otherwise. HEVC's
checksums of pictures, where an encoder wrote them, are looked at too."""
DOUBTED = frozenset(("hevc",))
"""Of these: those for which a file is asked first whether its own beginning stands so strict a look."""
_KINDS = (PictureType.I, PictureType.P, PictureType.B)


def judged(frames: Iterator[av.VideoFrame], source: Any, codec: str) -> Iterator[tuple[av.VideoFrame, bool]]:
    """The pictures in their order with whether each is damaged: told late, when no picture that it may have been made
    from can follow. `source.inside` is the number of pictures that the decoder holds back."""
    held: deque[list[Any]] = deque()
    damaged, deep, deepest = False, 0, REORDERED.get(codec, 1)
    for frame in frames:
        deep = max(deep, min(source.inside, deepest))
        if frame.key_frame and frame.pict_type == PictureType.I:
            damaged = False
        if frame.is_corrupt or (codec == "h264" and frame.pict_type not in _KINDS):
            damaged = True
            for item in held:
                item[1] = True
        held.append([frame, damaged])
        del frame  # it must not outlive its turn: the decoder's pool of pictures waits for it
        while len(held) > deep:
            picture, wrong = held.popleft()
            yield picture, wrong
            del picture
    while held:
        picture, wrong = held.popleft()
        yield picture, wrong


def unneeded(data: bytes, prefix: int) -> bool:
    """Whether an H.264 packet says that no other picture needs its own: nal_ref_idc is 0 in all of its slices.

    `prefix` is the number of bytes before each unit that give its length; 0 where start codes part them (ITU-T H.264,
    7.4.1 and annex B).
    """
    heads = _heads(data, prefix) if prefix else [match[1][0] for match in re.finditer(b"\0\0\1([^\0])", data)]
    slices = [head for head in heads if 1 <= head & 31 <= 5]
    return bool(slices) and not any(head & 0x60 for head in slices)


def _heads(data: bytes, prefix: int) -> list[int]:
    heads, place = [], 0
    while place + prefix < len(data):
        heads.append(data[place + prefix])
        place += prefix + int.from_bytes(data[place : place + prefix], "big")
    return heads
