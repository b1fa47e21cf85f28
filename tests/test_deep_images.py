"""Images of more than 8 bits, and masks as cameras, data sets and drawing programs have them: right, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from motionmae.errors import MotionMAEError
from motionmae.evaluation.davis import list_frames, list_sequences, read_images
from motionmae.evaluation.masks import read_mask, read_user_mask
from motionmae.library.scan import examine
from motionmae.video.errors import VideoError
from motionmae.video.reading import read_frames

RAMP = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(32, 0)


def folder_of(path: Path, values: np.ndarray, kind: str) -> Path:
    path.mkdir()
    for number in range(2):
        Image.fromarray(values).save(path / f"{number}.{kind}")
    return path


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_range(kind: str, tmp_path: Path):
    path = folder_of(tmp_path / "a", np.round(RAMP * 65535).astype(np.uint16), kind)
    shown = read_frames(path)[0].numpy()
    np.testing.assert_array_equal(shown, np.round(RAMP * 65535 / 257).astype(np.uint8)[..., None].repeat(3, 2))
    np.testing.assert_array_equal(read_images([path / f"0.{kind}"])[0], shown)


def test_floats_are_shares_of_white(tmp_path: Path):
    shown = read_frames(folder_of(tmp_path / "a", RAMP, "tif"))[0].numpy()
    np.testing.assert_array_equal(shown[..., 0], np.round(RAMP * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP * 300, "has values from 0 to 300; expected"),
        (RAMP - 0.5, "has values from -0.5 to 0.5; expected"),
        (RAMP * np.nan, "has values from nan to nan; expected"),
        ((28000 + RAMP * 3000).astype(np.uint16), "its 64 values from 28000 to 31000 would become"),
    ],
)
def test_what_eight_bits_cannot_show_is_refused(values: np.ndarray, told: str, tmp_path: Path):
    path = folder_of(tmp_path / "a", values, "tif")
    with pytest.raises(VideoError, match=f"0.tif: {told}"):
        read_frames(path)
    with pytest.raises(MotionMAEError, match=f"0.tif: {told}"):
        read_images([path / "0.tif"])
    assert told in examine(str(path)).status


def davis(root: Path, names: list[str]) -> Path:
    frames = root / "JPEGImages/480p/a"
    frames.mkdir(parents=True)
    for name in names:
        (frames / f"{name}.jpg").write_bytes(b"x")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_bytes("\ufeffa\r\n".encode())
    return root


def test_frames_of_davis_come_by_their_numbers_and_lists_as_windows_saves_them(tmp_path: Path):
    root = davis(tmp_path, [str(number) for number in range(12)])
    assert [path.stem for path in list_frames(root, "a")] == [str(number) for number in range(12)]
    assert list_sequences(root, "val") == ["a"]


def test_annotations_in_black_and_white_are_one_object(tmp_path: Path):
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5] = 255
    Image.fromarray(labels).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), labels // 255)
    labels[0, 0] = 1
    Image.fromarray(labels).save(tmp_path / "void.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "void.png"), labels)


def soft() -> Image.Image:
    image = Image.new("L", (64, 48))
    ImageDraw.Draw(image).ellipse((20, 14, 42, 36), fill=255)
    return image.filter(ImageFilter.GaussianBlur(1))


def test_soft_edges_and_transparent_grounds_are_one_object(tmp_path: Path):
    grey = soft()
    truth = (np.asarray(grey) >= 128).astype(np.uint8)
    white, red = Image.new("RGB", grey.size, "white"), Image.new("RGB", grey.size, "red")
    for name, image in {
        "soft": grey,
        "colours": grey.convert("RGB"),
        "transparent": Image.merge("RGBA", (*white.split(), grey)),
        "red": Image.merge("RGBA", (*red.split(), grey)),
    }.items():
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_user_mask(tmp_path / f"{name}.png"), truth, err_msg=name)


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 1, 2, 3, 4, 255), (0, 5, 9), (0, 128, 255)])
def test_numbers_of_objects_stay_numbers(values: tuple[int, ...], tmp_path: Path):
    labels = np.array(values, np.uint8)[None].repeat(4, 0)
    Image.fromarray(labels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_user_mask(tmp_path / "a.png"), labels)


def case(shared: Path, name: str) -> Path:
    if not (shared / "cases" / name).is_dir():
        pytest.skip("no such case")
    return shared / "cases" / name


def test_the_deep_images_of_users(shared: Path):
    folder = case(shared, "frames_16bit")
    rise = read_frames(folder / "ramp")[3][5, ::16, 0].tolist()
    assert rise == sorted(rise)
    assert (rise[0], len(set(rise))) == (0, 8)
    assert 220 < rise[-1] < 230
    assert read_frames(folder / "float", [0]).max() == 255
    with pytest.raises(VideoError, match="scale the images"):
        read_frames(folder / "thermal")


def test_the_masks_of_users(shared: Path):
    folder = case(shared, "mask_antialiased")
    mask = read_user_mask(folder / "soft.png")
    assert mask.max() == 1
    assert 300 < mask.sum() < 500
    assert (read_user_mask(folder / "palwhitebg.png") == 1).sum() == 656
    folder = case(shared, "davis2016_binary")
    assert set(np.unique(read_mask(folder / "Annotations/480p/a/00000.png"))) == {0, 1}
    assert list_sequences(case(shared, "davis_list_bom"), "val") == ["a"]
    stems = [path.stem for path in list_frames(case(shared, "davis_unpadded"), "a")]
    assert stems == [str(number) for number in range(12)]
