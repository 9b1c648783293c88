"""How fast a dataset becomes a dump, where the time goes, and how fast the networks alone are.

    python -m benchmarks.preprocess                      # pictures made of one in scikit-image
    python -m benchmarks.preprocess --data-root faces --images 4000 --device cuda --workers 16
    python -m benchmarks.preprocess --data-root faces --profile full --weights-dir WEIGHTS

Takes the options of preprocessing_pipeline.py. End to end is from files to a finished dump, less
the time to load the weights. Pure forwards see the same crops in memory, one expert after the
other. Stages run in one thread. The plain loop takes one face and one expert at a time, with
torch's own threads. Times are the best of several rounds; weight files with random values will do.
"""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import preprocessing_pipeline as pipeline
from command_line import run, set_up_logging
from data.alignment import align
from data.dump import read_dump
from data.faces import FaceCutter
from data.filling import one_thread_per_operation
from data.loading import in_order, load
from models import CLIP_MODEL, CLIP_MODELS
from models.ensemble import (
    Ensemble,
    experts_of,
    find_device,
    profile_of,
    usual_batch,
    usual_precision,
)

PLAIN = 8  # pictures of the plain loop


@dataclass
class Config(pipeline.Config):
    data_root: Path | None = None
    """A dataset (default: one is made up)."""
    images: int = 256
    """Number of pictures of it."""
    rounds: int = 3
    """The best of so many."""


STAGES = ("decode", "detect", "align", "network")


def make_dataset(root: Path, count: int) -> Path:
    """`count` crops of one real face, 256 px JPEG, shifted and lit at random."""
    from skimage.data import astronaut

    rng = np.random.default_rng(0)
    face = astronaut()
    for i in range(count):
        x, y = rng.integers(60, 120), rng.integers(0, 15)
        crop = cv2.convertScaleAbs(face[y : y + 256, x : x + 256], alpha=rng.uniform(0.7, 1.2))
        path = root / ("real", "fake")[i % 2] / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), crop[..., ::-1])
    return root


