"""Hostile and unlucky inputs by the thousand: what breaks, with the file that breaks it.

    python -m benchmarks.hardening                                  # everything, about two hours
    python -m benchmarks.hardening --only pictures clips --count 500
    python -m benchmarks.hardening --only kills --seconds 600       # for ten minutes at most
    python -m benchmarks.hardening --only files --seed 1

The parts, and what counts as a failure: docs/hardening.md. Needs Linux; a full disk and a read-only
folder need root. Writes table.csv and results.json to outputs/hardening, and what failed to
outputs/hardening/failures. Exit code: 0 nothing failed, 1 something did, 2 a mistake in the command.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: processes are forked, so none may have threads

import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from benchmarks.hardening.campaign import Room, Tally, print_table, write_results
from command_line import run

# Part -> what is counted, and how often in a full run.
FULL = {
    "pictures": 10_000,
    "clips": 1_000,
    "predict": 200,
    "kills": 300,
    "disk": 100,
    "files": 5_000,
    "page": 1_000,
    "memory": 3_000,
}
Part = Literal["pictures", "clips", "predict", "kills", "disk", "files", "page", "memory"]


@dataclass(frozen=True)
class Config:
    only: tuple[Part, ...] = ()
    """Some of the parts: pictures clips predict kills disk files page memory."""
    count: int | None = None
    """How often, in place of the part's own number."""
    seconds: float = 3600.0
    """No part goes on for longer."""
    seed: int = 0
    """Of everything that is drawn."""
    out: Path = Path("outputs/hardening")
    """The folder of the results."""


def main(config: Config) -> int:
    if (config.count or 1) < 1 or config.seconds <= 0:
        raise ValueError("--count must be at least 1, and --seconds more than 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it made is removed
    out, tallies, took = config.out.resolve(), [], {}
    for part in config.only or FULL:
        start = time.perf_counter()
        # No TemporaryDirectory: a forked process that ends would remove it.
        folder = Path(tempfile.mkdtemp(prefix="masc-hardening-"))
        try:
            count, kept = config.count or FULL[part], out / "failures"
            room = Room(part, folder, kept, count, config.seed, start + config.seconds)
            found: list[Tally] = import_module(f"benchmarks.hardening.{part}").attack(room)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        took[part] = round(time.perf_counter() - start, 1)
        tallies += found
        print_table(found)
        print(f"{part}: {took[part]:.0f} s\n", flush=True)
        write_results(out, tallies, took, config.seed)
    print_table(tallies, kinds=False)
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="benchmarks.hardening"))
