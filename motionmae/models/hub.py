"""Models by name: those that come with the package, and the Hugging Face hub's, `hf://USER/NAME`.

Its one rule: only an address that the user typed is fetched, and of it only weights and JSON, never code.
"""

from __future__ import annotations

import os
from pathlib import Path

from motionmae.errors import MotionMAEError

SCHEME = "hf://"
BOXED = {"tiny": Path(__file__).parent.parent / "assets" / "tiny.safetensors"}
"""The demo's encoder, so that embed, search and segment do something before any training; see assets/README.md."""
WANTED = ("*.safetensors", "*.json", "*.bin", "*.pth", "*.pt")


def named(path: str) -> str:
    """How a model is named to whoever comes later, from anywhere: a word of BOXED and an address as they are."""
    own = path.startswith(SCHEME) or (path in BOXED and not os.path.exists(path))
    return path if own else os.path.abspath(path)


def local(path: str | os.PathLike[str]) -> Path:
    """The path itself; for a word of BOXED, where no such path exists, the file in the package; and for `hf://USER/NAME`
    or `hf://USER/NAME@REVISION` where the fetched files lie.

    A repository that holds one file of weights and no config.json stands for that file. Raises MotionMAEError where it
    cannot be had.
    """
    text = os.fspath(path)
    if text in BOXED and not os.path.exists(text):
        return BOXED[text]
    if not text.startswith(SCHEME):
        return Path(text)
    name, _, revision = text.removeprefix(SCHEME).partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise MotionMAEError(f"{text}: expected hf://USER/NAME, or hf://USER/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MotionMAEError(f"{text}: needs the hub's library: pip install 'motionmae[hub]'") from error
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(WANTED)))
    except Exception as error:  # the library raises its own, requests' and the system's
        told = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise MotionMAEError(f"{text}: cannot be fetched ({told})") from error
    files = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".pth", ".pt")]
    return files[0] if len(files) == 1 and not (folder / "config.json").is_file() else folder
