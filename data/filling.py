"""The two passes over the pictures of a dataset: finding faces, and computing experts' outputs.

Threads decode ahead while others work on earlier batches. No batch belongs to two shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.cutting import Batch, cut_known, find_faces
from data.degrade import Condition
from data.faces import FaceCutter
from data.images import MAX_PIXELS
from data.loading import batches, in_order, load_ahead
from data.store import DumpWriter, Shards
from features.regions import Crop

BAR = (
    "{desc} {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} images "
    "[{elapsed}, {remaining} left, {rate_noinv_fmt}]"
)
Views = dict[Crop, torch.Tensor]  # crop -> (F, 4, px, px) uint8 RGBA
Predictions = dict[str, torch.Tensor]  # `<expert>.<output>` -> (F, R, D) float16


@dataclass(frozen=True)
class Reading:
    """How the pictures of a dataset are read. workers: threads."""

    root: Path
    batch_size: int
    workers: int
    max_pixels: int = MAX_PIXELS
    condition: Condition | None = None


def fill_faces(writer: DumpWriter, reading: Reading, cutter: FaceCutter) -> None:
    """The first pass: write index.csv and failures.csv."""

    def write(number: int, parts: list) -> None:
        rows, failures = (sum(lists, []) for lists in zip(*parts, strict=True))
        writer.write_faces(number, rows, failures)

    steps = [lambda batch: find_faces(batch, cutter)]
    _each_shard(writer.pending_faces(), reading, "faces", len(writer.samples), steps, write)
    writer.finish_faces()


def fill_outputs(
    writer: DumpWriter,
    reading: Reading,
    ensemble: Callable[[Views], Predictions],
    crops: Sequence[Crop],
    on_cpu: bool,
) -> None:
    """The second pass: write the outputs of the new experts.

    on_cpu: each thread cuts and infers a batch of its own. On a GPU, they cut while one infers.
    """
    faces = writer.faces

    def cut(batch: Batch) -> tuple:
        return cut_known(batch, faces, crops)

    def infer(part: tuple) -> tuple:
        rows, views, failures = part
        return rows, ensemble(views) if len(rows) else {}, failures

    def write(number: int, parts: list) -> None:
        rows, outputs, failures = zip(*parts, strict=True)
        names = next((part for part in outputs if part), {})
        arrays = {name: torch.cat([p[name] for p in outputs if p]).numpy() for name in names}
        writer.write_outputs(number, np.concatenate(rows), arrays, sum(failures, []))

    steps = [lambda batch: infer(cut(batch))] if on_cpu else [cut, infer]
    _each_shard(writer.pending(), reading, "experts", len(faces.of), steps, write)


def _each_shard(
    pending: Shards,
    reading: Reading,
    what: str,
    total: int,
    steps: Sequence[Callable],
    write: Callable[[int, list], None],
) -> None:
    """Apply steps to the batches of the pending shards, and write each shard once it is whole.

    The first step runs in `workers` threads, a second one in one. total: pictures of this pass.
    """
    left = [sample for _, samples in pending for sample in samples]
    paths = (reading.root / sample.path for sample in left)
    workers, ahead = reading.workers, reading.batch_size + reading.workers
    pictures = load_ahead(paths, workers, ahead, reading.max_pixels, reading.condition)
    done, hide = total - len(left), not left
    with (
        one_thread_per_operation(),
        closing(pictures),
        tqdm(
            total=total, initial=done, desc=what, unit=" images", bar_format=BAR, disable=hide
        ) as bar,
    ):
        loaded = zip(left, pictures, strict=True)
        jobs = (
            (number, len(batch), batch)
            for number, samples in pending
            for batch in batches(islice(loaded, len(samples)), reading.batch_size)
        )
        for step in steps:
            threads = workers if step is steps[0] else 1
            jobs = in_order(lambda job, f=step: (*job[:2], f(job[2])), jobs, threads, threads)
        with closing(jobs):
            for number, parts in groupby(jobs, key=lambda job: job[0]):
                results = []
                for _, images, result in parts:
                    results.append(result)
                    bar.update(images)
                write(number, results)


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Batches are worked on side by side: operations that use several threads themselves would
    wait for each other, and round differently on another number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
