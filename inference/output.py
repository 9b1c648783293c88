"""Text into files as it comes. A file replaces an older one only when it is finished.

Until then it is NAME.partial beside it, and every row is there at once: a run that is killed leaves
all that it scored. The next run with that name keeps it as NAME.partial-1, -2, ...
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

SCREEN = "-"  # instead of a file's name
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of some network drives
log = logging.getLogger("masc")


class Output:
    """A file, a pipe, a device, or standard output.

    target: its name; `SCREEN` for standard output. Raises, as all methods do: OSError that names it.
    """

    def __init__(self, target: str) -> None:
        self.path, self.partial, self.size = Path(target), None, 0  # size: bytes that stay
        if is_screen(target):
            self.file = None
        elif self.path.is_relative_to("/dev") or self.path.exists() and not self.path.is_file():
            self.file = self.path.open("wb", buffering=0)
        else:
            self.path = self.path.resolve()  # a link stays a link
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.partial = self.path.with_name(f"{self.path.name}.partial")
            self.file = _claim(self.partial)

    def write(self, data: bytes, end: bytes = b"") -> None:
        """Append at once. end: what makes a file whole; the next call overwrites it."""
        if self.file is None:
            with tqdm.external_write_mode(file=sys.stdout):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        elif self.partial is None:
            self._write(data)
        else:
            try:
                self.file.seek(self.size)
                self._write(data + end)
            except OSError:  # the rows before it stay whole
                self.file.truncate(self.size)
                self.file.seek(self.size)
                with suppress(OSError):
                    self._write(end if self.size else b"")
                raise
        self.size += len(data)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            words = error.strerror + "; the rows before are in it" * bool(self.partial)
            raise type(error)(error.errno, words, str(self.partial or self.path)) from error

    def close(self, end: bytes, whole: bool = True) -> None:
        """end: as of `write`. whole: a file takes its place, otherwise it stays partial."""
        if self.partial is None:
            self.write(end)
        elif whole:
            self.write(b"", end)
            os.fsync(self.file.fileno())
            self.partial.replace(self.path)
        elif self.size:
            log.warning("%s: what was scored until then", self.partial)
        else:
            self.partial.unlink()
        if self.file:
            self.file.close()


def is_screen(target: str) -> bool:
    """Whether it is `SCREEN`, or another name of what standard output goes to."""
    try:
        return target == SCREEN or os.path.samestat(os.fstat(1), Path(target).stat())
    except OSError:
        return False


def _claim(partial: Path) -> BinaryIO:
    """The file, new and locked; what an earlier run left in it gets another name."""
    while True:
        file = open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise OSError(errno.EBUSY, "another run is writing it", str(partial)) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        status = os.fstat(file.fileno())
        if not partial.exists() or not os.path.samestat(status, partial.stat()):
            file.close()  # the other run ended just now
        elif status.st_size == 0:
            return file
        else:
            names = (partial.with_name(f"{partial.name}-{number}") for number in count(1))
            kept = next(name for name in names if not name.exists())
            partial.rename(kept)
            file.close()
            log.warning("%s: what an earlier run scored before it was killed", kept)
