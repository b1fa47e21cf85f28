"""`segment video --pick`: who may speak to its server, what it takes, and that it does what a command does."""

from __future__ import annotations

import http.client
import io
import json
import re
import shlex
import socket
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from scenes import SIDE, SMALL, clip_file, scene

from motionmae.cli import main, parse
from motionmae.config import Features, Propagation, SegmentVideo
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import read_mask, write_mask
from motionmae.inference.sequence import ImageSequence
from motionmae.tasks.segment.given import given_masks
from motionmae.tasks.segment.pick.drawing import read_drawing, to_given
from motionmae.tasks.segment.video import open_footage, source_of

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from motionmae.tasks.segment.pick.guard import LIMIT  # noqa: E402
from motionmae.tasks.segment.pick.server import application  # noqa: E402
from motionmae.tasks.segment.pick.session import Session, command_of  # noqa: E402

TOKEN = "a-token-of-the-tests"
BOX = {"object": 1, "kind": "box", "points": [[8, 24], [24, 40]]}


def drawing(frames: dict | None = None, points: list | None = None, names: list | None = None) -> dict:
    return {"frames": frames or {}, "points": points or [], "names": names or ["square"]}


class Client:
    """The bare protocol, so that any path, host and origin can be sent."""

    def __init__(self, port: int):
        self.port, self.host = port, f"127.0.0.1:{port}"

    def ask(self, path: str, content=None, method="", host=None, origin="own", token=TOKEN) -> tuple[int, bytes, dict]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        method = method or ("GET" if content is None else "POST")
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        link.putrequest(method, f"/{token}/{path}" if token else path, skip_host=True)
        link.putheader("Host", host or self.host)
        if origin and (origin != "own" or method == "POST"):
            link.putheader("Origin", f"http://{self.host}" if origin == "own" else origin)
        link.putheader("Content-Length", str(len(body or b"")))
        link.endheaders(body)
        answer = link.getresponse()
        data = answer.read()
        link.close()
        return answer.status, data, dict(answer.headers)

    def state(self) -> dict:
        while (state := json.loads(self.ask("state")[1]))["running"]:
            time.sleep(0.05)
        return state


@pytest.fixture
def session(tmp_path):
    config = SegmentVideo(
        clip_file(tmp_path / "v.mp4"), propagation=Propagation(short=64, multiple=0), features=Features(stride=8),
        out=str(tmp_path / "out"), pick=True, browser=False,
    )  # fmt: skip
    return Session(config, open_footage(config.video), source_of(config))


@pytest.fixture
def client(session):
    with socket.create_server(("127.0.0.1", 0)) as door:
        app = application(session, TOKEN, lambda: setattr(server, "should_exit", True))
        server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield Client(door.getsockname()[1])
        server.should_exit = True
        thread.join()


def test_only_who_knows_the_token_is_answered(client):
    status, page, headers = client.ask("")
    assert status == 200
    assert b"pick.js" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    for path in ("/", "//", "/state", "/facts", f"/{TOKEN}", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/state", f"/x/{TOKEN}/state",
                 "/%00/state", "/%c3%a9/state", "/%ff/state"):  # fmt: skip
        assert client.ask(path, token="")[0] == 403, path


STRANGERS = (
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "0.0.0.0",
    "[::1]",
    "x@localhost",
    "localhost:",
)


@pytest.mark.parametrize("host", STRANGERS)
def test_other_hosts_are_refused_as_their_names_may_be_rebound(client, host):
    status, body, _ = client.ask("state", host=host)
    assert (status, b"not an address" in body) == (421, True)
    assert client.ask("state", host=f"localhost:{client.port}")[0] == 200  # through ssh, by any port
    assert client.ask("state", host="localhost:9")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost", ""])
def test_other_origins_are_refused(client, origin):
    assert client.ask("stop", {}, origin=origin)[0] == 403
    assert client.ask("state", origin=origin)[0] == (403 if origin else 200)
    assert client.ask("stop", {})[0] == 200


