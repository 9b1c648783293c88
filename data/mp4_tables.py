"""A guard before FFmpeg: tables of MP4 files (ISO/IEC 14496-12) that claim more than the file holds.

A file of 30 KB can say that it has 60 million frames; FFmpeg would make an entry for each.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data.images import ImageError

INSIDE = frozenset([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"])
SAMPLES = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # box -> where its number of samples is
RUNS = frozenset([b"stts", b"ctts"])  # boxes of (samples, value), repeated
PLENTY = 1 << 20  # samples that cost nothing


def check_tables(path: Path) -> None:
    """Raises: ImageError where there are more samples than bytes. Other formats pass."""
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        if file.read(8)[4:] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
            return
        for count in _samples(file, 0, total):
            if count > max(total, PLENTY):
                raise ImageError(path, f"damaged: it claims {count:,} frames in {total:,} bytes")


def _samples(file: BinaryIO, place: int, end: int, depth: int = 0) -> Iterator[int]:
    """The number of samples of every table between two places of the file."""
    while place + 8 <= end:
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = place + 8
        if size == 1:  # 64 bits follow
            size, content = int.from_bytes(file.read(8)), place + 16
        last = min(end, place + size) if size else end
        if size and last < content:
            return
        if kind in INSIDE and depth < len(INSIDE):
            yield from _samples(file, content, last, depth + 1)
        elif kind in SAMPLES:
            file.seek(content + SAMPLES[kind])
            yield int.from_bytes(file.read(4))
        elif kind in RUNS:
            file.seek(content + 8)
            runs = file.read(max(0, last - content - 8))
            yield sum(count for count, _ in struct.iter_unpack(">II", runs[: len(runs) // 8 * 8]))
        place = last
