"""A full disk, a folder that cannot be written, and two writers at once."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hardening.campaign import Room, Tally
from benchmarks.hardening.commands import LIBC, Running, Target, completed, script, warm
from benchmarks.hardening.kills import make_dataset
from data.dump import read_dump
from models.checkpoint import Checkpoint
from tests.synthetic import write_dump

FREE = (0, 1, 4, 16, 64, 256)  # KB on a full disk
READ_ONLY, REMOUNT = 1, 32  # MS_RDONLY, MS_REMOUNT of mount(2)


@dataclass(frozen=True)
class Writer:
    """A command that writes a result into a folder; seed makes it another one where that matters."""

    name: str
    target: Callable[[Path, int], Target]


def attack(room: Room) -> list[Tally]:
    warm()
    made, writers = room.folder / "inputs", {}
    dump, dataset = write_dump(made / "made" / "toy", groups=60), make_dataset(made / "people")

    def preprocess(out: Path, seed: int) -> Target:
        options = ("--shard-size", 2, "--workers", 1, "--device", "cpu")
        return script("preprocessing_pipeline.py", "--data-root", dataset, "--out", out, *options)

    def train(out: Path, seed: int) -> Target:
        return script("train.py", "--features", dump, "--out", out, "--seed", seed, "--overwrite")

    def evaluate(out: Path, seed: int) -> Target:
        less = ("--permutations", 0, "--replicates", 20, "--no-few-shot", "--ablate", "none")
        options = ("--no-checkpoint", "--protocols", "given", "--out", out)
        return script("evaluate.py", "--features", dump, *options, *less)

    def predict(out: Path, seed: int) -> Target:
        files = ("--csv", out / "v.csv", "--json", out / "v.json")
        return script("predict.py", dataset / ("real", "fake")[seed], *files)

    for name, target in (
        ("preprocessing", preprocess),
        ("training", train),
        ("evaluation", evaluate),
        ("prediction", predict),
    ):
        writers[name] = Writer(name, target)
    found = []
    if os.geteuid() == 0:
        found = [full(room.share(2, room.count), writers), read_only(room, writers)]
    return [*found, *together(room, writers)]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` KB, in memory."""
    folder.mkdir(parents=True)
    _mount(folder, f"size={size}k")
    try:
        yield folder
    finally:
        LIBC.umount2(str(folder).encode(), 2)


def _mount(folder: Path, options: str, flags: int = 0) -> None:
    if LIBC.mount(b"none", str(folder).encode(), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), "cannot mount a small disk", str(folder))


def full(room: Room, writers: dict[str, Writer]) -> Tally:
    """Exit code 1, a message that names the file, and what was there before is there still."""
    tally = room.tally("full disk")
    cases = [(writer, free) for writer in writers.values() for free in FREE]
    for i in room.times(min(len(cases), room.count), "full disk"):
        writer, free = cases[i * len(cases) // min(len(cases), room.count)]
        name = f"{writer.name} with {free} KB"
        with small_disk(room.folder / f"full{i}", 4096) as disk:
            out = disk / "out"
            before = {}
            if writer.name in ("training", "prediction"):  # there is something to lose
                out.mkdir()
                if writer.name == "training":
                    completed(writer.target(out, 1), room.folder / "run")
                else:  # smaller than what is to come: its own space would do for that
                    (out / "v.csv").write_text("path,p_fake\nold.png,0.5\n")
                    (out / "v.json").write_text("[]\n")
                before = contents(out)
            fill(disk, free)
            ended = completed(writer.target(out, 0), room.folder / "run")
            tally.add(name, ended.seconds, ended.peak)
            if ended.code == 0:  # it had enough
                continue
            if wrong := ended.wrong(1):
                tally.fail(wrong, name)
            elif str(disk) not in ended.err:
                tally.fail(f"names no file: {ended.err[-200:]}", name)
            if lost := [k for k, content in before.items() if contents(out).get(k) != content]:
                tally.fail(f"what was there before is lost: {lost[0]}", name)
            (disk / "filler").unlink()
            again = completed(writer.target(out, 0), room.folder / "run")
            if wrong := again.wrong(0):
                tally.fail(f"with space again: {wrong}", name)
            if left := [path.name for path in disk.rglob("*.partial")]:
                tally.fail(f"left over: {left[0]}", name)
    return tally


def fill(disk: Path, free: int) -> None:
    status = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, status.f_bavail * status.f_frsize - free * 1024)))


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_only(room: Room, writers: dict[str, Writer]) -> Tally:
    """Exit code 2, at once, and a message that names the folder."""
    tally = room.tally("read-only folder")
    for writer in list(writers.values())[: room.count]:
        with small_disk(room.folder / f"fixed-{writer.name}", 1024) as disk:
            _mount(disk, "", READ_ONLY | REMOUNT)
            ended = completed(writer.target(disk / "out", 0), room.folder / "run")
            tally.add(writer.name, ended.seconds, ended.peak)
            if wrong := ended.wrong(2):
                tally.fail(wrong, writer.name)
            elif str(disk) not in ended.err:
                tally.fail(f"names no file: {ended.err[-200:]}", writer.name)
    return tally


def together(room: Room, writers: dict[str, Writer]) -> list[Tally]:
    """Two at once into one folder: what is there then is of one of them, or of both in turn."""
    shares = {
        "training": room.count,
        **dict.fromkeys(("preprocessing", "prediction"), room.count // 10),
    }
    found = []
    shares = {name: share for name, share in shares.items() if share}  # fewer in a tiny run
    for name, share in shares.items():
        writer, tally = writers[name], room.tally(f"two writers, {name}")
        alone = []
        for seed in (0, 1):
            out = room.folder / name / f"alone{seed}" / "out"
            (out if name == "prediction" else out.parent).mkdir(parents=True)
            completed(writer.target(out, seed), out.parent)
            alone.append(contents(out))
        part = room.share(len(shares) - len(found), share)
        for i in part.times(share, f"two writers, {name}"):
            folder, rng = room.folder / name / f"{i}", room.rng(i)
            out = folder / "out"
            (out if name == "prediction" else folder).mkdir(parents=True)
            first = Running(writer.target(out, 0), folder / "first")
            time.sleep(rng.uniform(0, 0.1))
            second = Running(writer.target(out, 1), folder / "second")
            ends = first.wait(), second.wait()
            tally.add(f"{i}", max(end.seconds for end in ends), max(end.peak for end in ends))
            for end in ends:
                if wrong := end.wrong(0, 1, 2):
                    tally.fail(wrong, f"{i}")
            if all(end.code for end in ends):
                tally.fail("neither came to an end", f"{i}")
            if wrong := torn(name, out, alone):
                tally.fail(wrong, f"{i}", out)
        found.append(tally)
    return found


def torn(name: str, out: Path, alone: list[dict[str, bytes]]) -> str:
    now = contents(out)
    try:
        if name == "training":
            Checkpoint.load(out)
        elif name == "preprocessing":
            read_dump(out)
    except (ValueError, OSError) as error:
        return f"cannot be read: {type(error).__name__}: {error}"
    for file in sorted({*now, *alone[0]}):
        if now.get(file) not in [each.get(file) for each in alone]:
            return f"{file} is of neither"
    return ""
