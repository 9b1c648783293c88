"""Writing files whole or not at all."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from data.names import for_csv


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole and on disk. Other writers wait.

    Raises: OSError that names `path`.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with _claimed(partial) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "the disk is full; free some space and run the same command again"
            raise OSError(error.errno, advice, str(path)) from error
        if error.filename == str(partial):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def _claimed(path: Path) -> BinaryIO:
    """A new file that is locked until it is closed; a file that was left there is used."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        with suppress(OSError):  # not every network drive has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        file.close()  # the writer before has renamed it


def write_json(path: Path, data: dict) -> None:
    with replacing(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """UTF-8; names keep their bytes, and begin as `data.names.for_csv` says. Floats with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(map(_cell, row))
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return for_csv(value) if isinstance(value, str) else value
