"""Dataset folder -> dump: find the faces, show every region of them to the experts, store what those say.

    python preprocessing_pipeline.py --data_root faces                            # a GPU if there is one, else the CPU
    python preprocessing_pipeline.py --data_root faces --batch-size 4 --device cpu
    python preprocessing_pipeline.py --data_root faces --limit 200 --out outputs/try     # a quick look first
    python preprocessing_pipeline.py --data_root faces --batch-size 256 --workers 16     # a GPU with many CPU cores

`faces` has real/ and fake/ below it, or train/, valid/ (or val/) and test/ with real/ and fake/ in each, or an index.csv
(path,label[,group][,split]). The dump is what train.py and predict.py read next. Features are computed from it later, so no
other step needs the networks. Stop it whenever you like, even by pulling the plug: the same command goes on where it
stopped and ends with the same bytes. A picture that cannot be used costs only itself: failures.csv says why.

--batch-size, --workers and --device change the stored values by rounding at most and may differ between two starts. All
else that matters is kept in the dump; one made with other settings is never mixed with, nor replaced without --overwrite.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path

import torch
from tqdm import tqdm

from data.datasets import Sample, find_samples
from data.dump import DUMPS
from data.faces import FaceCrops, FaceCutter
from data.images import MAX_PIXELS, ImageError
from data.loading import Picture, batches, in_order, load_ahead
from data.store import NO_FACE, Dump, DumpWriter, Row
from features.regions import REGIONS
from models import PROFILES, ask, build_experts, find_device, outputs_of, weights_sha256
from models.base import Expert

BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} images [{elapsed}, {remaining} left, {rate_noinv_fmt}]"
BATCH_CPU, BATCH_GPU = 8, 64  # images


@dataclass
class Config:
    """What to do.

    data_root: the dataset. index: its index.csv where that lies elsewhere. out: the folder of the dump, None is
    outputs/features/<dataset>/<profile>. batch_size: images, None is BATCH_CPU or BATCH_GPU. workers: threads.
    """

    data_root: Path
    out: Path | None = None
    index: Path | None = None
    profile: str = "lite"
    faces: str = "one"
    limit: int | None = None
    overwrite: bool = False
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    batch_size: int | None = None
    workers: int = min(8, os.cpu_count() or 1)
    bf16: bool = False
    max_pixels: int = MAX_PIXELS
    shard_size: int = 256
    weights_dir: Path | None = None


@dataclass
class Found:
    """What a batch of a shard yields.

    answers: `<expert>.<output>` -> (len(rows), R, D) float16, left on the device: a GPU need not wait before it goes on.
    """

    shard: int
    images: int
    rows: list[Row]
    failures: list[tuple[str, str]]
    answers: dict[str, torch.Tensor]


def look(
    shard: int, batch: list[tuple[Sample, Picture | ImageError]], cutter: FaceCutter, experts: list[Expert]
) -> Found:
    """Find the faces of a batch and ask the experts about them."""
    failures = [(sample.path, item.reason) for sample, item in batch if isinstance(item, ImageError)]
    pictures = [(sample, item) for sample, item in batch if isinstance(item, Picture)]
    crops = cutter([picture.image for _, picture in pictures])
    seen = set(crops.image.tolist())
    failures += [(sample.path, NO_FACE) for i, (sample, _) in enumerate(pictures) if i not in seen]
    answers = {name: value.half() for name, value in ask(experts, crops.aligned).items()} if seen else {}
    return Found(shard, len(batch), rows_of(crops, pictures), failures, answers)


def rows_of(crops: FaceCrops, pictures: list[tuple[Sample, Picture]]) -> list[Row]:
    """One row of index.csv per face. crops: of the batch `pictures`."""
    rows = []
    for i, index in enumerate(crops.image):
        sample, picture = pictures[index]
        height, width = picture.image.shape[:2]
        rows.append(
            Row(
                *(sample.path, crops.face[i], sample.label, sample.group, sample.split),
                *crops.box[i],
                *crops.landmarks[i].ravel(),
                *(crops.score[i], crops.face_px[i], crops.sharpness[i], crops.yaw[i], crops.pitch[i], crops.roll[i]),
                *(width, height, picture.file_bytes, *picture.mean, picture.phash),
            )
        )
    return rows


@contextmanager
def one_thread_per_operation(device: torch.device) -> Iterator[None]:
    """On a CPU, batches are worked on side by side: operations that divide themselves among threads as well would wait for
    each other (detection consists of hundreds of tiny ones), and round differently on another number of cores."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` of the samples, evenly spaced, so that every folder is in."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise ValueError(f"--limit {limit}: nothing would be left")
    return [samples[i * len(samples) // limit] for i in range(limit)]


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(config: Config) -> Path:
    """Make the dump, or finish it. Returns: its folder.

    Raises: ValueError, FileNotFoundError, PermissionError for a dataset, option or folder that cannot be used; OSError on
    a full disk.
    """
    root = Path(config.data_root)
    samples = spread(find_samples(root, config.index), config.limit)
    device = find_device(config.device)
    if config.batch_size is None:
        config = replace(config, batch_size=BATCH_CPU if device.type == "cpu" else BATCH_GPU)
    if min(config.batch_size, config.workers) < 1:
        raise ValueError("--batch-size and --workers must be at least 1")
    experts = build_experts(config.profile, device, config.bf16, config.weights_dir)
    cutter = FaceCutter(device=str(device), faces=config.faces)
    name = root.resolve().name or "root"
    out = config.out or DUMPS / name / config.profile
    weights = {expert.name: weights_sha256(expert) for expert in experts}
    made = {"profile": config.profile, "regions": list(REGIONS), "weights": weights}
    precision = "bfloat16" if config.bf16 else "float32"
    settings = {**made, "faces": config.faces, "precision": precision, "max_pixels": config.max_pixels}
    with DumpWriter(out, settings, samples, config.shard_size, config.overwrite) as writer:
        announce(config, name, samples, device, weights, writer)
        process(writer, root, cutter, experts, config)
        meta = {
            "dataset": name,
            "data_root": str(root.resolve()),
            **made,
            "outputs": {name: output.to_json() for name, output in outputs_of(experts).items()},
            "versions": {package: version(package) for package in ("torch", "facenet-pytorch", "numpy", "pillow")},
        }
        dump = writer.finish(meta)
    conclude(dump)
    return dump.path


def process(writer: DumpWriter, root: Path, cutter: FaceCutter, experts: list[Expert], config: Config) -> None:
    """Write the shards that are missing. Threads decode ahead, others look at batches; no batch belongs to two shards."""
    pending = writer.pending()
    left = [sample for _, samples in pending for sample in samples]
    paths, size = (root / sample.path for sample in left), config.batch_size
    total, device = len(writer.samples), torch.device(config.device)
    # On a CPU each core looks at a batch of its own. On a GPU, one batch uses the time in which another waits for answers.
    lookers = config.workers if device.type == "cpu" else 2
    with (
        one_thread_per_operation(device),
        closing(load_ahead(paths, config.workers, size + config.workers, config.max_pixels)) as pictures,
        tqdm(total=total, initial=total - len(left), unit=" images", bar_format=BAR, disable=not left) as bar,
    ):
        loaded = zip(left, pictures, strict=True)
        jobs = ((n, batch) for n, samples in pending for batch in batches(islice(loaded, len(samples)), size))
        looked = in_order(lambda job: look(*job, cutter, experts), jobs, lookers, lookers)
        with closing(looked):
            for number, parts in groupby(looked, key=lambda found: found.shard):
                shard = []
                for found in parts:
                    shard.append(found)
                    bar.update(found.images)
                write(writer, number, shard)


def write(writer: DumpWriter, number: int, parts: list[Found]) -> None:
    """Put together what the batches of one shard yielded."""
    names = next((part.answers for part in parts if part.answers), {})
    arrays = {name: torch.cat([p.answers[name] for p in parts if p.answers]).cpu().numpy() for name in names}
    rows, failures = ([item for part in parts for item in getattr(part, kind)] for kind in ("rows", "failures"))
    writer.write_shard(number, rows, arrays, failures)


def announce(
    config: Config, name: str, samples: list[Sample], device: torch.device, weights: dict[str, str], writer: DumpWriter
) -> None:
    """Say what was chosen, before anything takes long."""
    fake = sum(sample.label for sample in samples)
    splits = {split: sum(sample.split == split for sample in samples) for split in ("train", "val", "test")}
    given = ", ".join(f"{count} {split}" for split, count in splits.items() if count) or "not given, 70/10/20 by group"
    experts = ", ".join(f"{expert} (weights {sha[:12]})" for expert, sha in weights.items())
    left = sum(len(samples) for _, samples in writer.pending())
    state = "complete already" if writer.complete else f"{len(samples) - left} of {len(samples)} images are done"
    precision = "bfloat16" if config.bf16 else "float32"
    print(f"dataset   {name} ({config.data_root}): {len(samples) - fake} real, {fake} fake; splits: {given}")
    print(f"profile   {config.profile}: {experts}; {config.faces} face{'s' * (config.faces == 'all')} per image")
    print(f"device    {device}, {precision}; batches of {config.batch_size}, {config.workers} threads")
    print(f"dump      {writer.out}: {state}; shards of {writer.shard_size}")
    if fake in (0, len(samples)):
        only = "fake" if fake else "real"
        warn(f"all images of {config.data_root} are {only}; train.py needs both, or only real ones with --one-class")


def conclude(dump: Dump) -> None:
    """Say what came of it."""
    counts = dump.meta["counts"]
    print(
        f"kept {counts['kept']} of {counts['images']} images ({counts['faces']} faces: {counts['real']} real, "
        f"{counts['fake']} fake), no face {counts['no_face']}, unreadable {counts['unreadable']}"
    )
    if counts["no_face"] or counts["unreadable"]:
        print(f"why: {dump.path / 'failures.csv'}")
    if not counts["faces"]:
        warn("no face was found in any image; are these pictures of faces?")
    print(f"dump: {dump.path}")


def parse(arguments: list[str] | None) -> Config:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("what to read and write").add_argument
    add("--data_root", "--data-root", type=Path, required=True, metavar="DIR", help="the folder of the dataset")
    add("--index", type=Path, metavar="FILE", help="an index.csv that lists pictures of the dataset but lies elsewhere")
    add("--out", type=Path, metavar="DIR", help=f"the folder of the dump (default {DUMPS}/<dataset>/<profile>)")
    add("--overwrite", action="store_true", help="replace a dump that is finished or has other settings")
    add("--limit", type=int, metavar="N", help="only N images, evenly spaced over the dataset")
    add = parser.add_argument_group("how to look at the faces (kept in the dump)").add_argument
    add("--profile", choices=PROFILES, help="which experts (default %(default)s)")
    add("--faces", choices=("one", "all"), help="the most central large face, or every face (default %(default)s)")
    add("--bf16", action="store_true", help="bfloat16 experts: faster on recent hardware, answers differ by up to .02")
    add("--max-pixels", type=int, metavar="N", help="refuse larger images (default %(default)s)")
    add("--weights-dir", type=Path, metavar="DIR", help="weights of your own instead of the bundled ones")
    add = parser.add_argument_group("speed (may change between two starts)").add_argument
    add("--device", help="cpu, cuda, cuda:1, ... (default here: %(default)s)")
    batch = f"images at a time (default {BATCH_CPU}, on a GPU {BATCH_GPU})"
    add("--batch-size", "--batch_size", type=int, metavar="N", help=batch)
    add("--workers", type=int, metavar="N", help="threads that decode and, on a CPU, look (default here: %(default)s)")
    add("--shard-size", type=int, metavar="N", help="images that a killed run repeats at most (default %(default)s)")
    parser.set_defaults(**asdict(Config(Path())))
    return Config(**vars(parser.parse_args(arguments)))


def cli(arguments: list[str] | None = None) -> int:
    """The command line. Returns: the exit code: 0 done, 1 the machine gave out, 2 bad usage, 130 stopped by Ctrl-C."""
    config = parse(arguments)
    try:
        main(config)
    except KeyboardInterrupt:
        print("\nstopped. Finished shards are kept: run the same command again to go on.", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, torch.OutOfMemoryError) as error:
        advice = "\nGo on with a smaller --batch-size." if isinstance(error, RuntimeError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli())
