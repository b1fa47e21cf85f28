"""The one door of a config: `check` raises one sentence for a value that cannot be meant, whoever made the config.

A field's own range stands beside it (`Bounds`); what several fields must be together stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from motionmae.config.bounds import Bounds
from motionmae.config.data import Scan
from motionmae.config.model import Decoder, Loss, Model
from motionmae.config.pretraining import Pretrain
from motionmae.config.recognition import Predict, Probe
from motionmae.config.run import Optim
from motionmae.errors import MotionMAEError
from motionmae.words import many

MOST_TOKENS = 2**20
MOST_PARAMETERS = 10**11
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", type(None): "none"}


def check(config: Any, section: str = "") -> None:
    """Raise MotionMAEError for the first field of a config, or of a section of one, whose value is of another type
    than the field, outside its bounds, or at odds with the fields beside it. The message names the option as it is
    typed, the value and what is expected; `section` is the name before the fields' own, as `model` for a `Model`.

    >>> from motionmae.config import Mask
    >>> check(Mask(ratio=1.5), "mask")
    Traceback (most recent call last):
    ...
    motionmae.errors.MotionMAEError: --mask.ratio must be above 0 and below 1, it is 1.5
    """
    for name, option, hint, bounds in _fields(type(config)):
        value, path = getattr(config, name), _join(section, option)
        if is_dataclass(hint) and isinstance(value, hint if isinstance(hint, type) else ()):
            check(value, path)
            continue
        if not _fits(value, hint):
            raise MotionMAEError(f"{_typed(path)} must be {_told(hint)}, it is {value!r}")
        numbers = value if isinstance(value, tuple) else (value,)
        if bounds and all(isinstance(number, (int, float)) for number in numbers) and not bounds.hold(value):
            raise MotionMAEError(f"{_typed(path)} must {bounds.told(value)}, it is {value}")
    for kind, together in TOGETHER.items():
        if isinstance(config, kind):
            for name, problem in together(config):
                option = next(option for field, option, _, _ in _fields(type(config)) if field == name)
                raise MotionMAEError(f"{_typed(_join(section, option))} {problem}")


def _model(model: Model) -> Iterator[tuple[str, str]]:
    yield from _heads(model)
    sides = (("frames", model.frames, model.cube[0]), *(("size", model.size, side) for side in model.cube[1:]))
    for name, side, part in sides:
        if side % part:
            yield name, f"must be a multiple of the cube's, {part}, it is {side}"
    tokens = model.frames // model.cube[0] * (model.size // model.cube[1]) * (model.size // model.cube[2])
    if tokens > MOST_TOKENS:
        yield "cube", f"cuts a clip into {many(tokens, 'token')}, more than {MOST_TOKENS}; it is {model.cube}"
    parameters = sum(
        part.depth * part.width**2 * (4 + 2 * model.mlp_ratio) + 6 * part.width * math.prod(model.cube)
        for part in (model, model.decoder)
    )
    if parameters > MOST_PARAMETERS:
        yield (
            "width",
            f"makes a model of {parameters:.2g} parameters, more than {MOST_PARAMETERS:g}; it is {model.width}",
        )


def _heads(part: Model | Decoder) -> Iterator[tuple[str, str]]:
    if part.width % part.heads:
        yield "heads", f"must divide the width: {part.width} does not part into {many(part.heads, 'head')}"


def _loss(loss: Loss) -> Iterator[tuple[str, str]]:
    if loss.appearance == loss.motion == 0:
        yield "appearance", "and the weight of motion are both 0: nothing would be learnt"


def _optim(optim: Optim) -> Iterator[tuple[str, str]]:
    if optim.kind == "muon" and not 0 < optim.lr <= 10:
        yield "lr", f"must be above 0 and at most 10 with muon, it is {optim.lr:g}"
    if optim.steps is not None and optim.tail >= optim.steps:
        yield "tail", f"must be less than the steps, {optim.steps}, it is {optim.tail}"


def _pretrain(config: Pretrain) -> Iterator[tuple[str, str]]:
    if not config.model.size:
        yield "model", "needs a size, --model.size, it is 0"


def _probe(config: Probe) -> Iterator[tuple[str, str]]:
    for name, what in (("kinds", "probe"), ("pool", "features")):
        if not getattr(config, name):
            yield name, f"names no {what}"


def _predict(config: Predict) -> Iterator[tuple[str, str]]:
    if config.window and not config.every:
        yield "window", "needs --every, the seconds from one window's start to the next"
    if config.render and not config.render.endswith(".mp4"):
        yield "render", f"must be a name that ends in .mp4, it is {config.render}"


def _scan(config: Scan) -> Iterator[tuple[str, str]]:
    if not config.out.endswith((".csv", ".parquet")):
        yield "out", f"must be a manifest's name, which ends in .csv or .parquet, it is {config.out}"


TOGETHER: dict[type, Callable[[Any], Iterator[tuple[str, str]]]] = {
    Decoder: _heads,
    Loss: _loss,
    Model: _model,
    Optim: _optim,
    Predict: _predict,
    Pretrain: _pretrain,
    Probe: _probe,
    Scan: _scan,
}
"""For a class: the fields that do not go with the others, and what is wrong with each."""


@cache
def _fields(kind: type) -> list[tuple[str, str, Any, Bounds | None]]:
    """Of each field: its name, its option, its type without marks, and its bounds."""
    hints, found = get_type_hints(kind, include_extras=True), []
    for name in (field.name for field in fields(kind)):
        hint, marks = hints[name], ()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        option = name.replace("_", "-")
        if any(getattr(mark, "name", None) == "" for mark in marks):  # tyro's `arg(name="")`: the section has no name
            option = ""
        elif any(str(mark) == "Positional" for mark in marks):
            option = name.upper()
        found.append((name, option, hint, next((mark for mark in marks if isinstance(mark, Bounds)), None)))
    return found


def _join(section: str, option: str) -> str:
    return ".".join(part for part in (section, option) if part)


def _typed(option: str) -> str:
    return option if option.isupper() else f"--{option}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type; a whole number is a number too, and no truth value is one."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _told(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_told, parts))
    if origin is Literal:
        return ", ".join(map(str, parts[:-1])) + (" or " if parts[1:] else "") + str(parts[-1])
    if origin is tuple:
        return f"a tuple, each {_told(parts[0])}" if parts[-1] is Ellipsis else f"{len(parts)} of {_told(parts[0])}"
    return KINDS.get(hint) or f"a {hint.__name__}"
