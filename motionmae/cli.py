"""The command line: `motionmae COMMAND [CHOICE] [options]`. Every option is a field of the command's config dataclass.

Nothing heavy is imported before a command is known, so that help is instant.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NoReturn

import tyro

from motionmae import __version__, completion, pages
from motionmae.config import check
from motionmae.config.idle import idle
from motionmae.errors import MotionMAEError
from motionmae.files import escaped, one_line
from motionmae.options import meant, spelled
from motionmae.presets import COMMANDS
from motionmae.progress import Progress, first

HELP = ("-h", "--help", "--help-all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 stopped by the user or by the reader of its output,
    2 a user's mistake or what the machine refuses: a full disk, a folder that is not there."""
    args = list(sys.argv[1:] if argv is None else argv)
    hold_streams()
    try:
        command, config = parse(args)
        if command:
            if needed := pages.missing(config, f"motionmae {command}"):
                raise MotionMAEError(needed)
            if command in ("pretrain", "finetune") and first():
                print(f"motionmae {command}, into {config.run.out}", flush=True)
            with Progress("loading", speak=first()):  # a busy machine takes long to import PyTorch
                task = import_module(f"motionmae.tasks.{command}")
            with escaping():
                task.run(config)
        sys.stdout.flush()  # so that a full disk or a closed pipe behind it is told, and not lost at exit
    except MotionMAEError as error:
        return ended(str(error), 2)
    except KeyboardInterrupt:
        return ended("stopped", 1)
    except BrokenPipeError:
        return ended("stopped, as nobody reads its output any more", 1)
    except OSError as error:
        place = error.filename or ("the system" if flushed("\n") else "standard output")
        return ended(f"{place}: {error.strerror or error}", 2)
    return 0


def ended(sentence: str, code: int) -> int:
    """Say how the command ended, where anybody hears it; the exit code. What could not be shown is dropped."""
    with contextlib.suppress(OSError):
        print(f"motionmae: {one_line(sentence)}", file=sys.stderr, flush=True)
    if not flushed():  # the interpreter would try again at its exit, with a traceback and an exit code of its own
        lost, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
        with contextlib.suppress(OSError):
            lost.close()  # which tries again too
    return code


def flushed(text: str = "") -> bool:
    """Whether all that was printed, and this text, could be written."""
    try:
        print(text, end="", flush=True)
    except OSError:
        return False
    return True


def hold_streams() -> None:
    """See to it that output never fails for its letters, and that no file takes the place of a closed stream.

    Names of files that the terminal's encoding lacks are shown with backslashes. What is written to a closed standard
    output is an OSError, as it is where the disk is full; errors that nobody can see are dropped.
    """
    for number, name, mode in ((1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, mode), number)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
        with contextlib.suppress(AttributeError):  # a stand-in, as in tests and notebooks
            getattr(sys, name).reconfigure(errors="backslashreplace")


class Escaped:
    """A stream whose text a terminal shows and does not obey; all else is the stream's own."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.stream.write(escaped(text))
        return len(text)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Within it nothing that lies in a file, not even its name, is obeyed by the terminal that it is shown on."""
    out, told = sys.stdout, warnings.formatwarning
    sys.stdout = Escaped(out)
    warnings.formatwarning = lambda *about: escaped(told(*about))
    try:
        yield
    finally:
        sys.stdout, warnings.formatwarning = out, told


def parse(args: list[str]) -> tuple[str, Any]:
    """The command's name and its config, or ("", None) where help was asked for and given."""
    if not args or args[0] in ("-h", "--help", "--help-all"):
        print(pages.overview())
        return "", None
    if args[0] in ("-V", "--version"):
        print(f"motionmae {__version__}")
        return "", None
    if args[0] in completion.WORDS:
        completion.serve(args[0], args[1:])
        return "", None
    command, rest = args[0], args[1:]
    if command not in COMMANDS:
        raise MotionMAEError(f"there is no command {command!r}; {meant(command, COMMANDS, 'commands')}")
    default, prog, about = COMMANDS[command].choices, f"motionmae {command}", COMMANDS[command].summary
    while isinstance(default, dict):
        if "" in default:
            default = default[""]
        elif rest and rest[0] in default:
            about = pages.about(prog, rest[0], default[rest[0]])
            prog, default, rest = f"{prog} {rest[0]}", default[rest[0]], rest[1:]
        elif not rest or rest[0] in HELP:
            print(pages.choices(prog, about, default))
            return "", None
        else:
            raise MotionMAEError(f"{prog[10:]}: there is no choice {rest[0]!r}; {meant(rest[0], default, 'choices')}")
    if asked := [word for word in rest if word in HELP]:
        print(pages.page(prog, about, default, "--help-all" in asked))
        return "", None
    rest = spelled(rest, default, prog)
    config = tyro.cli(type(default), default=default, args=rest, prog=prog, description=about)
    typed = {arg[2:].partition("=")[0].replace("-", "_") for arg in rest if arg.startswith("--")}
    config = closed(config, typed)
    check(config)
    for sentence in idle(config, typed):
        print(f"motionmae: {sentence}", file=sys.stderr, flush=True)
    return command, config


def closed(config: Any, typed: set[str]) -> Any:
    """The config in which no option that was typed is open; epochs are a way to say steps."""
    typed = typed | ({"optim.steps"} if "optim.epochs" in typed else set())
    left = tuple(name for name in getattr(config, "open", ()) if name not in typed)
    return replace(config, open=left) if hasattr(config, "open") else config


def end() -> NoReturn:
    """`main`, and the end of this process; of one of several ranks, without taking the interpreter down.

    PyTorch's caches keep the group of sharded weights, and its threads, which may want the interpreter as it goes: that
    is an abort, now and then.
    """
    code = main()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        atexit._run_exitfuncs()
        flushed()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end()
