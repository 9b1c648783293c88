"""The layout is the architecture: who imports whom, how long a file may be, and that what the README says can be typed."""

from __future__ import annotations

import ast
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    path for path in (*ROOT.glob("*.py"), *ROOT.glob("[sb]*/*.py")) if path.stem != "__init__"
)
PACKAGES = (
    "data",
    "features",
    "models",
    "inference",
    "evaluation",
    "scripts",
    "benchmarks",
    "tests",
)
SOURCES = sorted(
    {*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))}
)
OURS = {*(path.stem for path in ROOT.glob("*.py")), *PACKAGES}
ROOMS = ("data", "features", "models", "inference", "training", "evaluation")
# What else of this project the modules of a package, or a top-level script, may import.
ALLOWED = {
    "command_line": (),
    "features": ("features",),
    "models": ("models", "features.regions", "data.files"),
    "data": ("data", "features.regions"),
    "inference": ("data", "features", "models", "inference"),
    "training": (
        "data",
        "features",
        "models",
        "inference.scorer",
        "evaluation.metrics",
        "training",
    ),
    "evaluation": (*ROOMS, "preprocessing_pipeline"),
    "app": (*ROOMS, "command_line", "predict"),
}
ANY_SCRIPT = (*ROOMS, "command_line")
HEAVY = ("feat", "open_clip", "ray", "gradio")  # backends of seconds, or tens of seconds, to import


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported anywhere in the tree; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: this project imports by full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def strangers(source: str, owner: str) -> list[str]:
    """Imports that a file of `owner` (a package's or script's name) must not make."""
    allowed = ALLOWED.get(owner, ANY_SCRIPT)
    names = [name for name in imports(ast.parse(source)) if name.split(".")[0] in OURS]
    return [
        name for name in names if not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
    ]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def owner(path: Path) -> str:
    return relative(path).split("/")[0].removesuffix(".py")


def test_directions_can_fail() -> None:
    assert strangers("from data.faces import align", "features") == ["data.faces.align"]
    assert strangers("import models", "data") == ["models"]
    assert strangers("def late():\n    from features.columns import select", "models") == [
        "features.columns.select"
    ]
    assert strangers("import predict", "train") == ["predict"]
    assert strangers("import numpy\nfrom features.regions import PAIRS", "models") == []
    assert strangers("from predict import Detector", "app") == []


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if owner(path) not in ("tests", "scripts", "benchmarks")],
    ids=relative,
)
def test_imports_follow_the_directions(path: Path) -> None:
    assert strangers(path.read_text(encoding="utf-8"), owner(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "features").rglob("*.py")), ids=relative)
def test_features_need_numpy_and_scipy_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert roots <= {"numpy", "scipy", "sklearn", "features", *sys.stdlib_module_names}


def test_heavy_backends_are_imported_late_and_in_one_file() -> None:
    where: dict[str, set[str]] = {name: set() for name in HEAVY}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = [
            node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        at_once = {name.split(".")[0] for node in inside for name in imports(node)}
        assert not at_once & set(HEAVY), (
            f"{relative(path)} imports a heavy backend for everybody who imports it"
        )
        if owner(path) != "tests":
            for name in {name.split(".")[0] for name in imports(tree)} & set(HEAVY):
                where[name].add(relative(path))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_files_are_short_and_have_telling_names() -> None:
    assert [
        relative(path)
        for path in SOURCES
        if path.stem in ("utils", "util", "helpers", "common", "misc")
    ] == []
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert {path: length for path, length in lengths.items() if length > 350} == {}


def test_requirements_are_the_lock() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {
        (package["name"], package["version"])
        for package in lock["package"]
        if package["name"] != "masc"
    }
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [tuple(line.split(" ;")[0].split("==")) for line in lines if not line.startswith("#")]
    assert set(listed) == locked, "run `make lock`"


@cache
def help_of(name: str) -> str:
    """What `python FILE.py --help` or `python -m MODULE --help` prints. In this process, which has torch already."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = [name, "--help"]
    try:
        with redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
            run_path(str(ROOT / name), run_name="__main__")
    finally:
        sys.argv = before
    assert stopped.value.code == 0
    return printed.getvalue()


@pytest.mark.parametrize("path", COMMANDS, ids=relative)
def test_help(path: Path) -> None:
    assert "usage:" in help_of(relative(path))


def readme_commands() -> list[list[str]]:
    """Commands of the README's code blocks that start with python or make, comments and continuation lines resolved."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line.removeprefix("$ "), comments=True)
        for line in lines
        if starts_a_command(line)
    ]
    return [command for command in commands if len(command) > 1]


def starts_a_command(line: str) -> bool:
    return re.match(r"(\$ )?(\S*/)?(python3?|make) \S", line) is not None


def test_readme_commands_exist() -> None:
    commands = readme_commands()
    assert commands, "the README shows no command"
    targets = set(
        re.findall(
            r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    )
    for command in commands:
        program, *arguments = command
        if program == "make":
            goals = {word for word in arguments if "=" not in word}
            assert goals <= targets, f"{shlex.join(command)}: the Makefile has no such target"
            continue
        name = arguments[1].replace(".", "/") + ".py" if arguments[0] == "-m" else arguments[0]
        assert (ROOT / name).is_file(), f"{shlex.join(command)}: no file {name}"
        flags = [word.split("=")[0] for word in arguments if word.startswith("--")]
        shown = help_of(name).replace("_", "-")  # tyro takes both spellings and shows one
        flags = [flag.replace("_", "-") for flag in flags]
        unknown = [flag for flag in flags if not re.search(rf"{flag}(?![\w-])", shown)]
        assert not unknown, f"{shlex.join(command)}: {', '.join(unknown)} not in its --help"


def commands_in(text: str) -> list[str]:
    """The commands of all blocks that are no Python, without their comments."""
    fenced = text.split("```")[1::2]
    blocks = [block for block in fenced if block.startswith("\n")]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("make ", "python ", ".venv/bin/python "))]


def test_the_korean_readme_has_the_commands_of_the_english_one() -> None:
    english, korean = (
        commands_in((ROOT / name).read_text(encoding="utf-8"))
        for name in ("README.md", "README.ko.md")
    )
    assert len(korean) >= 14 and korean == [command for command in english if command in korean]
    first = english[: english.index("python evaluate.py") + 1]
    assert (
        korean == [command for command in first if command in korean]
        and set(first) - set(korean) == set()
    )
    for name in ("README.md", "README.ko.md"):
        assert 'Detector.load().predict("photo.jpg")' in (ROOT / name).read_text(encoding="utf-8")
