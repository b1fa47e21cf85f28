"""The pages: parts to markup, names as text, and what a browser makes of them on a phone and on a desk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browsers import CHROMIUM, look
from PIL import Image

from motionmae.report import page

EVIL = "<script>alert('&\"1')</script>"


def picture(folder: Path, name: str = "a.png") -> Path:
    Image.effect_noise((200, 80), 90).save(folder / name)
    return folder / name


def whole(folder: Path) -> Path:
    """A page of every part, with names that would be markup, many runs, and a wide table."""
    lines = {f"run {at} {EVIL}": [(float(step), 1 / (step + at + 1)) for step in range(0, 100, 5)] for at in range(23)}
    drawn = [page.chart(name, lines | {"trivial: 1": [(0.0, 1.0), (95.0, 1.0)]}) for name in ("loss", "rank")]
    shot = picture(folder)
    parts = [
        page.section("Charts", page.charts(*drawn)),
        page.section("Alone", page.chart("area", {"object 1": [(4.0, 2.0)]}, "frame")),
        page.section("Table", page.table([EVIL, *map(str, range(30))], [["a" * 60, *["0.123"] * 30], ["b", "1", "2"]])),
        page.section("Pictures", page.picture(shot, EVIL, ["input", "what the encoder sees"]), page.code("x" * 500)),
        page.section("Growth", page.slider([(shot, "step 1"), (shot, "step 2")])),
    ]
    verdict = [page.Finding("good", "motion is learnt"), page.Finding("bad", EVIL)]
    out = folder / "page.html"
    out.write_text(page.page(EVIL, EVIL, parts, verdict, {"data": EVIL}), "utf-8")
    return out


def test_names_are_text_and_never_markup(tmp_path):
    html = whole(tmp_path).read_text()
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert "http:" not in html
    assert "https:" not in html
    data = re.search(r"data-chart='([^']*)'", html)
    assert data
    assert json.loads(data[1])["series"][0]["name"] == f"run 0 {EVIL}"


def test_a_page_tells_what_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/motionmae", "report", "https://me:secret@host/a.tar?token=1", "b c"])
    html = page.page("title", "lead", [], about={"data": "3 videos"})
    for words in ("motionmae report", "https://…@host/a.tar?…", "cores of", "MotionMAE 0", "3 videos"):
        assert words in html
    assert "secret" not in html
    assert "token" not in html


def test_a_chart_leaves_out_what_is_not_finite_and_one_without_points_is_empty():
    nan = float("nan")
    assert page.chart("a", {"b": [(0.0, nan)]}) == ""
    found = page.chart("a", {"b": [(0.0, nan), (1.0, 123456.7), (2.0, 0.123456789)], "c": []})
    data = re.search(r"data-chart='([^']*)'", found)
    assert data
    assert json.loads(data[1])["series"] == [{"name": "b", "x": [0, 1, 2], "y": [None, 123457, 0.12346]}]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_fits_its_window_draws_its_charts_and_fetches_nothing(width, tmp_path):
    found = look(whole(tmp_path), width, tmp_path)
    assert found["seen"] == width
    assert found["wide"] <= width
    assert found["problems"] == []
    assert found["fetched"] == []
    assert found["charts"] == 2 * 24 + 1
    assert "motion is learnt" in found["text"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_runs_are_hidden_axes_are_logarithmic_lines_are_smooth_tables_sort_and_pictures_slide(tmp_path):
    out = tmp_path / "page.html"
    shot = picture(tmp_path)
    line = {"a": [(float(step), step % 2 + 1.0) for step in range(20)], "b": [(float(step), 2.0) for step in range(20)]}
    parts = [
        page.section("Charts", page.charts(page.chart("one", line), page.chart("two", line))),
        page.section("Table", page.table(["name", "value"], [["x", "10"], ["y", ""], ["z", "\u22129"]])),
        page.section("Growth", page.slider([(shot, "step 1"), (shot, "step 2")])),
    ]
    out.write_text(page.page("title", "lead", parts), "utf-8")
    feed = "const set=(q,v)=>{const e=document.querySelector(q);e.type=='checkbox'?e.checked=v:e.value=v;"
    feed += "e.dispatchEvent(new Event('input'))};"
    still = look(out, 800, tmp_path)
    assert still["charts"] == 4
    assert look(out, 800, tmp_path, "document.querySelector('[data-name=a]').click()")["charts"] == 2
    assert look(out, 800, tmp_path, feed + "set('.controls [type=range]', 0.9)")["charts"] == 8
    assert look(out, 800, tmp_path, feed + "set('.controls [type=checkbox]', true)")["html"] != still["html"]
    found = look(out, 800, tmp_path, feed + "document.querySelectorAll('th')[1].click();set('.slider input', 0)")
    assert re.findall(r"<td>([xyz])</td>", found["html"]) == ["z", "x", "y"]
    assert "step 1" in found["text"]
    assert "step 2" not in found["text"]
    move = "const p=document.querySelector('.plot svg'),r=p.getBoundingClientRect();p.dispatchEvent(new PointerEvent("
    move += "'pointermove',{clientX:r.left+r.width/2,clientY:r.top+9,bubbles:true}))"
    told = look(out, 800, tmp_path, move)
    # The pointer is between steps 8 and 9: which is nearer depends on the width of the axis' words.
    assert "step 8\n2 b\n1 a" in told["text"] or "step 9\n2 a\n2 b" in told["text"]
