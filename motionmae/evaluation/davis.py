"""The DAVIS folder layout: JPEGImages, Annotations and ImageSets (Pont-Tuset et al., 2017, arXiv 1704.00675)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import write_mask
from motionmae.files import read_text, write_image, write_text
from motionmae.video.frames import by_number
from motionmae.video.images import as_rgb, open_image

IMAGES, ANNOTATIONS, LISTS = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017"


def list_sequences(root: Path | str, split: str) -> list[str]:
    """The names in ImageSets/2017/SPLIT.txt, in its order."""
    if not str(root):
        raise MotionMAEError("--data.path must name a folder in the DAVIS layout; it is empty")
    path = Path(root) / LISTS / f"{split}.txt"
    if not path.is_file():
        found = ", ".join(sorted(each.stem for each in path.parent.glob("*.txt"))) or "none"
        raise MotionMAEError(
            f"{path} is missing: expected a list of sequences (--data.split; the lists there: {found})"
        )
    names = [line.strip() for line in read_text(path).lstrip("\ufeff").splitlines() if line.strip()]
    if not names:
        raise MotionMAEError(f"{path} names no sequence")
    return names


def list_frames(root: Path | str, name: str) -> list[Path]:
    """The JPEG files of a sequence in order."""
    return _files(Path(root) / IMAGES / name, ".jpg")


def list_masks(root: Path | str, name: str) -> list[Path]:
    """The annotations of a sequence in order."""
    return _files(Path(root) / ANNOTATIONS / name, ".png")


def _files(folder: Path, suffix: str) -> list[Path]:
    paths = sorted(folder.glob(f"*{suffix}"), key=lambda path: by_number(path.name))
    if not paths:
        raise MotionMAEError(f"{folder} holds no {suffix} files: expected the frames of a sequence")
    return paths


def read_images(paths: Sequence[Path], size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "t h w 3"]:
    """The images as RGB; raises where one is broken or differs from `size` (rows, columns), or from the first one's."""
    frames = []
    for path in paths:
        try:
            with open_image(path) as image:
                frame = np.asarray(as_rgb(image, path))
        except (OSError, SyntaxError) as error:
            raise MotionMAEError(f"{path} cannot be read as an image: {error}") from None
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            raise MotionMAEError(
                f"{path} is {frame.shape[1]}x{frame.shape[0]} pixels, the sequence's first frame {size[1]}x{size[0]}: "
                "the frames of a sequence must be of one size"
            )
        frames.append(frame)
    return np.stack(frames)


def write_sequence(
    root: Path | str, split: str, name: str, frames: UInt8[np.ndarray, "t h w 3"], masks: UInt8[np.ndarray, "t h w"]
) -> None:
    """Add a sequence to the folder and, once, to the split's list. JPEG frames, palette masks."""
    pictures, labels = Path(root) / IMAGES / name, Path(root) / ANNOTATIONS / name
    for time, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        write_image(pictures / f"{time:05d}.jpg", Image.fromarray(frame), quality=95)
        write_mask(labels / f"{time:05d}.png", mask)
    listed = Path(root) / LISTS / f"{split}.txt"
    names = read_text(listed).split() if listed.exists() else []
    if name not in names:
        write_text(listed, "".join(f"{each}\n" for each in [*names, name]))
