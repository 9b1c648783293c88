"""Broken pictures: an array of the documented form or an ImageError, and not a word beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.hardening.campaign import Judge, Room, Tally
from benchmarks.hardening.mutations import mutate, pictures
from data.images import MAX_PIXELS, ImageError, read_image

LIMIT = 15 * MAX_PIXELS / 2**20  # MB: the largest picture that is allowed, in a few copies


def is_picture(image: object) -> bool:
    whole = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    return whole and image.shape[2] == 3 and min(image.shape) > 0


def check(path: Path) -> str:
    try:
        image = read_image(path)
    except ImageError as error:
        return "" if str(error).startswith(str(path)) else f"the message names no file: {error}"
    return "" if is_picture(image) else f"no picture: {getattr(image, 'shape', type(image))}"


def attack(room: Room) -> list[Tally]:
    tally, sound = room.tally(), pictures()
    with Judge(check, room.folder, limit=LIMIT) as judge:
        for i in room.times(room.count):
            name, content = mutate(sound, room.rng(i))
            path = room.folder / f"{i:05d}-{name}"
            path.write_bytes(content)
            judge(path, tally)
            path.unlink()
    return [tally]
