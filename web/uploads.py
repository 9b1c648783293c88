"""Where uploaded files lie until they are judged. None stays, however the page ends."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from data.names import for_screen

PREFIX = "masc-app-"
MAX_BYTES = 20 * 1024**2  # of a file
PHOTOGRAPHS = 8  # of a person in a prediction; and files in an upload
MOST = 100  # files at a time
SECONDS = 90  # after which a file goes that nobody asks about
ADDRESS = re.compile(r"([0-9a-f]{32})/([^/]+)")  # of an upload: what a visitor knows of its place


class Uploads:
    """A folder of one page, locked while the page runs.

    So a page that starts can tell which folders were left behind by killed ones, and deletes them.
    """

    def __init__(self) -> None:
        delete_left_behind()
        new = Path(tempfile.mkdtemp(prefix="masc-new-")).resolve()
        self._lock = os.open(new, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder = new.rename(new.with_name(new.name.replace("masc-new-", PREFIX)))

    @property
    def room(self) -> int:
        """How many files may be added."""
        return max(0, MOST - sum(1 for _ in self.folder.iterdir()))

    def add(self, name: str, content: BinaryIO) -> str:
        """Keep a file; its address. name: the visitor's. Raises: OSError."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        path = folder / safe(name)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return f"{folder.name}/{path.name}"

    def find(self, address: str) -> Path | None:
        """The place of an upload, which may be gone by now; None for what never was one."""
        match = ADDRESS.fullmatch(address)
        known = match and match[2] == safe(match[2])
        return self.folder / match[1] / match[2] if known else None

    def holds(self, path: str) -> bool:
        """Whether this is the place of an upload, also one that is gone."""
        address = path.removeprefix(f"{self.folder}/")
        found = self.find(address)
        return found is not None and address != path and found.resolve() == found

    def delete(self, path: Path) -> None:
        shutil.rmtree(path.parent, ignore_errors=True)

    def without_places(self, text: str) -> str:
        """The text with the names of uploads instead of their paths."""
        return re.sub(rf"{re.escape(str(self.folder))}/[0-9a-f]{{32}}/", "", text)

    def sweep(self, waiting: Collection[Path]) -> None:
        """Delete what is old and does not wait for its turn."""
        for folder in self.folder.iterdir():
            with suppress(FileNotFoundError):  # deleted meanwhile, after its turn
                old = time.time() - folder.stat().st_mtime > SECONDS
                if old and not any(path.is_relative_to(folder) for path in waiting):
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


class Form(MultiPartParser):
    """With a few files. Of one that is too large no more is kept than tells it."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers, stream, max_files=PHOTOGRAPHS, max_fields=4)
        self.size = 0  # of the current part

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.size = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        end = min(end, start + MAX_BYTES + 1 - self.size)
        self.size += end - start
        super().on_part_data(data, start, end)


def safe(name: str) -> str:
    """One that any disk can hold, of at most 160 bytes, with its suffix."""
    name = for_screen(Path(name.replace("\\", "/")).name).replace("\\", "_")
    suffix = Path(name).suffix.encode()[:20].decode(errors="ignore")
    stem = Path(name).stem.lstrip(".").encode()[:140].decode(errors="ignore")
    return f"{stem or 'picture'}{suffix}"


def delete_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, or no folder
            continue
        with suppress(BlockingIOError):  # its page runs
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
