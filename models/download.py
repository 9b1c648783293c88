"""One file over HTTP: bounded in bytes and time, continued where the connection breaks."""

from __future__ import annotations

import http.client
import os
import time
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

LARGEST = 4 << 30  # bytes, of a file of unknown size
HOURS = 4  # of one download
STALLED = 60  # seconds without a byte
BREAKS = 20  # of the connection


class RefusedError(OSError):
    """A download that must not go on."""


class Budget:
    """Called with the bytes that are there and those to come. Raises: RefusedError: too much."""

    def __init__(self, size: int | None = None) -> None:
        self.bytes, self.end = size or LARGEST, time.monotonic() + HOURS * 3600

    def __call__(self, done: int, total: int | None = None) -> None:
        if max(done, total or 0) > self.bytes:
            raise RefusedError(f"the source sends more than {self.bytes} bytes")
        if time.monotonic() > self.end:
            raise RefusedError(f"not done after {HOURS:g} hours")


class _StaysEncrypted(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise RefusedError(f"{req.full_url} leads to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def receive(url: str, file: Path, size: int | None = None) -> None:
    """Write `url` into `file`, behind what is there already.

    size: in bytes, if known. Raises: OSError: unreachable, broken off again and again, or more bytes
    or hours than allowed; what has come stays.
    """
    budget, opener, version = Budget(size), build_opener(_StaysEncrypted), None
    for _ in range(BREAKS):
        before = file.stat().st_size if file.is_file() else 0
        request = Request(url, headers={"User-Agent": "masc"})
        if before:
            request.add_header("Range", f"bytes={before}-")
            if version:
                request.add_header("If-Range", version)
        try:
            with opener.open(request, timeout=STALLED) as answer:
                version = answer.headers.get("ETag")
                if _write(answer, file, before if answer.status == 206 else 0, budget):
                    return
        except HTTPError as error:
            error.close()
            if error.code != 416 or not before:  # 416: nothing lies behind what is there
                raise
            if before == size:
                return
            file.unlink()
            continue
        except (URLError, http.client.HTTPException, ConnectionError, TimeoutError):
            if not file.is_file() or file.stat().st_size == before:
                raise
        time.sleep(1)
    raise OSError(f"the connection broke {BREAKS} times")


def _write(answer: http.client.HTTPResponse, file: Path, start: int, budget: Budget) -> bool:
    """Whether all came. start: the bytes in the file that the answer goes on from."""
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    budget(start, total)
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, leave=False, disable=None)
    with file.open("ab") as out, bar:
        out.truncate(start)
        while chunk := answer.read1(1 << 16):  # what has come: one byte a minute is seen, too
            out.write(chunk)
            bar.update(len(chunk))
            budget(out.tell())
        out.flush()
        os.fsync(out.fileno())
        return total is None or out.tell() == total
