"""Pictures in order and in batches, decoded by threads while the caller is busy with earlier ones.

PIL, OpenCV, numpy and torch let go of the interpreter while they compute, so threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
Result = TypeVar("Result")


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


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int,
    nbytes: Callable[[Result], int] = lambda result: 0,
) -> Iterator[Result]:
    """`function` of every item, in order, computed by threads while the caller works on earlier ones.

    ahead: how many items may be taken before their results are asked for; fewer where results that wait are large
    (`nbytes`, `AHEAD_BYTES` in all). An exception reaches the caller; when the caller stops, so do the threads.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future] = deque()

    def full() -> bool:
        held = sum(nbytes(future.result()) for future in waiting if future.done() and not future.exception())
        return len(waiting) > ahead or held > AHEAD_BYTES

    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while waiting and full():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def load_ahead(
    paths: Iterable[Path], threads: int, ahead: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Picture | ImageError]:
    """`load` for every path, in order, up to `ahead` pictures before they are asked for."""
    return in_order(lambda path: load(path, max_pixels), paths, threads, ahead, _nbytes)


def _nbytes(picture: Picture | ImageError) -> int:
    return picture.image.nbytes if isinstance(picture, Picture) else 0


def batches(
    loaded: Iterable[tuple[Item, Picture | ImageError]], size: int
) -> Iterator[list[tuple[Item, Picture | ImageError]]]:
    """Lists of `size` pairs in order, shorter where the pictures are large and at the end."""
    batch, weight = [], 0
    for item, picture in loaded:
        batch.append((item, picture))
        weight += _nbytes(picture)
        if len(batch) == size or weight >= BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch
