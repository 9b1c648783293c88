"""The two passes over the pictures of a dataset: finding faces, and computing experts' outputs.

On a CPU, threads decode ahead while others work on earlier batches. For a GPU, processes decode;
one thread gives it work, others fetch the results of earlier batches. No batch is of two shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby

import numpy as np
import torch
from tqdm import tqdm

from data.cutting import cut_known, find_faces
from data.decoding import Reading, decoded
from data.faces import FaceCutter
from data.loading import in_order
from data.pictures import prints_of
from data.store import DumpWriter, Shards
from features.regions import Crop

BAR = (
    "{desc} {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} images "
    "[{elapsed}, {remaining} left, {rate_noinv_fmt}]"
)
Views = dict[Crop, torch.Tensor]  # crop -> (F, 4, px, px) uint8 RGBA
Predictions = dict[str, torch.Tensor]  # `<expert>.<output>` -> (F, R, D) float16


def fill_faces(
    writer: DumpWriter, reading: Reading, cutter: FaceCutter, stacked: bool = False
) -> None:
    """The first pass: write index.csv and failures.csv. stacked: work on stacks of pictures."""

    def write(number: int, parts: list) -> None:
        rows, failures, files = (sum(lists, []) for lists in zip(*parts, strict=True))
        writer.write_faces(number, rows, failures, list(dict.fromkeys(files)))

    if stacked:
        cutter.find.threads = reading.workers  # for pictures too large for a stack

    def find(part: tuple) -> tuple:
        batch, stack = part
        return *find_faces(batch, cutter, stack), [sample.path for sample, _ in batch]

    def know(part: tuple) -> tuple:
        rows, failures, paths = part
        return rows, failures, prints_of(reading.root, paths)

    # One thread gives a GPU work: a second one would only wait for the interpreter.
    steps = [(find, 1 if stacked else 0), (know, 0)]
    shards = writer.pending_faces()
    _each_shard(shards, reading, stacked, "faces", len(writer.samples), steps, write)
    writer.finish_faces()


def fill_outputs(
    writer: DumpWriter,
    reading: Reading,
    ensemble: Callable[[Views], Predictions],
    crops: Sequence[Crop],
    stacks_on: torch.device | None = None,
) -> None:
    """The second pass: write the outputs of the new experts.

    stacks_on: a device that works on stacks of pictures. Then `ensemble.start` returns without
    waiting for the device.
    """
    faces, stacked = writer.faces, stacks_on is not None

    def infer(part: tuple) -> tuple:
        batch, stack = part
        stack = stack and stack.to(stacks_on)
        rows, views, failures = cut_known(batch, faces, crops, stack)
        work = ensemble.start if stacked else ensemble
        return rows, work(views) if len(rows) else {}, failures

    def fetch(part: tuple) -> tuple:
        rows, pending, failures = part
        return rows, pending.result() if len(rows) else {}, failures

    def write(number: int, parts: list) -> None:
        rows, outputs, failures = zip(*parts, strict=True)
        names = next((part for part in outputs if part), {})
        arrays = {name: torch.cat([p[name] for p in outputs if p]).numpy() for name in names}
        writer.write_outputs(number, np.concatenate(rows), arrays, sum(failures, []))

    steps = [(infer, 1), (fetch, 1)] if stacked else [(infer, 0)]
    _each_shard(writer.pending(), reading, stacked, "experts", len(faces.of), steps, write)


def _each_shard(
    pending: Shards,
    reading: Reading,
    stacked: bool,
    what: str,
    total: int,
    steps: Sequence[tuple[Callable, int]],
    write: Callable[[int, list], None],
) -> None:
    """Apply steps to the batches of the pending shards, and write each shard once it is whole.

    Args:
        stacked: for a GPU.
        total: pictures of this pass.
        steps: functions of what the one before returned, and in how many threads; 0: `workers`. The
            first takes a batch and its stack.
    """
    left = sum(len(samples) for _, samples in pending)
    with (
        one_thread_per_operation(),
        closing(decoded(pending, reading, stacked)) as parts,
        tqdm(
            total=total,
            initial=total - left,
            desc=what,
            unit=" images",
            bar_format=BAR,
            disable=not left,
        ) as bar,
    ):
        jobs = ((number, len(batch), (batch, stack)) for number, batch, stack in parts)
        for step, threads in steps:
            threads = threads or reading.workers
            jobs = in_order(lambda job, f=step: (*job[:2], f(job[2])), jobs, threads, threads)
        with closing(jobs):
            for number, done in groupby(jobs, key=lambda job: job[0]):
                results = []
                for _, images, result in done:
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
