"""One visit to a machine with a GPU: does it compute the right numbers, and how fast is it.

    python -m scripts.gpu_visit                        # at most 8 minutes; results in outputs/gpu
    python -m scripts.gpu_visit --only full lite       # these steps, or groups of steps
    python -m scripts.gpu_visit --device cpu --small   # tiny sizes, without a GPU

Needs Python, PyTorch and what `python -m scripts.gpu_pack` has put into outputs/gpu/carry; no
network. Steps run in order of value, each within its own time. Every result is written at once, to
visit.json (a row a line) and visit.txt; a step that fails, hangs or ends its process is a row with
its error and costs no other step. What time is left trains the trace network, where training faces
were packed. `python -m scripts.gpu_report visit.json` makes a table of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu.worker import LEAST, Rows, chosen, read_rows
from models import EXPERTS
from scripts.gpu_report import errors, report
from training.packed_state import read_header

ROOT = Path(__file__).parent.parent
PLAN = "benchmarks.gpu.plan"
CARRIED = ROOT / "outputs" / "gpu" / "carry"
SECONDS = 480
PICTURES, TIMES, FEW_PICTURES = 4000, 3, 24
GRACE = 8  # seconds after which a step over its limit loses its process
TRAINING, STARTING = 90, 25  # seconds kept for it; those that pass before its first step
TESTS = 60  # seconds of the suite's tests that need a GPU
TRAINED = ("packed.safetensors", "trace_net.safetensors")  # what is kept of it
STATE = ROOT / "checkpoints" / "trace_net_training.safetensors"  # of the visit before
PAIRS, TRAIN_STEPS, RATE = 64, 3600, 6e-4  # real faces in a step; steps of all visits
LARGEST = 16 << 20  # bytes of a file that is kept


class Driver:
    """Starts processes, watches their time, and writes the rows that they could not write."""

    def __init__(self, options: argparse.Namespace, plan: str = PLAN) -> None:
        self.options, self.plan, self.start = options, plan, time.time()
        self.end = self.start + options.seconds
        self.out = options.out
        for name in ("visit.json", "visit.txt", "errors.txt"):
            (self.out / name).unlink(missing_ok=True)
        self.rows = Rows(self.out, self.start)
        self.work = Path(tempfile.mkdtemp(prefix="visit-"))
        self.environment = dict(os.environ)
        paths = [str(ROOT), str(options.carried / "site"), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.environment |= {"PYTHONUNBUFFERED": "1", "GPU_CARRIED": str(options.carried)}
        self.running: list[subprocess.Popen] = []

    def launch(self, *arguments: str, **more: object) -> subprocess.Popen:
        """`python ARGUMENTS` in a process group of its own."""
        where = {"cwd": ROOT, "env": self.environment, "start_new_session": True}
        process = subprocess.Popen([sys.executable, *arguments], **where, **more)
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen) -> None:
        """End it and the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.running.remove(process)

    def close(self) -> None:
        for process in list(self.running):
            self.stop(process)
        shutil.rmtree(self.work, ignore_errors=True)

    # What is made in the background.

    def prepare(self) -> None:
        """Weight files with random values, and pictures; both appear whole."""
        published = [name for name in self.options.experts if name not in ("lite", "traces")]
        command = ["-m", "benchmarks.gpu.random_weights", str(self.work / "weights"), *published]
        if not self.options.experts or published:
            self.launch(*command)
        count = (
            [str(FEW_PICTURES)] if self.options.small else [str(PICTURES), "--times", str(TIMES)]
        )
        self.launch("-m", "benchmarks.gpu.pictures", str(self.work / "pictures"), *count)

    # The measured steps.

    def measure(self, until: float) -> None:
        """Work the plan off, with a new process wherever a step cost the last one."""
        done, lost = [], 0
        while time.time() < until - LEAST:
            before, code = len(done), self.one_worker(until, done)
            done = [name for name, _ in self.begun()]
            if code == 0:
                return
            if code != 3:
                self.close_row(done[-1] if len(done) > before else "worker", code)
            lost = 0 if len(done) > before else lost + 1
            if lost == 2:
                return

    def one_worker(self, until: float, done: list[str]) -> int:
        """Returns the process's code, a negative number of seconds where it was stopped."""
        options = self.options
        command = ["-m", "benchmarks.gpu.worker", "--plan", self.plan, "--device", options.device]
        command += ["--out", str(self.out), "--work", str(self.work)]
        command += [f"--start={self.start}", f"--until={until}", *["--small"] * options.small]
        for name, values in (("only", options.only), ("experts", options.experts), ("done", done)):
            command += [f"--{name}", *values] if values else []
        process, seen, since = self.launch(*command), len(done), time.time()
        while process.poll() is None:
            time.sleep(0.1)
            begun, now = self.begun(), time.time()
            if len(begun) > seen:
                seen, since = len(begun), now
            limit = begun[-1][1] if seen > len(done) else 90  # until the first step begins
            if now > since + max(limit, 0) + GRACE or now > until + GRACE:
                code = -int(now - since)
                self.stop(process)
                return min(code, -1)
        self.stop(process)
        return 1000 if process.returncode < 0 else process.returncode

    def begun(self) -> list[tuple[str, float]]:
        file = self.work / "begun.txt"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [(name, float(limit)) for name, limit in map(str.split, lines)]

    def close_row(self, step: str, code: int) -> None:
        """The row of a step that ended its process, unless it wrote one."""
        if any(row["step"] == step and "s" in row for row in read_rows(self.out / "visit.json")):
            return
        told = f"did not return; stopped after {-code} s" if code < 0 else "ended its process"
        self.rows(step, error=told)

    # Commands that are steps themselves.

    def command(self, step: str, limit: float, arguments: list[str], log: Path) -> dict | None:
        """Run one within `limit` seconds. Returns the figures of its row; None: it failed, and the
        row is written.
        """
        start = time.time()
        with log.open("w", encoding="utf-8") as file:
            process = self.launch(*arguments, stdout=file, stderr=subprocess.STDOUT)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
        self.stop(process)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        figures = {"last_line": lines[-1][:200], "s": round(time.time() - start, 1)}
        if code in (0, None):
            return figures | ({} if code == 0 else {"stopped": True})
        with (self.out / "errors.txt").open("a", encoding="utf-8") as file:
            file.write("\n".join([f"== {step}", *lines[-60:], ""]))
        self.rows(step, error=f"exit code {code}", **figures)
        return None

    def tests(self) -> None:
        """The suite's tests that need a GPU; without one, only whether they can be collected."""
        sources = sorted((ROOT / "tests").glob("test_*.py"))
        needing = [str(path) for path in sources if "torch.cuda.is_available" in path.read_text()]
        needing = [path for path in needing if Path(path).name != "test_gpu_visit.py"]
        command = ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-k", "gpu", *needing]
        command += ["--collect-only"] if self.options.small else []
        limit = min(TESTS, self.left())
        figures = self.command("tests", limit, command, self.work / "tests.txt")
        if figures:
            told = {"error": "over its limit"} if figures.pop("stopped", False) else {}
            self.rows("tests", **told, **figures)

    def train(self) -> None:
        """Train the trace network in the time that is left, and keep its state."""
        options, trained, log = self.options, self.work / "trained", self.out / "train.txt"
        seconds = 1 if options.small else int(self.left() - STARTING)
        if reason := self.nothing_to_train():
            self.rows("train", skipped=reason)
            return
        if seconds < LEAST and not options.small:
            self.rows("train", skipped="no time left")
            return
        start = self.start_of_training()
        command = ["-m", "training.trace_net", "--faces", str(self.faces()[0])]
        command += ["--start", str(start), "--out", str(trained), "--seconds", str(seconds)]
        command += ["--fakes-on", "device", "--device", options.device]
        few = ["--pairs", "2", "--autoencoder-steps", "2"]
        command += (
            few
            if options.small
            else [
                *("--pairs", str(PAIRS), "--steps", str(TRAIN_STEPS)),
                *("--lr", str(RATE), "--interval", "250", "--workers", "16"),
            ]
        )
        limit = 120 if options.small else self.left() + GRACE
        figures = self.command("train", limit, command, log)
        if (trained / "log.csv").is_file():
            with log.open("a", encoding="utf-8") as file:
                file.write((trained / "log.csv").read_text(encoding="utf-8"))
        sizes = {}
        for name in TRAINED:
            found = trained / name
            if found.is_file() and found.stat().st_size < LARGEST:
                shutil.copyfile(found, self.out / name)
                sizes[name] = found.stat().st_size
        if figures is not None:
            self.rows("train", start=start.name, kept=sizes, **figures)

    def faces(self) -> list[Path]:
        """The packed training faces: one file, or none."""
        return sorted(self.options.carried.glob("faces.*"))

    def start_of_training(self) -> Path:
        """What was packed to train further, or the state of the visit before."""
        return next(iter(self.options.carried.glob("start.*")), STATE)

    def nothing_to_train(self) -> str:
        """Why no training can be; empty where it can."""
        if not self.faces():
            return "no training faces were packed"
        start = self.start_of_training()
        before = read_header(start)
        if before and before["step"] >= TRAIN_STEPS and not self.options.small:
            return f"{start.name} has had all of its {TRAIN_STEPS} steps"
        return ""

    def left(self) -> float:
        return max(1.0, self.end - time.time())

    def visit(self) -> int:
        """Returns: 1 where a step failed or an output is too far from the CPU's, else 0."""
        wanted = [name for name in ("tests", "train") if chosen(name, self.options.only)]
        trains = "train" in wanted and not self.options.small and not self.nothing_to_train()
        later = TESTS * ("tests" in wanted) + TRAINING * trains
        try:
            self.prepare()
            self.measure(self.end - later)
            for name in wanted:
                getattr(self, name)()
            self.rows("end", seconds=round(time.time() - self.start, 1))
        finally:
            self.close()
        rows = read_rows(self.out / "visit.json")
        print(report(rows))
        return 1 if errors(rows) else 0


