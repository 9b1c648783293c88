"""Filling the shards of a dump: threads decode ahead, others cut faces out and ask the experts about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import torch
from tqdm import tqdm

from data.cutting import Finder, Recutter
from data.datasets import Sample
from data.degrade import Condition
from data.images import ImageError
from data.loading import Picture, batches, in_order, load_ahead
from data.store import Row, ShardWriter
from features.regions import Crop

BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} images [{elapsed}, {remaining} left, {rate_noinv_fmt}]"

Batch = list[tuple[Sample, Picture | ImageError]]
Views = dict[Crop, torch.Tensor]
Predictions = dict[str, torch.Tensor]


@dataclass
class Found:
    """What a batch of a shard yields.

    answers: `<expert>.<output>` -> (len(rows), R, D) float16; none where there are no rows.
    """

    shard: int
    images: int
    rows: list[Row]
    failures: list[tuple[str, str]]
    views: Views
    predictions: Predictions


def cut(shard: int, batch: Batch, find: Finder | Recutter) -> Found:
    """The faces of a batch, before any expert sees them."""
    failures = [
        (sample.path, item.reason) for sample, item in batch if isinstance(item, ImageError)
    ]
    rows, views, faceless = find(
        [(sample, item) for sample, item in batch if isinstance(item, Picture)]
    )
    return Found(shard, len(batch), rows, failures + faceless, views, {})


def infer(found: Found, ensemble: Callable[[Views], Predictions]) -> Found:
    """The same with the experts' answers, and without the crops."""
    return replace(found, views={}, predictions=ensemble(found.views) if found.rows else {})


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Batches are worked on side by side: operations that divide themselves among threads as well would wait for each other
    (detection consists of hundreds of tiny ones), and round differently on another number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fill(
    writer: ShardWriter,
    root: Path,
    find: Finder | Recutter,
    ensemble: Callable[[Views], Predictions],
    on_cpu: bool,
    batch_size: int,
    workers: int,
    max_pixels: int,
    condition: Condition | None = None,
) -> None:
    """Write the shards that are missing. No batch belongs to two shards.

    On a CPU each of `workers` threads cuts a batch of its own and asks about it. On a GPU, they cut while it answers about
    earlier batches. panel: crops of faces -> the experts' answers. condition: what every picture goes through first.
    """
    pending = writer.pending()
    left = [sample for _, samples in pending for sample in samples]
    paths, total = (root / sample.path for sample in left), len(writer.samples)
    with (
        one_thread_per_operation(),
        closing(
            load_ahead(paths, workers, batch_size + workers, max_pixels, condition)
        ) as pictures,
        tqdm(
            total=total, initial=total - len(left), unit=" images", bar_format=BAR, disable=not left
        ) as bar,
    ):
        loaded = zip(left, pictures, strict=True)
        jobs = (
            (n, batch)
            for n, samples in pending
            for batch in batches(islice(loaded, len(samples)), batch_size)
        )
        if on_cpu:
            inferred = in_order(
                lambda job: infer(cut(*job, find), ensemble), jobs, workers, workers
            )
        else:
            found = in_order(lambda job: cut(*job, find), jobs, workers, workers)
            inferred = in_order(lambda each: infer(each, ensemble), found, 1, 1)
        with closing(inferred):
            for number, parts in groupby(inferred, key=lambda found: found.shard):
                shard = []
                for part in parts:
                    shard.append(part)
                    bar.update(part.images)
                write(writer, number, shard)


def write(writer: ShardWriter, number: int, parts: list[Found]) -> None:
    """Put together what the batches of one shard yielded."""
    names = next((part.predictions for part in parts if part.predictions), {})
    arrays = {
        name: torch.cat([p.predictions[name] for p in parts if p.predictions]).numpy()
        for name in names
    }
    rows, failures = (
        [item for part in parts for item in getattr(part, kind)] for kind in ("rows", "failures")
    )
    writer.write_shard(number, rows, arrays, failures)
