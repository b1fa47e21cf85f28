"""Frame i of a video is frame i of decoding it from its start, for every kind of file."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
import torch
import zoo

from motionmae.video import reading as video
from motionmae.video.reading import Video, VideoError, probe, read_frames
from motionmae.video.table import NONE, Packets, Table, _tables, leads
from motionmae.video.writing import write_video


def decode_all(path: Path) -> np.ndarray:
    """The reference: every frame in the order in which the decoder gives it, shown as the headers say."""
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        aspect = stream.sample_aspect_ratio or 1
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except av.error.FFmpegError:  # the packets before the first key frame
                frames = []
            for frame in frames:
                picture = frame.to_ndarray(format="rgb24", width=round(frame.width * aspect), height=frame.height)
                pictures.append(np.rot90(picture, frame.rotation // 90))
    return np.stack(pictures)


@pytest.fixture(scope="module", params=sorted(zoo.KINDS))
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, zoo.KINDS[request.param](tmp_path_factory.mktemp("zoo"))


def test_frames_by_number_are_those_of_decoding_everything(film: tuple[str, Path]):
    kind, path = film
    truth = decode_all(path)
    shown = [
        zoo.number_of(frame if "turned" not in kind else np.rot90(frame, -int(kind[12:]) // 90)) for frame in truth
    ]
    assert shown == list(range(shown[0], shown[0] + len(truth))), "the reference itself is in order"
    draw = random.Random(0)
    wishes = [[draw.randrange(len(truth)) for _ in range(draw.choice((1, 2, 5)))] for _ in range(8)]
    wishes += [[len(truth) - 1], [0], list(range(3, len(truth), 4)), list(range(len(truth)))]
    for wish in wishes:
        np.testing.assert_array_equal(read_frames(path, wish).numpy(), truth[wish], err_msg=f"{kind} {wish}")
    np.testing.assert_array_equal(read_frames(path).numpy(), truth)
    info = probe(path)
    assert (info.frames, info.height, info.width) == truth.shape[:3]
    assert info.constant == ("variable" not in kind)
    assert info.missing == ""


SOUGHT = [
    kind
    for kind in sorted(zoo.KINDS)
    if kind.startswith(("h264", "hevc", "vp", "av1", "mpeg"))
    and not kind.endswith(("refresh", "raw", "avi", "b-frames"))
]


@pytest.mark.parametrize("kind", SOUGHT)
def test_late_frames_are_found_without_decoding_from_the_start(kind: str, tmp_path: Path, monkeypatch):
    path = zoo.KINDS[kind](tmp_path)
    truth = decode_all(path)
    count = probe(path).frames
    monkeypatch.setattr(video.Video, "_count", None)
    for place in (count - 1, count - 2, count // 2, count // 2 + 1, 1, 0):
        np.testing.assert_array_equal(read_frames(path, [place]).numpy()[0], truth[place])


def test_one_opening_serves_many_reads(tmp_path: Path):
    path = zoo.KINDS["h264"](tmp_path)
    truth = decode_all(path)
    draw = random.Random(1)
    with Video(path) as film:
        for _ in range(30):
            wish = [draw.randrange(zoo.COUNT) for _ in range(3)]
            np.testing.assert_array_equal(film.read(wish).numpy(), truth[wish])
        np.testing.assert_array_equal(film.read().numpy(), truth)
        np.testing.assert_array_equal(np.stack(list(film.walk())), truth)
        np.testing.assert_array_equal(film.read([39]).numpy(), truth[[39]])


def test_a_file_that_changed_is_listed_anew(tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", count=10)
    assert probe(path).frames == 10
    zoo.encode(path, "libx264", count=20)
    assert probe(path).frames == 20


@pytest.mark.parametrize("kind", ["h264", "h264-variable", "h264-variable-mkv", "h264-late-start", "h264-ts", "gif"])
def test_the_frame_at_a_second_is_the_one_on_screen(kind: str, tmp_path: Path):
    path = zoo.KINDS[kind](tmp_path)
    starts = [zoo.jittered(i) / 1000 if "variable" in kind else i / 25 for i in range(zoo.COUNT)]
    asked = [start + 0.012 for start in starts] + starts + [99.0, -1.0]
    shown = [zoo.number_of(frame) for frame in read_frames(path, seconds=asked).numpy()]
    assert shown == [*range(zoo.COUNT), *range(zoo.COUNT), zoo.COUNT - 1, 0]


def test_rates_are_rational(tmp_path: Path):
    for clock in (Fraction(1001, 30000), Fraction(1001, 24000), Fraction(1, 50)):
        path = zoo.encode(
            tmp_path / "a.mp4", "libx264", clock=clock, setup=lambda s, c=clock: setattr(s, "rate", 1 / c)
        )
        info = probe(path)
        assert (info.rate, info.duration, info.constant) == (1 / clock, zoo.COUNT * clock, True)


def test_the_header_is_told(tmp_path: Path):
    sound = probe(zoo.KINDS["h264-sound"](tmp_path))
    assert (sound.audio, sound.codec, sound.keyframe_spacing, sound.missing) == (True, "h264", 12, "")
    wide = probe(zoo.KINDS["h264-wide-pixels"](tmp_path))
    assert (wide.height, wide.width) == (zoo.HEIGHT, zoo.WIDTH * 3 // 2)
    turned = probe(zoo.KINDS["h264-turned-90"](tmp_path))
    assert (turned.height, turned.width) == (zoo.WIDTH, zoo.HEIGHT)
    assert not probe(zoo.KINDS["h264-variable"](tmp_path)).constant


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_frames_are_turned_and_mirrored_as_the_header_says(degrees: int, mirror: bool, tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", count=2, setup=zoo.turned(degrees, mirror))
    plain = zoo.encode(tmp_path / "plain.mp4", "libx264", count=2)
    shown = np.rot90(read_frames(plain, [1]).numpy()[0], degrees // 90)
    shown = shown[:, ::-1] if mirror else shown
    np.testing.assert_array_equal(read_frames(path, [1]).numpy()[0], shown)


@pytest.mark.parametrize("kind", ["h264", "h264-full-range", "h264-10-bit", "gif", "apng", "mjpeg-avi", "vp9"])
def test_colours_survive(kind: str, tmp_path: Path):
    frame = read_frames(zoo.KINDS[kind](tmp_path), [5]).numpy()[0].astype(int)
    expected = zoo.numbered(5).astype(int)
    assert np.abs(frame - expected)[36:, 4:-4].mean() < (20 if kind == "gif" else 6)


def test_high_definition_colours_are_those_of_its_matrix(tmp_path: Path):
    red = np.zeros((48, 64, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.colorspace = 64, 48, "yuv420p", 1
        frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p", dst_colorspace=1)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert np.abs(read_frames(path, [0]).numpy()[0].astype(int) - red).max() < 8


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_what_is_written_reads_back(size: tuple[int, int], tmp_path: Path):
    frames = np.stack([zoo.numbered(i, *size) for i in range(30)])
    write_video(tmp_path / "a.mp4", torch.from_numpy(frames), Fraction(30000, 1001))
    info, back = probe(tmp_path / "a.mp4"), read_frames(tmp_path / "a.mp4").numpy()
    assert (info.rate, info.frames, info.height, info.width) == (Fraction(30000, 1001), 30, 48, 64)
    assert info.keyframe_spacing == 12
    assert np.abs(back[:, : size[0], : size[1]].astype(int) - frames).mean() < 8
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_nothing_is_left_behind_where_writing_fails(tmp_path: Path):
    with pytest.raises(VideoError, match="no frames to write"):
        write_video(tmp_path / "a.mp4", [], 25)
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_exist_are_refused(tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", count=10)
    for wish in ([10], [-1], []):
        with pytest.raises(VideoError, match=r"a\.mp4: frames .* asked for; there are 0 to 9"):
            read_frames(path, wish)


def test_time_is_bounded(tmp_path: Path):
    path = zoo.KINDS["h264"](tmp_path)
    with pytest.raises(VideoError, match="not done after 0 s"):
        probe(path, limit=0.0)
    with Video(path) as film:
        film.source.limit = 0.0
        with pytest.raises(VideoError, match="not done after 0 s"):
            film.read([30])


def test_tables_of_packets_are_forgotten_beyond_a_bound(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("motionmae.video.table.TABLE_BYTES", 500)
    for i in range(4):
        probe(zoo.encode(tmp_path / f"{i}.mp4", "libx264", count=10))
    assert sum(table.nbytes for table in _tables.values()) <= 500


@pytest.mark.slow
def test_real_videos_are_read_exactly(shared: Path):
    draw = random.Random(0)
    for path in sorted((shared / "videos").iterdir()):
        with av.open(str(path)) as container, Video(path) as film:
            count = sum(1 for _ in container.decode(container.streams.video[0]))
            assert len(film) == count, path.name
            wish = sorted(draw.sample(range(count), 5))
            kept = {i: frame for i, frame in enumerate(film.walk()) if i in wish}
            np.testing.assert_array_equal(film.read(wish[::-1]).numpy(), np.stack([kept[i] for i in wish[::-1]]))


def test_a_table_takes_16_bytes_a_packet_at_most_and_seeks_no_later_than_the_packet():
    count = 1000
    pts = np.arange(count, dtype=np.int64) * 512
    draw = np.random.default_rng(0)
    for spacing in (1, 2, 3, 250):
        keys = np.arange(0, count, spacing, dtype=np.int32)
        for lead in (np.zeros(len(keys), int), np.full(len(keys), 1024), draw.integers(0, 2000, len(keys))):
            held = Packets(pts, keys, pts[keys] - lead, np.arange(count, dtype=np.int32))
            table = Table(pts, keys, leads(held), held.shown, True, True)
            assert table.nbytes <= 16 * count + 8
            found = np.array([table.decoded(key) for key in keys.tolist()])
            assert (found <= held.key_dts).all()
            if spacing > 1 or len(set(lead.tolist())) == 1:
                np.testing.assert_array_equal(found, held.key_dts)
    unknown = Packets(pts, keys, np.full(len(keys), NONE), held.shown)
    assert leads(unknown).tolist() == [0], "a key frame whose time of decoding is unknown is sought by its own"
