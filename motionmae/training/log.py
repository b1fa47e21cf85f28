"""What a run writes down as it goes: metrics.jsonl, log.txt, TensorBoard's events, and W&B."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from motionmae.config import flat
from motionmae.errors import MotionMAEError
from motionmae.files import json_text, read_text, write_text
from motionmae.progress import Progress
from motionmae.runtime import Runtime
from motionmae.training.folder import plain

WIDEST = 200
"""Columns of a line of log.txt at most."""


class Log:
    """metrics.jsonl (one line a reading) and log.txt (all that was said) of a run folder, and the curves.

    Rank 0 alone writes. Readings of steps that a resumed run repeats are dropped.
    """

    def __init__(self, folder: Path, first: int, total: int, config: Any, runtime: Runtime):
        self.folder, self.runtime = folder, runtime
        self.progress = Progress("step", total, first, runtime.main)
        self.board = self.remote = None
        if not runtime.main:
            return
        self.path = folder / "metrics.jsonl"
        if config.run.wandb:
            self.remote = _wandb(folder, config)
        try:
            lines = read_text(self.path, "replace").splitlines() if self.path.exists() else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if 0 <= _step(line) <= first))
            self.file, self.text = _growing(self.path), _growing(folder / "log.txt")
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            self.board = SummaryWriter(str(folder), purge_step=first + 1)
            self.board.add_text("config", f"```\n{json_text(plain(config))}```", first)
            values = {
                name: value if isinstance(value, int | float | str) else json.dumps(value)
                for name, value in flat(plain(config)).items()
            }
            for part in hparams(values, {"loss": 0.0}):  # the table of runs, beside the loss
                self.board.file_writer.add_summary(part)  # pyright: ignore
        except OSError as error:
            raise MotionMAEError(f"{folder}: the log cannot be written ({error})") from error

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, and one point a curve. Raises MotionMAEError where the disk does not take it."""
        if self.board is None or not values:
            return
        self.check()
        try:
            print(json.dumps({"step": step, **values}), file=self.file, flush=True)
        except OSError as error:
            raise MotionMAEError(f"{self.path}: cannot be written ({error})") from error
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        if self.remote is not None:
            self.remote.log(values, step=step)

    def picture(self, step: int) -> None:
        """The picture that an inspection of this step left, if it did: its first frame on the boards too."""
        if self.board is None or not (file := self.path.parent / "pictures" / f"step-{step:08d}.webp").is_file():
            return
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.board.add_image("pictures", pixels, step, dataformats="HWC")
        if self.remote is not None:
            import wandb  # pyright: ignore[reportMissingImports]

            self.remote.log({"pictures": wandb.Image(pixels)}, step=step)

    def check(self) -> None:
        """Raise MotionMAEError where the run folder has gone: what is written there would be lost."""
        if self.board is not None and not self.path.exists():
            raise MotionMAEError(f"{self.path.parent}: the run's folder was removed or moved while it ran")

    def read(self, step: int, shown: dict[str, float], sentences: Sequence[str] = ()) -> None:
        """A reading of the run: written, shown, and what there is to say about it."""
        self.write(step, shown)
        self.progress.show(step, summary(shown))
        with self._aloud():
            self.progress.tell()
        self._keep(self.progress.line(WIDEST))
        for sentence in sentences:
            self.say(sentence)

    def stage(self, what: str) -> None:
        """What is being done before the first step."""
        with self._aloud():
            self.progress.start()
        self.progress.show(self.progress.first, what)

    def say(self, message: str) -> None:
        """A message on lines of its own, on the console and in log.txt; nothing where it is empty."""
        if not message:
            return
        with self._aloud():
            self.runtime.say(message)
        self._keep(message)

    @contextlib.contextmanager
    def _aloud(self) -> Iterator[None]:
        """A console that has gone away (a closed pipe, a full disk) does not end a run: log.txt has all its words."""
        try:
            yield
        except OSError as error:
            sys.stdout = _Silence()
            self._keep(said := f"the console takes no more output ({error.strerror}); the run goes on")
            with contextlib.suppress(OSError):
                print(f"motionmae: {said}; what it says is in log.txt", file=sys.stderr, flush=True)

    def _keep(self, message: str) -> None:
        if self.board is not None:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            try:
                self.text.write("".join(f"{now}  {line}\n" for line in message.splitlines()))
                self.text.flush()
            except OSError as error:
                raise MotionMAEError(f"{self.text.name}: cannot be written ({error})") from error

    def close(self) -> None:
        """Flush everything."""
        with self._aloud():
            self.progress.close()
            if self.progress.live and self.progress.done > self.progress.first:
                self.runtime.say(self.progress.line())
        if self.board is not None:
            self.file.close()
            self.text.close()
            self.board.close()
        if self.remote is not None:
            self.remote.finish()


def summary(shown: dict[str, float]) -> str:
    """The numbers that a person follows: the loss, each part over its trivial baseline, speed, and waiting."""
    ratios = "".join(f"  {name[:-6]} {value:.3f}x" for name, value in shown.items() if name.endswith("_ratio"))
    skipped = f"  {shown['skipped']:.0f} SKIPPED (not finite)" if shown["skipped"] else ""
    return (
        f"loss {shown['loss']:.4f}{skipped}{ratios}  {shown['clips_per_second']:.1f} clips/s  "
        f"data wait {shown['data_wait']:.0%}"
    )


def _wandb(folder: Path, config: Any) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MotionMAEError(f"--run.wandb {config.run.wandb}: needs the package: pip install wandb") from error
    # The folder's name is the run's: a resumed run goes on in the same chart.
    name = str(folder.resolve()).strip("/").replace("/", "-")[-100:]
    chart = {"project": config.run.wandb, "name": folder.name, "id": name, "resume": "allow", "dir": str(folder)}
    try:
        return wandb.init(**chart, config=plain(config))
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        raise MotionMAEError(
            f"--run.wandb {config.run.wandb}: {reason}; with WANDB_MODE=offline the curves stay in {folder}/wandb "
            f"until wandb sync sends them"
        ) from error


class _Silence(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


def _growing(path: Path) -> IO[str]:
    """A file that is written line by line; names of files that are not UTF-8 are written as they are."""
    return path.open("a", encoding="utf-8", errors="surrogateescape")


def _step(line: str) -> int:
    """The step of a line of metrics.jsonl, -1 for one that a killed run left half written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return -1
