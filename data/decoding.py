"""Pictures decoded in batches, by threads, or by processes that hand over stacks for a GPU.

Threads are enough for a CPU. A GPU works faster than threads of one interpreter can decode.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.degrade import Condition
from data.images import MAX_PIXELS
from data.loading import Loaded, Picture, batches, load_ahead
from data.samples import Sample
from data.stack import LARGEST, Stack, fits
from data.store import Shards

SHARED = Path("/dev/shm")  # through which processes hand over stacks
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

    stacked: stacks are wanted, in pinned memory if there is a GPU; a batch with a picture too large
    for one has none.
    """
    workers = min(reading.workers, _processes(reading.batch_size)) if stacked else 0
    parts = _by_processes(shards, reading, workers) if workers else _by_threads(shards, reading)
    with closing(parts):
        for number, batch, stack in parts:
            if stacked and stack is None:
                images = [item.image for _, item in batch if isinstance(item, Picture)]
                stack = Stack.of(images) if fits(images) else None
            yield number, batch, stack


def _by_threads(shards: Shards, reading: Reading) -> Iterator[tuple[int, Batch, None]]:
    samples = [sample for _, samples in shards for sample in samples]
    with closing(_ahead(samples, reading)) as pictures:
        loaded = zip(samples, pictures, strict=True)
        for number, some in shards:
            for batch in batches(islice(loaded, len(some)), reading.batch_size):
                yield number, batch, None


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


class _Jobs(Dataset):
    """Pictures of one shard, at most `batch_size` -> one or more `Packed`."""

    def __init__(self, jobs: list[list[Sample]], reading: Reading) -> None:
        self.jobs = jobs
        self.reading = replace(reading, workers=0)  # a process that was forked may start no threads

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> list[Packed]:
        samples = self.jobs[index]
        loaded = zip(samples, _ahead(samples, self.reading), strict=True)
        return [self._packed([item for _, item in part]) for part in batches(loaded, len(samples))]

    @staticmethod
    def _packed(pictures: list[Loaded]) -> Packed:
        images = [item.image for item in pictures if isinstance(item, Picture)]
        bare = [replace(x, image=NO_PIXELS) if isinstance(x, Picture) else x for x in pictures]
        return Packed(bare, Stack.of(images) if fits(images) else None)


def _by_processes(
    shards: Shards, reading: Reading, workers: int
) -> Iterator[tuple[int, Batch, Stack | None]]:
    size = reading.batch_size
    jobs = [
        (number, samples[start : start + size])
        for number, samples in shards
        for start in range(0, len(samples), size)
    ]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # processes that inherit OpenCV's pool would wait for threads they lack
    loader = DataLoader(
        _Jobs([samples for _, samples in jobs], reading),
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=1,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for (number, samples), parts in zip(jobs, loader, strict=True):
            left = iter(samples)
            for packed in parts:
                some = list(islice(left, len(packed.pictures)))
                whole = packed.stack is None
                pictures = _ahead(some, reading) if whole else packed.unpacked()
                yield number, list(zip(some, pictures, strict=True)), packed.stack
    finally:
        cv2.setNumThreads(threads)


def _as_is(parts: list[Packed]) -> list[Packed]:
    return parts


def _processes(batch_size: int) -> int:
    """How many have room for the largest stacks in shared memory; containers often have little.

    Each is at work on one batch, or waits until it is taken.
    """
    if not SHARED.is_dir():
        return 0
    return shutil.disk_usage(SHARED).free // (batch_size * 3 * LARGEST**2)
