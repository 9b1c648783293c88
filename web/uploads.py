"""Where uploaded files lie until they are judged. None stays, however the page ends."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from data.names import for_screen

PREFIX = "masc-app-"
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
    def full(self) -> bool:
        return sum(1 for _ in self.folder.iterdir()) >= MOST

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