def arguments(given: list[str] | None = None, checked: bool = False) -> argparse.Namespace:
    """checked: ends the process where an option cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_visit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = Path(os.environ.get("OUT") or ROOT / "outputs" / "gpu")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole visit")
    parser.add_argument("--out", type=Path, default=out, help="(default: $OUT, else outputs/gpu)")
    parser.add_argument("--only", nargs="*", default=[], help="steps or groups: machine, full, ...")
    parser.add_argument("--carried", type=Path, default=CARRIED, help="what was packed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--experts", nargs="*", default=[], help="some instead of all")
    options = parser.parse_args(given)
    options.out, options.carried = options.out.resolve(), options.carried.resolve()
    if checked:
        try:
            check(options)
        except (ImportError, ValueError) as error:
            parser.error(str(error))
    return options


def check(options: argparse.Namespace) -> None:
    """Raises: ValueError, naming the option that cannot be: before anything takes long."""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        raise ValueError(f"--out {options.out}: cannot be written ({error.strerror})") from error
    if unknown := sorted(set(options.experts) - set(EXPERTS)):
        raise ValueError(f"--experts {' '.join(unknown)}: not of {', '.join(EXPERTS)}")
    if not available(options.device):
        raise ValueError(f"--device {options.device}: not available here")
    if options.only:
        sys.path.append(str(options.carried / "site"))
        names = [*(step.name for step in import_module(PLAN).STEPS), "tests", "train"]
        groups = dict.fromkeys(name.partition(".")[0] for name in names)
        for each in options.only:
            if not any(chosen(name, [each]) for name in names):
                raise ValueError(f"--only {each}: no such step or group of {', '.join(groups)}")


def available(device: str) -> bool:
    """Whether there is such a CPU or GPU; takes no memory of a GPU, which is to be measured."""
    try:
        found = torch.device(device)
    except RuntimeError:
        return False
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return found.type == "cpu" or (found.type == "cuda" and (found.index or 0) < count)


def terminated(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not stop the cleaning up
    raise SystemExit(128 + number)


def main(given: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, terminated)
    return Driver(arguments(given, checked=True)).visit()


if __name__ == "__main__":
    sys.exit(main())
