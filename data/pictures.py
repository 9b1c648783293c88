"""The contents of a dataset's files: a dump knows its pictures by them, as names tell nothing.

`pictures.csv` has a line per file: its SHA-256, and its size, times and inode. While all of those
are as they were, so is the file: its owner can set mtime, archives set it to a fixed date, but not
ctime, and another file in its place has another inode. Otherwise its content decides, so that a
dataset may be copied and moved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data.dump import Dump
from data.files import lock, read_csv, write_csv
from data.video import file_of

FILE = "pictures.csv"
COLUMNS = ("file", "bytes", "mtime_ns", "sha256", "ctime_ns", "inode")
EARLIER = COLUMNS[:4]  # of an earlier version
WHOLE = 64 << 20  # bytes; of a larger file some parts are hashed
PART = 1 << 20
THREADS = 8
LOCK = "unfinished/lock"  # of who writes into a dump


class Print(NamedTuple):
    """What a file held. bytes: -1 where it could not be opened; ctime_ns, inode: 0 unknown."""

    file: str
    bytes: int
    mtime_ns: int
    sha256: str
    ctime_ns: int = 0
    inode: int = 0

    def untouched(self, now: os.stat_result) -> bool:
        """Whether the file cannot have changed. now: its status."""
        then = (self.bytes, self.mtime_ns, self.ctime_ns, self.inode)
        return then == (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)


def print_of(root: Path, file: str) -> Print:
    """Of a file larger than 64 MB, its size and its first, middle and last megabyte are hashed."""
    try:
        if not (root / file).is_file():  # opening a pipe would wait for ever
            return Print(file, -1, 0, "")
        with (root / file).open("rb") as opened:
            status = os.fstat(opened.fileno())
            size, digest = status.st_size, hashlib.sha256()
            if size <= WHOLE:
                digest = hashlib.file_digest(opened, "sha256")
            else:
                digest.update(str(size).encode())
                for start in (0, (size - PART) // 2, size - PART):
                    opened.seek(start)
                    digest.update(opened.read(PART))
            times = (status.st_mtime_ns, digest.hexdigest(), status.st_ctime_ns)
            return Print(file, size, *times, status.st_ino)
    except (OSError, ValueError):  # ValueError: no name of a file
        return Print(file, -1, 0, "")


def prints_of(root: Path, paths: Iterable[str]) -> list[Print]:
    """Of the files of pictures and frames, each once."""
    return [print_of(root, file) for file in files_of(paths)]


def files_of(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(file_of(path).as_posix() for path in paths))


class Known:
    """The files of a dataset, as they were when a dump was made of them.

    fresh: what files hold that were hashed since, and when; it grows.
    """

    def __init__(
        self, root: Path, prints: Iterable[Print], fresh: dict[str, Print] | None = None
    ) -> None:
        self.root, self.prints = Path(root), {each.file: each for each in prints}
        self.fresh = {} if fresh is None else fresh

    def changed(self, path: str) -> bool:
        """Whether the file of a picture or frame holds something else now. One that cannot be
        opened any more has not changed; one of which nothing is known neither."""
        known = self.prints.get(file_of(path).as_posix())
        if known is None:
            return False
        try:
            status = (self.root / known.file).stat()
        except (OSError, ValueError):
            return False
        if known.untouched(status):
            return False
        now = self.fresh.get(known.file)
        if now is None or not now.untouched(status):
            now = print_of(self.root, known.file)
            if now.bytes < 0:
                return False
            self.fresh[known.file] = now
        return now.sha256 != known.sha256

    def check(self, where: Path, advice: str, files: Sequence[str] | None = None) -> None:
        """Raises: ValueError where files have changed. files: some; None: all that are known.

        where: the dump that they were known to.
        """
        files = list(self.prints) if files is None else files
        with ThreadPoolExecutor(THREADS) as pool:
            found = [f for f, new in zip(files, pool.map(self.changed, files), strict=True) if new]
        if found:
            raise ValueError(
                f"{where}: made from other pictures: {len(found)} of {len(files)} files hold "
                f"something else now, such as {self.root / found[0]}. {advice}"
            )


def check_pictures(dump: Dump, root: Path, advice: str, paths: Sequence[str] | None = None) -> None:
    """Raises: ValueError where pictures are not those of a dump any more.

    root: the folder in which they are now. paths: of some pictures; None: all.
    """
    known = Known(root, read_prints(dump.path / FILE) or [])
    files = None if paths is None else [f for f in files_of(paths) if f in known.prints]
    known.check(dump.path, advice, files)
    lock_file = dump.path / LOCK
    if known.fresh and os.access(dump.path, os.W_OK) and not lock_file.parent.exists():
        with suppress(OSError):  # a full disk: the next run hashes them again
            if held := lock(lock_file):
                with held:
                    note_fresh(dump.path, known.fresh)
                    lock_file.unlink()
                    lock_file.parent.rmdir()


def note_fresh(out: Path, fresh: Mapping[str, Print]) -> None:
    """In a dump that is locked: files that were copied or moved need not be hashed again."""
    prints = (fresh and read_prints(out / FILE)) or []
    new = [fresh.get(each.file, each) for each in prints]
    new = [a if a.sha256 == b.sha256 else b for a, b in zip(new, prints, strict=True)]
    if new != prints:
        with suppress(OSError):  # a full disk: the next run hashes them again
            write_prints(out / FILE, new)


def write_prints(path: Path, prints: Iterable[Print]) -> None:
    write_csv(path, COLUMNS, prints)


def read_prints(path: Path) -> list[Print] | None:
    """None where there is no such file: the dump was made by an earlier version."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        earlier = file.readline().strip() == ",".join(EARLIER)
    lines = read_csv(path, EARLIER if earlier else COLUMNS)
    try:
        return [
            Print(file, int(size), int(time), sha, *map(int, rest))
            for file, size, time, sha, *rest in lines
        ]
    except ValueError:
        raise ValueError(f"{path}: damaged; make the dump again") from None


def digest_of(prints: Iterable[Print]) -> str:
    """SHA-256 of the contents under their names, whenever and wherever they were written."""
    digest = hashlib.sha256()
    for each in sorted(prints):
        digest.update(
            f"{each.file}\0{each.bytes}\0{each.sha256}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()
