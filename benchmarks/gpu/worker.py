"""One process of a visit: runs the steps of a plan one after another, each within its time.

`scripts/gpu_visit.py` starts it, and starts it anew with the steps that are left where a step ends
the process or does not return. A plan is a module with `STEPS`, `open_visit` and `healthy`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

LEAST = 3.0  # seconds below which no step is begun
SMALL = 5  # times the limits in a rehearsal, whose machine may be slow
NEEDS_CUDA = "needs CUDA"


class TooLongError(BaseException):
    """Not an Exception, so that no step takes it for a failure of its own."""


class NeedsCudaError(RuntimeError):
    def __init__(self) -> None:
        super().__init__(NEEDS_CUDA)


@dataclass(frozen=True)
class Step:
    """limit: seconds. work: takes what `open_visit` returned, and returns the figures of a row."""

    name: str
    limit: float
    work: Callable


class Rows:
    """The results: `visit.json`, one row per line, and the same as text, each written at once.

    start: of the visit, seconds since the epoch.
    """

    def __init__(self, out: Path, start: float) -> None:
        self.out, self.start = Path(out), start
        self.out.mkdir(parents=True, exist_ok=True)

    def __call__(self, step: str, **figures: object) -> None:
        row = {"t": round(time.time() - self.start, 1), "step": step, **figures}
        self._append("visit.json", json.dumps(row, default=str))
        shown = " ".join(f"{key}={_short(value)}" for key, value in figures.items())
        line = f"[{row['t']:6.1f}] {step}: {shown}"
        self._append("visit.txt", line)
        print(line, flush=True)

    def failed(self, step: str, error: BaseException, **figures: object) -> None:
        """A row with the error; where it came from goes to errors.txt."""
        reason = str(error).strip().splitlines() or [""]
        name = type(error).__name__
        told = reason[0] if isinstance(error, NeedsCudaError) else f"{name}: {reason[0][:300]}"
        self(step, error=told, **figures)
        if isinstance(error, NeedsCudaError):
            return
        text = "".join(traceback.format_exception(error))
        self._append("errors.txt", f"== {step}\n{text}")

    def _append(self, name: str, line: str) -> None:
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{key}={_short(each)}" for key, each in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_rows(path: Path) -> list[dict]:
    """The rows of a visit.json, without a last line that was cut off."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def chosen(name: str, only: list[str]) -> bool:
    """Whether a step is one of `only`, or in a group named there (`full` holds `full.files`)."""
    return not only or any(f"{name}.".startswith(f"{each}.") for each in only)


def run(step: Step, visit: object, rows: Rows, limit: float) -> bool:
    """Run a step within `limit` seconds and write its row. Returns whether it went well."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"over its limit of {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    start = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        figures = step.work(visit)
        signal.setitimer(signal.ITIMER_REAL, 0)
        rows(step.name, **(figures or {}), s=round(time.perf_counter() - start, 2))
        return True
    except (Exception, TooLongError) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        rows.failed(step.name, error, s=round(time.perf_counter() - start, 2))
        return isinstance(error, NeedsCudaError)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def work_off(plan: ModuleType, options: argparse.Namespace) -> int:
    """Returns 0 at the end of the plan, 3 where what is left needs a new process."""
    rows = Rows(options.out, options.start)
    visit, parent = plan.open_visit(options, rows), os.getppid()
    for step in plan.STEPS:
        if not chosen(step.name, options.only) or step.name in options.done:
            continue
        if os.getppid() != parent:  # the visit was killed
            return 1
        left = options.until - time.time()
        limit = min(step.limit * (SMALL if options.small else 1), left)
        with (options.work / "begun.txt").open("a") as file:
            file.write(f"{step.name} {limit:.1f}\n")
        if left < LEAST:
            rows(step.name, skipped="no time left")
        elif not run(step, visit, rows, limit) and not plan.healthy(visit):
            return 3
    return 0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", required=True, help="a module")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder for this visit alone")
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("--until", type=float, required=True, help="no step goes on after it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--experts", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--done", nargs="*", default=[], help="steps that are left out")
    options = parser.parse_args(arguments)
    try:
        code = work_off(import_module(options.plan), options)
    except Exception as error:  # whatever it is, it belongs among the results
        Rows(options.out, options.start).failed("worker", error, s=0)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1 or code:
        os._exit(code)  # threads of a step that was cut may never end
    sys.exit(code)


if __name__ == "__main__":
    # As the steps import it: a script's own classes are others.
    from benchmarks.gpu.worker import main as work

    work()
