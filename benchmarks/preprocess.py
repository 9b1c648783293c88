"""How fast a dataset becomes a dump, where the time goes, and how far that is from the networks alone.

    python -m benchmarks.preprocess                          # 256 pictures made from one that ships with scikit-image
    python -m benchmarks.preprocess --data_root faces --images 500
    python -m benchmarks.preprocess --data_root faces --images 4000 --device cuda --workers 16
    python -m benchmarks.preprocess --profile full --weights-dir WEIGHTS --data_root faces --images 16 --rounds 2

End to end means from files to a finished dump, with the weights loaded before. The pure forwards see the same crops, in
memory, one expert after the other, each with the whole machine to itself and the same number of threads as in the real run;
so do detection and networks together, with the decoded pictures in memory. The stages are timed one after another in one
thread. The plain loop is what one would write first: picture by picture, region by region and expert by expert, with torch's
own threads and memory layout. Every time is the best of several rounds, taken by turns; the plain loop, which is slow, sees
a few pictures once. Timings do not depend on what the weights say: files with random values do as well.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

import preprocessing_pipeline as pipeline
from data.cutting import Finder, rows_of
from data.datasets import Sample, find_samples
from data.faces import FaceCutter, align
from data.filling import fill, one_thread_per_operation
from data.loading import Picture, in_order, load
from data.store import DumpWriter, Row
from features.regions import REGIONS
from models.base import Expert, WholeFaceExpert
from models.ensemble import BATCH_CPU, BATCH_GPU, Ensemble, experts_of, find_device
from models.region_net import masked_input

ROUNDS = 3  # the best of so many: other programs only ever take time away
PLAIN = 8  # pictures that the plain loop sees


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
    """One dataset, one panel of experts. config: with the batch size and threads of the real run."""

    def __init__(
        self, root: Path, samples: list[Sample], config: pipeline.Config, ensemble: Ensemble
    ) -> None:
        self.root, self.samples, self.config, self.ensemble, self.device = (
            root,
            samples,
            config,
            ensemble,
            ensemble.device,
        )
        self.cutter = FaceCutter(crops=ensemble.crops.values(), detect_on=config.detect_on)
        loaded = [(sample, load(root / sample.path, config.max_pixels)) for sample in samples]
        self.pictures = [(sample, item) for sample, item in loaded if isinstance(item, Picture)]
        self.batches = chunks([picture.image for _, picture in self.pictures], config.batch_size)
        self.threads = config.workers if self.device.type == "cpu" else 1
        with one_thread_per_operation():
            self.crops = [self.cutter(batch) for batch in self.batches]
            self.views = [crops.views for crops in self.crops if len(crops)]
            self.predictions = [ensemble(views) for views in self.views]
        self.faces = sum(map(len, self.crops))

    def writer(self, folder: Path) -> DumpWriter:
        return DumpWriter(
            folder, {"profile": self.config.profile}, self.samples, self.config.shard_size
        )

    def meta(self) -> dict:
        outputs = {name: output.to_json() for name, output in self.ensemble.outputs.items()}
        return {"regions": list(REGIONS), "outputs": outputs}

    def end_to_end(self) -> float:
        def work() -> None:
            with (
                tempfile.TemporaryDirectory() as folder,
                self.writer(Path(folder)) as writer,
                redirect_stderr(StringIO()),
            ):
                c, on_cpu = self.config, self.ensemble.device.type == "cpu"
                finder, sizes = Finder(self.cutter), (c.batch_size, c.workers, c.max_pixels)
                fill(writer, self.root, finder, self.ensemble, on_cpu, *sizes)
                writer.finish(self.meta())

        return seconds(work, self.device)

    def alone(self, function: Callable, items: list, threads: int) -> float:
        """`function` of every item, divided among threads."""
        with one_thread_per_operation():
            return seconds(lambda: list(in_order(function, items, threads, threads)), self.device)

    def forwards(self) -> dict[str, float]:
        """Seconds of each expert with nothing around it."""
        taken = {}
        for expert in self.ensemble.experts:
            alone = Ensemble.of([expert], self.device)
            taken[expert.name] = self.alone(alone, self.views, self.threads)
        return taken

    def detection_and_network(self) -> float:
        def look(images: list[np.ndarray]) -> None:
            crops = self.cutter(images)
            if len(crops):
                self.ensemble(crops.views)

        return self.alone(look, self.batches, self.config.workers)

    def plain(self) -> float:
        """Seconds per face of a loop without batches, threads of ours, or channels_last."""
        experts = [
            deepcopy(expert).to(memory_format=torch.contiguous_format)
            for expert in self.ensemble.experts
        ]
        masks = {expert.name: expert.masks for expert in experts if hasattr(expert, "masks")}
        faces = 0

        def work() -> None:
            nonlocal faces
            for sample in self.samples[:PLAIN]:
                picture = load(self.root / sample.path, self.config.max_pixels)
                crops = self.cutter([picture.image]) if isinstance(picture, Picture) else ()
                faces += len(crops)
                for face in range(len(crops)):
                    for expert in experts:
                        view = crops.views[expert.crop][face : face + 1].to(self.device)
                        for region in range(
                            len(REGIONS) if expert.name in masks else 1
                        ):  # or sees the face once
                            if expert.name in masks:
                                expert.masks = masks[expert.name][region : region + 1]
                            [prediction.cpu() for prediction in one_region(expert, view).values()]

        return seconds(work, self.device) / max(faces, 1)

    def stages(self) -> dict[str, float]:
        """Seconds of each stage in one thread."""
        with one_thread_per_operation():
            decode = seconds(
                lambda: [load(self.root / s.path, self.config.max_pixels) for s in self.samples],
                self.device,
            )
            cut = seconds(lambda: [self.cutter(batch) for batch in self.batches], self.device)
            pairs = [
                (batch, crops, crop)
                for batch, crops in zip(self.batches, self.crops, strict=True)
                for crop in self.cutter.crops
            ]
            warp = seconds(
                lambda: [align(b, c.image, c.landmarks, crop) for b, c, crop in pairs], self.device
            )
            network = seconds(lambda: [self.ensemble(views) for views in self.views], self.device)
        with tempfile.TemporaryDirectory() as folder, self.writer(Path(folder)) as writer:
            write = seconds(lambda: self._write(writer), self.device)
        return {
            "decode": decode,
            "detect": cut - warp,
            "align": warp,
            "network": network,
            "write": write,
        }

    def _write(self, writer: DumpWriter) -> None:
        rows: list[Row] = []
        for crops, pictures in zip(
            self.crops, chunks(self.pictures, self.config.batch_size), strict=True
        ):
            rows += rows_of(crops, pictures)
        predictions = {
            k: torch.cat([a[k] for a in self.predictions]).numpy() for k in self.predictions[0]
        }
        place = {row.path: i for i, row in enumerate(rows)}
        for number, samples in writer.pending():
            mine = [place[sample.path] for sample in samples if sample.path in place]
            lost = [(sample.path, "lost") for sample in samples if sample.path not in place]
            writer.write_shard(
                number, [rows[i] for i in mine], {k: v[mine] for k, v in predictions.items()}, lost
            )
        writer.finish(self.meta())


def one_region(expert: Expert, view: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an expert whose `masks` are of one region says of it, or of all regions where it has none. view: (1, 4, px, px)."""
    with torch.inference_mode():
        if isinstance(expert, WholeFaceExpert):
            return expert.predict(
                expert.network_input(view).contiguous(memory_format=torch.contiguous_format)
            )
        if not hasattr(expert, "masks"):
            return expert(view)
        return expert.net(masked_input(view, expert.masks, expert.net.config["px"]))


