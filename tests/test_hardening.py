"""benchmarks/hardening: every part runs, tiny; and what it looks for, it finds."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hardening import kills, predict
from benchmarks.hardening.campaign import Judge, Room, Tally
from benchmarks.hardening.commands import Ended
from benchmarks.hardening.files import change_json, places
from benchmarks.hardening.mutations import PNG, clips, mutate, pictures, with_right_sums
from benchmarks.hardening.pictures import check
from tests.conftest import ROOT

TINY = {
    "pictures": 60,
    "clips": 30,
    "predict": 6,
    "kills": 2,
    "disk": 1,
    "files": 20,
    "page": 4,
    "memory": 4,
}


@pytest.mark.parametrize("part", TINY)
def test_every_part_runs(part, tmp_path):
    """In a process of its own: parts fork, and this one has threads."""
    command = [sys.executable, "-m", "benchmarks.hardening", "--only", part, "--seconds", "60"]
    command += ["--count", str(TINY[part]), "--out", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode in (0, 1), ended.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert sum(row["tried"] for row in found["parts"]) >= TINY[part]
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[0] == "part,tried,failures,worst_seconds,worst,peak_mb"
    assert len(rows) == len(found["parts"]) + 1 and part in ended.stdout
    failures = sum(row["failures"] for row in found["parts"])
    assert ended.returncode == int(failures > 0)


def test_the_same_seed_breaks_files_the_same_way():
    sound = pictures(48)
    one, again, other = (mutate(sound, np.random.default_rng([seed, 3])) for seed in (0, 0, 1))
    assert one == again != other
    assert len({mutate(sound, np.random.default_rng(i))[1] for i in range(50)}) == 50


def test_files_that_are_not_broken_are_sound(tmp_path):
    for name, content in pictures().items():
        (tmp_path / name).write_bytes(content)
        assert check(tmp_path / name) == "", name
        if content.startswith(PNG):
            assert with_right_sums(bytearray(content)) == content
    assert {name.rpartition(".")[2] for name in clips(tmp_path, frames=2)} >= {"mp4", "mkv", "avi"}


MISTAKES = {
    "KeyError": lambda path: {}[path],
    "the process ended by SIGKILL": lambda path: os.kill(os.getpid(), signal.SIGKILL),
    "the process ended with code N": lambda path: os._exit(3),
    "still at it after N s": lambda path: time.sleep(60),
    "printed": lambda path: os.write(2, b"libtiff says\n") and "",
    "warned: UserWarning": lambda path: warnings.warn("UserWarning", stacklevel=1) or "",
    "took N MB": lambda path: "" if len(np.ones((200, 2**17))) else "",
    "no picture": lambda path: "no picture",
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_seen_and_the_next_file_is_tried(kind, tmp_path):
    tally = Tally("toy", tmp_path / "kept")

    def judged(path: Path) -> str:
        return "" if path.name == "sound" else MISTAKES[kind](path)

    for name in ("sound", "broken"):
        (tmp_path / name).write_text(name)
    seconds = 1 if kind.startswith("still") else 60
    with Judge(judged, tmp_path, seconds, limit=30) as judge:
        for name in ("sound", "broken", "sound"):
            judge(tmp_path / name, tally)
    assert dict(tally.kinds) == {kind: 1} and tally.tried == 3
    assert (tmp_path / "kept" / "toy" / "01_broken").read_text() == "broken"


def test_memory_is_seen_though_the_parent_left_garbage(tmp_path):
    """Garbage of before, collected in the middle of a check, gave room to what the check took."""

    def judged(path: Path) -> str:
        gc.collect()
        return "" if len(np.ones((60, 2**17))) else ""

    tally = Tally("toy", tmp_path / "kept")
    (tmp_path / "broken").write_text("broken")
    garbage: list = [np.ones((60, 2**17))]
    garbage.append(garbage)
    gc.disable()
    try:
        del garbage
        with Judge(judged, tmp_path, seconds=60, limit=30) as judge:
            judge(tmp_path / "broken", tally)
    finally:
        gc.enable()
    assert dict(tally.kinds) == {"took N MB": 1}


def test_values_are_changed_wherever_they_are():
    data = {"a": [1, {"b": 2}], "c": 3}
    assert len(places(data)) == 5
    changed = [change_json(json.dumps(data).encode(), np.random.default_rng(i)) for i in range(40)]
    assert {way for way, _ in changed} == {"odd", "gone", "moved", "deep"}


@pytest.mark.parametrize(
    ("table", "is_it"),
    [
        (b"a,b\n1,2\n", True),
        (b"a,b\n1,2\n3", False),
        (b"a,b\n9,2\n", False),
        (b"", False),
    ],
)
def test_a_table_that_a_stop_ended_is_the_beginning_of_the_whole(table, is_it):
    assert kills.is_beginning(table, b"a,b\n1,2\n3,4\n") is is_it
    assert kills.is_beginning(b'[{"a": 1}]', b'[{"a": 1},\n{"a": 2}]\n')
    assert not kills.is_beginning(b'[{"a": 2}]', b'[{"a": 1},\n{"a": 2}]\n')


VERDICTS = "path,face,p_fake,verdict,doubts,quality,reasons,error\n"


@pytest.mark.parametrize(
    ("rows", "said", "code", "wrong"),
    [
        ("a.png,0,0.5,nothing found,,,,\n", "a.png: nothing found", 0, []),
        (
            "a.png,0,0.5,nothing found,,,,\n",
            "Traceback (most recent call last):\nKeyError",
            0,
            ["KeyError"],
        ),
        ("a.png,0,0.5,nothing found,,,,\n", "", 1, ["exit code 1, not 0 or 3"]),
        ("a.png,0,0.5,nothing found,,,,\n", "\x1b[2J", 0, ["raw"]),
        ("a.png,0,0.5,nothing found,,,,\n", f"x\n{predict.FORGED}", 0, ["line of its own"]),
        ("=1+1.png,0,0.5,nothing found,,,,\n", "", 0, ["a formula"]),
        ("a.png,0\n", "", 0, ["a row of 2 cells"]),
        ("", "", 0, ["0 names in the table of 1 files", "1 verdicts in the JSON, 0"]),
        ("a.png,0,0.5,nothing found,,,,\n", "", 3, ["exit code 3 though none failed"]),
    ],
)
def test_answers_of_the_command_line_are_judged(tmp_path, rows, said, code, wrong):
    (tmp_path / "v.csv").write_text(VERDICTS + rows)
    (tmp_path / "v.json").write_text(json.dumps([{"path": "a.png", "error": ""}]))
    found = predict.judge(Ended(code, said, "", 0, 0, 0), tmp_path / "inputs", 1)
    assert len(found) == len(wrong)
    assert all(part in text for part, text in zip(wrong, found, strict=True))


@pytest.mark.parametrize("careful", [True, False])
def test_a_writer_that_tears_its_file_is_found_out(tmp_path, careful):
    def write(out: Path) -> None:
        out.mkdir(exist_ok=True)
        with (out / ("partial" if careful else "result")).open("w") as file:
            for _ in range(20):
                file.write("x" * 1000)
                file.flush()
                time.sleep(0.01)
        if careful:
            (out / "partial").replace(out / "result")

    def earlier(out: Path) -> None:
        (out / "result").write_text("old")

    room = Room("kills", tmp_path, tmp_path / "kept", 5, 0, time.perf_counter() + 60)
    task = kills.Task("toy", lambda out: lambda: write(out), earlier, is_script=False)
    tally = kills.kill_often(room, task, tmp_path / "toy", 0)
    kinds = [kind for kind in tally.kinds if "neither the old nor the new" in kind]
    assert tally.tried == 5 and bool(kinds) is not careful
