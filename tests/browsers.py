"""Pages in a headless Chromium, as readers see them: how wide they are, what went wrong, and what they hold."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Before all else of the page: what goes wrong, and what is asked of the network, is counted.
WATCH = """<script>
window.problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.src)), true);
addEventListener("unhandledrejection", event => problems.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", event => problems.push("refused: " + event.blockedURI));
</script>"""

# After all else. A page in a frame can tell what it found to the page around it alone.
TELL = """<script>
addEventListener("load", () => setTimeout(() => {
  %s
  const found = {
    wide: document.documentElement.scrollWidth, seen: innerWidth, problems,
    charts: document.querySelectorAll(".plot svg path").length,
    fetched: performance.getEntriesByType("resource").map(each => each.name).filter(name => !name.startsWith("data:")),
    text: document.body.innerText,
    html: document.querySelector("main").innerHTML.replace(/data:[^"]*/g, ""),
  };
  parent.postMessage(JSON.stringify(found), "*");
}, 300));
</script>"""


def look(page: Path, width: int, folder: Path, steps: str = "") -> dict[str, Any]:
    """What a reader's browser makes of a page in a window `width` pixels wide, after the script of the steps."""
    assert CHROMIUM is not None
    text = page.read_text("utf-8").replace("<head>", "<head>" + WATCH, 1)
    text = text.replace("</body>", TELL % steps + "</body>", 1)
    inside, around = page.with_name(f"{page.stem}.inside.html"), page.with_name(f"{page.stem}.around.html")
    inside.write_text(text, "utf-8")
    around.write_text(
        f'<body style="margin:0"><iframe src="{inside.name}" width="{width}" height="900" style="border:0"></iframe>'
        '<pre id="found"></pre><script>addEventListener("message", event => '
        '{ document.getElementById("found").textContent = event.data })</script>'
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'chromium'}"]
    command += ["--virtual-time-budget=8000", "--window-size=1500,1000", "--dump-dom", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    inside.unlink()
    around.unlink()
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[:1000] + done.stderr[:1000]
    return json.loads(html.unescape(found[1]))
