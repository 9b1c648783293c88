"""The layout is the architecture: import directions, lengths of files, and commands that exist."""

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
PACKAGES = (
    *("data", "features", "models", "inference", "training", "evaluation"),
    *("web", "scripts", "benchmarks", "tests"),
)
SOURCES = sorted(
    {*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))}
)
COMMANDS = [
    path
    for path in SOURCES
    if path.parent.name != "tests" and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]
OURS = {*(path.stem for path in ROOT.glob("*.py")), *PACKAGES}
ROOMS = PACKAGES[:6]
# What the modules of a package, or a top-level script, may import of this project.
ALLOWED = {
    "command_line": ("data.names", "models.base"),
    "features": ("features",),
    "models": ("models", "features.regions", "data.files", "command_line"),
    "data": ("data", "features.regions"),
    "inference": ("data", "features", "models", "inference"),
    "training": (
        "data",
        "features",
        "models",
        "inference.comparison",
        "inference.scorer",
        "evaluation.metrics",
        "training",
        "command_line",
    ),
    "evaluation": (*ROOMS, "preprocessing_pipeline"),
    "web": ("data", "inference", "training.examples", "web"),
    "app": (*ROOMS, "web", "command_line", "predict"),
}
ANY_SCRIPT = (*ROOMS, "command_line")
# Backends that take seconds, or tens of seconds, to import.
HEAVY = ("feat", "open_clip", "ray", "gradio", "xgboost")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported anywhere in the tree; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: this project imports by full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def forbidden(source: str | ast.AST, owner: str) -> list[str]:
    """Imports that a file of `owner` (a package's or script's name) must not make."""
    allowed = ALLOWED.get(owner, ANY_SCRIPT)
    tree = ast.parse(source) if isinstance(source, str) else source
    names = [name for name in imports(tree) if name.split(".")[0] in OURS]
    return [
        name for name in names if not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
    ]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def owner(path: Path) -> str:
    return relative(path).split("/")[0].removesuffix(".py")


def test_directions_can_fail() -> None:
    assert forbidden("from data.faces import align", "features") == ["data.faces.align"]
    assert forbidden("import models", "data") == ["models"]
    assert forbidden("from training import loop", "models") == ["training.loop"]
    assert forbidden("def late():\n    from features.columns import select", "models") == [
        "features.columns.select"
    ]
    assert forbidden("import predict", "train") == ["predict"]
    assert forbidden("import numpy\nfrom features.regions import PAIRS", "models") == []
    assert forbidden("from predict import Detector", "app") == []


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if owner(path) not in ("tests", "scripts", "benchmarks")],
    ids=relative,
)
def test_imports_follow_the_directions(path: Path) -> None:
    assert forbidden(tree_of(path), owner(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "features").rglob("*.py")), ids=relative)
def test_features_need_numpy_and_scipy_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(tree_of(path))}
    assert roots <= {"numpy", "scipy", "sklearn", "features", *sys.stdlib_module_names}


def test_heavy_backends_are_imported_late_and_in_one_file() -> None:
    where: dict[str, set[str]] = {name: set() for name in HEAVY}
    for path in SOURCES:
        tree = tree_of(path)
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


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, directly or not, at import time."""
    graph = {name: set(others) for name, others in graph.items()}
    while leaves := [name for name, others in graph.items() if not others & set(graph)]:
        for name in leaves:
            del graph[name]
    return sorted(graph)


def at_import(tree: ast.Module) -> Iterator[str]:
    """Imports outside functions, those for type checkers left out."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If):
            yield from imports(node)


def test_modules_import_each_other_in_one_direction_only() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == list("abcd")
    names = {relative(path).removesuffix(".py").replace("/", "."): path for path in SOURCES}
    graph = {}
    for name, path in names.items():
        found = set(at_import(tree_of(path)))
        graph[name] = {other for other in names if other in found or other in parents(found)}
    assert cycles(graph) == []


def parents(names: set[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def test_files_are_short_and_not_called_utils() -> None:
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
    """What `python FILE.py --help` prints, with hyphens for underscores; run in this process."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = [name, "--help"]
    try:
        with redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
            run_path(str(ROOT / name), run_name="__main__")
    finally:
        sys.argv = before
    assert stopped.value.code == 0
    return printed.getvalue().replace("_", "-")


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
        flags = [word.split("=")[0].replace("_", "-") for word in arguments if word[:2] == "--"]
        unknown = [flag for flag in flags if not re.search(rf"{flag}(?![\w-])", help_of(name))]
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
