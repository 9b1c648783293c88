"""Pictures in order and in batches, decoded by threads while the caller is busy with earlier ones.

PIL, OpenCV, numpy and torch let go of the interpreter while they compute, so threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from data.degrade import H264, Condition
from data.images import MAX_PIXELS, ImageError, perceptual_hash, read_image
from data.video import read_clip, split_frame

BATCH_BYTES = (
    256 << 20
)  # a batch of large pictures ends early: 32 of 100 megapixels would need 10 GB
AHEAD_BYTES = 512 << 20  # decoded pictures that wait for their turn
JOB = 8  # frames of one video that are read together; more would be decoded faster, and take more memory

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Picture:
    """A decoded image and what is worth knowing of all of it.

    image: (H, W, 3) uint8 RGB. file_bytes: of a frame of a video, the average over all frames of its stream: what a frame
    itself takes says more about its place between two key frames than about the video. mean: of R, G, B, 0..255. phash: 16
    hexadecimal digits.
    """

    image: np.ndarray
    file_bytes: int
    mean: tuple[float, float, float]
    phash: str


def _picture(image: np.ndarray, file_bytes: int) -> Picture:
    return Picture(image, file_bytes, cv2.mean(image)[:3], perceptual_hash(image))


def load(path: Path, max_pixels: int) -> Picture | ImageError:
    """The picture in `path`, or the frame of that name (data/video.py), or why there is none."""
    if split_frame(path):
        return _load_frames([path], max_pixels, None)[0]
    try:
        return _picture(read_image(path, max_pixels), path.stat().st_size)
    except ImageError as error:
        return error


def _load_frames(
    paths: list[Path], max_pixels: int, condition: Condition | None
) -> list[Picture | ImageError]:
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
    """`function` of every item, in order, computed by threads while the caller works on earlier ones.

    ahead: how many items may be taken before their results are asked for (items of a `size` count as so many, but there
    are always enough for all threads); fewer where results that wait are large (`nbytes`, `AHEAD_BYTES` in all). An
    exception reaches the caller; when the caller stops, so do the threads.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Future, int]] = deque()

    def full() -> bool:
        held = sum(
            nbytes(each.result()) for each, _ in waiting if each.done() and not each.exception()
        )
        many = sum(count for _, count in waiting) > ahead and len(waiting) > min(threads, ahead)
        return many or held > AHEAD_BYTES

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
) -> Iterator[Picture | ImageError]:
    """`load` for every path, in order, up to `ahead` pictures before they are asked for.

    Frames of one video that follow each other are read together, at most `JOB` of them: more may be ahead then, a job for
    every thread. condition: what every picture goes through; its mean and hash are those of what comes out.

    Raises: ValueError for a condition of clips where a path is no frame of a video.
    """

    def work(job: list[Path]) -> list[Picture | ImageError]:
        if split_frame(job[0]):
            return _load_frames(job, max_pixels, condition)
        picture = load(job[0], max_pixels)
        if condition is None or isinstance(picture, ImageError):
            return [picture]
        if condition.clips_only:
            raise ValueError(
                f"{job[0]}: {condition.family} compresses clips, and this is a single picture"
            )
        return [_picture(condition(picture.image), picture.file_bytes)]

    def nbytes(pictures: list[Picture | ImageError]) -> int:
        return sum(map(_nbytes, pictures))

    with closing(in_order(work, _jobs(paths), threads, ahead, nbytes, len)) as done:
        for pictures in done:
            yield from pictures


def _jobs(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Each path by itself, but frames of one video together."""
    job: list[Path] = []
    video = None
    for path in paths:
        frame = split_frame(path)
        if job and (frame is None or frame[0] != video or len(job) == JOB):
            yield job
            job = []
        if frame is None:
            yield [path]
        else:
            job.append(path)
            video = frame[0]
    if job:
        yield job


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
