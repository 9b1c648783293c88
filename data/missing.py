"""Frames that a damaged video has lost: FFmpeg passes over holes and a missing end without a word.

A time without a frame proves nothing, as a frame may be shown for long. Frames are missing where the
parts of the file do not reach from its start to its end, one behind the other, as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.stream import VideoStream

# Matroska (RFC 9559): the elements that are looked into, and those that are in them.
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
ELEMENTS = frozenset(
    [SEGMENT, CLUSTER, 0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469]
    + [0x1043A770, 0x1254C367, 0xEC, 0xBF, 0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF]
)

DURATION = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")  # of a stream of a Matroska file
MOST = 1_000_000  # frames that a header is believed to miss


def missing_times(video: Path, stream: VideoStream, times: Sequence[int]) -> list[int]:
    """Where frames of a damaged file should be, about, ascending; empty for a whole file.

    times: of the frames that are there, ascending, in the stream's units.
    """
    kind, usual = stream.container.format.name, _interval(stream, times)
    end = _claimed_end(stream)
    gaps = np.diff([*times, times[-1] if end is None else end]) / usual
    if not kind.startswith("matroska"):  # of others only a missing end is told
        gaps[:-1] = 1
    if not (gaps > 1.5).any() or not is_broken(video, kind):
        return []
    counts = (gaps.round().astype(int) - 1).clip(0)
    after = ((time, k + 1) for time, n in zip(times, counts, strict=True) for k in range(n))
    return [round(time + k * usual) for time, k in islice(after, MOST)]


def _interval(stream: VideoStream, times: Sequence[int]) -> float:
    """The usual time between two frames, in the stream's units."""
    if len(times) > 1:
        return float(np.median(np.diff(times)))
    return float(1 / ((stream.average_rate or Fraction(25)) * stream.time_base))


def _claimed_end(stream: VideoStream) -> int | None:
    """The end of the last frame by the file's header, in the stream's units; None unknown."""
    kind, start = stream.container.format.name, stream.start_time or 0
    if kind == "avi":  # in which a unit is a frame
        return stream.frames or None
    if kind.startswith("mov"):
        return None if stream.duration is None else start + stream.duration
    tags = (DURATION.fullmatch(v) for k, v in stream.metadata.items() if k.startswith("DURATION"))
    for hours, minutes, seconds in (tag.groups() for tag in tags if tag):
        return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) / stream.time_base)
    whole = stream.container.duration  # may be that of the sound
    return whole and round(whole / av.time_base / stream.time_base)


def lateness(times: Sequence[int]) -> int:
    """By how many frames at most one is decoded after others that are shown later."""
    ranks = np.argsort(np.argsort(times))
    return int((np.maximum.accumulate(ranks) - ranks).max())


def is_broken(path: Path, kind: str) -> bool:
    """True where a part reaches beyond the end, or something else is in the place of one.

    kind: the container by FFmpeg's name; False for those that are not known here.
    """
    walk = next((walk for name, walk in WALKS.items() if kind.startswith(name)), None)
    if walk is None:
        return False
    with path.open("rb") as file:
        return not walk(file, os.fstat(file.fileno()).st_size)


def _matroska(file: BinaryIO, total: int) -> bool:
    place, end = 0, total
    while place < end:
        file.seek(place)
        head = file.read(12)  # at most 4 bytes of a name and 8 of a size
        if not head:
            return False
        long = 9 - head[0].bit_length()
        name, head = int.from_bytes(head[:long]), head[long:]
        if name not in ELEMENTS or not head or not head[0]:
            return False
        wide = 9 - head[0].bit_length()
        size = int.from_bytes(head[:wide]) & (1 << 7 * wide) - 1
        place += long + wide
        known = size != (1 << 7 * wide) - 1  # else it ends where the next one begins
        if name == SEGMENT:
            end = place + size if known else total
        elif name != CLUSTER:
            place += size
    return place == end <= total


def _mp4(file: BinaryIO, total: int) -> bool:
    place = 0
    while place + 8 <= total:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4])
        size = int.from_bytes(head[8:]) if size == 1 else size or total - place
        place += max(size, 8)
    return place <= total


def _avi(file: BinaryIO, total: int) -> bool:
    place = 0
    while place + 8 <= total:
        file.seek(place)
        head = file.read(8)
        if head[:4] != b"RIFF":  # something was put behind the file
            return True
        place += 8 + int.from_bytes(head[4:], "little")
        place += place % 2
    return place <= total + total % 2


def _flv(file: BinaryIO, total: int) -> bool:
    file.seek(5)
    place = int.from_bytes(file.read(4)) + 4
    while place + 4 < total:
        file.seek(place)
        head = file.read(4)
        if head[0] & 31 not in (8, 9, 18):  # sound, pictures, data: something is behind the file
            return True
        place += 15 + int.from_bytes(head[1:])
    return place <= total


WALKS = {"mov": _mp4, "matroska": _matroska, "avi": _avi, "flv": _flv}
