"""Pictures in order and in batches, decoded by threads while the caller is busy with earlier ones.

PIL, OpenCV and numpy let go of the interpreter while they decode, so threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from data.images import MAX_PIXELS, ImageError, perceptual_hash, read_image

BATCH_BYTES = 256 << 20  # a batch of large pictures ends early: 32 of 100 megapixels would need 10 GB
AHEAD_BYTES = 512 << 20  # decoded pictures that wait for their turn

Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A decoded image and what is worth knowing of all of it.

    image: (H, W, 3) uint8 RGB. mean: of R, G, B, 0..255. phash: 16 hexadecimal digits.
    """

    image: np.ndarray
    file_bytes: int
    mean: tuple[float, float, float]
    phash: str


def load(path: Path, max_pixels: int) -> Picture | ImageError:
    """The picture in `path`, or why there is none."""
    try:
        image = read_image(path, max_pixels)
    except ImageError as error:
        return error
    return Picture(image, path.stat().st_size, cv2.mean(image)[:3], perceptual_hash(image))


def load_ahead(
    paths: Iterable[Path], workers: int, ahead: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Picture | ImageError]:
    """`load` for every path, in order. workers: threads. ahead: how many images may be decoded before they are asked for;
    fewer where they are large."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future] = deque()

    def held() -> int:
        done = (future.result() for future in waiting if future.done())
        return sum(picture.image.nbytes for picture in done if isinstance(picture, Picture))

    try:
        for path in paths:
            waiting.append(pool.submit(load, path, max_pixels))
            while waiting and (len(waiting) > ahead or held() > AHEAD_BYTES):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(
    loaded: Iterable[tuple[Item, Picture | ImageError]], size: int
) -> Iterator[list[tuple[Item, Picture | ImageError]]]:
    """Lists of `size` pairs in order, shorter where the pictures are large and at the end."""
    batch, weight = [], 0
    for item, picture in loaded:
        batch.append((item, picture))
        weight += picture.image.nbytes if isinstance(picture, Picture) else 0
        if len(batch) == size or weight >= BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch
