"""The house: imports point down, closed choices and their functions are the same, names of a design that lasts."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import motionmae
from motionmae import config
from motionmae.library.cluster import ENGINES
from motionmae.objectives.masking import KINDS
from motionmae.objectives.reconstruction import DISTANCES

ROOT = Path(motionmae.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each part may import; all may import FREE and themselves. The picture stands in README.
FREE = {"errors", "files", "config", "noise", "stored", "progress", "provenance", "words", "__version__"}
MAY = {
    "cli": {"completion", "options", "pages", "presets", "tasks"},
    "completion": {"options", "presets"},
    "pages": {"options", "presets"},
    "options": set(),
    "presets": {"grids"},
    "grids": set(),
    "tasks": {
        "presets", "inference", "training", "report", "evaluation", "objectives", "data", "library", "models", "video",
        "runtime", "grids",
    },
    "inference": {"evaluation", "data", "library", "models", "video", "runtime"},
    "training": {"data", "library", "video", "runtime"},
    "report": {"evaluation", "library", "video", "grids"},
    "evaluation": {"library", "models", "video"},
    "objectives": {"models"},
    "data": {"library", "video"},
    "library": {"video"},
    "models": set(),
    "video": set(),
    "runtime": set(),
    "noise": set(),
    "progress": set(),
    "provenance": set(),
    "stored": set(),
    "config": set(),
    "errors": set(),
    "files": set(),
    "words": set(),
}  # fmt: skip


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_down(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(file):
        assert module != "motionmae", f"{file} imports the whole package, and with it what lies above"
        if module.startswith("motionmae."):
            part = part_of(module)
            assert part in {own} | FREE | MAY[own], f"{file} imports {module}"


@pytest.mark.parametrize("file", sorted((ROOT / "tasks").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_task_imports_another(file):
    own = file.relative_to(ROOT).parts[1].removesuffix(".py")
    if own.startswith(("demo", "study", "bench")):
        return
    for module in imports(file):
        assert not module.startswith("motionmae.tasks.") or module.split(".")[2] == own, f"{file} imports {module}"


@pytest.mark.parametrize(
    ("choices", "functions"), [(config.MaskKind, KINDS), (config.Distance, DISTANCES), (config.EngineKind, ENGINES)]
)
def test_closed_choices_equal_their_functions(choices, functions):
    assert set(get_args(choices)) == set(functions)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_what_is_written_goes_through_one_door(file):
    if str(file.relative_to(ROOT)) in ("files.py", "cli.py", "video/origin.py", "stored.py", "inference/features.py"):
        return  # the door; streams; what is fetched, which renames by itself; tensors and parts of several jobs
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            written = ast.unparse(node)
            own = name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute)
            opened = name == "open" and any(mode in written for mode in ("'w'", "'wb'", "'x'"))
            saved = name in ("save_file", "savez", "savefig") or (name == "save" and "image" in written.lower())
            opened = opened and not any(mark in written for mark in ("file:", "os.devnull"))
            assert not any((own, saved, opened)), f"{file}: {written}: see files.py"


def test_only_the_video_modules_know_the_decoder():
    knows = {f.parent for f in FILES if any(m.split(".")[0] == "av" for m in imports(f))}
    assert knows == {ROOT / "video"}


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.py")), ids=lambda f: f.name)
def test_no_config_field_lacks_its_help_text(file):
    tree = ast.parse(file.read_text())
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        if node.name == "Bounds":
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if (
                isinstance(field, ast.AnnAssign)
                and field.value is not None
                and "field(" not in ast.unparse(field.value)
            ):
                told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert told, f"{node.name}.{ast.unparse(field.target)} has no docstring"


def test_no_module_of_the_tests_is_preloaded_by_name():
    """A forkserver looks for it in the working folder, where `runs/` is what `make demo` leaves."""
    own = {file.stem for file in Path(__file__).parent.glob("*.py")}
    for file in Path(__file__).parent.glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).endswith("set_forkserver_preload"):
                assert own.isdisjoint(ast.literal_eval(call.args[0])), file


def test_documents_name_public_sources_not_folders_of_ours():
    for file in (*sorted((ROOT.parent / "docs").glob("*.md")), *sorted(ROOT.parent.glob("*.md"))):
        assert "../shared" not in file.read_text(encoding="utf-8"), file


def test_no_two_classes_have_one_name():
    """One word is one thing; functions are verbs, whose object is their module's own."""
    homes: dict[str, set[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(str(file.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


COUNTED = re.compile(r"many\([^\n]*?, ['\"]([a-z ]+)['\"]\)")
"""A noun that `words.many` makes agree with its number."""


def test_counts_agree_with_their_nouns():
    nouns = {noun for file in FILES for noun in COUNTED.findall(file.read_text())}
    plural = re.compile(rf" ({'|'.join(sorted(nouns))})(es|s)(?![\w/])")
    found = []
    for file in FILES:
        for text in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.JoinedStr)):
            for value, after in zip(text.values, text.values[1:], strict=False):
                said = after.value if isinstance(after, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and plural.match(str(said)):
                    found.append(f"{file.relative_to(ROOT)}:{text.lineno}: {ast.unparse(value.value)}{said}")
    assert not found, f"write by motionmae.words.many: {found}"


LONG = 300, 60
"""Lines of a file and of a function, its docstring included: what is longer has two subjects, or a seam to be found."""


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_are_short(file):
    text = file.read_text()
    assert len(text.splitlines()) <= LONG[0], file
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= LONG[1], f"{file}: {node.name} has {lines} lines"
