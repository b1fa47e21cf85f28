"""A scan drops nothing silently, and no file can stop it."""

from __future__ import annotations

import os
import signal
import time
from fractions import Fraction
from pathlib import Path

import pytest
import zoo
from PIL import Image

from motionmae.cli import main
from motionmae.errors import MotionMAEError
from motionmae.library.manifest import Entry, read_manifest, write_manifest
from motionmae.library.processes import Failure, each
from motionmae.library.scan import examine, scan, walk


def misbehave(item: str) -> str:
    """What a file can do to the process that examines it."""
    if item == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(600)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "leave":
        os._exit(3)
    if item == "raise":
        raise MotionMAEError("one sentence")
    return item.upper()


def test_items_that_hang_or_crash_cost_themselves_alone():
    items = ["a", "hang", "b", "crash", "c", "leave", "raise", "d"]
    found = dict(each(misbehave, items, 2, lambda item: 1.0 if item == "hang" else 60.0))
    assert found.pop("hang") == Failure("not done after 1 s")
    assert found.pop("crash") == Failure("crashes the decoder (SIGSEGV)")
    assert found.pop("leave") == Failure("crashes the decoder (code 3)")
    assert found.pop("raise") == Failure("one sentence")
    assert found == {item: item.upper() for item in "abcd"}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder as people have it."""
    root = tmp_path / "mess"
    for place in ("dogs", "cats ünïcode, and spaces", "deep/er/still"):
        (root / place).mkdir(parents=True)
    good = zoo.encode(tmp_path / "good.mp4", "libx264", count=20, options=zoo.H264).read_bytes()
    (root / "dogs" / "a dog.mp4").write_bytes(good)
    (root / "dogs" / "the same dog.MP4").write_bytes(good)
    (root / "dogs" / "empty.avi").touch()
    (root / "dogs" / "text.mp4").write_text("not a video\n" * 50)
    (root / "dogs" / "notes.txt").write_text("notes")
    (root / "dogs" / "._a dog.mp4").write_text("hidden")
    zoo.encode(root / "cats ünïcode, and spaces" / "katze, 猫.webm", "libvpx-vp9", count=20)
    zoo.encode(root / "deep" / "er" / "one.mp4", "libx264", count=1)
    zoo.encode(root / "deep" / "noending.mp4", "libx264", count=20).rename(root / "deep" / "noending")
    content = zoo.encode(tmp_path / "b.mp4", "libx264", container={"movflags": "faststart"}).read_bytes()
    (root / "deep" / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    for i in range(3):
        Image.new("RGB", (64, 48), (i, i, i)).save(root / "deep" / "er" / "still" / f"{i}.jpg")
    (root / "deep" / "circle").symlink_to(root)
    (root / "nowhere.mp4").symlink_to(root / "absent.mp4")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    zoo.encode(tmp_path / "elsewhere" / "far.mkv", "libx264", count=20)
    Image.new("RGB", (64, 48)).save(root / "dogs" / "poster.jpg")
    Image.new("RGB", (64, 48)).save(root / "dogs" / "thumbnail.png")
    zoo.KINDS["apng"](root / "dogs").rename(root / "dogs" / "moving.png")
    zoo.encode(root / "plain.mp4", "libx264", count=20).rename(root / "a.tar::1+2::b.mp4")
    os.mkfifo(root / "pipe.mp4")
    (root / "round").symlink_to("about")
    (root / "about").symlink_to("round")
    return root


EXPECTED = {
    "a dog.mp4": ("ok", "dogs"),
    "the same dog.MP4": ("ok", "dogs"),
    "empty.avi": ("zero bytes", "dogs"),
    "text.mp4": ("not a video", "dogs"),
    "katze, 猫.webm": ("ok", "cats ünïcode, and spaces"),
    "one.mp4": ("one frame", "er"),
    "noending": ("ok", "deep"),
    "still": ("ok", "er"),
    "nowhere.mp4": ("broken link", ""),
    "far.mkv": ("ok", "linked"),
    "moving.png": ("ok", "dogs"),
    "a.tar::1+2::b.mp4": ("ok", ""),
    "pipe.mp4": ("not a regular file", ""),
}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_messy_folder_becomes_a_manifest(
    messy: Path, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / f"manifest.{ending}"
    assert main(["scan", str(messy), "--out", str(out), "--workers", "1"]) == 0
    entries = {Path(entry.path).name: entry for entry in read_manifest(out)}
    assert entries.pop("cut.mp4").status.startswith("truncated: holds ")
    assert {name: (entry.status, entry.label) for name, entry in entries.items()} == EXPECTED
    dog = entries["a dog.mp4"]
    assert (dog.frames, dog.rate, dog.constant, dog.duration, dog.checked) == (20, Fraction(25), True, 0.8, "quick")
    assert (dog.height, dog.width, dog.codec, dog.keyframe_spacing, dog.audio) == (48, 64, "h264", 12, False)
    assert dog.hash == entries["the same dog.MP4"].hash != entries["far.mkv"].hash
    assert all(os.path.isabs(entry.path) for entry in entries.values())
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "8 usable" in told
    assert "1 quarantined: zero bytes" in told
    assert "2 copies of another video" in told
    assert "5 other files" in told


def test_every_frame_counts_where_asked(tmp_path: Path):
    path = zoo.encode(tmp_path / "a.mp4", "libx264", options={**zoo.H264, "crf": "1"})
    assert examine(str(path), full=True).status == "ok"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    assert examine(str(path)).status == "ok", "the header and the first frame are whole"
    entry = examine(str(path), full=True)
    assert entry.checked == "full"
    assert entry.status.startswith("undecodable after ")
    assert 0 < entry.frames < zoo.COUNT


def test_only_what_changed_is_examined_again(tmp_path: Path):
    for name in ("a", "b", "c"):
        zoo.encode(tmp_path / f"{name}.mp4", "libx264", count=5)
    first = [entry for *_, entry in scan(tmp_path) if entry]
    marked = [Entry(**{**vars(entry), "codec": "remembered"}) for entry in first]
    zoo.encode(tmp_path / "b.mp4", "libx264", count=9)
    zoo.encode(tmp_path / "d.mp4", "libx264", count=5)
    again = {Path(entry.path).name: entry.codec for *_, entry in scan(tmp_path, known=marked) if entry}
    assert again == {"a.mp4": "remembered", "b.mp4": "h264", "c.mp4": "remembered", "d.mp4": "h264"}
    full = [entry.codec for *_, entry in scan(tmp_path, known=marked, full=True) if entry]
    assert full == ["h264"] * 4, "a quick look does not stand for a full one"


def test_the_walk_is_sorted_and_ends(messy: Path):
    paths = list(walk(messy))
    assert len(paths) == len(set(paths)) == len(EXPECTED) + 6
    with pytest.raises(MotionMAEError, match="not a folder"):
        list(walk(messy / "nothing"))


def test_manifests_survive_being_written_and_read(tmp_path: Path):
    entries = [
        Entry(str(tmp_path / "sub" / 'a, "b"\n.mp4'), "ok", "läbel", 7, "full", Fraction(30000, 1001), False, 1.5),
        Entry("/elsewhere/\udcff.mp4", "zero bytes", bytes=1 << 40, modified=1 << 60, audio=True),
    ]
    write_manifest(tmp_path / "m.csv", entries)
    assert read_manifest(tmp_path / "m.csv") == entries
    assert "/sub/" not in (tmp_path / "m.csv").read_text(errors="replace"), "paths below the manifest move with it"
    write_manifest(tmp_path / "m.parquet", entries[:1])
    assert read_manifest(tmp_path / "m.parquet") == entries[:1]
    (tmp_path / "x.csv").write_text("path,label\na.mp4,dog\n")
    with pytest.raises(MotionMAEError, match="line 2 has no value for 'status'"):
        read_manifest(tmp_path / "x.csv")


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, told in [
        ([], "scan needs FOLDER: a folder, searched"),
        ([str(tmp_path / "absent")], "not a folder"),
        ([str(tmp_path)], "there is no video below this folder"),
        ([str(tmp_path), "--out", "a.txt"], "ends in .csv or .parquet"),
    ]:
        assert main(["scan", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
