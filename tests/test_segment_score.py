from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motionmae.cli import main
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import palette, read_mask, read_user_mask, write_mask
from motionmae.tasks.segment.score import score_folder


def make(root: Path, masks: list[np.ndarray], guesses: list[np.ndarray], name: str = "a") -> None:
    for folder, frames in ((root / "Annotations/480p" / name, masks), (root / "predictions" / name, guesses)):
        folder.mkdir(parents=True)
        for index, frame in enumerate(frames):
            write_mask(folder / f"{index:05d}.png", frame)


def square(value: int, size: int = 30) -> np.ndarray:
    labels = np.zeros((size, size), dtype=np.uint8)
    labels[8:20, 8:20] = value
    return labels


def test_scores_equal_the_official_ones(shared, tmp_path):
    golden = shared / "golden/davis_scores"
    expected = json.loads((golden / "expected.json").read_text())
    out = tmp_path / "scores.json"
    assert (
        main(
            ["segment", "score", str(golden / "predictions"), "--data.path", str(golden), "--json", str(out)],
        )
        == 0
    )
    scores = json.loads(out.read_text())
    assert scores["global"] == pytest.approx(expected["global"], abs=1e-9, rel=0)
    assert scores["per_object"].keys() == expected["per_object"].keys()
    for name, row in expected["per_object"].items():
        assert scores["per_object"][name] == pytest.approx(row, abs=1e-9, rel=0)


def test_void_counts_as_background_and_first_and_last_frames_are_not_scored(tmp_path):
    truth = square(1)
    truth[0:5, 0:5] = 255
    wrong = np.zeros_like(truth)
    make(tmp_path, [truth] * 4, [wrong, square(1), square(1), wrong])
    scores = score_folder(tmp_path / "predictions", tmp_path, ["a"])
    assert scores["global"]["J&F-Mean"] == 1.0
    assert list(scores["per_object"]) == ["a_1"]


def test_an_object_that_is_never_predicted_scores_zero_and_once_it_has_vanished_one(tmp_path):
    gone = square(0)
    make(tmp_path, [square(2), square(2), square(2), gone, gone, gone], [gone] * 6)
    row = score_folder(tmp_path / "predictions", tmp_path, ["a"])["per_object"]
    assert row["a_2"]["J-Mean"] == row["a_2"]["F-Mean"] == 0.5
    assert row["a_1"]["J-Mean"] == 1.0  # a number that is skipped in the first frame is an object that is never there
    whole = score_folder(tmp_path / "predictions", tmp_path, ["a"])["per_sequence"]["a"]
    assert {key: (row["a_1"][key] + row["a_2"][key]) / 2 for key in row["a_1"]}.items() <= whole.items()


def test_a_number_above_the_objects_is_an_error_that_names_the_file(tmp_path):
    make(tmp_path, [square(1)] * 3, [square(1), square(2), square(1)])
    with pytest.raises(MotionMAEError, match=r"00001\.png holds object 2: the sequence has objects 1 to 1"):
        score_folder(tmp_path / "predictions", tmp_path, ["a"])


def test_missing_predictions_and_sizes_that_differ_are_errors_that_name_the_file(tmp_path):
    make(tmp_path, [square(1)] * 4, [square(1), square(1), square(1, 31), square(1)])
    with pytest.raises(MotionMAEError, match=r"00002\.png is 31x31 pixels, its annotation .* is 30x30"):
        score_folder(tmp_path / "predictions", tmp_path, ["a"])
    (tmp_path / "predictions/a/00001.png").unlink()
    with pytest.raises(MotionMAEError, match=r"00001\.png is missing"):
        score_folder(tmp_path / "predictions", tmp_path, ["a"])


def test_sequences_without_a_frame_to_score_are_named_and_left_out(tmp_path):
    make(tmp_path, [square(1)] * 3, [square(1)] * 3)
    make(tmp_path, [square(1)], [square(1)], name="b")
    assert score_folder(tmp_path / "predictions", tmp_path, ["a", "b"])["not_scored"] == ["b"]
    with pytest.raises(MotionMAEError, match="no object to score"):
        score_folder(tmp_path / "predictions", tmp_path, ["b"])


def test_scores_are_read_anew_each_time(tmp_path):
    make(tmp_path, [square(1)] * 3, [square(1)] * 3)
    assert score_folder(tmp_path / "predictions", tmp_path, ["a"])["global"]["J-Mean"] == 1.0
    write_mask(tmp_path / "predictions/a/00001.png", square(0))
    assert score_folder(tmp_path / "predictions", tmp_path, ["a"])["global"]["J-Mean"] == 0.0


def test_masks_return_as_they_were_saved_with_the_benchmark_palette(tmp_path, shared):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", labels)
    assert (read_mask(tmp_path / "m.png") == labels).all()
    with Image.open(shared / "golden/davis_scores/Annotations/480p/gold-fish/00000.png") as image:
        theirs = np.array(image.getpalette()).reshape(-1, 3)[:6]
    assert (palette()[:6] == theirs).all()


def test_masks_that_drawing_programs_save_are_read(tmp_path):
    drawn = Image.fromarray(square(255))
    for image in (drawn, Image.fromarray(square(255) > 0), drawn.convert("RGB"), drawn.convert("RGBA")):
        image.save(tmp_path / "white.png")
        assert (read_user_mask(tmp_path / "white.png") == square(1)).all()
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(palette()[labels]).save(tmp_path / "colours.png")
    assert (read_user_mask(tmp_path / "colours.png") == labels).all()
    Image.fromarray(square(3)).save(tmp_path / "numbers.png")
    assert (read_user_mask(tmp_path / "numbers.png") == square(3)).all()


def test_masks_whose_numbers_cannot_be_told_are_refused(tmp_path):
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "rgb.png")
    with pytest.raises(MotionMAEError, match="mode is RGB"):
        read_mask(tmp_path / "rgb.png")
    with pytest.raises(MotionMAEError, match=r"rgb.png holds the colour #010203: expected black and white"):
        read_user_mask(tmp_path / "rgb.png")
    Image.fromarray(square(255)).save(tmp_path / "smeared.jpg")
    Image.fromarray(square(1).astype(np.uint16)).save(tmp_path / "deep.png")
    for read in (read_mask, read_user_mask):
        with pytest.raises(MotionMAEError, match=r"smeared.jpg is a JPEG, which smears"):
            read(tmp_path / "smeared.jpg")
        with pytest.raises(MotionMAEError, match=r"deep.png must be a palette or 8-bit grey image"):
            read(tmp_path / "deep.png")


def test_mistakes_end_in_one_sentence(tmp_path, capsys):
    assert main(["segment", "score", "x", "--data.path", str(tmp_path)]) == 2
    assert "val.txt is missing" in capsys.readouterr().err
    for command, needed in ((["score"], "PREDICTIONS"), (["davis"], "MODEL"), (["score", "x"], "--data.path")):
        assert main(["segment", *command]) == 2
        assert f"segment needs {needed}: " in capsys.readouterr().err
