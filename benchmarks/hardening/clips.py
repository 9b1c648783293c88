"""Broken clips: for each frame a picture or an ImageError, for the duration a number or None."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.hardening.campaign import Judge, Room, Tally
from benchmarks.hardening.mutations import clips, mutate
from benchmarks.hardening.pictures import is_picture
from data.images import ImageError
from data.video import read_frames, seconds_of

LIMIT = 300  # MB


def check(path: Path) -> str:
    count = 1 + len(path.name) % 3
    found = read_frames(path, [(i, count) for i in range(count)])
    if len(found) != count:
        return f"{len(found)} answers for {count} frames"
    for each in found:
        if isinstance(each, ImageError) and not str(each).startswith(str(path)):
            return f"the message names no file: {each}"
        if not isinstance(each, ImageError) and not is_picture(each):
            return f"no picture: {getattr(each, 'shape', type(each))}"
    seconds = seconds_of(path)
    sound = seconds is None or (math.isfinite(seconds) and seconds >= 0)
    return "" if sound else f"lasts {seconds} seconds"


def attack(room: Room) -> list[Tally]:
    tally, sound = room.tally(), clips(room.folder)
    with Judge(check, room.folder, limit=LIMIT) as judge:
        for i in room.times(room.count):
            name, content = mutate(sound, room.rng(i))
            path = room.folder / f"{i:05d}-{name}"
            path.write_bytes(content)
            judge(path, tally)
            path.unlink()
    return [tally]
