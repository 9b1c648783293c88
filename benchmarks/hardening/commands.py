"""The scripts as command lines, in forks of this process, which has imported everything already."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.hardening.campaign import resident

ROOT = Path(__file__).parents[2]
SCRIPTS = ("preprocessing_pipeline", "train", "evaluate", "predict", "models.weights")
LIBC = ctypes.CDLL(None, use_errno=True)
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
Target = Callable[[], object]


def warm() -> None:
    """Import what takes long, so that a fork begins at once."""
    for name in (*SCRIPTS, "matplotlib.pyplot", "facenet_pytorch", "inference.card"):
        import_module(name)


def script(name: str, *arguments: object) -> Target:
    return partial(_run_script, name, [str(argument) for argument in arguments])


def _run_script(name: str, arguments: Sequence[str]) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(ROOT / name), run_name="__main__")


@dataclass(frozen=True)
class Ended:
    """code: negative for a signal; peak: MB; left: processes that outlived it."""

    code: int
    out: str
    err: str
    peak: float
    seconds: float
    left: int

    def wrong(self, *codes: int) -> str:
        """What is not as it should be; a process may always die of the signal that it was sent."""
        if "Traceback (most recent call last)" in self.err + self.out:
            last = (self.err or self.out).strip().splitlines()[-1]
            return f"a traceback: {last}"
        if self.left:
            return f"{self.left} processes outlived it"
        if codes and self.code not in codes:
            said = (self.err.strip().splitlines() or [""])[-1]
            return f"exit code {self.code}, not {' or '.join(map(str, codes))}: {said}"
        return ""


class Running:
    """A command that has begun, in a session of its own.

    begin: what is done in the process first. real: a new interpreter, for scripts only.
    """

    def __init__(
        self, target: Target, folder: Path, begin: Target | None = None, real: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.start, self.ended = time.perf_counter(), None
        self.files = [folder / f"{time.perf_counter_ns()}.{name}" for name in ("out", "err")]
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.environment = {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment |= {"MPLCONFIGDIR": str(folder / "cache"), "NO_PROXY": "127.0.0.1"}
        self.pid = os.fork()  # the new interpreter takes the place of the fork
        if self.pid == 0:
            self._work(target, begin, real)

    def _work(self, target: Target, begin: Target | None, real: bool) -> None:
        code = 1
        try:
            os.setsid()
            LIBC.prctl(DEATH_SIGNAL, signal.SIGKILL)  # it ends with the process that began it
            for number, file in enumerate(self.files, 1):
                os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: PTH123, SIM115
            os.environ |= self.environment
            tempfile.tempdir = None  # it looks for TMPDIR again
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.chdir(ROOT)
            if begin:
                begin()
            if real:
                name, arguments = target.args
                os.execv(sys.executable, [sys.executable, name, *arguments])
            target()
            code = 0
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        except BaseException:  # noqa: BLE001 (as the interpreter does)
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except OSError:
                    code = 120  # as the interpreter does
            os._exit(code)

    def poll(self) -> bool:
        """Whether it has ended."""
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024
                self.ended = code, peak, time.perf_counter() - self.start
        return self.ended is not None

    def send(self, number: int) -> None:
        if not self.poll():
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0, watch: Callable[[int], None] | None = None) -> Ended:
        """watch: called with the process's number now and then. Ends it after `seconds`."""
        until = time.perf_counter() + seconds
        while not self.poll():
            if time.perf_counter() > until:
                os.killpg(self.pid, signal.SIGKILL)
            if watch:
                watch(self.pid)
            time.sleep(0.005 if watch is None else 0.1)
        code, peak, took = self.ended
        left = self._left()
        texts = []
        for file in self.files:  # not there where it was killed at its first step
            known = file.exists()
            texts.append(file.read_text(encoding="utf-8", errors="replace") if known else "")
            file.unlink(missing_ok=True)
        return Ended(code, *texts, peak, took, left)

    def _left(self) -> int:
        """Processes of its session that do not end within seconds; they are ended then."""
        for _ in range(60):
            if not (found := session(self.pid)):
                return 0
            time.sleep(0.05)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return len(found)


def session(leader: int) -> list[int]:
    """The processes of a session that are alive, its leader included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has ended meanwhile
                continue
            if int(number) == leader and state not in "ZX":
                found.append(int(entry.name))
    return found


def memory_of(leader: int) -> float:
    """MB resident in all processes of a session."""
    return sum(map(resident, session(leader)))


def completed(target: Target, folder: Path, seconds: float = 300.0, **options) -> Ended:
    return Running(target, folder, **options).wait(seconds)
