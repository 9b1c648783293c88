"""How fast a dataset becomes a dump, where the time goes, and how far that is from the network alone.

    python -m benchmarks.preprocess                          # 256 pictures made from one that ships with scikit-image
    python -m benchmarks.preprocess --data_root faces --images 500
    python -m benchmarks.preprocess --data_root faces --images 4000 --device cuda --workers 16

End to end means from files to a finished dump, with the weights loaded before. The network alone sees the same crops, in
memory, and has the whole machine to itself; so have detection and network together, with the decoded pictures in memory.
Both get the same number of threads as the real run. The stages are timed one after another in one thread. Every time is
the best of three, taken by turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import torch

import preprocessing_pipeline as pipeline
from data.datasets import Sample, find_samples
from data.faces import FaceCutter, align
from data.loading import Picture, in_order, load
from data.store import DumpWriter, Row
from features.regions import REGIONS
from models import ask, build_experts, outputs_of
from models.base import Expert

ROUNDS = 3  # the best of so many: other programs only ever take time away


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


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, until the device has finished it."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class Benchmark:
    """One dataset, one device. batch, threads: as in the real run."""

    def __init__(self, root: Path, samples: list[Sample], config: pipeline.Config, device: torch.device) -> None:
        self.root, self.samples, self.config, self.device = root, samples, config, device
        self.experts: list[Expert] = build_experts(config.profile, device, config.bf16, config.weights_dir)
        self.cutter = FaceCutter(device)
        loaded = [(sample, load(root / sample.path, config.max_pixels)) for sample in samples]
        self.pictures = [(sample, item) for sample, item in loaded if isinstance(item, Picture)]
        self.images = [picture.image for _, picture in self.pictures]
        self.batches = chunks(self.images, config.batch_size)
        self.threads = config.workers if device.type == "cpu" else 2
        with pipeline.one_thread_per_operation(device):
            self.crops = [self.cutter(batch) for batch in self.batches]
            self.answers = [ask(self.experts, crops.aligned) for crops in self.crops if len(crops)]
        self.faces = sum(map(len, self.crops))

    def writer(self, folder: Path) -> DumpWriter:
        return DumpWriter(folder, {"profile": self.config.profile}, self.samples, self.config.shard_size)

    def meta(self) -> dict:
        outputs = {name: output.to_json() for name, output in outputs_of(self.experts).items()}
        return {"regions": list(REGIONS), "outputs": outputs}

    def end_to_end(self) -> float:
        def work() -> None:
            with (
                tempfile.TemporaryDirectory() as folder,
                self.writer(Path(folder)) as writer,
                redirect_stderr(StringIO()),
            ):
                pipeline.process(writer, self.root, self.cutter, self.experts, self.config)
                writer.finish(self.meta())

        return seconds(work, self.device)

    def alone(self, function: Callable, items: list) -> float:
        """`function` of every item, divided among threads as in the real run."""
        with pipeline.one_thread_per_operation(self.device):
            return seconds(lambda: list(in_order(function, items, self.threads, self.threads)), self.device)

    def network(self) -> float:
        return self.alone(lambda crops: ask(self.experts, crops.aligned), [c for c in self.crops if len(c)])

    def detection_and_network(self) -> float:
        def look(images: list[np.ndarray]) -> None:
            crops = self.cutter(images)
            if len(crops):
                ask(self.experts, crops.aligned)

        return self.alone(look, self.batches)

    def stages(self) -> dict[str, float]:
        """Seconds of each stage in one thread."""
        with pipeline.one_thread_per_operation(self.device):
            decode = seconds(
                lambda: [load(self.root / s.path, self.config.max_pixels) for s in self.samples], self.device
            )
            cut = seconds(lambda: [self.cutter(batch) for batch in self.batches], self.device)
            pairs = list(zip(self.batches, self.crops, strict=True))
            warp = seconds(lambda: [align(b, c.image, c.landmarks, self.device) for b, c in pairs], self.device)
            network = seconds(lambda: [ask(self.experts, c.aligned) for c in self.crops if len(c)], self.device)
        with tempfile.TemporaryDirectory() as folder, self.writer(Path(folder)) as writer:
            write = seconds(lambda: self._write(writer), self.device)
        return {"decode": decode, "detect": cut - warp, "align": warp, "network": network, "write": write}

    def _write(self, writer: DumpWriter) -> None:
        rows: list[Row] = []
        for crops, pictures in zip(self.crops, chunks(self.pictures, self.config.batch_size), strict=True):
            rows += pipeline.rows_of(crops, pictures)
        answers = {k: torch.cat([a[k] for a in self.answers]).half().cpu().numpy() for k in self.answers[0]}
        place = {row.path: i for i, row in enumerate(rows)}
        for number, samples in writer.pending():
            mine = [place[sample.path] for sample in samples if sample.path in place]
            lost = [(sample.path, "lost") for sample in samples if sample.path not in place]
            writer.write_shard(number, [rows[i] for i in mine], {k: v[mine] for k, v in answers.items()}, lost)
        writer.finish(self.meta())


def main(root: Path, count: int, config: pipeline.Config) -> dict[str, float]:
    """Print the table. Returns: what it shows, in seconds, images and faces."""
    device = pipeline.find_device(config.device)
    samples = pipeline.spread(find_samples(root), count)
    bench = Benchmark(root, samples, config, device)
    count = len(samples)
    rounds = [(bench.end_to_end(), bench.network(), bench.detection_and_network()) for _ in range(ROUNDS)]
    end, network, both = map(min, zip(*rounds, strict=True))
    tries = [bench.stages() for _ in range(ROUNDS)]
    stages = {name: min(stages[name] for stages in tries) for name in tries[0]}
    total = sum(stages.values())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU cores"
    precision = "bfloat16" if config.bf16 else "float32"
    print(
        f"{count} images, {bench.faces} faces; {where}, {precision}, {config.workers} threads, batches of {config.batch_size}"
    )
    print(f"end to end                   {count / end:8.1f} images/s")
    print(
        f"detection and network alone  {count / both:8.1f} images/s   end to end takes {end / both:.2f} times as long"
    )
    print(
        f"network alone                {count / network:8.1f} images/s   end to end takes {end / network:.2f} times as long"
    )
    print("one after another in one thread:")
    for name, taken in stages.items():
        print(f"  {name:8s} {1e3 * taken / count:8.2f} ms per image  {taken / total:6.1%}")
    return {"images": count, "faces": bench.faces, "end_to_end": end, "network": network, "both": both, **stages}


def parse(arguments: list[str] | None = None) -> tuple[Path | None, int, pipeline.Config]:
    default = pipeline.Config(Path())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", "--data-root", type=Path, metavar="DIR", help="a dataset (default: made up)")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="how many of it (default %(default)s)")
    parser.add_argument("--device", default=default.device, help="cpu, cuda, ... (default here: %(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at a time (default: as preprocessing)")
    parser.add_argument("--workers", type=int, default=default.workers, metavar="N", help="threads")
    parser.add_argument("--bf16", action="store_true", help="the network in bfloat16")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="other weights than the bundled ones")
    given = parser.parse_args(arguments)
    batch = given.batch_size or (pipeline.BATCH_CPU if given.device == "cpu" else pipeline.BATCH_GPU)
    config = pipeline.Config(
        Path(),
        device=given.device,
        batch_size=batch,
        workers=given.workers,
        bf16=given.bf16,
        weights_dir=given.weights_dir,
    )
    return given.data_root, given.images, config


if __name__ == "__main__":
    data_root, images, settings = parse()
    with tempfile.TemporaryDirectory() as made:
        main(data_root or make_dataset(Path(made), images), images, settings)
    sys.exit()
