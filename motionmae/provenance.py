"""What made a result: the command, the version and the machine. Its one rule: no password or token of an address."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path

from motionmae import __version__
from motionmae.words import many

_BEGUN = time.time()


def command() -> str:
    """The command line that this process was started with, or "Python"; secrets of addresses are left out."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    if started.name.removesuffix(".exe") != "motionmae" and started.parent.name != "motionmae":
        return "Python"
    return shlex.join(["motionmae", *(_open(word) for word in sys.argv[1:])])


def _open(word: str) -> str:
    """An argument without what lies before an address's @, and without its query, where tokens stand."""
    if "://" not in word:
        return word
    return re.sub(r"\?.*", "?…", re.sub(r"://[^/@]*@", "://…@", word))


def hardware() -> str:
    """The processor and the cores that this process may use, and the GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = [f"{many(cores, 'core')} of {_processor()}"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        told += [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return ", ".join(told)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def here() -> dict[str, str]:
    """Command, version, hardware and date of this process, and how long a command has taken so far."""
    told = {"command": command(), "version": f"MotionMAE {__version__}, Python {platform.python_version()}"}
    torch = sys.modules.get("torch")
    if torch is not None:
        told["version"] += f", PyTorch {torch.__version__}"
    told |= {"hardware": hardware(), "made": time.strftime("%Y-%m-%d %H:%M")}
    if told["command"] != "Python":
        told["after"] = lasted(time.time() - _BEGUN)
    return told


def lasted(seconds: float) -> str:
    """A duration: 42 s, 12 min, 3 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
