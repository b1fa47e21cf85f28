"""Videos behind http on this machine: the frames of the files, by commands and in Python, with and without ranges."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import zoo

import motionmae
from motionmae.cli import main
from motionmae.config import Data
from motionmae.inference.table import read_features
from motionmae.library.sources import find
from motionmae.video import remote
from motionmae.video.reading import VideoError, read_frames

pytest.importorskip("aiohttp")


class Handler(SimpleHTTPRequestHandler):
    """Files and listings, by ranges where `ranges` is set; `gone` paths are cut off in the midst."""

    ranges, gone = True, False

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self) -> Any:
        path = self.translate_path(self.path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if not asked or not os.path.isfile(path) or not self.ranges:
            return super().send_head()
        if self.gone:
            self.send_error(503)
            return None
        first, last = int(asked[1]), min(int(asked[2]), os.path.getsize(path) - 1)
        part = Path(path).read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{os.path.getsize(path)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder of videos and its address."""
    monkeypatch.setattr(remote, "_roots", {})
    monkeypatch.setattr(Handler, "ranges", True)
    monkeypatch.setattr(Handler, "gone", False)
    root = tmp_path / "videos"
    for number, name in enumerate(("play guitar/0 é.mp4", "swim/1.mp4", "swim/100%.mp4", "swim/a%20b#2.mp4")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        zoo.encode(root / name, "libx264", count=8 + number, options=zoo.H264)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *made: Handler(*made, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}/videos"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_listing_gives_the_names_the_classes_and_the_frames_of_the_files(served: tuple[Path, str]):
    root, address = served
    near, far = find(Data(path=str(root))), find(Data(path=address))
    assert far.labels == near.labels == ["play guitar", "swim", "swim", "swim"]
    assert unquote(str(far.paths[0])).endswith("play guitar/0 é.mp4")
    assert remote.shown(far.paths[0]) == f"{address}/play guitar/0 é.mp4"
    for one, two in zip(near.paths, far.paths, strict=True):
        assert torch.equal(read_frames(one), read_frames(two))
    assert remote.about(far.paths[1]).modified == int((root / "swim" / "1.mp4").stat().st_mtime) * 10**9
    (root / "list.csv").write_text("path,label\nplay guitar/0 é.mp4,a\nswim/1.mp4,b\n")
    assert not find(Data(path=f"{address}/list.csv")).missing


def test_commands_and_python_give_what_the_file_gives(served: tuple[Path, str], tmp_path: Path):
    root, address = served
    for name, path in (("near", root), ("far", address)):
        out = tmp_path / f"{name}.npz"
        assert main(["embed", "tiny", f"{path}/swim/1.mp4", "--out", str(out), "--workers", "0"]) == 0
    near, far = (read_features(tmp_path / f"{name}.npz") for name in ("near", "far"))
    np.testing.assert_array_equal(near.of(None), far.of(None))
    assert far.rows[0].video == f"{address}/swim/1.mp4"
    encoder = motionmae.load("tiny")
    with motionmae.open_video(f"{address}/swim/1.mp4") as video, motionmae.open_video(root / "swim/1.mp4") as file:
        assert torch.equal(video.read(), file.read())
        pairs = zip(video.clips(encoder), file.clips(encoder), strict=True)
        assert all(torch.equal(one.clip, two.clip) for one, two in pairs)
    found = motionmae.embed(encoder, f"{address}/swim/1.mp4")
    assert torch.equal(found.vector, motionmae.embed(encoder, root / "swim" / "1.mp4").vector)
    assert found.rows[0].video == f"{address}/swim/1.mp4"
    assert torch.equal(encoder.encode(f"{address}/swim/1.mp4"), encoder.encode(str(root / "swim" / "1.mp4")))
    assert main(["search", str(tmp_path / "near.npz"), f"{address}/swim/100%25.mp4"]) == 0  # embedded here


def test_what_goes_wrong_is_one_sentence(served: tuple[Path, str], monkeypatch: Any, capsys: Any, tmp_path: Path):
    _, address = served
    words = ["embed", "tiny", "--out", str(tmp_path / "x.npz"), "--workers", "0"]
    assert main([*words, f"{address}/none.mp4"]) == 2
    assert f"{address}/none.mp4: cannot be read (there is no such file or folder)" in capsys.readouterr().err
    with pytest.raises(VideoError, match=f"^{address}/none.mp4: there is no such file or folder$"):
        motionmae.open_video(f"{address}/none.mp4")
    monkeypatch.setattr(Handler, "gone", True)
    with pytest.raises(VideoError, match=r"1.mp4: cannot be read at byte 0 \(ClientResponseError: 503"):
        motionmae.open_video(f"{address}/swim/1.mp4")


def test_a_server_without_ranges_gives_small_files_and_says_so_of_large_ones(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
):
    root, address = served
    monkeypatch.setattr(Handler, "ranges", False)
    with motionmae.open_video(f"{address}/swim/1.mp4") as video:
        assert len(video.read()) == 9
    shutil.copy(root / "swim" / "1.mp4", root / "large.mp4")
    monkeypatch.setattr(remote, "BLOCK", 1 << 8)
    with pytest.raises(VideoError, match=r"large.mp4: .*its store gives files as a whole only"):
        motionmae.open_video(f"{address}/large.mp4")
