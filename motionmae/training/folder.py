"""A run folder: whose it is, and whether the run that it holds is of this config.

Its one rule: nothing is written before no other process is known to train there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from motionmae import provenance
from motionmae.config import from_dict
from motionmae.errors import MotionMAEError
from motionmae.files import json_text, read_json, read_text, write_json
from motionmae.runtime import Runtime
from motionmae.training.checkpoint import alone
from motionmae.words import many

# What may change between a run and its resumption without changing what is learnt.
FREE = (
    "open",
    "run.",
    "data.workers",
    "data.patience",
    "data.prefetch",
    "data.cache",
    "data.path",
    "data.root",
    "data.test",
)
# What may be raised on a run that is under way or finished, and the tail that goes with it.
LENGTH = ("steps", "epochs", "tail")


@contextlib.contextmanager
def open_folder(config: Any, runtime: Runtime) -> Iterator[None]:
    """Within it the run folder `config.run.out` is this run's alone, and its config.json is this config.

    Nothing is written before no other process is known to train there. A folder that holds no checkpoint is taken over,
    whatever its config. Raises MotionMAEError, on every rank, that names the differing fields of another config, or the
    folder where it cannot be written or another process trains in it.
    """
    folder, problem = Path(config.run.out), None
    with contextlib.ExitStack() as held:
        if runtime.main:
            try:
                held.enter_context(alone(folder))
                _take(folder / "config.json", config, runtime)
            except MotionMAEError as error:
                problem = str(error)
        problem = runtime.share(problem)
        if problem is not None:
            raise MotionMAEError(problem)
        yield


def _take(file: Path, config: Any, runtime: Runtime) -> None:
    """Write config.json, where the folder's run is of this config or has saved nothing."""
    folder, settings = file.parent, plain(config)
    if file.exists():
        if any(folder.glob("checkpoints/step-*")):
            before = completed(config, read_json(file))
            if isinstance(before, dict) and (said := _longer(before, settings)):
                runtime.say(f"{folder}: {said}")
                before["optim"] |= {name: settings["optim"][name] for name in LENGTH}
            same_config(before, settings, f"{folder} holds a run", "choose another --run.out")
        elif read_text(file, "replace") != json_text(settings):
            runtime.say(f"{folder}: a start of another config had saved no checkpoint there; its place is taken")
    write_json(file, settings)
    write_json(folder / "provenance.json", provenance.here())


def _longer(before: dict[str, Any], settings: dict[str, Any]) -> str:
    """What is said of a run that is made longer; nothing where it is not, or is made shorter."""
    old, new = before.get("optim") or {}, settings.get("optim") or {}
    numbers = [old.get(name) or 0 for name in ("steps", "epochs")] if isinstance(old, dict) else [""]
    if not all(isinstance(number, (int, float)) for number in numbers):
        return ""  # no config that a run has written: what differs is told
    kind = "steps" if new.get("steps") else "epochs"
    there, here = old.get(kind) or 0, new.get(kind) or 0
    if here <= there or (kind == "epochs" and old.get("steps")):
        return ""
    added = f"{here - there:g}" if kind == "steps" and there else "as many as are added"
    rates = (
        f"the lowest rate stays for the last {many(new['tail'], 'step')}"
        if new.get("tail")
        else f"the cosine now ends there, so the rate rises at first (--optim.tail {added} keeps the rates it had)"
    )
    return f"--optim.{kind} {here:g} in place of {f'{there:g}' if there else 'epochs'}: {rates}"


def same_config(before: dict[str, Any], settings: dict[str, Any], where: str, advice: str) -> None:
    """Raise MotionMAEError that names what differs between two configs, apart from how a run is run."""
    differing = [name for name in _differing(before, settings) if not name.startswith(FREE)]
    if differing:
        told = ", ".join(f"{name} ({_at(before, name)} there, {_at(settings, name)} here)" for name in differing)
        raise MotionMAEError(f"{where} of another config: {told}; {advice}")


def completed(config: Any, before: dict[str, Any]) -> dict[str, Any]:
    """An earlier version's config of the same kind, with the fields that have come since at their defaults."""
    try:
        return plain(from_dict(type(config), before))
    except (KeyError, TypeError, ValueError):  # no config at all, or one with fields that are gone: told as it is
        return before


def plain(config: Any) -> Any:
    """The config as JSON gives it back."""
    return json.loads(json.dumps(asdict(config)))


def _differing(left: Any, right: Any, name: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [
            f for key in sorted({*left, *right}) for f in _differing(left.get(key), right.get(key), f"{name}.{key}")
        ]
    return [] if left == right else [name[1:]]


def _at(settings: Any, name: str) -> Any:
    for key in name.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings
