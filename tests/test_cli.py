"""The command line: instant help, one clear sentence for a mistake, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from motionmae import cli
from motionmae.data.synthetic import write_videos
from motionmae.options import negative, options, spelled, switches
from motionmae.pages import NEEDED
from motionmae.presets import COMMANDS

TINY = ("pretrain", "tiny", "--optim.steps", "2", "--optim.batch", "4", "--run.device", "cpu")
SMALLER = (
    "--model.size", "16", "--model.frames", "4", "--model.width", "24", "--model.depth", "1", "--model.heads", "2",
    "--model.decoder.width", "16", "--model.decoder.depth", "1", "--model.decoder.heads", "2",
)  # fmt: skip


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    list(write_videos(folder, "train", 1, seed=0, frames=12, size=16))
    return folder


def fails(capsys, *args, match):
    assert cli.main(list(args)) == 2
    told = capsys.readouterr().err
    assert re.search(match, told), told
    lines = told.strip().splitlines()
    assert all(line.startswith("motionmae: ") for line in lines)
    assert [line for line in lines if not line.startswith("motionmae: skipped ")] == lines[-1:]


def children_seconds() -> float:
    """Seconds of processors that the processes started here took: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_in_under_a_second_and_imports_no_torch():
    code = "import sys; from motionmae.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for args in (["--help"], ["pretrain", "--help"], ["segment"], ["--version"]):
        took = []
        for _ in range(3):
            begun = children_seconds()
            subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True)
            took.append(children_seconds() - begun)
        assert min(took) < 1.0, args


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_help_page(command, capsys):
    choices, args = COMMANDS[command].choices, [command]
    while isinstance(choices, dict) and "" not in choices:
        args.append(next(iter(choices)))
        choices = choices[args[-1]]
    args.append("--help")
    pages = []
    for form in ("--help", "--help-all"):
        assert cli.main([*args, form]) == 0
        pages.append(capsys.readouterr().out)
    short, whole = pages
    assert "options" in short
    assert max(map(len, "".join(pages).splitlines())) <= 80
    assert "''" not in whole
    assert len(short.splitlines()) < 55
    for option in options(choices[""] if isinstance(choices, dict) else choices):
        assert option.typed in whole


def test_unknown_commands_presets_and_options_are_named(capsys):
    fails(capsys, "pretain", match="pretain.*pretrain")
    fails(capsys, "pretrain", "tinny", match="tinny.*tiny")
    fails(capsys, "pretrain", "tiny", "--optim.stepz", "3", match="--optim.stepz; did you mean --optim.steps")
    fails(capsys, "embed", "m", "v", "--ot=x", match="embed: there is no option --ot; did you mean --out")
    fails(capsys, "pretrain", "tiny", "--steps", "3", match="did you mean --optim.steps")
    fails(capsys, "scan", "x", "--qqq", match="no option --qqq; motionmae scan --help-all lists them")


def test_what_a_command_cannot_do_without_is_said_on_its_page_and_where_it_lacks(capsys):
    for kind, needed in NEEDED.items():
        for start, config in every_choice():
            if type(config) is not kind or not needed:
                continue
            assert cli.main([*start, "--help"]) == 0
            assert capsys.readouterr().out.count("(required)") == len(needed)
            fails(capsys, *start, match=f"{start[0]} needs {'(--)?'}{needed[0]}: ")
            break


def every_choice():
    """The words up to the options of a command with each of its choices, and its config."""
    for command, entry in COMMANDS.items():
        left = [([command], entry.choices)]
        while left:
            words, config = left.pop(0)
            if isinstance(config, dict):
                left += [([*words, name] if name else words, value) for name, value in config.items()]
            else:
                yield words, config


def test_every_choice_is_told_in_a_line_and_every_option_of_a_short_page_exists(capsys):
    for words, _ in every_choice():
        if len(words) > 1:
            assert cli.main(words[:-1]) == 0
            assert re.search(rf"^  {words[-1]} +\w", capsys.readouterr().out, re.M), words
        assert cli.main([*words, "--help"]) == 0
        assert len(capsys.readouterr().out.splitlines()) < 60


@pytest.mark.parametrize(
    ("words", "section", "name", "value"),
    [
        (["pretrain", "tiny", "--out", "x"], "run", "out", "x"),
        (["pretrain", "tiny", "--run.out=x"], "run", "out", "x"),
        (["finetune", "custom", "--device", "cpu"], "run", "device", "cpu"),
        (["plan", "tiny", "--device=cpu"], "run", "device", "cpu"),
        (["probe", "m", "--device", "cpu"], "compute", "device", "cpu"),
        (["probe", "m", "--run.device", "cpu"], "compute", "device", "cpu"),
        (["embed", "m", "v", "--compute.device", "cpu"], "compute", "device", "cpu"),
        (["segment", "video", "v", "--run.device", "cpu"], "compute", "device", "cpu"),
        (["evaluate", "m", "--run.out", "x"], "", "out", "x"),
    ],
)
def test_out_and_device_are_typed_alike_in_every_command(words, section, name, value):
    config = cli.parse(words)[1]
    assert getattr(getattr(config, section) if section else config, name) == value


def test_out_device_and_data_path_mean_one_thing():
    told = {}
    for words, config in every_choice():
        for option in options(config):
            if option.typed in ("--device", "--out", "--data.path"):
                told.setdefault(option.typed, []).append(words[0])
    assert len(told["--device"]) > 20
    commands = {words[0] for words, _ in every_choice()}
    without = {"bench", "plan", "predict", "search", "segment"}  # they print, or --json and --html name the file
    assert commands - set(told["--out"]) <= without


def test_folders_that_hold_no_video_are_named_and_nothing_is_written(capsys, tmp_path):
    out = ("--run.out", str(tmp_path / "run"))
    fails(capsys, *TINY, *out, match="data.path")
    fails(capsys, *TINY, *out, "--data.path", str(tmp_path / "missing"), match="missing")
    (tmp_path / "empty").mkdir()
    fails(capsys, *TINY, *out, "--data.path", str(tmp_path / "empty"), match="empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no video")
    fails(capsys, *TINY, *out, "--data.path", str(tmp_path / "texts"), match="texts")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_unreadable_files_is_one_sentence_and_nothing_is_written(capsys, tmp_path):
    (tmp_path / "bad").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "bad" / name).write_bytes(b"not a video" * 50)
    fails(capsys, *TINY, "--run.out", str(tmp_path / "run"), "--data.path", str(tmp_path / "bad"), match=r"\.mp4|bad")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--model.size", "20", "--model.size must be a multiple of the cube's, 8, it is 20"),
        ("--model.heads", "5", "24 .*5 heads"),
        ("--mask.ratio", "0.05", "mask.ratio=0.05 hides 0 of 8"),
        ("--loss.motion", "-1", "loss.motion"),
        ("--optim.steps", "0", "steps"),
    ],
)
def test_a_config_that_cannot_work_is_one_sentence(capsys, videos, tmp_path, option, value, match):
    args = [*TINY, *SMALLER, "--data.path", str(videos), "--run.out", str(tmp_path / "run"), option, value]
    fails(capsys, *args, match=match)
    assert not (tmp_path / "run").exists()


def test_pretraining_a_folder_leaves_a_run_that_resumes_loads_and_refuses_another_config(capsys, videos, tmp_path):
    import torch

    import motionmae

    run = tmp_path / "run"
    args = [*TINY, *SMALLER, "--data.path", str(videos), "--run.out", str(run)]
    assert cli.main(args) == 0
    assert (run / "config.json").is_file()
    assert (run / "metrics.jsonl").is_file()
    assert list(run.glob("checkpoints/step-00000002.safetensors"))
    assert list(run.glob("events.*"))
    assert list(run.glob("pictures/*.webp"))
    assert cli.main(args) == 0
    assert "already finished" in capsys.readouterr().out
    fails(capsys, *args, "--optim.lr", "0.5", match=r"optim\.lr \(0\.016 there, 0\.5 here\)")
    encoder = motionmae.load(run)
    with torch.no_grad():
        whole = encoder(torch.zeros(1, 3, 8, 24, 32, dtype=torch.uint8))
    assert whole.shape == (1, 4 * 3 * 4, 24)
    with torch.no_grad():
        assert torch.allclose(whole, encoder(torch.zeros(1, 3, 8, 24, 32)))
    assert motionmae.load(run, train=True).config == encoder.config
    with pytest.raises(motionmae.MotionMAEError, match=r"height, 20"):
        encoder(torch.zeros(1, 3, 8, 20, 32))


def flags():
    """Every boolean of every config: command line up to it, its name, and how to read it."""
    for command, entry in COMMANDS.items():
        for choice, config in entry.choices.items():
            if not isinstance(config, dict) and (choice in ("", "tiny", "davis", "video", "data")):
                for name in switches(config):
                    yield [command, choice][: 1 + bool(choice)], name


def read(config, name: str):
    """The boolean of that name, also where its section's name is left out on the command line."""
    for part in name.replace("-", "_").split("."):
        if not hasattr(config, part):
            config = next(v for v in vars(config).values() if hasattr(v, part))
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(("start", "name"), list(flags()), ids=lambda value: str(value))
def test_a_boolean_takes_both_forms(start, name):
    on, off = f"--{name}", negative(name)
    for wanted, forms in (
        (True, ([on], [on, "True"], [f"{on}=true"])),
        (False, ([off], [on, "False"], [f"{on}=false"])),
    ):
        for form in forms:
            assert read(cli.parse([*start, *form])[1], name) is wanted, form


def test_a_word_after_another_option_is_left_alone():
    config = COMMANDS["pretrain"].choices["tiny"]
    assert spelled(["--init", "False", "--data.flip", "x"], config, "") == ["--init", "False", "--data.flip", "x"]


def test_every_command_line_of_the_readme_and_docs_names_a_command_and_options_that_exist():
    root = Path(__file__).parents[1]
    lines = [
        line.strip()
        for page in (root / "README.md", *sorted((root / "docs").glob("*.md")))
        for line in page.read_text().replace("\\\n", " ").splitlines()
        if line.startswith("    ") and line.strip().startswith("motionmae ")
    ]
    assert len(lines) > 20
    for line in lines:
        args = re.sub(r"\s#.*|\$\(.*?\)|\$\w+", "", line).split()[1:]
        assert args[0] in COMMANDS, line
        if "--help" in args or "PRESET" in args or "$" in line or "R" in args:
            continue
        cli.parse(args)


@pytest.mark.slow
def test_the_demo_writes_a_report_with_its_table_charts_and_pictures(capsys, tmp_path):
    out = tmp_path / "demo"
    args = ["demo", "--out", str(out), "--videos", "2", "--tests", "1", "--sequences", "1", "--steps", "4"]
    assert cli.main(args) == 0
    told = capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert str(out / "report.html") in told
    for words in ("untrained", "both − appearance", "trivial: predict the mean patch", "trivial: predict zero motion"):
        assert words in page
    assert "data:image/webp;base64," in page
    assert "://" not in re.sub(r"data:image[^\"]*", "", page)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embd"], "there is no command 'embd'; did you mean embed?"),
        (["fly"], "there is no command 'fly'; the commands are demo, scan"),
        (["pretrain", "smal"], "there is no choice 'smal'; did you mean small?"),
        (["bench", "nothing"], "there is no choice 'nothing'; the choices are"),
    ],
)
def test_a_mistyped_word_is_answered_with_what_was_meant(words, told, capsys):
    assert cli.main(words) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ranks", "word", "code"), [("1", "--version", 0), ("2", "--version", 0), ("2", "pretrian", 2)]
)
def test_a_process_ends_with_its_code_and_what_was_to_be_done_at_its_end(ranks, word, code):
    program = (
        "import atexit, sys; from motionmae import cli; atexit.register(print, 'bye'); sys.argv[1:] = {!r}; cli.end()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program.format([word])],
        capture_output=True,
        text=True,
        env=os.environ | {"WORLD_SIZE": ranks},
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "bye"
