"""Completion with the tab key: `motionmae --install-completion` writes what bash, zsh or fish need, and answers.

Its one rule: it answers from the configs alone, so that no answer waits for PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motionmae.errors import MotionMAEError
from motionmae.files import write_text
from motionmae.options import negative, options
from motionmae.presets import COMMANDS

WORDS = ("--complete", "--install-completion")
SCRIPTS = {
    "bash": """_motionmae() {
    local IFS=$'\\n'
    COMPREPLY=($(motionmae --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -o bashdefault -F _motionmae motionmae
""",
    "zsh": """#compdef motionmae
local -a found
found=(${(f)"$(motionmae --complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
if (( $#found )); then compadd -- $found; else _files; fi
""",
    "fish": """function __motionmae
    set -l found (motionmae --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c motionmae -f -a '(__motionmae)'
""",
}
"""What makes a shell ask; where nothing is answered, it completes the names of files."""


def serve(word: str, rest: Sequence[str]) -> None:
    """Print what completes the last word, or write a shell's script."""
    if word == "--complete":
        print("\n".join(completions(list(rest))))
    else:
        print(install(rest[0] if rest else Path(os.environ.get("SHELL", "")).name))


def completions(words: Sequence[str]) -> list[str]:
    """What the last word of a command line, without the program's own, may become."""
    *before, last = words or [""]
    known: Any = {name: entry.choices for name, entry in COMMANDS.items()}
    while isinstance(known, dict) and before and before[0] in known:
        known, before = known[before[0]], before[1:]
        known = known.get("", known) if isinstance(known, dict) else known
    if isinstance(known, dict):
        found = [] if before else [*known, "--help", *(["--version", *WORDS[1:]] if "pretrain" in known else [])]
    else:
        every = {name: option for option in options(known) for name in (option.typed, f"--{option.name}")}
        every = {name: option for name, option in every.items() if name.startswith("--") and not option.positional}
        chosen = every.get(before[-1]) if before else None
        if chosen is not None and not isinstance(chosen.default, bool):
            found = chosen.takes.split("|") if "|" in chosen.takes else []
        else:
            flags = [negative(name[2:]) for name, option in every.items() if isinstance(option.default, bool)]
            found = [*every, *flags, "--help", "--help-all"] if last.startswith("-") else []
    return sorted({word for word in found if word.startswith(last)})


def install(shell: str) -> str:
    """Write a shell's script to where it looks for it; a sentence that says what to do then."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = {
        "bash": data / "bash-completion" / "completions" / "motionmae",
        "zsh": home / ".zfunc" / "_motionmae",
        "fish": settings / "fish" / "completions" / "motionmae.fish",
    }
    if shell not in places:
        raise MotionMAEError(f"--install-completion: expected bash, zsh or fish, it is {shell or 'no shell'!r}")
    then = {
        "bash": f"new shells with the package bash-completion know it, others after: source {places['bash']}",
        "zsh": "in ~/.zshrc, before compinit: fpath+=~/.zfunc",
        "fish": "new shells know it",
    }
    places[shell].parent.mkdir(parents=True, exist_ok=True)
    write_text(places[shell], SCRIPTS[shell])
    return f"{places[shell]}\n{then[shell]}"
