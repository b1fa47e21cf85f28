"""What is damaged is an error with the file's name, also where the decoder gives it as good; and nothing else is."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest
import zoo

from motionmae.config import Data
from motionmae.data.clips import Clips
from motionmae.data.loading import Order, loader
from motionmae.library.scan import examine
from motionmae.video.damage import unneeded
from motionmae.video.errors import VideoError, door
from motionmae.video.packets import Demuxer
from motionmae.video.reading import probe, read_frames
from motionmae.video.table import forget

HEVC = "log-level=none:keyint=10:min-keyint=10:scenecut=0:bframes=0:pools=1"
KINDS = {
    "h264": ("libx264", "a.mp4", {"g": "10", "bf": "0", "x264-params": "scenecut=0"}),
    "h264-b": ("libx264", "a.mp4", {"g": "10", "bf": "3", "x264-params": "scenecut=0:b-pyramid=normal:b-adapt=0"}),
    "mpeg4": ("mpeg4", "a.mp4", {"g": "10"}),
    "mpeg2": ("mpeg2video", "a.mkv", {"g": "10", "bf": "2"}),
    "mjpeg": ("mjpeg", "a.avi", {}),
    "hevc": ("libx265", "a.mp4", {"x265-params": HEVC}),
    "hevc-hash": ("libx265", "a.mp4", {"x265-params": f"{HEVC}:hash=1"}),
}


def packets(path: Path) -> list[tuple[int, int, bool]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


def flipped(content: bytes, place: int, size: int, draw: random.Random) -> bytes:
    """Six bits turned in a packet, behind its first five bytes."""
    damaged = bytearray(content)
    for _ in range(6):
        damaged[place + 5 + draw.randrange(max(1, size - 5))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def silent(path: Path, tries: int) -> int:
    """In how many of so many damaged copies a frame read alone is wrong without an error."""
    truth, content, held = read_frames(path).numpy().astype(int), path.read_bytes(), packets(path)
    other, wrong = path.with_name(f"damaged{path.suffix}"), 0
    for seed in range(tries):
        draw = random.Random(seed)
        place, size, _ = draw.choice([packet for packet in held if path.suffix == ".avi" or not packet[2]])
        other.write_bytes(flipped(content, place, size, draw))
        for last in range(9, len(truth), 10):
            try:
                wrong += np.abs(read_frames(other, [last])[0].numpy().astype(int) - truth[last]).mean() > 1
            except VideoError:
                continue
    return wrong


@pytest.mark.parametrize(
    ("kind", "most"),
    [("h264", 2), ("h264-b", 3), ("mpeg4", 4), ("mpeg2", 2), ("mjpeg", 2), ("hevc", 12), ("hevc-hash", 3)],
)
def test_damage_on_the_way_to_a_frame_is_told(kind: str, most: int, tmp_path: Path):
    """`most` of 20: what the decoder itself does not notice (a wrong coefficient, say) nobody can."""
    codec, name, options = KINDS[kind]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    assert silent(zoo.encode(tmp_path / name, codec, options=options, pixels=pixels, size=(96, 128)), 20) <= most


def test_damage_ends_at_the_next_key_frame(tmp_path: Path):
    codec, name, options = KINDS["h264"]
    path = zoo.encode(tmp_path / name, codec, options=options)
    truth, (place, size, _) = read_frames(path).numpy(), packets(path)[23]
    content = bytearray(path.read_bytes())
    content[place + size // 3 : place + size] = bytes(size - size // 3)
    path.write_bytes(content)
    for number in (25, 29):
        with pytest.raises(VideoError, match=r"a\.mp4: (frame \d+ is damaged|undecodable)"):
            read_frames(path, [number])
    for number in (5, 12, 18, 22, 30, 35):
        np.testing.assert_array_equal(read_frames(path, [number])[0].numpy(), truth[number])
    entry = examine(str(path), full=True)
    assert entry.status.startswith("undecodable after 23 of 40 frames")


def test_pictures_that_none_needs_are_known_by_their_units():
    assert unneeded(b"\0\0\0\x02\x01\x9a", 4)
    assert not unneeded(b"\0\0\0\x02\x41\x9a", 4)
    assert not unneeded(b"\0\0\0\x02\x01\x9a\0\0\0\x02\x41\x9a", 4)
    assert not unneeded(b"\0\0\0\x02\x06\x9a", 4)
    assert unneeded(b"\0\0\0\x01\x09\x10\0\0\x01\x01\x9a", 0)
    assert not unneeded(b"\0\0\0\x01\x09\x10\0\0\x01\x61\x9a", 0)


def test_whatever_a_read_raises_is_an_error_of_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", count=10)
    for raised in (IndexError("list index\nout of range"), ValueError("bad"), MemoryError()):

        def fail(*_: object, error: Exception = raised) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Demuxer, "_decode", fail)
            for attempt in (lambda: read_frames(path, [3]), lambda: read_frames(path), lambda: probe(path)):
                with pytest.raises(VideoError, match=r"a\.mp4: (unreadable \(|needs more memory)") as caught:
                    attempt()
                assert "\n" not in str(caught.value)
        with monkeypatch.context() as patch:
            patch.setattr(Demuxer, "demux", fail)
            with pytest.raises(VideoError, match=r"a\.mp4: "):
                read_frames(path.rename(path.with_name("b-a.mp4")), [3])
            path.with_name("b-a.mp4").rename(path)
    with pytest.raises(KeyboardInterrupt), door(path):
        raise KeyboardInterrupt


def test_a_decoder_that_fails_oddly_costs_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = [zoo.encode(tmp_path / f"{i}.mp4", "libx264", count=10) for i in range(3)]
    plain = Demuxer.between

    def odd(self: Demuxer, *asked: object):
        if self.path.endswith("1.mp4"):
            raise ValueError("islice")
        return plain(self, *asked)

    monkeypatch.setattr(Demuxer, "between", odd)
    dataset = Clips(files, Data(stride=1, workers=0), [0, 1], 16, seed=0)
    taken = {dataset[(0, index)][0]["index"] for index in range(3)}
    assert 1 not in taken
    assert dataset.failures[1] == 1
    assert examine(str(files[1])).status == "unreadable (ValueError: islice)"


def test_what_lies_before_the_first_key_frame_is_passed_over(tmp_path: Path):
    whole = zoo.encode(tmp_path / "whole.ts", "mpeg4", options={"g": "12"})
    path = zoo.remux(whole, tmp_path / "cut.ts", 5, 0, {})
    shown = [zoo.number_of(frame) for frame in read_frames(path).numpy()]
    assert shown == list(range(12, 40))
    assert [zoo.number_of(read_frames(path, [number])[0].numpy()) for number in (0, 9, 27)] == [12, 21, 39]


@pytest.mark.parametrize("workers", [0, 2])
def test_cut_streams_do_not_end_a_run(workers: int, shared: Path, tmp_path: Path):
    cut = shared / "cases" / "cut_ts"
    if not cut.is_dir():
        pytest.skip("no such case")
    good = [zoo.encode(tmp_path / f"{i}.mp4", "libx264", count=12) for i in range(2)]
    files = [*good, *sorted(cut.glob("*.ts"))]
    data = Data(stride=1, workers=workers, bad_share=1.0)
    batches = loader(Clips(files, data, [0, 1], 16, seed=0), Order(len(files), 4, 4, seed=0), data, pin=False)
    taken = {int(index) for _ in range(3) for index in next(batches)["index"]}
    batches.close()
    assert {0, 1} <= taken
    for file in files[2:]:
        entry = examine(str(file), full=True)
        for number in range(0, entry.frames, 5) if entry.usable else ():
            read_frames(file, [number])


def test_the_damaged_case_shows_itself_or_is_refused(shared: Path):
    case = shared / "cases" / "damaged_references"
    if not case.is_dir():
        pytest.skip("no such case")
    truth = read_frames(case / "good.mp4").numpy()
    with pytest.raises(VideoError):
        read_frames(case / "damaged.mp4", [25])
    for number in (5, 12, 18, 35):
        found = read_frames(case / "damaged.mp4", [number])[0].numpy()
        np.testing.assert_array_equal(found, truth[number])


def test_odd_but_good_files_are_read_whole(shared: Path):
    case = shared / "cases" / "decode_zoo_passes"
    if not case.is_dir():
        pytest.skip("no such case")
    for path in sorted(case.iterdir()):
        if path.suffix and path.name != "init.mp4":
            frames = read_frames(path, None) if path.name != "change.ts" else [None]
            assert len(frames) > 0, path.name
    with pytest.raises(VideoError, match="no frames in it"):
        read_frames(case / "init.mp4")


def test_a_file_whose_beginning_the_decoder_finds_fault_with_is_read_all_the_same(tmp_path: Path, monkeypatch):
    path = zoo.encode(tmp_path / "a.mp4", "libx265", options={"x265-params": HEVC})
    truth, asked = read_frames(path).numpy(), []
    forget()

    def never(self: Demuxer, packet: av.Packet | None) -> list[av.VideoFrame]:
        """As of a camera that writes a faulty unit into each packet."""
        asked.append(self.strict)
        if self.strict:
            raise VideoError(self.path, "undecodable")
        return decode(self, packet)

    decode = Demuxer._decode
    monkeypatch.setattr(Demuxer, "_decode", never)
    for _ in range(2):  # listed, and remembered
        np.testing.assert_array_equal(read_frames(path).numpy(), truth)
        np.testing.assert_array_equal(read_frames(path, [15]).numpy(), truth[15:16])
    assert asked[0]
    assert not asked[-1]
    assert asked.index(False) == asked.count(True), "asked once"
