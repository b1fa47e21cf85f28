"""`motionmae motions`: a set of real clips labelled by motion alone, cut from any videos."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from motionmae.config import Motions, check
from motionmae.data.motions import MOTIONS, split_sources, write_clips
from motionmae.errors import MotionMAEError
from motionmae.progress import then
from motionmae.words import many


def run(config: Motions) -> None:
    """Cut the clips and say which sources went where."""
    check(config)
    if not config.sources:
        raise MotionMAEError("say which videos to cut from: files, or folders of frames, at least three")
    missing = next((name for name in (*config.sources, *config.test) if not Path(name).exists()), None)
    if missing is not None:
        raise MotionMAEError(f"{missing}: there is no such file or folder")
    train, test = split_sources([Path(name) for name in config.sources], [Path(name) for name in config.test])
    write_clips(train, test, Path(config.out), config.count, config.seed, config.frames, config.size)
    for name, files in (("train", train), ("test", test)):
        told = ", ".join(file.name for file in files)
        print(f"{name}: {many(len(files) * len(MOTIONS) * config.count, 'clip')} of {len(MOTIONS)} motions from {told}")
    print(config.out)
    out = quote(config.out)
    then(f"motionmae finetune tiny --init none --data.path {out}/train --data.test {out}/test")
