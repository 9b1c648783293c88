"""Pictures in order and in batches, decoded by threads while the caller works on earlier ones.

PIL, OpenCV, numpy and torch release the interpreter lock, so threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from data.degrade import H264, Condition
from data.images import MAX_PIXELS, ImageError, perceptual_hash, read_image
from data.video import file_of, read_clip, split_frame

BATCH_BYTES = 256 << 20  # where a batch ends early: 32 pictures of 100 megapixels would need 10 GB
AHEAD_BYTES = 512 << 20  # of decoded pictures that wait for their turn
JOB = 8  # frames of one video that are read together; more would be faster, and take more memory

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Picture:
    """A decoded image. file_bytes: for a frame of a video, the average over its stream."""

    image: np.ndarray
    file_bytes: int
    mean: tuple[float, float, float]
    phash: str


Loaded = Picture | ImageError


def _picture(image: np.ndarray, file_bytes: int) -> Picture:
    return Picture(image, file_bytes, cv2.mean(image)[:3], perceptual_hash(image))


def load(path: Path, max_pixels: int) -> Loaded:
    """The picture in a file, or the frame of that name (data/video.py), or why there is none."""
    if split_frame(path):
        return _load_frames([path], max_pixels, None)[0]
    try:
        return _picture(read_image(path, max_pixels), path.stat().st_size)
    except ImageError as error:
        return error


def _load_frames(paths: list[Path], max_pixels: int, condition: Condition | None) -> list[Loaded]:
    """Frames of one video."""
    frames = [split_frame(path) for path in paths]
    crf = condition.value if condition and condition.family == H264 else None
    images, nbytes = read_clip(frames[0][0], [(i, n) for _, i, n in frames], max_pixels, crf)
    if condition and crf is None:
        images = [image if isinstance(image, ImageError) else condition(image) for image in images]
    return [image if isinstance(image, ImageError) else _picture(image, nbytes) for image in images]


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int,
    nbytes: Callable[[Result], int] = lambda result: 0,
    size: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Result]:
    """`function` of every item, in order, computed by threads ahead of the caller.

    Args:
        threads: none: the caller computes.
        ahead: items that may be taken early, at least one per thread; fewer where the results that
            wait hold more than `AHEAD_BYTES`.
        size: for how many an item counts.
    """
    if not threads:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting = deque()  # (future, how many it counts for)

    def full() -> bool:
        done = (each for each, _ in waiting if each.done() and not each.exception())
        many = sum(count for _, count in waiting) > ahead and len(waiting) > min(threads, ahead)
        return many or sum(nbytes(each.result()) for each in done) > AHEAD_BYTES

    try:
        for item in items:
            waiting.append((pool.submit(function, item), size(item)))
            while waiting and full():
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def load_ahead(
    paths: Iterable[Path],
    threads: int,
    ahead: int,
    max_pixels: int = MAX_PIXELS,
    condition: Condition | None = None,
) -> Iterator[Loaded]:
    """`load` for every path, in order, up to `ahead` pictures before they are asked for."""

    def work(job: list[Path]) -> list[Loaded]:
        if split_frame(job[0]):
            return _load_frames(job, max_pixels, condition)
        picture = load(job[0], max_pixels)
        if condition and isinstance(picture, Picture):
            picture = _picture(condition(picture.image), picture.file_bytes)
        return [picture] * len(job)

    def nbytes(pictures: list[Loaded]) -> int:
        return sum(map(_nbytes, pictures))

    with closing(in_order(work, _jobs(paths), threads, ahead, nbytes, len)) as done:
        for pictures in done:
            yield from pictures


def _jobs(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Up to `JOB` frames of one video, or faces of one picture, together."""
    for _, group in groupby(paths, key=file_of):
        while job := list(islice(group, JOB)):
            yield job


def _nbytes(picture: Loaded) -> int:
    return picture.image.nbytes if isinstance(picture, Picture) else 0


def batches(loaded: Iterable[tuple[Item, Loaded]], size: int) -> Iterator[list]:
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
