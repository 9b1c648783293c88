"""What all parts share: a tally with its examples, and a process that may crash or hang."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import re
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from data.files import write_csv, write_json
from data.names import for_screen

tqdm.monitor_interval = 0  # no thread beside the one that forks
EXAMPLES = 3  # kept of every kind of failure
Check = Callable[[Path], str]  # "" or what is wrong with how the code under test took a file


@dataclass
class Tally:
    """What one row of the table counts.

    Attributes:
        kinds: kind of failure -> how often.
        examples: kind -> the first of them, in words.
        worst: seconds of the slowest, and its name.
        peak: memory, MB.
    """

    name: str
    kept: Path
    tried: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    worst: tuple[float, str] = (0.0, "")
    peak: float = 0.0

    @property
    def failures(self) -> int:
        return sum(self.kinds.values())

    def add(self, name: str, seconds: float = 0.0, peak: float = 0.0) -> None:
        self.tried += 1
        self.worst = max(self.worst, (seconds, name))
        self.peak = max(self.peak, peak)

    def fail(self, what: str, name: str, keep: Path | None = None) -> None:
        """what: in words; numbers and names in it do not make another kind. keep: the input."""
        kind = re.sub(
            r"(\w+(Error|Exception|Interrupt))\b.*|(?<=^printed).*", r"\1", what, flags=re.S
        )
        kind = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "N", re.sub(r"(/[^\s/:]+)+", "PATH", kind))[:160]
        self.kinds[kind] += 1
        if self.kinds[kind] <= EXAMPLES:
            self.examples.setdefault(kind, []).append(for_screen(f"{name}: {what}")[:500])
            if keep is not None and keep.exists():
                place = self.kept / re.sub(r"\W+", "-", self.name)
                place.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if keep.is_dir() else shutil.copyfile
                target = place / re.sub(r"[^\w.-]+", "_", f"{len(self.kinds):02d}_{name}")[-80:]
                shutil.rmtree(target, ignore_errors=True)
                copy(keep, target)


@dataclass(frozen=True)
class Room:
    """Where and how long a part may work. folder: its own, gone afterwards; until: perf_counter."""

    part: str
    folder: Path
    kept: Path
    count: int
    seed: int
    until: float

    def tally(self, name: str = "") -> Tally:
        return Tally(f"{self.part}: {name}" if name else self.part, self.kept)

    def rng(self, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *more])

    def share(self, parts: int, count: int) -> Room:
        """For one of `parts` that are left, with as much of the time as each of the others."""
        now = time.perf_counter()
        return replace(self, count=count, until=now + (self.until - now) / parts)

    def times(self, count: int, what: str = "") -> Iterator[int]:
        """0 to count - 1, while there is time."""
        for i in tqdm(range(count), desc=f"{self.part} {what}".strip(), disable=None):
            if time.perf_counter() > self.until:
                return
            yield i


def peak_memory(pid: int | str = "self") -> float:
    """The largest resident set since `forget_peak`, MB."""
    return _status(pid, "VmHWM")


def resident(pid: int | str = "self") -> float:
    """MB; 0 for a process that is gone."""
    return _status(pid, "VmRSS")


def _status(pid: int | str, name: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Judge:
    """A forked process that runs a check on one file after another, and is replaced when it dies.

    A check fails that says so, raises, warns, prints, takes longer than `seconds` or more than
    `limit` MB beyond what the process had.
    """

    def __init__(self, check: Check, folder: Path, seconds: float = 10.0, limit: float = 500.0):
        self.check, self.seconds, self.limit = check, seconds, limit
        self.printed = folder / "printed.txt"
        self.process = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=self._serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def _serve(self, pipe) -> None:
        self.pipe.close()
        # What the parent left behind: freed during a check, or free and taken again, it would hide
        # memory.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        out = os.open(self.printed, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        while True:
            path = pipe.recv()
            forget_peak()
            before, printed = resident(), os.fstat(out).st_size
            with warnings.catch_warnings(record=True) as warned:
                try:
                    wrong = self.check(path)
                except BaseException as error:  # noqa: BLE001 (whatever it is, it is what is sought)
                    wrong = f"{type(error).__name__}: {error}"
            if not wrong and warned:
                wrong = f"warned: {warned[0].message}"
            if not wrong and os.fstat(out).st_size != printed:
                with self.printed.open("rb") as file:
                    file.seek(printed)
                    wrong = f"printed: {file.read(200).decode(errors='replace')}"
            peak = peak_memory() - before
            if not wrong and peak > self.limit:
                wrong = f"took {peak:.0f} MB"
            pipe.send((wrong, peak))

    def __call__(self, path: Path, tally: Tally, name: str = "", keep: Path | None = None) -> None:
        """Check one file and count it. keep: what to keep when it fails, instead of the file."""
        name, start = name or path.name, time.perf_counter()
        if self.process is None:
            self._start()
        peak = 0.0
        try:
            self.pipe.send(path)
            if self.pipe.poll(self.seconds):
                wrong, peak = self.pipe.recv()
            else:
                wrong = f"still at it after {self.seconds:g} s"
                self._end()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            died = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            wrong = f"the process ended {died}"
            self._end()
        tally.add(name, time.perf_counter() - start, peak)
        if wrong:
            tally.fail(wrong, name, keep or path)


def print_table(tallies: Iterable[Tally], kinds: bool = True) -> None:
    for tally in tallies:
        worst = f"{tally.worst[0]:.1f} s ({tally.worst[1]})" if tally.worst[1] else ""
        text = f"{tally.name:28} {tally.tried:6} tried {tally.failures:6} failed"
        tqdm.write(for_screen(f"{text}  {tally.peak:7.0f} MB  {worst}"))
        for kind, count in tally.kinds.most_common() if kinds else ():
            tqdm.write(f"    {count:5}  {tally.examples[kind][0]}")


def write_results(out: Path, tallies: list[Tally], took: dict[str, float], seed: int) -> None:
    """table.csv: a row for each tally; results.json: also the kinds and their examples."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "part": tally.name,
            "tried": tally.tried,
            "failures": tally.failures,
            "worst_seconds": round(tally.worst[0], 2),
            "worst": for_screen(tally.worst[1]),
            "peak_mb": round(tally.peak),
        }
        for tally in tallies
    ]
    table = pd.DataFrame(rows)
    write_csv(out / "table.csv", list(table), table.itertuples(index=False))
    for row, tally in zip(rows, tallies, strict=True):
        row["kinds"] = [
            {"kind": kind, "count": count, "examples": tally.examples[kind]}
            for kind, count in tally.kinds.most_common()
        ]
    write_json(out / "results.json", {"seed": seed, "seconds": took, "parts": rows})