def test_uploads_are_bounded(client):
    assert client.ask("draw", b"x" * (LIMIT + 1))[0] == 413
    link = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    own = {"Host": client.host, "Origin": f"http://{client.host}", "Transfer-Encoding": "chunked"}
    parts = (b"[" * (1 << 16) for _ in range(LIMIT // (1 << 16) + 1))
    link.request("POST", f"/{TOKEN}/draw", parts, own, encode_chunked=True)
    assert link.getresponse().status == 413
    link.close()
    for nonsense in (b"", b"{", b"[" * 100_000):
        assert client.ask("draw", nonsense)[0] == 400
    assert client.ask("draw", drawing())[0] == 200


def test_the_page_reads_the_one_video_and_its_results_and_nothing_else(client, session, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"s")
    session.made, session.runs = ["overlay.mp4", "masks"], 1
    for path in (
        "page/../guard.py", "page/..%2fguard.py", "page/%2e%2e/session.py", "page//etc/passwd", "file/../secret.png",
        "file/..%2fsecret.png", "file/config.json", "file/masks", "frame/6", "frame/-1", "frame/1e3", "frame/../v.mp4",
        "base/0/0", "found/6", "../../etc/passwd", "frame/0%00", "file/areas.csv",
    ):  # fmt: skip
        status, body, _ = client.ask(path)
        assert status in (403, 404), path
        assert b"import" not in body
    assert client.ask("state", method="DELETE", origin="own")[0] in (403, 405)


def test_frames_are_those_of_the_video(client):
    facts = json.loads(client.ask("facts")[1])
    assert (facts["count"], facts["width"], facts["height"]) == (6, SIDE, SIDE)
    with Image.open(io.BytesIO(client.ask("frame/4")[1])) as image:
        shown = np.asarray(image).astype(int)
    assert abs(shown - scene(4)[0]).mean() < abs(shown - scene(3)[0]).mean()  # small pictures are smeared


def test_a_run_gives_what_the_command_that_it_shows_gives(client, tmp_path):
    box = drawing({"0": {"base": None, "shapes": [BOX]}}, [{"1": [20, 32]}])
    assert client.ask("start", box)[0] == 200
    state = client.state()
    assert (state["error"], state["done"]) == ("", 12)
    assert set(state["files"]) == {"overlay.mp4", "areas.csv", "tracks.json", "masks.zip"}
    with zipfile.ZipFile(io.BytesIO(client.ask("file/masks.zip")[1])) as archive:
        archive.extractall(tmp_path / "page")
    typed = shlex.split(state["command"])
    assert typed[0] == "motionmae"
    assert "--names" in typed
    for number, words in enumerate(
        (typed[1:], ["segment", "video", str(tmp_path / "v.mp4"), "--box", "8,24,24,40", *SMALL])
    ):
        if "--out" in words:
            words[words.index("--out") + 1] = str(tmp_path / str(number))
        else:
            words += ["--out", str(tmp_path / str(number))]
        assert main(words) == 0
        for frame in range(6):
            mine = read_mask(tmp_path / f"page/masks/{frame:05d}.png")
            assert (mine == read_mask(tmp_path / f"{number}/masks/{frame:05d}.png")).all()
    assert client.ask("file/overlay.mp4")[1][4:8] == b"ftyp"
    assert json.loads(client.ask("file/tracks.json")[1])["points"][0][1]["x"] == 20
    with Image.open(io.BytesIO(client.ask("found/0")[1])) as image:
        assert np.asarray(image)[30, 16].argmax() == 0  # red, as object 1 is


def test_a_correction_starts_from_what_was_found_and_becomes_a_labelled_frame(client, session):
    two = {**BOX, "object": 2, "points": [[48, 48], [60, 60]]}
    client.ask("start", drawing({"0": {"base": None, "shapes": [BOX, two]}}, names=["square", "corner"]))
    assert client.state()["error"] == ""
    before = read_mask(session.out / "masks/00004.png")
    rubbed = {"object": 1, "kind": "erase", "points": [[54, 54]], "width": 40}
    better = drawing(
        {"0": {"base": None, "shapes": [BOX, two]}, "4": {"base": 1, "shapes": [rubbed]}}, names=["square", "corner"]
    )
    assert client.ask("start", better)[0] == 200
    state = client.state()
    after = read_mask(session.out / "masks/00004.png")
    assert 2 in before
    assert set(np.unique(after)) == {0, 1}
    assert (after[:32, :32] == before[:32, :32]).all()
    assert "4:" in state["command"]
    assert "--names square corner" in state["command"]
    assert 2 not in read_mask(session.out / "masks/00005.png")
    assert client.ask("base/4/1")[0] == 200
    assert client.ask("draw", drawing({"5": {"base": 1, "shapes": []}}))[0] == 400  # of a run that is gone
    assert client.ask("draw", drawing({"4": {"base": 1, "shapes": []}}))[0] == 200  # kept since it was corrected


def test_a_run_can_be_stopped_and_two_are_not_run_at_once(client, session, monkeypatch):
    go = threading.Event()
    follow = session._tell
    monkeypatch.setattr(session, "_tell", lambda *told: (go.wait(20), follow(*told)))
    box = drawing({"0": {"base": None, "shapes": [BOX]}})
    client.ask("start", box)
    status, body, _ = client.ask("start", box)
    assert status == 400
    assert b"a run is under way" in body
    client.ask("stop", {})
    go.set()
    state = client.state()
    assert state["error"] == "stopped"
    assert state["files"] == []


def test_what_is_no_drawing_is_refused_with_a_sentence(client):
    frame = {"base": None, "shapes": [BOX]}
    bad = [
        [], {}, drawing({"6": frame}), drawing({"-1": frame}), drawing({"a": frame}), drawing({"0": {"shapes": []}}),
        drawing({"0": {"base": 7, "shapes": []}}), drawing(points=[{"0": [64, 1]}]), drawing(points=[{"0": [1]}]),
    ]  # fmt: skip
    changes = [
        {"kind": "star"}, {"object": 0}, {"object": 255}, {"points": [[1, 1]]}, {"points": [[1, 1], [1e9, 1]]},
        {"points": [[1, 1], ["nan", 1]]}, {"kind": "stroke", "width": 5000},
    ]  # fmt: skip
    bad += [drawing({"0": {"base": None, "shapes": [BOX | change]}}) for change in changes]
    for content in bad:
        status, body, _ = client.ask("draw", content)
        assert status == 400, content
        assert json.loads(body)["error"]
    status, body, _ = client.ask("start", drawing())
    assert (status, json.loads(body)["error"]) == (400, "nothing to follow: draw an object or set a point")


def test_drawings_are_bounded_in_pixels_and_counts():
    large = ImageSequence(lambda times: None, 300, 8192, 8192)  # pyright: ignore
    frame = {"base": None, "shapes": [BOX]}
    with pytest.raises(MotionMAEError, match="9 labelled frames: at most 8 can be drawn"):
        read_drawing(drawing({str(number): frame for number in range(9)}), large)
    with pytest.raises(MotionMAEError, match="2001 shapes: at most 2000"):
        read_drawing(drawing({"0": {"base": None, "shapes": [BOX] * 2001}}), large)
    with pytest.raises(MotionMAEError, match="255 objects: at most 254"):
        read_drawing(drawing(names=["x"] * 255), large)


def test_a_box_covers_what_the_option_does_and_later_shapes_lie_on_top(tmp_path):
    frames = open_footage(clip_file(tmp_path / "v.mp4")).frames
    typed = given_masks(SegmentVideo("v", box=("8,24,24,40",)), frames)[0]
    shapes = [BOX, {"object": 3, "kind": "stroke", "points": [[10, 30], [50, 30]], "width": 5}]
    drawn = to_given(read_drawing(drawing({"0": {"base": None, "shapes": shapes[:1]}}), frames), {}, frames).masks[0]
    assert (drawn == typed).all()
    drawn = to_given(read_drawing(drawing({"0": {"base": None, "shapes": shapes}}), frames), {}, frames).masks[0]
    assert drawn[30, 12] == drawn[30, 50] == 3
    assert drawn[26, 12] == 1
    assert (drawn[:, 56:] == 0).all()


def test_the_command_of_a_config_makes_that_config():
    config = SegmentVideo(
        "my video.mp4", mask=("0:a b.png", "4:c.png"), points=("0:1,2/4:3,4",), names=("big dog", "cat"), out="o",
        propagation=Propagation("crw", topk=3, stretch=False), features=Features("pair", stride=8), model="m",
    )  # fmt: skip
    name, parsed = parse(shlex.split(command_of(config))[1:])
    assert (name, parsed) == ("segment", config)


def test_options_beside_pick_are_drawn_already(tmp_path):
    write_mask(tmp_path / "m.png", scene(2)[1])
    config = SegmentVideo(clip_file(tmp_path / "v.mp4"), mask=(f"2:{tmp_path / 'm.png'}",), points=("1:3,4",))
    session = Session(config, open_footage(config.video), source_of(config))
    given = to_given(session.keep(session.content), session.bases, session.footage.frames)
    assert list(given.masks) == [2]
    assert (given.masks[2] == scene(2)[1]).all()
    assert given.points == [{1: (3, 4)}]


@pytest.mark.parametrize("browser", [True, False])
def test_the_command_serves_an_address_until_the_page_ends_it(tmp_path, capsys, monkeypatch, browser):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    words = ["segment", "video", clip_file(tmp_path / "v.mp4"), "--pick", "--out", str(tmp_path / "out")]
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main([*words, *(() if browser else ("--no-browser",))])))
    thread.start()
    shown = ""
    while "ends it" not in shown or (not browser and "ssh -L" not in shown):
        shown += capsys.readouterr().out
        time.sleep(0.05)
    address = next(text for text in shown.splitlines() if text.startswith("http://"))
    host, port, token = re.fullmatch(r"http://(.+):(.+)/(.+)/", address).groups()  # pyright: ignore
    assert (host, len(token)) == ("127.0.0.1", 32)
    assert browser or f"ssh -L {port}:127.0.0.1:{port}" in shown
    client = Client(int(port))
    assert client.ask("", token=token)[0] == 200
    assert client.ask("")[0] == 403
    assert client.ask("finish", {}, token=token)[0] == 200
    thread.join(30)
    assert codes == [0]
    assert opened == [address] * browser


def test_a_missing_extra_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["segment", "video", clip_file(tmp_path / "v.mp4"), "--pick"]) == 2
    assert "--pick needs uvicorn: pip install 'motionmae[pick]'" in capsys.readouterr().err
    assert main(["segment", "video", "--pick"]) == 2
    assert "segment needs VIDEO: a video file" in capsys.readouterr().err
