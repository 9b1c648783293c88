"""Picture files without what is beside their pixels: for those whose metadata nobody can read."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

# Raised by Pillow's readers on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError)
DAMAGE += (MemoryError, AssertionError, struct.error, zlib.error)
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # of a JPEG, also behind coded pixels
JPEG_END = b"\xff\xd9"
RESTART = re.compile(rb"\xff([\xd0-\xd7])")  # of a JPEG, among coded pixels
OF_FRAMES = (b"acTL", b"fcTL", b"fdAT")  # chunks of an animated PNG
TRANSPARENT = {
    b"\0": (2,),
    b"\2": (6,),
    b"\3": range(1, 257),
}  # PNG: kind of colours -> bytes of a tRNS


def mended(suffix: str, file: BinaryIO) -> Iterator[BinaryIO]:
    """Files of the same pixels to try where one cannot be read. suffix: by its first bytes."""
    file.seek(0)
    if suffix == ".png":
        data = file.read()
        yield bare_png(data)
        yield bare_png(data, frames=False)
    elif suffix == ".webp":
        yield bare_webp(file.read())
    elif suffix == ".jpg":
        data = bare_jpeg(file.read()).rstrip(b"\xff")  # of half an end marker
        yield BytesIO(data)
        complete = False
        with suppress(*DAMAGE):  # further damage: it is not complete
            complete = is_complete(data)
        if complete:
            yield BytesIO(data + JPEG_END)


def bare_png(data: bytes, frames: bool = True) -> BytesIO:
    """Without texts, colour profiles and damaged chunks beside the pixels. frames: of animations."""
    kept, place = [data[:8]], 8
    while len(header := data[place : place + 8]) == 8:
        size, kind = struct.unpack(">I4s", header)
        end = place + size + 12
        whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) == data[end - 4 : end]
        if kind == b"tRNS":
            wanted = whole and size in TRANSPARENT.get(data[25:26], ())
        elif kind in OF_FRAMES:
            wanted = frames
        else:  # a capital first letter: the picture is nothing without it
            wanted = kind[:1].isupper() or whole and kind == b"eXIf"
        kept += [data[place:end]] if wanted else []
        place = end
    return BytesIO(b"".join(kept))


def bare_webp(data: bytes) -> BytesIO:
    """Without texts, colour profiles and what follows damage; none of an animation."""
    kept, place = [], 12
    while len(header := data[place : place + 8]) == 8:
        kind, size = struct.unpack("<4sI", header)
        end = place + 8 + size + size % 2
        if kind in (b"VP8 ", b"VP8L", b"ALPH", b"EXIF") and place + 8 + size <= len(data):
            kept.append(data[place:end])
        elif kind == b"VP8X":  # says which of the other chunks there are: only transparency, EXIF
            kept.append(header + bytes([data[place + 8] & 0x18]) + data[place + 9 : end])
        place = end
    body = b"WEBP" + b"".join(kept)
    return BytesIO(b"RIFF" + len(body).to_bytes(4, "little") + body)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a JPEG up to its end: the second byte of each marker, where it begins and ends.

    Behind the end of a scan's header are its coded pixels.
    """
    place = 2
    while (mark := MARKER.search(data, place)) and mark[1] != b"\xd9":
        place = mark.end() + max(2, int.from_bytes(data[mark.end() : mark.end() + 2]))
        yield mark[1][0], mark.start(), place


def bare_jpeg(data: bytes) -> bytes:
    """Without comments and data of programs, but with what tells colours and orientation."""
    kept, start = [], 0
    for kind, begin, end in segments(data):
        content = data[begin + 4 : end]
        known = content.startswith((b"JFIF\0", b"Exif\0\0")) and len(content) >= 14
        known = known or content.startswith(b"Adobe") and len(content) >= 12
        if (0xE0 <= kind <= 0xEF or kind == 0xFE) and not known:
            kept.append(data[start:begin])
            start = end
    return b"".join([*kept, data[start:]])


def is_complete(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker only: its pixels are the same whatever follows.

    All bits of all coefficients must be in one of its scans, as a progressive one may lack scans.
    """
    unknown: dict[int, np.ndarray] = {}  # component -> lowest bit known of each coefficient
    for kind, begin, end in segments(data):
        content = data[begin + 4 : end]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            unknown = {component: np.full(64, 16) for component in content[6::3]}
        elif kind == 0xDA:
            first, last, bits = content[-3:]
            for component in content[1:-3:2]:
                unknown[component][first : last + 1] = bits & 15
    if not unknown or any(bits.any() for bits in unknown.values()):
        return False
    seen = set()
    for filling in _fillings(data):
        with Image.open(BytesIO(data + filling + JPEG_END), formats=["JPEG"]) as image:
            seen.add(hashlib.sha256(image.tobytes()).digest())
        if len(seen) > 1:
            return False
    return True


def _fillings(data: bytes) -> Iterator[bytes]:
    """What might follow in a JPEG: nothing; bits of all kinds, before and behind its next restart."""
    yield b""
    number = 0
    for mark in RESTART.finditer(data):
        number = mark[1][0] - 0xD0 + 1
    rng = np.random.default_rng(0)
    for _ in range(16):
        bits = rng.integers(0, 255, (8, 8), np.uint8)
        yield bits.tobytes()
        yield b"".join(
            row.tobytes() + bytes([0xFF, 0xD0 + (number + place) % 8])
            for place, row in enumerate(bits)
        )
