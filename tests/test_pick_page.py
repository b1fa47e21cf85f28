"""The page of `segment video --pick` in a headless Chromium: what is drawn with the mouse gives the command's masks."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from scenes import SIDE, SMALL, clip_file

from motionmae.cli import main
from motionmae.evaluation.masks import read_mask

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]


class Browser:
    """One page of a headless Chromium, spoken to by the DevTools protocol through two pipes."""

    def __init__(self, profile: Path, width: int, height: int):
        (theirs, self.out), (self.inn, back) = os.pipe(), os.pipe()
        # Chromium reads from 3 and writes to 4.
        start = f'exec "$0" "$@" 3<&{theirs} 4>&{back} {theirs}<&- {back}>&-'
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", "--no-first-run", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", start, str(CHROMIUM), *options], pass_fds=(theirs, back),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        self.rest, self.number, self.session, self.events = b"", 0, "", []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params):
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params}
        if self.session:
            asked["sessionId"] = self.session
        os.write(self.out, json.dumps(asked).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict:
        while b"\0" not in self.rest:
            part = os.read(self.inn, 1 << 16)
            assert part, "Chromium has ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def value(self, script: str):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 120):
        end = time.monotonic() + seconds
        while not (value := self.value(script)):
            assert time.monotonic() < end, f"{script}: {self.value('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def mouse(self, kind: str, x: float, y: float, clicks: int = 1) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=clicks)

    def drag(self, *places: tuple[float, float]) -> None:
        self.mouse("mousePressed", *places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", *place)
        self.mouse("mouseReleased", *places[-1])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def mistakes(self) -> list:
        """Errors of the console, and what was fetched from elsewhere."""
        self.value("0")
        bad = []
        for event in self.events:
            method, about = event.get("method"), event.get("params", {})
            logged = method == "Log.entryAdded" and about["entry"]["level"] == "error"
            said = method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning")
            if method == "Runtime.exceptionThrown" or logged or said:
                bad.append(about)
            if method == "Network.requestWillBeSent":
                url = about["request"]["url"]
                if not url.startswith(("http://127.0.0.1:", "about:", "data:", "blob:")):
                    bad.append(url)
        return bad

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.out)
        os.close(self.inn)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The address of a page, and what it was started with."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    path = clip_file(tmp_path / "v.mp4", 10)
    words = ["segment", "video", path, "--pick", "--out", str(tmp_path / "page"), *SMALL]
    thread = threading.Thread(target=main, args=(words,))
    thread.start()
    while not opened and thread.is_alive():
        time.sleep(0.05)
    yield opened[0]
    thread.join(60)
    assert not thread.is_alive()


def masks(folder: Path) -> torch.Tensor:
    return torch.stack([torch.from_numpy(read_mask(path)) for path in sorted((folder / "masks").glob("*.png"))])


@pytest.mark.parametrize("width", [1400, 400])
def test_a_box_drawn_in_the_page_gives_the_masks_of_the_command(tmp_path, served, width):
    browser = Browser(tmp_path / "profile", width, 1000)
    try:
        browser.call("Page.navigate", url=served)
        browser.until("document.querySelector('#where')?.textContent && picture.naturalWidth > 0")
        left, top, wide = browser.value(
            "(() => { const r = canvas.getBoundingClientRect(); return [r.left, r.top, r.width]; })()"
        )
        unit = wide / SIDE

        def at(x: float, y: float) -> tuple[float, float]:
            return left + x * unit, top + y * unit

        browser.drag(at(8, 24), at(15, 30), at(24, 40))
        assert browser.value("JSON.stringify(drawing.frames[0].shapes[0].points)") == "[[8,24],[24,40]]"
        browser.drag(at(40, 50), at(50, 60))
        browser.value("document.querySelector('#undo').click()")
        assert browser.value("drawing.frames[0].shapes.length") == 1
        browser.value("document.querySelector('#run').click()")
        browser.until("run.run === 1 && !run.running")
        assert browser.value("getComputedStyle(document.querySelector('#nothing')).display") == "none"
        assert browser.value("run.error") == ""
        assert browser.until("document.querySelector('#found').naturalWidth") == SIDE
        by_hand = ["segment", "video", str(tmp_path / "v.mp4"), "--box", "8,24,24,40"]
        assert main([*by_hand, "--out", str(tmp_path / "hand"), *SMALL]) == 0
        assert torch.equal(masks(tmp_path / "page"), masks(tmp_path / "hand"))

        browser.value("go(8); choose('stroke'); document.querySelector('#add').click()")
        browser.drag(at(46, 52), at(54, 52), at(54, 58))
        assert browser.value("drawing.frames[8].base") == 1
        browser.value("document.querySelector('#run').click()")
        browser.until("run.run === 2 && !run.running")
        assert browser.value("run.error") == ""
        found = masks(tmp_path / "page")
        assert found[8, 52, 50] == 2
        assert (found[8] == 1).any()
        words = shlex.split(browser.value("document.querySelector('#command').textContent"))
        words[words.index("--out") + 1] = str(tmp_path / "again")
        assert main(words[1:]) == 0
        assert torch.equal(found, masks(tmp_path / "again"))

        browser.value("go(8)")
        browser.until("picture.complete && document.querySelector('#found').complete")
        browser.screenshot(tmp_path / f"page-{width}.png")
        assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.value("document.querySelectorAll('#files a').length") == 3
        assert browser.mistakes() == []
    finally:
        browser.value("ask('finish', {}).catch(() => 0)")
        browser.close()
