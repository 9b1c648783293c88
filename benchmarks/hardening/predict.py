"""predict.py over folders of broken pictures and clips whose names are hostile: its exit code, what
it prints, and its tables."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

from benchmarks.hardening.campaign import Room, Tally
from benchmarks.hardening.commands import Ended, completed, script, warm
from benchmarks.hardening.mutations import clips, mutate, pictures

AT_ONCE = 50  # files of a run
FORGED = "FORGED.jpg: nothing found  p_fake 0.00"
NAMES = (  # of files, as bytes: what comes before the suffix
    b"plain",
    f"a\n{FORGED}\n".encode(),
    b"\x1b[2J\x1b[31mred",
    b"\x9b2Jnot UTF-8",
    "사진".encode("cp949"),
    "사진".encode(),
    b"=1+1",
    b"@SUM(A1)",
    b"-2+3",
    b"x" * 200,
    b'quote"comma,semicolon;',
    b"\ttab\rreturn",
    "\u202egpj.exe".encode(),
    b"<img src=x onerror=alert(1)>",
    b"%s{0}$HOME`id`",
    b"http:127.0.0.1",
    b"a@3of32",
    b"--csv",
    b"-",
)
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\ud800-\udfff]")
FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.])|-.*[^\d.e-]")


def attack(room: Room) -> list[Tally]:
    warm()
    tally, sound = room.tally(), pictures(160) | clips(room.folder, 160, 6)
    sound = {name: content for name, content in sound.items() if not name.endswith(".ts")}
    for i in room.times(-(-room.count // AT_ONCE)):
        folder = room.folder / f"{i}" / "inputs"
        folder.mkdir(parents=True)
        rng, count = room.rng(i), min(AT_ONCE, room.count - i * AT_ONCE)
        for k in range(count):
            way, content = mutate(sound, rng)
            if rng.random() < 0.2:  # a sound one
                way = list(sound)[rng.integers(len(sound))]
                content = sound[way]
            name = NAMES[k % len(NAMES)] + f"{k}.{way.rpartition('.')[2]}".encode()
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)  # noqa: PTH118
        files = ("--csv", folder.parent / "v.csv", "--json", folder.parent / "v.json")
        command = script(
            "predict.py", folder, *files, "--frames", 2, "--explain", folder.parent / "c"
        )
        ended = completed(command, folder.parent, 20.0 * count)
        tally.tried += count - 1
        tally.add(f"run {i}", ended.seconds, ended.peak)
        for wrong in judge(ended, folder, count):
            tally.fail(wrong, f"run {i}", folder)
    return [tally]


def judge(ended: Ended, folder: Path, count: int) -> list[str]:
    """What is wrong with an answer about `count` files."""
    if wrong := ended.wrong(0, 3):
        return [wrong]
    found, printed = [], ended.out + re.sub(r"[^\n]*\r", "", ended.err)
    if raw := RAW.search(printed):
        found.append(f"prints {raw[0]!r} raw")
    if any(line.startswith(FORGED) for line in printed.splitlines()):
        found.append("a name makes a line of its own on the screen")
    table = (folder.parent / "v.csv").read_text(encoding="utf-8", errors="surrogateescape")
    with (folder.parent / "v.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        header, *rows = csv.reader(file)
    if wrong := [row for row in rows if len(row) != len(header)]:
        return [*found, f"a row of {len(wrong[0])} cells below {len(header)} columns"]
    if len(names := {row[0] for row in rows}) != count:
        found.append(f"{len(names)} names in the table of {count} files")
    if wrong := [cell for row in rows for cell in row if FORMULA.match(cell)]:
        found.append(f"a formula in the table: {wrong[0]}")
    if "\x1b" in table:
        found.append("an escape sequence in the table")
    verdicts = json.loads((folder.parent / "v.json").read_bytes().decode(errors="surrogateescape"))
    if len(verdicts) != len(rows):
        found.append(f"{len(verdicts)} verdicts in the JSON, {len(rows)} in the table")
    failed = any(verdict.get("error") for verdict in verdicts)
    if ended.code != (3 if failed else 0):
        found.append(f"exit code {ended.code} though {'some' if failed else 'none'} failed")
    return found
