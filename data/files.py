"""Writing files whole or not at all; the CSV files of this project."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from data.names import for_csv, from_csv

PARTIAL = ".partial"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole and on disk. Other writers wait.

    Raises: OSError, which names `path`.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with _claimed(partial) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:  # also Ctrl-C: nothing half written stays
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno is None:
            raise
        reason = error.strerror
        if error.errno in FULL:
            reason = "the disk is full; free some space and run the same command again"
        raise OSError(error.errno, reason, str(path)) from error
    _sync(path.parent)


def _claimed(path: Path) -> BinaryIO:
    """A new file that is locked until it is closed; one that was left there is used again."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        with suppress(OSError):  # not every network drive has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                if os.fstat(file.fileno()).st_size:
                    file.truncate(0)
                return file
        file.close()  # the writer before has renamed it


def lock(path: Path) -> BinaryIO | None:
    """Held until it is closed or this process ends, however it ends; None: another one has it.

    Not every network drive has locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
    return file


def _sync(folder: Path) -> None:
    """A new name is on disk only when its folder is. Not every system can tell."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_json(path: Path, data: dict) -> None:
    with replacing(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """UTF-8, and file names that are not are kept byte by byte. Floats with six digits.

    What a spreadsheet would take for a formula is behind an apostrophe (data/names.py).
    """
    text = "".join(csv_line(map(_cell, row)) for row in chain([header], rows))
    with replacing(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def csv_line(cells: Iterable) -> str:
    """A row. The csv module leaves a carriage return bare, which ends a row for most readers."""
    cells, line = list(cells), io.StringIO()
    bare = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    csv.writer(line, lineterminator="\n", quoting=quoting).writerow(cells)
    return line.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return for_csv(value) if isinstance(value, str) else value


def read_csv(path: Path, header: Sequence[str]) -> list[list[str]]:
    """The lines below the header that `write_csv` wrote, whatever the length of a field.

    Raises: ValueError for other columns, and for a file that is damaged.
    """
    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = list(csv.reader(file))
    except csv.Error as error:
        raise ValueError(f"{path}: damaged ({error}); make the dump again") from None
    finally:
        csv.field_size_limit(before)
    if not lines or lines[0] != list(header):
        raise ValueError(f"{path}: expected the columns {', '.join(header)}; make the dump again")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise ValueError(
                f"{path}: row {number} has {len(line)} columns, not {len(header)}; make the dump again"
            )
    return [[from_csv(text) for text in line] for line in lines[1:]]
