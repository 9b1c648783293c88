"""Small files that are expensive to decode or to answer."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hardening.mutations import faces, write_clip

CLAIMED = 60_000_000  # frames of one byte in the tables of a clip
SCANS = 80_000  # of a progressive JPEG
SIDE = 4000  # px of a clip with one key frame
CROWD = 20  # faces a side


def hostile(folder: Path, size: float = 1.0) -> dict[str, Path]:
    """What each is -> its file. size: 1 for the whole attack, less for a smaller one."""
    made = {
        "a table of 60 million frames": ("table.mp4", many_frames),
        "a JPEG of 80,000 scans": ("scans.jpg", many_scans),
        "a GIF of comments": ("comments.gif", comments),
        "one key frame, 4000x4000": ("key.mp4", one_key_frame),
        "400 faces": ("crowd.jpg", crowd),
    }
    for name, make in made.values():
        make(folder / name, size)
    return {what: folder / name for what, (name, _) in made.items()}


def many_frames(path: Path, size: float) -> None:
    """The tables for sizes, chunks and times of an MP4 claim frames that are not there."""
    write_clip(path, faces(96)[:1] * 12, "libx264", "yuv420p", {}, {})
    data, count = bytearray(path.read_bytes()), int(CLAIMED * size)
    tables = {b"stsz": (1, count), b"stsc": (1, count, 1), b"stts": (count, 1)}
    for name, values in tables.items():
        begin = data.find(name) + (8 if name == b"stsz" else 12)
        struct.pack_into(f">{len(values)}I", data, begin, *values)
    path.write_bytes(data)


def many_scans(path: Path, size: float) -> None:
    """The last scan of a progressive JPEG, which refines what is there, again and again."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    begin = data.rfind(b"\xff\xda")
    scan = data[begin : begin + 13]  # cut after its header: the decoder visits every block
    path.write_bytes(data[:-2] + scan * int(SCANS * size) + b"\xff\xd9")


def comments(path: Path, size: float) -> None:
    """10 MB of one-byte comments before the picture."""
    file = io.BytesIO()
    Image.fromarray(faces(96)[0]).save(file, "GIF")
    data = file.getvalue()
    begin = 13 + 3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 13
    path.write_bytes(data[:begin] + b"\x21\xfe\x01a\x00" * int(2_000_000 * size) + data[begin:])


def one_key_frame(path: Path, size: float) -> None:
    """Every frame depends on all before it."""
    side = max(96, int(SIDE * size**0.5) // 2 * 2)
    grey = np.full((side, side, 3), 128, np.uint8)
    options = {"g": "9999", "preset": "ultrafast", "threads": "2"}
    write_clip(path, [grey] * max(12, int(400 * size)), "libx264", "yuv420p", options, {})


def crowd(path: Path, size: float) -> None:
    count = max(2, int(CROWD * size**0.5))
    one, two = faces(160)
    rows = [
        np.concatenate([one, two] * (count // 2), 1),
        np.concatenate([two, one] * (count // 2), 1),
    ]
    Image.fromarray(np.concatenate(rows * (count // 2))).save(path, quality=40)
