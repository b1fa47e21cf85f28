"""One video that is being pointed at: the drawing, the run under way and its results. It touches no other file."""

from __future__ import annotations

import shlex
import threading
import time
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from jaxtyping import UInt8

from motionmae.config import SegmentVideo
from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID, draw_points, paint, read_mask, write_mask
from motionmae.files import read_json
from motionmae.inference.sequence import Source, claim_folder, resolve
from motionmae.progress import clock
from motionmae.tasks.segment.given import Given, given_masks, given_points
from motionmae.tasks.segment.pick.drawing import Drawing, read_drawing, to_given
from motionmae.tasks.segment.video import MADE, TRAIL, Footage, folder_of, open_footage, segment

FILES = ("overlay.mp4", "areas.csv", "tracks.json")
"""What can be downloaded as it lies in the results' folder."""
EMPTY: dict[str, Any] = {"names": ["object 1"], "frames": {}, "points": []}


class Stopped(Exception):
    """The user wants no more of this run."""


class Session:
    """The state behind the page. Requests come from several threads: what changes is changed under `lock`."""

    def __init__(self, config: SegmentVideo, footage: Footage, source: Source):
        """Options that were given beside --pick are what the page begins with."""
        self.config, self.source, self.footage = config, source, footage
        self.shown = open_footage(config.video).frames  # blocks of its own: the page may look where the run does not
        self.out, self.lock = folder_of(config), threading.RLock()
        masks = given_masks(config, footage.frames)
        self.bases = {(number, 0): mask for number, mask in masks.items()}
        points = given_points(config, footage.frames)
        objects = max([int(mask[mask != VOID].max(initial=1)) for mask in masks.values()], default=1)
        self.content: dict[str, Any] = EMPTY | {
            "names": [*config.names, *called(len(config.names) + 1, objects)],
            "frames": {str(number): {"base": 0, "shapes": []} for number in masks},
            "points": [{str(number): place for number, place in point.items()} for point in points],
        }
        self.thread: threading.Thread | None = None
        self.runs, self.done, self.text, self.error, self.begun, self.stopping = 0, 0, "", "", 0.0, False
        self.made: list[str] = []
        self.made_by = ""
        self.tracks: np.ndarray | None = None

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self.thread is not None and self.thread.is_alive()

    def keep(self, content: Any) -> Drawing:
        """Hold what the page has drawn. A frame that starts from what was found keeps that mask from now on."""
        with self.lock:
            drawing = read_drawing(content, self.footage.frames)
            for number, run in drawing.based.items():
                if (number, run) not in self.bases:
                    found = self.mask(number) if run == self.runs else None
                    if found is None:
                        raise MotionMAEError(
                            f"frame {number} has no mask of run {run} any more: clear it and draw anew"
                        )
                    self.bases[number, run] = found
            self.content = content
            return drawing

    def start(self, content: Any) -> None:
        """Follow what is drawn; raises where a run is under way or nothing is drawn."""
        with self.lock:
            if self.running:
                raise MotionMAEError("a run is under way: stop it first")
            drawing = self.keep(content)
            given = to_given(drawing, self.bases, self.footage.frames)
            config = self.as_typed(drawing, given)
            claim_folder(self.out, config, resolve(config.propagation), (*MADE, "labels/*.png"))
            for number, mask in given.masks.items():
                write_mask(self.out / "labels" / f"{number:05d}.png", mask)
            self.runs, self.done, self.text, self.error, self.stopping = self.runs + 1, 0, "starting", "", False
            self.begun, self.made, self.made_by, self.tracks = time.monotonic(), [], command_of(config), None
            self.thread = threading.Thread(target=self._run, args=(config, given), daemon=True)
            self.thread.start()

    def as_typed(self, drawing: Drawing, given: Given) -> SegmentVideo:
        """The config of the command that does the same without the page."""
        most = max((int(mask[mask != VOID].max(initial=0)) for mask in given.masks.values()), default=0)
        names = drawing.names[:most]
        return replace(
            self.config,
            mask=tuple(f"{number}:{self.out / 'labels' / f'{number:05d}.png'}" for number in sorted(given.masks)),
            points=tuple("/".join(f"{number}:{x:g},{y:g}" for number, (x, y) in p.items()) for p in given.points),
            names=() if names == called(1, most) else names,
            out=str(self.out),
            box=(),
            polygon=(),
            at=0,
            pick=False,
            browser=True,
        )

    def _run(self, config: SegmentVideo, given: Given) -> None:
        try:
            made = segment(config, self.footage, given, self.source, self.out, self._tell)
            if given.points:
                ways = read_json(self.out / "tracks.json")["points"]
                places = [[[np.nan if p[axis] is None else p[axis] for axis in "xy"] for p in way] for way in ways]
                self.tracks = np.array(places, dtype=float).transpose(1, 0, 2)
            self.made = made
        except Stopped:
            self.error = "stopped"
        except (MotionMAEError, OSError, RuntimeError) as error:
            self.error = str(error)

    def _tell(self, done: int, text: str) -> None:
        self.done, self.text = done, text
        if self.stopping:
            raise Stopped

    def stop(self) -> None:
        """Ask the run to end after the frame in hand."""
        self.stopping = True

    def state(self) -> dict[str, Any]:
        """What the page shows of the run."""
        total, spent = 2 * self.footage.frames.count, time.monotonic() - self.begun
        left = clock(spent / self.done * (total - self.done)) if self.done else ""
        files = [*(name for name in FILES if name in self.made), *(["masks.zip"] if "masks" in self.made else [])]
        return {
            "run": self.runs, "running": self.running, "done": self.done, "total": total, "text": self.text,
            "left": left, "error": self.error, "files": files, "command": self.made_by, "out": str(self.out),
        }  # fmt: skip

    def mask(self, number: int) -> UInt8[np.ndarray, "h w"] | None:
        """What the latest run has found in a frame, so far."""
        path = self.out / "masks" / f"{number:05d}.png"
        return read_mask(path) if self.runs and path.exists() else None

    def picture(self, number: int, found: bool) -> UInt8[np.ndarray, "h w 3"]:
        """A frame, or a frame with what was found painted on it."""
        picture = self.shown.read([number])[0].numpy()
        if found:
            mask = self.mask(number)
            picture = picture if mask is None else paint(picture, mask)
            if self.tracks is not None:
                picture = draw_points(picture, self.tracks[max(0, number - TRAIL) : number + 1])
        return picture

    def file(self, name: str) -> Path | None:
        """Where a result of the latest whole run lies."""
        return self.out / name if name in FILES and name in self.made else None


def called(first: int, last: int) -> tuple[str, ...]:
    """What objects are called for want of a name."""
    return tuple(f"object {label}" for label in range(first, last + 1))


def command_of(config: SegmentVideo) -> str:
    """The command line that makes this config."""
    return shlex.join(["motionmae", "segment", "video", config.video, *options(config, SegmentVideo())])


def options(config: Any, default: Any, prefix: str = "") -> list[str]:
    """The options of all that differs from the default."""
    hints, typed = get_type_hints(type(config), include_extras=True), []
    for field in fields(config):
        value, usual, name = getattr(config, field.name), getattr(default, field.name), field.name.replace("_", "-")
        if is_dataclass(value):
            lifted = any(getattr(note, "name", None) == "" for note in get_args(hints[field.name])[1:])
            typed += options(value, usual, prefix if lifted else f"{prefix}{name}.")
        elif value == usual or field.name == "video":
            continue
        elif isinstance(value, bool):
            typed.append(f"--{prefix}{'' if value else 'no-'}{name}")
        else:
            typed += [f"--{prefix}{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return typed