def peak_memory(device: torch.device) -> str:
    """Of this process so far."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cpu":
        return f"{host:.1f} GiB"
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the device, {host:.1f} GiB beside it"


def main(root: Path, count: int, config: pipeline.Config, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure and print the table. rounds: the best of so many. Returns: what it shows, in seconds, images and faces."""
    device = find_device(config.device)
    names = experts_of(config.profile, config.experts)
    ensemble = Ensemble(
        names, device, config.precision == "bfloat16", config.weights_dir, config.clip_model
    )
    samples = pipeline.spread(find_samples(root), count)
    bench = Benchmark(root, samples, config, ensemble)
    count = len(samples)
    ends, alone, both, tries = [], [], [], []
    for _ in tqdm(range(rounds), desc="rounds", disable=None):
        ends.append(bench.end_to_end())
        memory = peak_memory(device)
        alone.append(bench.forwards())
        both.append(bench.detection_and_network())
        tries.append(bench.stages())
    end, together = min(ends), min(both)
    forwards, stages = (
        {name: min(taken[name] for taken in times) for name in times[0]} for times in (alone, tries)
    )
    network, plain = sum(forwards.values()), bench.plain()
    total = sum(stages.values())
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU cores"
    )
    precision = config.precision or "float32"
    print(
        f"{count} images, {bench.faces} faces; {where}, {precision}, {config.workers} threads, "
        f"batches of {config.batch_size}; peak memory {memory}"
    )
    print(f"end to end                    {count / end:8.2f} images/s")
    for name, seen in (("pure forwards", network), ("detection and networks", together)):
        print(
            f"{name:28s}  {count / seen:8.2f} images/s   end to end takes {end / seen:.2f} times as long"
        )
    ratio = plain / (end / bench.faces)
    print(
        f"plain loop, {PLAIN} images         {1 / plain:8.2f} faces/s    and takes {ratio:.2f} times as long"
    )
    print("pure forwards:")
    for name, taken in forwards.items():
        print(f"  {name:8s} {1e3 * taken / bench.faces:8.2f} ms per face   {taken / network:6.1%}")
    print("one after another in one thread:")
    for name, taken in stages.items():
        print(f"  {name:8s} {1e3 * taken / count:8.2f} ms per image  {taken / total:6.1%}")
    figures = {
        "images": count,
        "faces": bench.faces,
        "end_to_end": end,
        "network": network,
        "both": together,
    }
    return {**figures, "plain_per_face": plain, **stages}


