"""One door for a config: every number has its range beside it, and a value outside is one sentence that names it."""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionmae import cli, config
from motionmae.config import Bounds, Decoder, Labelled, Loss, Model, Predict, Pretrain, Probe, check
from motionmae.config.check import _fields
from motionmae.errors import MotionMAEError
from motionmae.presets import COMMANDS


def presets(words: str, choices: Any):
    """Every config of a command by the words that choose it."""
    if not isinstance(choices, dict):
        yield words, choices
        return
    for choice, of_it in choices.items():
        yield from presets(f"{words} {choice}".strip(), of_it)


PRESETS = dict(each for command, entry in COMMANDS.items() for each in presets(command, entry.choices))


def numbers(made: Any, path: tuple[str, ...] = (), section: str = ""):
    """Every bounded field of a config: where it is, its option, its type and its bounds."""
    for name, option, hint, bounds in _fields(type(made)):
        told = ".".join(part for part in (section, option) if part)
        if is_dataclass(hint):
            yield from numbers(getattr(made, name), (*path, name), told)
        elif bounds:
            yield (*path, name), told, hint, bounds


def changed(made: Any, path: tuple[str, ...], value: Any) -> Any:
    """The config with one value changed, whatever its type: as a caller without a type checker makes it."""
    first, rest = path[0], path[1:]
    other = copy.copy(made)
    object.__setattr__(other, first, changed(getattr(made, first), rest, value) if rest else value)
    return other


def holds(hint: Any, kind: type) -> bool:
    return hint is kind or any(holds(part, kind) for part in get_args(hint))


def many(hint: Any) -> int:
    """How many numbers a value of this type has: 0 for one that is no tuple."""
    if get_origin(hint) is tuple:
        return 1 if ... in get_args(hint) else len(get_args(hint))
    return max((many(part) for part in get_args(hint)), default=0)


def outside(bounds: Bounds, whole: bool) -> st.SearchStrategy[Any]:
    """Numbers that are not within: beyond an end, an end that is left out and, for fractions, what is not finite."""
    ends = [end for end, out in ((bounds.low, bounds.above), (bounds.high, bounds.below)) if out]
    if whole:
        low, high = math.ceil(bounds.low) - 1, math.floor(bounds.high) + 1
        return st.one_of(st.integers(low - 10**6, low), st.integers(high, high + 10**6))
    far = st.one_of(
        st.floats(max_value=float(bounds.low), exclude_max=True),
        st.floats(min_value=float(bounds.high), exclude_min=True),
    )
    return st.one_of(far, st.sampled_from([math.nan, math.inf, -math.inf, *map(float, ends)]))


FIELDS = [(preset, *each) for preset, made in PRESETS.items() for each in numbers(made)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_value_outside_its_bounds_is_one_sentence_with_the_option_the_value_and_the_range(data):
    preset, path, option, hint, bounds = data.draw(st.sampled_from(FIELDS))
    value = data.draw(outside(bounds, not holds(hint, float)))
    value = (value,) * many(hint) or value
    with pytest.raises(MotionMAEError) as told:
        check(changed(PRESETS[preset], path, value))
    sentence = str(told.value)
    assert sentence.startswith(f"--{option} must ")
    assert sentence.endswith(f"it is {value}")
    assert "\n" not in sentence


def test_a_thousand_draws_see_every_field_of_every_command():
    assert {type(made).__name__ for made in PRESETS.values()} >= {"Pretrain", "Finetune", "Probe", "SegmentDavis"}
    assert all(
        list(numbers(made)) for made in PRESETS.values() if type(made).__name__ not in ("Report", "SegmentScore")
    )


@pytest.mark.parametrize("preset", ["pretrain tiny", "finetune tiny", "probe", "segment davis", "bench data"])
def test_the_command_line_ends_with_that_sentence_and_exit_code_2(preset, capsys):
    for path, option, hint, bounds in list(numbers(PRESETS[preset]))[::7]:
        value = "nan" if holds(hint, float) else str(math.floor(bounds.high) + 1)
        assert cli.main([*preset.split(), f"--{option}", *[value] * (many(hint) or 1)]) == 2, path
        told = capsys.readouterr().err.strip()
        assert told.startswith(f"motionmae: --{option} must "), told
        assert re.search(rf", it is \(?{value}", told), told
        assert "\n" not in told


def test_no_number_lacks_its_bounds():
    for name in config.__all__:
        kind = getattr(config, name)
        if is_dataclass(kind) and isinstance(kind, type) and kind is not Bounds:
            for field, _, hint, bounds in _fields(kind):
                wants = holds(hint, int) or holds(hint, float)
                assert bool(bounds) == wants, f"{name}.{field}"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_passes(preset):
    check(PRESETS[preset])


@pytest.mark.parametrize(
    ("made", "section", "sentence"),
    [
        (Model(heads=5), "model", "--model.heads must divide the width: 768 does not part into 5 heads"),
        (Decoder(heads=5), "model.decoder", "--model.decoder.heads must divide the width"),
        (Model(size=20), "model", "--model.size must be a multiple of the cube's, 16, it is 20"),
        (Model(frames=5), "model", "--model.frames must be a multiple of the cube's, 2, it is 5"),
        (Model(frames=4096, size=16_384, cube=(1, 1, 1)), "model", "--model.cube cuts a clip into"),
        (Model(width=16_384, heads=16, depth=256), "model", "--model.width makes a model of"),
        (Loss(appearance=0.0, motion=0.0), "loss", "--loss.appearance and the weight of motion are both 0"),
        (Pretrain(model=Model(size=0)), "", "--model needs a size"),
        (Labelled(area=(0.5, 0.1)), "data", r"--data.area must each be above 0 and at most 1, rising"),
        (Labelled(scales=()), "data", "--data.scales must hold at least one number"),
        (Probe(kinds=()), "", "--kinds names no probe"),
        (Probe(compute=config.Compute(batch=0)), "", "--batch must be between 1"),
        (Predict(window="1s"), "", "--window needs --every"),
    ],
)
def test_what_goes_against_the_fields_beside_it_is_named(made, section, sentence):
    with pytest.raises(MotionMAEError, match=sentence):
        check(made, section)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ((("width",), "768"), "--model.width must be a whole number, it is '768'"),
        ((("width",), 768.0), "--model.width must be a whole number, it is 768.0"),
        ((("depth",), True), "--model.depth must be a whole number, it is True"),
        ((("norm",), 1), "--model.norm must be True or False, it is 1"),
        ((("cube",), (2, 16)), r"--model.cube must be 3 of a whole number, it is \(2, 16\)"),
        ((("positions",), "cosines"), "--model.positions must be sincos3d, sincos1d or learned, it is 'cosines'"),
        ((("decoder",), None), "--model.decoder must be a Decoder, it is None"),
    ],
)
def test_a_value_of_another_type_is_named(changes, sentence):
    with pytest.raises(MotionMAEError, match=sentence):
        check(changed(Model(), *changes), "model")


def test_bounds_hold_and_tell_what_they_say():
    for bounds, within, beyond in (
        (Bounds(0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan, math.inf)),
        (Bounds(0, 1, above=True, below=True), (0.5,), (0, 1, 0.0, 1.0)),
        (Bounds(0, 1, least=1, rising=True), ((0, 1), (0.5,)), ((), (1, 0), (0.5, 2))),
    ):
        assert all(map(bounds.hold, within))
        assert not any(map(bounds.hold, beyond))
    assert Bounds(0, 1, above=True).told(0) == "be above 0 and at most 1"


def test_a_checkpoint_that_tells_of_no_possible_model_is_named(tmp_path):
    import torch

    import motionmae
    from motionmae import stored

    for model, sentence in (
        ({"width": 10**9}, "--model.width must be between 1 and 16384, it is 1000000000"),
        ({"colour": 3}, "Model has no field 'colour'"),
        (["width"], "expected the fields of Model"),
        ({"decoder": 4}, "expected the fields of Decoder"),
    ):
        file = tmp_path / "a.safetensors"
        stored.save_checked(file, {"model/x": torch.zeros(1)}, {"config": json.dumps({"model": model})})
        with pytest.raises(MotionMAEError, match=rf"a\.safetensors: .*{sentence}"):
            motionmae.load(file)
