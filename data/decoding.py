"""Pictures decoded in batches, by threads, or by processes that hand over stacks for a GPU.

Threads are enough for a CPU. A GPU works faster than threads of one interpreter can decode.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.degrade import Condition
from data.images import MAX_PIXELS
from data.loading import BATCH_BYTES, Loaded, Picture, batches, load_ahead
from data.samples import Sample
from data.stack import LARGEST, Stack, fits
from data.store import Shards

SHARED = Path("/dev/shm")  # through which processes hand over stacks
ROOM = 4 * BATCH_BYTES  # there for each process; containers often have little
NO_PIXELS = np.empty((0, 0, 3), np.uint8)
Batch = list[tuple[Sample, Loaded]]


@dataclass(frozen=True)
class Reading:
    """How the pictures of a dataset are read. workers: threads, or processes."""

    root: Path
    batch_size: int
    workers: int
    max_pixels: int = MAX_PIXELS
    condition: Condition | None = None


def decoded(
    shards: Shards, reading: Reading, stacked: bool
) -> Iterator[tuple[int, Batch, Stack | None]]:
    """The number of its shard, pictures and their stack for each batch; none is of two shards.

    stacked: stacks are wanted, in pinned memory if there is a GPU. Pictures too large for one are
    in batches of their own.

    Raises: MemoryError: a process that decodes was ended from outside.
    """
    workers = min(reading.workers, _room()) if stacked else 0
    if workers:
        yield from _by_processes(shards, reading, workers)
        return
    for number, batch in _by_threads(shards, reading):
        for part in _parts(batch) if stacked else [batch]:
            yield number, part, _stack(part) if stacked else None


def _by_threads(shards: Shards, reading: Reading) -> Iterator[tuple[int, Batch]]:
    samples = [sample for _, samples in shards for sample in samples]
    with closing(_ahead(samples, reading)) as pictures:
        loaded = zip(samples, pictures, strict=True)
        for number, some in shards:
            for batch in batches(islice(loaded, len(some)), reading.batch_size):
                yield number, batch


def _parts(batch: Batch) -> Iterator[Batch]:
    """Runs of pictures that one stack holds, and of those too large for any."""
    part: Batch = []
    count = height = width = 0
    small = True
    for entry in batch:
        if isinstance(entry[1], Picture):
            h, w = entry[1].image.shape[:2]
            fitting = max(h, w) <= LARGEST
            padded = (count + 1) * max(height, h) * max(width, w) * 3
            if part and (fitting != small or fitting and padded > BATCH_BYTES):
                yield part
                part, count, height, width = [], 0, 0, 0
            count, height, width, small = count + 1, max(height, h), max(width, w), fitting
        part.append(entry)
    if part:
        yield part


def _stack(batch: Batch) -> Stack | None:
    images = [item.image for _, item in batch if isinstance(item, Picture)]
    return Stack.of(images) if fits(images) else None


def _ahead(samples: Sequence[Sample], reading: Reading) -> Iterator[Loaded]:
    paths = (reading.root / sample.path for sample in samples)
    ahead = reading.batch_size + reading.workers
    return load_ahead(paths, reading.workers, ahead, reading.max_pixels, reading.condition)


@dataclass
class Packed:
    """Some pictures, without their pixels, and the stack that holds these; none: too large."""

    pictures: list[Loaded]
    stack: Stack | None

    def pin_memory(self) -> Packed:  # called by the loader
        return replace(self, stack=self.stack and self.stack.pin_memory())

    def unpacked(self) -> list[Loaded]:
        """The pictures, which see their pixels in the stack."""
        pixels = zip(self.stack.pixels.numpy(), self.stack.shapes, strict=True)
        return [
            replace(item, image=_corner(*next(pixels))) if isinstance(item, Picture) else item
            for item in self.pictures
        ]


def _corner(pixels: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return pixels[: shape[0], : shape[1]]


class _Decoder(Dataset):
    """How to read, and pictures of one shard -> one or more `Packed`."""

    def __getitem__(self, job: tuple[Reading, list[Sample]]) -> list[Packed]:
        reading, samples = job
        loaded = zip(samples, _ahead(samples, replace(reading, workers=0)), strict=True)
        return [
            self._packed(part) for batch in batches(loaded, len(samples)) for part in _parts(batch)
        ]

    @staticmethod
    def _packed(part: Batch) -> Packed:
        pictures = (item for _, item in part)
        bare = [replace(x, image=NO_PIXELS) if isinstance(x, Picture) else x for x in pictures]
        return Packed(bare, _stack(part))


class _Turns:
    """The jobs of the next turn of a loader."""

    jobs: Sequence[tuple[Reading, list[Sample]]] = ()

    def __iter__(self) -> Iterator[tuple[Reading, list[Sample]]]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


@cache
def _loader(workers: int) -> DataLoader:
    """Processes that stay for further passes. They are started anew, not forked: a fork copies
    locks that other threads hold, and starting takes seconds.
    """
    return DataLoader(
        _Decoder(),
        batch_size=None,
        sampler=_Turns(),
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=1,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=_alone,
    )


def _by_processes(
    shards: Shards, reading: Reading, workers: int
) -> Iterator[tuple[int, Batch, Stack | None]]:
    size = reading.batch_size
    jobs = [
        (number, samples[start : start + size])
        for number, samples in shards
        for start in range(0, len(samples), size)
    ]
    loader = _loader(workers)
    loader.sampler.jobs = [(reading, samples) for _, samples in jobs]
    try:
        for (number, samples), parts in zip(jobs, loader, strict=True):
            left = iter(samples)
            for packed in parts:
                some = list(islice(left, len(packed.pictures)))
                whole = packed.stack is None
                pictures = _ahead(some, reading) if whole else packed.unpacked()
                yield number, list(zip(some, pictures, strict=True)), packed.stack
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        _loader.cache_clear()
        raise MemoryError(
            "a process that decodes pictures was ended, as for want of (shared) memory"
        ) from error


def _as_is(parts: list[Packed]) -> list[Packed]:
    return parts


def _alone(worker: int) -> None:
    cv2.setNumThreads(0)


def _room() -> int:
    """How many processes have room for what they hand over."""
    return shutil.disk_usage(SHARED).free // ROOM if SHARED.is_dir() else 0
