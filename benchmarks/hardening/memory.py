"""Memory of predict.py: large pictures together, and many small ones one after the other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hardening.campaign import Room, Tally
from benchmarks.hardening.commands import Running, memory_of, script, warm
from benchmarks.hardening.mutations import faces

LARGE = 16  # pictures of 100 million pixels
SIDE = 10_000
LIMIT = 3000.0  # MB: the networks, and one such picture in a few copies
FLAT = 500  # pictures from which on memory has to be flat
GROWTH = 60.0  # MB from the first fifth of the small pictures to the end


def attack(room: Room) -> list[Tally]:
    warm()
    return [large(room), many(room)]


def large(room: Room) -> Tally:
    """In a tiny run fewer and smaller ones."""
    tally, folder = room.tally("large pictures"), room.folder / "large"
    folder.mkdir()
    count = min(LARGE, max(2, room.count // 100))
    side = SIDE if count == LARGE else 1000
    image = Image.new("RGB", (side, side), (90, 90, 90))
    image.paste(Image.fromarray(faces(800)[0]), (100, 100))
    image.save(folder / "0.png", compress_level=1)
    for i in range(1, count):
        shutil.copyfile(folder / "0.png", folder / f"{i}.png")
    peaks = [0.0]
    run(tally, folder, count, lambda pid: peaks.append(memory_of(pid)))
    tally.peak = max(peaks)
    if tally.peak > LIMIT:
        tally.fail(f"takes {tally.peak:.0f} MB", f"{count} PNGs of {side}x{side}")
    return tally


def many(room: Room) -> Tally:
    tally, folder = room.tally("many pictures"), room.folder / "many"
    folder.mkdir()
    for i in range(room.count):  # ten of them are different
        path = folder / f"{i:05d}.jpg"
        if i < 10:
            Image.fromarray(np.roll(faces(160)[i % 2], i, axis=1)).save(path)
        else:
            shutil.copyfile(folder / f"{i % 10:05d}.jpg", path)
    seen, csv = [], folder.with_suffix(".csv")

    def look(pid: int) -> None:
        seen.append(memory_of(pid))

    run(tally, folder, room.count, look, "--csv", str(csv))
    tally.peak = max(seen, default=0.0)
    growth = max(seen[-10:], default=0.0) - max(seen[: len(seen) // 5], default=0.0)
    if room.count >= FLAT and growth > GROWTH:
        tally.fail(f"grew by {growth:.0f} MB", f"{room.count} pictures")
    if csv.is_file() and len(csv.read_text().splitlines()) != room.count + 1:
        tally.fail("not one row for each", f"{room.count} pictures")
    return tally


def run(tally: Tally, folder: Path, count: int, look: Callable[[int], None], *more: str) -> None:
    start = time.perf_counter()
    running = Running(script("predict.py", folder, *more), folder.with_suffix(".run"))
    ended = running.wait(3600, look)
    tally.add(folder.name, time.perf_counter() - start)
    tally.tried = count
    if wrong := ended.wrong(0):
        tally.fail(wrong, folder.name)
