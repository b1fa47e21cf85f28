"""What is known of a video's packets without decoding them: small enough to be kept for hours of video.

Its one rule: at most 16 bytes a packet.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import av
import numpy as np

TABLE_BYTES = 64 << 20
"""The memory of a process for tables: 12 to 16 bytes a packet, 40 to 50 hours at 30 frames a second."""
NONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Table:
    """The packets of a video stream in the order of decoding, and its pictures in the order of presentation."""

    pts: np.ndarray  # int64, of each packet, in ticks
    keys: np.ndarray  # int32, packets that are key frames
    lead: np.ndarray  # ticks from a key frame's decoding to its showing, as `leads` gives them
    packet: np.ndarray  # int32, each picture's packet
    timed: bool  # whether the times are the pictures' own
    seekable: bool  # whether decoding may start at key frames
    strict: bool = True  # whether what the decoder finds wrong may be an error

    def __len__(self) -> int:
        return len(self.packet)

    @property
    def times(self) -> np.ndarray:
        """Ticks of each picture, ascending where `timed`."""
        return self.pts[self.packet]

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.pts.nbytes + self.keys.nbytes + self.lead.nbytes + self.packet.nbytes

    def time(self, picture: int) -> int:
        """Ticks of one picture."""
        return int(self.pts[self.packet[picture]])

    def decoded(self, key: int) -> int:
        """Ticks, those of the packet that is key frame `key`, or earlier: where to seek for it."""
        place = int(np.searchsorted(self.keys, key))
        return int(self.pts[key]) - int(self.lead[min(place, len(self.lead) - 1)])

    def start(self, picture: int, earlier: int = 0) -> int:
        """The packet of the last key frame that is decoded before the picture and shown no later: where its decoding
        may start; or of the one that lies `earlier` key frames before that."""
        place = int(np.searchsorted(self.keys, self.packet[picture], side="right")) - 1
        while place > 0 and self.pts[self.keys[place]] > self.pts[self.packet[picture]]:
            place -= 1
        return int(self.keys[max(place - earlier, 0)])


@dataclass(frozen=True)
class Packets:
    """The packets of a stream, in the order of decoding."""

    pts: np.ndarray
    keys: np.ndarray
    key_dts: np.ndarray
    shown: np.ndarray  # those whose pictures are shown


def listed(packets: Iterable[av.Packet]) -> Packets:
    """List packets: as few bytes of each as possible, since hours of video have millions."""
    pts, keys, key_dts, hidden, number = array("q"), array("i"), array("q"), array("i"), -1
    for number, packet in enumerate(packets):
        pts.append(NONE if packet.pts is None else packet.pts)
        if packet.is_keyframe:
            keys.append(number)
            key_dts.append(NONE if packet.dts is None else packet.dts)
        if packet.is_discard:
            hidden.append(number)
    shown = np.setdiff1d(np.arange(number + 1, dtype=np.int32), np.array(hidden, dtype=np.int32), assume_unique=True)
    return Packets(np.array(pts), np.array(keys, dtype=np.int32), np.array(key_dts), shown)


def leads(held: Packets) -> np.ndarray:
    """Ticks from the decoding to the showing of each key frame; or one number for all, where it is the same, and where
    most packets are key frames, the largest: seeking lands on an earlier one then, and what lies between is passed."""
    shown = held.pts[held.keys]
    told = (held.key_dts != NONE) & (shown != NONE)
    each = np.where(told, shown, 0) - np.where(told, held.key_dts, 0)
    most = each.max()
    few = 2 * len(each) <= len(held.pts) and abs(each).max() <= np.iinfo(np.int32).max
    return each.astype(np.int32) if few and (each != most).any() else np.array([most])


_tables: OrderedDict[tuple[str, int, int], Table] = OrderedDict()


def recall(name: tuple[str, int, int]) -> Table | None:
    """The table of a file of this path, time of change and size, where one is kept."""
    if name in _tables:
        _tables.move_to_end(name)
    return _tables.get(name)


def remember(name: tuple[str, int, int], table: Table) -> None:
    """Keep a file's table, and forget those that were used longest ago beyond TABLE_BYTES in all."""
    _tables[name] = table
    while len(_tables) > 1 and sum(kept.nbytes for kept in _tables.values()) > TABLE_BYTES:
        _tables.popitem(last=False)


def forget() -> None:
    """Drop all tables, so that the next opening of a file makes its own: for measuring."""
    _tables.clear()
