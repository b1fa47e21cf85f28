"""Jobs that share the work of scan, prepare and embed leave what one would have, whoever ends last."""

from __future__ import annotations

from pathlib import Path

import pytest
import zoo

from motionmae.cli import main
from motionmae.errors import MotionMAEError
from motionmae.library import parts
from motionmae.library.manifest import Entry, read_manifest
from motionmae.library.parts import Share, parse_share


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(2):
            zoo.encode(root / label / f"{number}.mp4", "libx264", count=4 + number, options=zoo.H264)
    (root / "a" / "broken.mp4").write_bytes(b"no video")
    (root / "notes.txt").write_text("not a video")
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_shares_are_disjoint_and_whole():
    names = [f"folder/{number}.mp4" for number in range(200)]
    for jobs in (1, 3, 64):
        of = [[name for name in names if Share(job, jobs).has(name)] for job in range(jobs)]
        assert sorted(name for some in of for name in some) == sorted(names)
    assert parse_share("") == parts.ALL
    assert parse_share("3/64") == (2, 64)
    for word in ("3", "0/4", "5/4", "a/b", "-1/2", "1/0"):
        with pytest.raises(MotionMAEError, match=rf"--part '{word}': expected K/N"):
            parse_share(word)


def test_jobs_scan_what_one_scans(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    assert run("scan", videos, "--out", whole, "--workers", 1) == 0
    for job in (2, 1):
        assert run("scan", videos, "--out", out, "--part", f"{job}/2", "--workers", 1) == 0
        assert out.exists() == (job == 1)
    assert read_manifest(out) == read_manifest(whole)
    assert not parts.parts_beside(out).exists()
    assert "not there yet: 1 of 2 parts" in capsys.readouterr().out
    assert run("scan", videos, "--out", out, "--part", "4/3") == 2


def test_a_job_that_was_stopped_goes_on_and_one_command_does_what_is_lacking(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, examined = str(tmp_path / "out.csv"), list[str]()
    task = __import__("motionmae.tasks.scan", fromlist=["scan"])

    def stopping(*words, known, **more):
        before = {entry.path for entry in known}
        for done, total, entry in found(*words, known=known, **more):
            if entry and entry.path not in before:
                examined.append(entry.path)
            yield done, total, entry
            if len(examined) == stop:
                raise KeyboardInterrupt

    found, stop = task.scan, 1
    monkeypatch.setattr(task, "scan", stopping)
    job = next(job for job in range(2) if sum(Share(job, 2).has(f"{a}/{n}.mp4") for a in "ab" for n in range(2)) > 1)
    words = ["scan", videos, "--out", out, "--workers", 1]
    made = parts.Manifest(out, Share(0, 2))
    assert run(*words, "--part", f"{job + 1}/2") == 1
    assert list(parts.parts_beside(out).iterdir()) == [made.part(job, False)]
    stop = 0
    assert run(*words, "--part", f"{job + 1}/2") == 0
    assert list(parts.parts_beside(out).iterdir()) == [made.part(job)]
    assert run(*words) == 0
    assert not parts.parts_beside(out).exists()
    assert len(read_manifest(out)) == 5
    assert len(examined) == len(set(examined)) == 5


def test_jobs_prepare_what_one_prepares(videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    words = ["prepare", videos, "--workers", 1, "--short", 32]
    assert run(*words, "--out", tmp_path / "whole") == 0
    out = tmp_path / "out"
    for job in range(1, 4):
        assert not (out / "manifest.csv").exists()
        assert run(*words, "--out", out, "--part", f"{job}/3") == 0

    def seen(folder: Path) -> list[tuple[str, int, str]]:
        entries = read_manifest(folder / "manifest.csv")
        return [(str(Path(entry.path).relative_to(folder)), entry.frames, entry.label) for entry in entries]

    assert seen(out) == seen(tmp_path / "whole")
    assert len(seen(out)) == 4
    assert run(*words, "--out", out, "--part", "1/3") == 0
    assert run(*words, "--out", out) == 0, "the command without it joins, whatever parts there are"
    assert not parts.parts_beside(out / "manifest.csv").exists()
    assert seen(out) == seen(tmp_path / "whole")


def test_of_two_jobs_that_join_the_slower_one_is_overtaken(tmp_path: Path):
    out = str(tmp_path / "m.csv")
    for job in range(2):
        parts.Manifest(out, Share(job, 2)).keep([Entry(str(tmp_path / f"{job}.mp4"), "ok")], True)
    with parts.joining(parts.parts_beside(out), tmp_path / "m.csv"):
        assert len(parts.Manifest(out, Share(0, 2)).join()) == 2
        read_manifest(parts.Manifest(out, Share(0, 2)).part(1))
    assert len(read_manifest(out)) == 2
    with pytest.raises(MotionMAEError, match="cannot be read"):
        parts.Manifest(str(tmp_path / "other.csv"), Share(0, 2)).join()