class Benchmark:
    """One dataset, one ensemble. The dump of a first, untimed run lists the pictures with faces."""

    def __init__(self, config: Config) -> None:
        self.device = find_device(config.device)
        cpu, names = self.device.type == "cpu", experts_of(config.profile, config.experts)
        self.threads = config.workers if cpu else 1
        self.config = config = replace(
            config,
            limit=config.images,
            batch_size=config.batch_size or usual_batch(self.device, names),
            precision=config.precision or usual_precision(self.device, names),
        )
        self.ensemble = self.load_ensemble()
        self.cutter = FaceCutter(crops=self.ensemble.crops.values())
        with tempfile.TemporaryDirectory() as folder:
            dump = read_dump(self.preprocess(folder))
        self.paths = [config.data_root / path for path in dict.fromkeys(dump.rows["path"])]
        self.count = dump.meta["counts"]["images"]
        images, size = self.decode(), config.batch_size
        self.images = [images[start : start + size] for start in range(0, len(images), size)]
        with one_thread_per_operation():
            self.crops = [self.cutter(batch) for batch in self.images]
        self.faces = sum(map(len, self.crops))

    def load_ensemble(self) -> Ensemble:
        c, names = self.config, experts_of(self.config.profile, self.config.experts)
        bf16 = c.precision == "bfloat16"
        tower = c.clip_model or CLIP_MODELS.get(profile_of(c.profile, names), CLIP_MODEL)
        ensemble = Ensemble(names, self.device, bf16, c.weights_dir, tower)
        ensemble.tf32 = c.precision == "tf32"
        return ensemble

    def preprocess(self, folder: str) -> Path:
        """The whole pipeline, silently."""
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return pipeline.main(replace(self.config, out=Path(folder) / "dump"))

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall time, until the device has finished."""
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def end_to_end(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            whole = self.seconds(lambda: self.preprocess(folder))
        return whole - self.seconds(self.load_ensemble)

    def parallel(self, function: Callable, items: list, threads: int) -> float:
        """`function` of every item, divided among threads."""
        with one_thread_per_operation():
            return self.seconds(lambda: list(in_order(function, items, threads, threads)))

    def forwards(self) -> dict[str, float]:
        """Seconds of each expert alone."""
        views = [crops.views for crops in self.crops]
        experts = {e.name: Ensemble.of([e], self.device) for e in self.ensemble.experts}
        return {name: self.parallel(e, views, self.threads) for name, e in experts.items()}

    def detection_and_networks(self) -> float:
        def work(images: list[np.ndarray]) -> None:
            self.ensemble(self.cutter(images).views)

        return self.parallel(work, self.images, self.config.workers)

    def decode(self) -> list[np.ndarray]:
        return [load(path, self.config.max_pixels).image for path in self.paths]

    def stages(self) -> dict[str, float]:
        """Seconds of each stage in one thread."""

        def warp() -> None:
            for images, crops in zip(self.images, self.crops, strict=True):
                for crop in self.cutter.crops:
                    align(images, crops.image, crops.landmarks, crop)

        with one_thread_per_operation():
            decode, align_all = self.seconds(self.decode), self.seconds(warp)
            cut = self.seconds(lambda: [self.cutter(images) for images in self.images])
            network = self.seconds(lambda: [self.ensemble(c.views) for c in self.crops])
        times = (decode, cut - align_all, align_all, network)
        return dict(zip(STAGES, times, strict=True))

    def plain(self) -> float:
        """Seconds per face of a loop without batches or threads of ours."""
        paths = self.paths[:PLAIN]

        def work() -> None:
            for path in paths:
                views = self.cutter([load(path, self.config.max_pixels).image]).views
                for expert in self.ensemble.experts:
                    for value in expert(views[expert.crop].to(self.device)).values():
                        value.cpu()

        return self.seconds(work) / len(paths)

    def peak_memory(self) -> str:
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if self.device.type == "cpu":
            return f"{host:.1f} GiB"
        device = torch.cuda.max_memory_allocated(self.device) / 2**30
        return f"{device:.1f} GiB on the device, {host:.1f} GiB beside it"


def measure(config: Config) -> dict[str, float]:
    """Measure and print the table. Returns: seconds by name, images and faces."""
    set_up_logging(logging.WARNING)  # without the pipeline's progress
    bench, rounds = Benchmark(config), []
    for _ in tqdm(range(config.rounds), desc="rounds", disable=None):
        ends = {"end": bench.end_to_end(), "together": bench.detection_and_networks()}
        rounds.append(ends | bench.stages() | bench.forwards())
    best = pd.DataFrame(rounds).min()
    end, together = best.pop("end"), best.pop("together")
    stages, forwards = best[list(STAGES)], best.drop(list(STAGES))
    plain, count, faces = bench.plain(), bench.count, bench.faces
    cuda = bench.device.type == "cuda"
    where = torch.cuda.get_device_name(bench.device) if cuda else f"{torch.get_num_threads()} cores"
    print(
        f"{count} images, {faces} faces; {where}, {bench.config.precision}, {config.workers} "
        f"threads, batches of {bench.config.batch_size}; peak memory {bench.peak_memory()}"
    )
    print(f"end to end                    {count / end:8.2f} images/s")
    for name, taken in (("pure forwards", forwards.sum()), ("detection and networks", together)):
        times = f"end to end takes {end / taken:.2f} times as long"
        print(f"{name:28s}  {count / taken:8.2f} images/s   {times}")
    times = f"takes {plain / (end / faces):.2f} times as long as end to end"
    print(f"{f'plain loop, {PLAIN} images':28s}  {1 / plain:8.2f} faces/s    {times}")
    one_by_one = "stages, one after another in one thread:"
    parts = ("pure forwards:", "face ", forwards / faces), (one_by_one, "image", stages / count)
    for title, unit, times in parts:
        print(title)
        for name, taken in times.items():
            print(f"  {name:8s} {1e3 * taken:8.2f} ms per {unit}  {taken / times.sum():6.1%}")
    times = {"end_to_end": end, "forwards": forwards.sum(), "detection_and_networks": together}
    return {"images": count, "faces": faces, "plain_per_face": plain, **times, **stages}


def main(config: Config) -> int:
    with tempfile.TemporaryDirectory() as made:
        config.data_root = config.data_root or make_dataset(Path(made), config.images)
        measure(config)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="benchmarks.preprocess"))
