"""Decoding files of strangers in a process of its own, with limits of time and memory.

A decoder that a file makes slow, greedy or crash costs that file only. The process holds nothing
but decoders, can write no file, and is started anew when it ends. Requests and answers are a line
of JSON each; pixels follow as raw bytes. Nothing that comes back is unpickled.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from data.images import MAX_PIXELS, ImageError
from data.reader import Reader

SECONDS, START_SECONDS = 20.0, 60.0
BASE_BYTES, BYTES_PER_PIXEL = 256 << 20, 24  # what decoding takes at most
LINE = 1 << 20  # bytes of an answer's header
CRASHED = "made the decoder crash"


class IsolatedReader(Reader):
    """Decodes in another process. A context; thread-safe, one file at a time.

    Args:
        seconds: that one file, or some frames of one video, may take.
        memory: bytes that decoding may take beyond what the process uses at its start (default: by
            `max_pixels`).
    """

    def __init__(
        self, max_pixels: int = MAX_PIXELS, seconds: float = SECONDS, memory: int | None = None
    ) -> None:
        super().__init__(max_pixels)
        self.seconds_allowed = seconds
        self.memory = memory or BASE_BYTES + BYTES_PER_PIXEL * max_pixels
        self._lock, self._process = threading.Lock(), None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The other process ends; the next call starts a new one."""
        with self._lock:
            self._end()

    def image(self, path: Path, frame: int = 0) -> np.ndarray:
        return self._pixels("image", path, [frame], [path])[0]

    def frame_count(self, path: Path) -> int:
        return int(self._ask("frame_count", path, [])["value"])

    def picture_count(self, path: Path) -> int:
        return int(self._ask("picture_count", path, [])["value"])

    def frames(
        self, video: Path, wanted: Sequence[tuple[int, int]]
    ) -> list[np.ndarray | ImageError]:
        names = [Path(f"{video}@{i}of{n}") for i, n in wanted]
        try:
            return self._pixels("frames", video, [list(map(list, wanted))], names)
        except ImageError as error:
            return [ImageError(name, error.reason) for name in names]

    def seconds(self, video: Path) -> float | None:
        try:
            value = self._ask("seconds", video, [])["value"]
        except ImageError:
            return None
        return None if value is None else float(value)

    def stream_count(self, video: Path) -> int:
        try:
            return int(self._ask("stream_count", video, [])["value"])
        except ImageError:
            return 0

    def _pixels(self, what: str, path: Path, rest: list, names: list[Path]) -> list:
        """Pictures, or errors where the answer is about several."""
        items = self._ask(what, path, rest, len(names))["items"]
        return [
            ImageError(name, str(item["error"]), repeated=bool(item.get("repeated")))
            if isinstance(item, dict)
            else item
            for name, item in zip(names, items, strict=True)
        ]

    def _ask(self, what: str, path: Path, rest: list, pictures: int = 0) -> dict:
        """The answer; its `items` are pictures, or errors. Raises: ImageError."""
        request = [what, str(Path(path).absolute()), *rest]
        with self._lock:
            process = self._started()
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self.seconds_allowed, stop)
            timer.start()
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                answer = _read_answer(process.stdout, self.max_pixels, pictures)
            except (OSError, ValueError, TypeError, LookupError) as error:
                self._end()
                spent = f"takes more than {self.seconds_allowed:g} s to decode"
                raise ImageError(Path(path), spent if late.is_set() else CRASHED) from error
            except BaseException:  # Ctrl-C between request and answer
                self._end()
                raise
            finally:
                timer.cancel()
        if reason := answer.get("error"):
            raise ImageError(Path(path), str(reason))
        return answer

    def _started(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._end()
            limits = (self.max_pixels, self.memory, self.seconds_allowed)
            code = f"from data.isolated import serve; serve{limits}"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
            )
            ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
            if not ready or self._process.stdout.readline(LINE) != b"ready\n":
                self._end()
                raise OSError("the process that decodes pictures does not start")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


def _read_answer(pipe: BinaryIO, max_pixels: int, pictures: int) -> dict:
    """Raises: ValueError, TypeError, LookupError for what `_answer` does not write."""
    answer = json.loads(pipe.readline(LINE))
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    if "error" in answer:
        return answer
    if pictures and len(answer["items"]) != pictures:
        raise ValueError("another number of pictures")
    if not pictures:
        float(answer["value"] or 0)
        return answer
    answer["items"] = [
        item if "error" in item else _read_pixels(pipe, item["shape"], max_pixels)
        for item in answer["items"]
    ]
    return answer


def _read_pixels(pipe: BinaryIO, shape: list, max_pixels: int) -> np.ndarray:
    height, width = shape
    if not (height > 0 and width > 0 and height * width <= max_pixels):
        raise ValueError("a picture of another size than allowed")
    image = np.empty((height, width, 3), np.uint8)
    left = memoryview(image).cast("B")
    while len(left):
        if not (count := pipe.readinto(left)):
            raise ValueError("cut short")
        left = left[count:]
    return image


# In the other process.


def _answer(reader: Reader, what: str, path: Path, rest: list) -> tuple[dict, list[np.ndarray]]:
    try:
        if what == "image":
            images = [reader.image(path, *rest)]
        elif what == "frames":
            images = reader.frames(path, [tuple(place) for place in rest[0]])
        else:
            return {"value": getattr(reader, what)(path)}, []
    except ImageError as error:
        return {"error": error.reason}, []
    except MemoryError:
        return {"error": "takes more memory than allowed to decode"}, []
    items = [_item(image) for image in images]
    return {"items": items}, [image for image in images if not isinstance(image, ImageError)]


def _item(image: np.ndarray | ImageError) -> dict[str, Any]:
    if isinstance(image, ImageError):
        return {"error": image.reason, "repeated": image.repeated}
    return {"shape": image.shape[:2]}


def _requests() -> queue.Queue:
    """What comes in on standard input; its end, when the parent is gone, ends this process."""
    requests: queue.Queue = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests


def _limit(memory: int) -> None:
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = {resource.RLIMIT_AS: used + memory, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def serve(max_pixels: int, memory: int, seconds: float) -> None:
    """Answer the requests of an `IsolatedReader`, for ever."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    reader, requests = Reader(max_pixels), _requests()
    _limit(memory)
    out.write(b"ready\n")
    out.flush()
    while True:
        what, path, *rest = requests.get()
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)  # the end, whatever the parent does
        answer, images = _answer(reader, what, Path(path), rest)
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(answer).encode() + b"\n")
        for image in images:
            out.write(np.ascontiguousarray(image).data)
        out.flush()
