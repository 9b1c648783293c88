"""The web page under many visitors and hostile files: memory, time, and what stays on the disk."""

from __future__ import annotations

import io
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import numpy as np
import requests
from PIL import Image

from benchmarks.hardening.campaign import Room, Tally
from benchmarks.hardening.commands import ROOT, Running, memory_of, script, warm
from benchmarks.hardening.hostile import hostile
from benchmarks.hardening.mutations import faces

VISITORS = 50
FLAT = 500  # requests from which on memory has to be flat
GROWTH = 100.0  # MB from the first tenth of the requests to the last
LIMIT = 700.0  # MB that one file may take: the page's 40 million pixels, in a few copies
SECONDS = 60.0  # that one file may take
SWEEP = 180.0  # seconds until uploads are swept that nobody asks about
BUSY = ("queue", "full", "busy", "come back", "too many", "429", "503")


class Page:
    """A served page, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.running = Running(script("app.py", "--port", self.port, "--device", "cpu"), folder)
        self.session = requests.Session()
        self.session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=VISITORS)
        self.session.mount("http://", adapter)

    def __enter__(self) -> Page:
        until = time.perf_counter() + 120
        while time.perf_counter() < until and not self.running.poll():
            try:
                self.session.get(self.address, timeout=10).raise_for_status()
                return self
            except requests.RequestException:
                time.sleep(0.2)
        raise RuntimeError(f"no page: {self.running.wait(1).err[-500:]}")

    def __exit__(self, *_: object) -> None:
        if self.running.ended is None or not self.running.poll():
            self.stop()

    def stop(self):
        self.running.send(15)
        return self.running.wait(30)

    @property
    def memory(self) -> float:
        return memory_of(self.running.pid)

    @property
    def kept(self) -> list[Path]:
        return [path for path in self.running.temporary.rglob("*") if path.is_file()]

    def upload(self, name: str, content: bytes) -> str:
        url = f"{self.address}/gradio_api/upload"
        reply = self.session.post(url, files={"files": (name, content)}, timeout=SECONDS)
        reply.raise_for_status()
        return reply.json()[0]

    def ask(self, path: str, seconds: float = SECONDS) -> str:
        """The events of one prediction, as docs/app.md shows it."""
        url = f"{self.address}/gradio_api/call/predict"
        data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        reply = self.session.post(url, json=data, timeout=seconds)
        if not reply.ok:
            return f"event: error\n{reply.status_code} {reply.text}"
        event = reply.json()["event_id"]
        return self.session.get(f"{url}/{event}", timeout=seconds).text

    def predict(self, name: str, content: bytes, seconds: float = SECONDS) -> str:
        try:
            return self.ask(self.upload(name, content), seconds)
        except requests.RequestException as error:
            return f"event: none\n{error}"


def attack(room: Room) -> list[Tally]:
    """The hostile files come last: what they leave must not count against the visitors."""
    warm()
    found = []
    with Page(room.folder / "page") as page:
        found.append(strangers(room, page))
        found.append(at_once(room, page))
        found.append(one_after_the_other(room, page))
        found.append(expensive(room, page))
        found.append(left_behind(room, page))
    return found


def picture(seed: int, face: bool) -> bytes:
    """A PNG that no other visitor sends."""
    image = faces(160)[seed % 2] if face else np.full((64, 64, 3), 90, np.uint8)
    image[:2, :30] = np.random.default_rng(seed).integers(0, 256, (2, 30, 3))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def at_once(room: Room, page: Page) -> Tally:
    """Everybody gets an answer, or is asked to come back."""
    tally, count = room.tally("visitors at once"), min(VISITORS, room.count)
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        sent = pool.map(lambda i: page.predict(f"{i}.png", picture(i, True), 300), range(count))
        answers = list(sent)
    tally.add("all", time.perf_counter() - start, page.memory)
    tally.tried = count
    for i, answer in enumerate(answers):
        if "event: complete" not in answer and not any(word in answer.lower() for word in BUSY):
            tally.fail(f"no answer, and not asked to come back: {answer[-200:]}", f"visitor {i}")
    if "event: complete" not in "".join(answers):
        tally.fail("nobody was answered", "all")
    return tally


def one_after_the_other(room: Room, page: Page) -> Tally:
    """Memory is flat; one in ten pictures has a face."""
    tally, early = room.tally("requests"), 0.0
    for i in room.times(room.count, "requests"):
        start, face = time.perf_counter(), i % 10 == 0
        answer = page.predict(f"{i}.png", picture(1000 + i, face))
        tally.add(f"{i}", time.perf_counter() - start, page.memory)
        if ("event: complete" in answer) is not face:
            tally.fail(f"wrong answer: {answer[-200:]}", f"{i}")
        if i == room.count // 10:
            early = page.memory
    growth = page.memory - early
    if room.count >= FLAT and growth > GROWTH:
        tally.fail(f"memory grew by {growth:.0f} MB", f"{tally.tried} requests")
    return tally


def strangers(room: Room, page: Page) -> Tally:
    """Addresses and files that were not uploaded are not opened."""
    tally, secret = room.tally("not uploaded"), room.folder / "secret.png"
    secret.write_bytes(picture(0, True))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(3)
        heard = Counter()
        ended = Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    listener.accept()[0].close()
                    heard["connections"] += 1
                except TimeoutError:
                    continue

        thread = Thread(target=listen)
        thread.start()
        port = listener.getsockname()[1]
        for path in (
            f"http://127.0.0.1:{port}/a.png",
            f"tcp:127.0.0.1:{port}?x.mp4",
            f"file://{secret}",
            str(secret),
            "/etc/hostname",
            str(page.running.temporary / ".." / "secret.png"),
        ):
            before = heard["connections"]
            try:
                answer = page.ask(path, 20)
            except requests.RequestException as error:
                answer = f"event: none\n{error}"
            tally.add(path.replace(str(port), "PORT"))
            if heard["connections"] > before:
                tally.fail("the server opened a connection", path)
            if "event: complete" in answer:
                tally.fail("a file that was not uploaded is answered", path)
            told = answer.replace(path, "").replace(str(secret), "")
            if str(room.folder) in told or str(ROOT) in told:
                tally.fail("the answer names a folder of the server", path)
        ended.set()
        thread.join()
    if not secret.is_file():
        tally.fail("a file that was not uploaded is gone", str(secret))
    return tally


def expensive(room: Room, page: Page) -> Tally:
    """Small files that take long or much: bounded, and the page answers others afterwards."""
    tally = room.tally("expensive files")
    for what, path in hostile(room.folder, min(1.0, room.count / 1000)).items():
        before, peak, done = page.memory, [0.0], Event()
        watcher = Thread(target=watch, args=(lambda: page.memory, peak, done))
        watcher.start()
        start = time.perf_counter()
        answer = page.predict(path.name, path.read_bytes(), 2 * SECONDS)
        took = time.perf_counter() - start
        done.set()
        watcher.join()
        tally.add(what, took, peak[0] - before)
        if took > SECONDS:
            tally.fail(f"takes {took:.0f} s", what, path)
        if peak[0] - before > LIMIT:
            tally.fail(f"takes {peak[0] - before:.0f} MB", what, path)
        if "event: none" in answer:
            tally.fail(f"no answer: {answer[-200:]}", what, path)
        if "event: complete" not in page.predict("after.png", picture(7, True), 2 * SECONDS):
            tally.fail("nobody is answered afterwards", what, path)
    return tally


def watch(measure: Callable[[], float], peak: list[float], done: Event) -> None:
    while not done.wait(0.2):
        peak[0] = max(peak[0], measure())


def left_behind(room: Room, page: Page) -> Tally:
    """Uploads that break off or are never asked about, then the end: nothing stays on the disk."""
    tally, content = room.tally("left on the disk"), picture(3, True)
    for i in range(20):
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 3000000\r\n\r\n"
            '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        )
        with socket.create_connection(("127.0.0.1", page.port)) as sender:
            sender.sendall(head.encode() + content * (1 + i))
            time.sleep(0.02)
    page.upload("unasked.png", content)
    tally.tried = 21
    until = min(time.perf_counter() + SWEEP, room.until)
    while page.kept and time.perf_counter() < until and room.count >= FLAT:
        time.sleep(1)
    if page.kept and room.count >= FLAT:
        names = ", ".join(sorted({path.suffix or path.name for path in page.kept}))
        tally.fail(f"{len(page.kept)} files after {SWEEP:.0f} s ({names})", "while it serves")
    ended = page.stop()
    if wrong := ended.wrong(0):
        tally.fail(f"at its end: {wrong}", "SIGTERM")
    if left := page.kept:
        tally.fail(f"{len(left)} files after its end, as {left[0].name}", "SIGTERM")
    return tally
