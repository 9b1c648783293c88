"""Runs that are killed at random moments: nothing that was there is lost, nothing is left over, and
the next run ends with the bytes of a run that nobody disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

import command_line
from benchmarks.hardening.campaign import Room, Tally
from benchmarks.hardening.commands import Ended, Running, Target, completed, script, warm
from benchmarks.hardening.mutations import faces, write_clip
from data.dump import read_dump
from models.checkpoint import Checkpoint
from tests.synthetic import write_dump

SIGNALS = [*[signal.SIGKILL] * 8, signal.SIGINT, signal.SIGTERM]
REAL = 2  # kills of each task that meet a new interpreter; others a fork that is warm
CHAIN = 3  # kills at most before a run may end
BODY = np.random.default_rng(0).bytes(400_000)  # of the file that is downloaded
DIGEST = hashlib.sha256(BODY).hexdigest()
TIMES = ("report.json", "progress.json", "index.html", "report.md")  # of a report: hold times


@dataclass(frozen=True)
class Task:
    """A command. target(out): writes into `out`; former(out): an earlier result; whole(out): reads
    what is there, raises if it cannot; left_out: names of files that need not be the same; begun:
    whether a stopped run may leave the beginning of its tables."""

    name: str
    target: Callable[[Path], Target]
    former: Callable[[Path], object] | None = None
    whole: Callable[[Path], object] | None = None
    left_out: tuple[str, ...] = ()
    begun: bool = False
    is_script: bool = True

    def contents(self, out: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(out)): b"" if path.name in self.left_out else path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }


def attack(room: Room) -> list[Tally]:
    warm()
    tallies = []
    with Source() as address:
        tasks = all_tasks(room.folder / "inputs", address)[: room.count]
        for number, task in enumerate(tasks):
            share = room.count // len(tasks) + (number < room.count % len(tasks))
            part = room.share(len(tasks) - number, share)
            tallies.append(kill_often(part, task, room.folder / task.name, number))
    return tallies


def all_tasks(inputs: Path, address: str) -> list[Task]:
    dump = write_dump(inputs / "made" / "toy", groups=60)
    dataset = make_dataset(inputs / "people")
    clip = inputs / "clip.mp4"
    write_clip(
        clip, [np.roll(faces(240)[0], i, axis=1) for i in range(4)], "mpeg4", "yuv420p", {}, {}
    )

    def preprocess(out: Path) -> Target:
        options = ("--shard-size", 1, "--workers", 1, "--device", "cpu")
        return script("preprocessing_pipeline.py", "--data-root", dataset, "--out", out, *options)

    def train(out: Path, seed: int = 0) -> Target:
        return script("train.py", "--features", dump, "--out", out, "--seed", seed, "--overwrite")

    def evaluate(out: Path) -> Target:
        less = ("--permutations", 1, "--replicates", 20, "--no-few-shot", "--ablate", "none")
        options = ("--no-checkpoint", "--protocols", "given", "--out", out)
        return script("evaluate.py", "--features", dump, *options, *less)

    def predict(out: Path, *inputs: Path) -> Target:
        files = ("--csv", out / "v.csv", "--json", out / "v.json", "--explain", out / "cards")
        return script("predict.py", *(inputs or (dataset / "real", clip)), *files, "--frames", 2)

    def fetch(out: Path, kind: str) -> Target:
        return lambda: download(out, f"{address}/{kind}")

    def earlier_verdicts(out: Path) -> None:
        for name, text in (("v.csv", "path,p_fake\nold.png,0.5\n"), ("v.json", "[]\n")):
            (out / name).write_text(text)

    def weights(out: Path) -> None:
        if (file := out / "mine.bin").is_file() and file.read_bytes() != BODY:
            raise ValueError("a torn file of weights")

    def finished_dump(out: Path) -> None:
        if (out / "meta.json").exists():
            read_dump(out)

    def earlier_checkpoint(out: Path) -> None:
        if not (made := inputs / "checkpoint").exists():
            completed(train(made, seed=1), inputs)
        shutil.copytree(made, out, dirs_exist_ok=True)

    return [
        Task("training", train, earlier_checkpoint, Checkpoint.load),
        Task("download", lambda out: fetch(out, "x"), whole=weights, is_script=False),
        Task(
            "download from the hub",
            lambda out: fetch(out, "a/b/resolve/main/model.bin"),
            whole=weights,
            is_script=False,
        ),
        Task("preprocessing", preprocess, whole=finished_dump),
        Task("prediction", predict, earlier_verdicts, begun=True),
        Task("evaluation", evaluate, left_out=TIMES),
    ]


def make_dataset(root: Path) -> Path:
    for label, face in zip(("real", "fake"), faces(240), strict=True):
        (root / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.roll(face, 5 * i, axis=1)).save(root / label / f"{i}.png")
    return root


def kill_often(room: Room, task: Task, folder: Path, number: int) -> Tally:
    tally, rng = room.tally(task.name), room.rng(number)
    wanted, took = undisturbed(task, folder / "undisturbed", tally)
    out, kills = begin(task, folder / "0"), 0
    chain, told, before = int(rng.integers(1, CHAIN + 1)), [], {}
    for i in room.times(3 * room.count, task.name):  # some come too late
        if tally.tried == room.count:
            break
        real = task.is_script and tally.tried < min(REAL, room.count // 10)
        sent = SIGNALS[0 if real else rng.integers(len(SIGNALS))]
        early = 0.3 if sent == signal.SIGINT else 0.0  # not before the script's own code runs
        longest = took[real] or measure(task, folder, real, took)
        delay = longest * rng.uniform(early, 1.05)
        before = before if kills else task.contents(out)
        ended = killed(task, out, sent, delay, real)
        if ended is None:
            shutil.rmtree(out.parent)
            out, kills, told = begin(task, folder / f"{i + 1}"), 0, []
            continue
        told.append(f"{sent.name} after {delay:.2f} s")
        kills += 1
        tally.add(f"{task.name} {i}", ended.seconds, ended.peak)
        if wrong := ended.wrong(*((0, 130) if sent == signal.SIGINT else ())):
            tally.fail(f"{sent.name}: {wrong}", told[-1])
        if wrong := not_whole(task, out, before, wanted):
            tally.fail(wrong, "; ".join(told), out)
        if kills == chain:
            finish(task, out, wanted, tally, "; ".join(told))
            shutil.rmtree(out.parent)
            out, kills, told = begin(task, folder / f"{i + 1}"), 0, []
            chain = int(rng.integers(1, CHAIN + 1))
    if kills:
        finish(task, out, wanted, tally, "; ".join(told))
    shutil.rmtree(folder)
    return tally


def begin(task: Task, folder: Path) -> Path:
    """The folder of a result, with an earlier one in it."""
    (folder / "out").mkdir(parents=True)
    if task.former:
        task.former(folder / "out")
    else:
        (folder / "out").rmdir()
    return folder / "out"


def undisturbed(task: Task, folder: Path, tally: Tally) -> tuple[dict[str, bytes], list[float]]:
    """What a run makes that nobody disturbs, and how long it takes in a fork; 0: not known yet."""
    ended = completed(task.target(begin(task, folder)), folder)
    if wrong := ended.wrong(0):
        tally.fail(f"undisturbed: {wrong}", task.name)
    return task.contents(folder / "out"), [ended.seconds, 0.0]


def measure(task: Task, folder: Path, real: bool, took: list[float]) -> float:
    place = folder / "measured"
    took[real] = completed(task.target(begin(task, place)), place, real=real).seconds
    shutil.rmtree(place)
    return took[real]


def killed(task: Task, out: Path, number: int, delay: float, real: bool) -> Ended | None:
    """None where it had ended already."""
    running = Running(task.target(out), out.parent, real=real)
    until = time.perf_counter() + delay
    while time.perf_counter() < until and not running.poll():
        time.sleep(0.002)
    late = running.poll()
    running.send(number)
    ended = running.wait()
    return None if late else ended


def not_whole(task: Task, out: Path, before: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """What a kill has cost. before: the earlier result; of its files each is as it was, or new."""
    now = task.contents(out)
    for name, content in before.items():
        # Called by its content (arrays of a checkpoint): gone once the new one is whole.
        gone = name not in now and name not in wanted
        new = wanted.get(name, content)
        begun = task.begun and name in now and is_beginning(now[name], new)
        if not gone and not begun and now.get(name) not in (content, new):
            return f"{name} was there, and is neither the old nor the new one"
    if task.whole and out.exists():
        try:
            task.whole(out)
        except Exception as error:  # noqa: BLE001 (any of them: it cannot be read)
            return f"what was there cannot be read: {type(error).__name__}: {error}"
    return ""


def is_beginning(table: bytes, whole: bytes) -> bool:
    """Whether a CSV or JSON holds the first rows of another, unchanged."""
    if not table.startswith(b"["):
        return table.endswith(b"\n") and whole.startswith(table)
    rows, wanted = json.loads(table), json.loads(whole)
    return rows == wanted[: len(rows)]


def finish(task: Task, out: Path, wanted: dict[str, bytes], tally: Tally, told: str) -> None:
    ended = completed(task.target(out), out.parent)
    if wrong := ended.wrong(0):
        tally.fail(f"the run after it: {wrong}", told)
        return
    found = task.contents(out)
    # Rows of a killed run are kept on purpose.
    if more := sorted(n for n in found.keys() - wanted.keys() if ".partial-" not in n):
        tally.fail(f"left over: {more[0]}", told)
    if lost := sorted(wanted.keys() - found.keys()):
        tally.fail(f"missing: {lost[0]}", told)
    if other := [name for name in found if wanted.get(name, found[name]) != found[name]]:
        tally.fail(f"other bytes: {other[0]}", told, out)
    if left := sorted(path.name for path in (out.parent / "tmp").iterdir()):
        tally.fail(f"left over among temporary files: {left[0]}", told)


class Slowly(BaseHTTPRequestHandler):
    """Answers as the hub does below resolve/main, and with ranges."""

    def do_HEAD(self) -> None:  # noqa: N802 (its base's name)
        self.start(200, len(BODY))

    def do_GET(self) -> None:  # noqa: N802
        asked = self.headers.get("Range")
        rest = BODY[int(asked[6:].split("-")[0]) if asked else 0 :]
        self.start(206 if asked else 200, len(rest))
        for begin in range(0, len(rest), 20_000):
            self.wfile.write(rest[begin : begin + 20_000])
            time.sleep(0.01)

    def start(self, status: int, length: int) -> None:
        self.send_response(status)
        headers = {"Content-Length": length, "ETag": f'"{DIGEST}"', "X-Repo-Commit": "a" * 40}
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # who asked was killed
            super().handle()


class Source:
    """A slow server on the loopback, in a process of its own."""

    def __enter__(self) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Slowly)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                server.serve_forever()
            finally:
                os._exit(0)
        server.socket.close()
        return f"http://127.0.0.1:{server.server_port}"

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def download(out: Path, url: str) -> None:
    """As `python -m models.weights fetch mine`."""
    from models import weights

    weights.WEIGHTS = {"mine": weights.Weights("mine", "mine.bin", url, "", "", "", "")}
    weights.cache_folder = lambda: out
    arguments = ["fetch", "mine"]
    sys.exit(command_line.run(weights.main, weights.Config, "", arguments, "models.weights"))