def parse(arguments: list[str] | None = None) -> tuple[Path | None, int, int, pipeline.Config]:
    default = pipeline.Config(Path())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", "--data-root", type=Path, metavar="DIR", help="a dataset (default: made up)")
    add("--images", type=int, default=256, metavar="N", help="how many of it (default %(default)s)")
    add(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="the best of so many counts (default %(default)s)",
    )
    add(
        "--profile",
        choices=pipeline.PROFILES,
        default=default.profile,
        help="which experts (default %(default)s)",
    )
    add(
        "--experts", nargs="+", default=(), metavar="NAME", help="some experts instead of a profile"
    )
    add("--device", default=default.device, help="cpu, cuda, ... (default here: %(default)s)")
    add(
        "--detect-on", default=default.detect_on, help="where faces are found (default %(default)s)"
    )
    add("--batch-size", type=int, metavar="N", help="images at a time (default: as preprocessing)")
    add("--workers", type=int, default=default.workers, metavar="N", help="threads")
    add("--precision", choices=pipeline.PRECISIONS, help="of the networks (default float32)")
    add(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="local weight files, of random values if you like",
    )
    given = vars(parser.parse_args(arguments))
    root, images, rounds = (given.pop(name) for name in ("data_root", "images", "rounds"))
    given["batch_size"] = given["batch_size"] or (
        BATCH_CPU if given["device"] == "cpu" else BATCH_GPU
    )
    return (
        root,
        images,
        rounds,
        pipeline.Config(Path(), **{**given, "experts": tuple(given["experts"])}),
    )


if __name__ == "__main__":
    data_root, images, rounds, settings = parse()
    with tempfile.TemporaryDirectory() as made:
        main(data_root or make_dataset(Path(made), images), images, settings, rounds)
    sys.exit()
