"""The pages of tests: intervals, what the orders of frames say, confusions that list their videos, the worst first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from browsers import CHROMIUM, look

from motionmae.evaluation import comparing
from motionmae.evaluation.recognition import LabelledVideos, measure
from motionmae.report import evaluation, probing, segmentation

KEYS = segmentation.KEYS


def examined(folder: Path, classes: int) -> Path:
    """A test of three videos a class, of which those of class 0 are taken for class 1."""
    torch.manual_seed(0)
    numbers = [at // 3 for at in range(3 * classes)]
    guess = [1 if number == 0 else number for number in numbers]
    sure = torch.full((len(numbers), classes), 0.2 / classes)
    sure[range(len(numbers)), guess] += 0.8
    labels = LabelledVideos(
        [Path(f"/films/a&b {at}.mp4") for at in range(len(numbers))], numbers, tuple(map(str, range(classes)))
    )
    found = {"views": sure, "forwards": sure, "backwards": sure, "shuffled": sure.roll(1, 1), "one frame": sure}
    figures = measure(found, torch.tensor(numbers), labels.names) | {"views": {"clips": 1, "crops": 1}}
    evaluation.write(folder, figures, sure, labels, [], {"model": "runs/mine"})
    return folder / "report.html"


def test_an_interval_is_over_videos_or_over_groups():
    hits = [True] * 70 + [False] * 30
    low, high = comparing.of_share(hits)
    assert low == pytest.approx(0.61, abs=0.015)
    assert high == pytest.approx(0.79, abs=0.015)
    groups = [at // 10 for at in range(100)]
    wide = comparing.of_share(hits, groups)
    assert wide[0] < low - 0.1
    assert wide[1] > high + 0.1


@pytest.mark.parametrize(
    ("backwards", "shuffled", "still", "told"),
    [
        (
            0.1,
            0.4,
            0.5,
            "the order of frames matters: of 80.0% on one view, 50.0% remain of a single frame, and 10.0% ",
        ),
        (0.79, 0.78, 0.5, "several frames matter, but not their order"),
        (0.79, 0.78, 0.77, "the model goes by appearance"),
    ],
)
def test_what_the_orders_of_frames_say_is_one_sentence(backwards, shuffled, still, told):
    orders = {"forwards": 0.8, "backwards": backwards, "shuffled": shuffled, "one frame": still}
    assert evaluation.of_motion(orders).startswith(told)
    assert evaluation.of_motion({}) == ""


def scores(names):
    rows = {name: dict.fromkeys(KEYS, value) for name, value in names.items()}
    return {
        "global": dict.fromkeys(KEYS, 0.5),
        "per_sequence": rows,
        "per_object": {f"{n}_1": r for n, r in rows.items()},
    }


def test_segmentation_shows_videos_first_the_worst_first_and_what_is_lost(tmp_path):
    films = []
    for name, size in (("good", 10), ("bad", 20), ("large", segmentation.WITHIN)):
        (tmp_path / "overlays").mkdir(exist_ok=True)
        films.append(tmp_path / "overlays" / f"{name}.mp4")
        films[-1].write_bytes(b"0" * size)
    tracks = torch.tensor([[[1.0, 2.0, 1.0]], [[1.0, 2.0, 0.05]]])
    found = scores({"good": 0.9, "bad": 0.1, "large": 0.95})
    segmentation.save_page(tmp_path / "i.html", "t", "l", films, {1: [5, 0]}, found, ["dog"], tracks)
    html = (tmp_path / "i.html").read_text()
    assert html.index("Overlays") < html.index("Scores, percent") < html.index("Along time")
    assert html.index("<figcaption>bad") < html.index("<figcaption>good") < html.index("<figcaption>large")
    assert 'src="overlays/large.mp4"' in html
    assert html.count("data:video/mp4") == 2
    assert html.index(">bad_1<") < html.index(">good_1<")
    for words in (
        "the worst sequence is bad, 10.0",
        "dog is not seen after frame 0 of 2",
        "point 1 is as good as lost in 1",
    ):
        assert words in html


def test_probes_have_a_page_with_intervals(tmp_path):
    row = {"top1": 0.75, "setting": 20, "right": "1110" * 10, "all": {"20": 0.75, "5": 0.5}}
    content = {"train": 9, "test": 40, "probes": {"knn": {"mean": row}}}
    probing.write(tmp_path / "a.html", content, {"model": "m"}, 0.25)
    html = (tmp_path / "a.html").read_text()
    assert "the best probe is knn, mean: 75.0%, 95 % interval 60.0% to 87.5%" in html
    assert "over videos" in html
    probing.write(tmp_path / "b.html", content, {}, 0.25, [at // 10 for at in range(40)])
    assert "over groups" in (tmp_path / "b.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "classes"), [(400, 6), (1400, 6), (400, 60), (1400, 60)])
def test_the_test_page_fits_a_browser_and_a_click_lists_the_videos(width, classes, tmp_path):
    click = "document.querySelector('[data-cell=\"0,1\"]').click()"
    if classes > evaluation.SMALL:
        click = (
            "const i=document.querySelector('.heat img'),r=i.getBoundingClientRect();i.dispatchEvent(new MouseEvent("
        )
        click += "'click',{clientX:r.left+r.width*1.5/60,clientY:r.top+r.height*.5/60,bubbles:true}))"
    found = look(examined(tmp_path, classes), width, tmp_path, click)
    assert found["wide"] <= width
    assert (found["problems"], found["fetched"]) == ([], [])
    assert found["charts"] == 2
    assert "0 taken for 1:" in found["text"]
    assert "a&b 2.mp4 (8" in found["text"]
    assert 'films/a%26b%202.mp4"' in found["html"]
