"""The command line: `motionmae COMMAND [CHOICE] [options]`. Every option is a field of the command's config dataclass.

Nothing heavy is imported before a command is known, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tyro

from motionmae import __version__
from motionmae.errors import MotionMAEError
from motionmae.presets import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 stopped by the user, 2 a user's mistake."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        command, config = parse(args)
        if command:
            import_module(f"motionmae.tasks.{command}").run(config)
    except MotionMAEError as error:
        print(f"motionmae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("motionmae: stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone; keep the interpreter from failing again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse(args: list[str]) -> tuple[str, Any]:
    """The command's name and its config, or ("", None) where help was asked for and given."""
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return "", None
    if args[0] in ("-V", "--version"):
        print(f"motionmae {__version__}")
        return "", None
    command, rest = args[0], args[1:]
    if command not in COMMANDS:
        raise MotionMAEError(f"there is no command {command!r}; the commands are {', '.join(COMMANDS)}")
    default, prog = COMMANDS[command].choices, f"motionmae {command}"
    while isinstance(default, dict):
        if "" in default:
            default = default[""]
        elif rest and rest[0] in default:
            prog, default, rest = f"{prog} {rest[0]}", default[rest[0]], rest[1:]
        elif not rest or rest[0] in ("-h", "--help"):
            print(f"usage: {prog} CHOICE [options]\n\n{COMMANDS[command].summary}\n\nchoices: {', '.join(default)}")
            print(f"\n{prog} CHOICE --help lists the options of one.")
            return "", None
        else:
            raise MotionMAEError(f"{prog}: there is no choice {rest[0]!r}; the choices are {', '.join(default)}")
    return command, tyro.cli(
        type(default), default=default, args=rest, prog=prog, description=COMMANDS[command].summary
    )


def overview() -> str:
    """The help page of the program itself."""
    wide = max(map(len, COMMANDS))
    lines = [f"  {name:{wide}}  {entry.summary}" for name, entry in COMMANDS.items()]
    return "\n".join(("usage: motionmae COMMAND [CHOICE] [options]\n", *lines, "\nmotionmae COMMAND --help says more."))


if __name__ == "__main__":
    sys.exit(main())
