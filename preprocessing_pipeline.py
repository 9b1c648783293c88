"""Dataset folder -> dump: find the faces, show every region of them to the experts, store what those say.

    python preprocessing_pipeline.py --data_root faces                            # the bundled expert; a GPU if there is one
    python preprocessing_pipeline.py --data_root faces --limit 200 --out outputs/try     # a quick look first
    python preprocessing_pipeline.py --data_root faces --batch-size 4 --device cpu
With the published experts, whose weights are downloaded once (python -m models.weights list says which, and their terms):
    python preprocessing_pipeline.py --data_root faces --profile full --batch-size auto --workers 16
    python preprocessing_pipeline.py --data_root faces --profile full --weights-dir WEIGHTS     # local files, no network
    python preprocessing_pipeline.py --data_root faces --experts fairface clip       # some of them
    python preprocessing_pipeline.py --data_root faces --experts arcface --extend    # later one more, into the same dump

`faces` has real/ and fake/ below it, or train/, valid/ (or val/) and test/ with real/ and fake/ in each, or an index.csv
(path,label[,group][,split]). The dump is what train.py and predict.py read next. Features are computed from it later, so no
other step needs the networks. Stop it whenever you like, even by pulling the plug: the same command goes on where it
stopped and ends with the same bytes. A picture that cannot be used costs only itself: failures.csv says why; a face that one
expert cannot answer costs only that expert's columns: missing.csv says why.

--batch-size, --workers, --device and --detect-on change the stored values by rounding at most and may differ between two
starts. All else that matters is kept in the dump; one made with other settings is never mixed with, nor replaced without
--overwrite.
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

from data.cutting import Finder, Recutter
from data.datasets import Sample, find_samples, spread
from data.dump import DUMPS, begun_with
from data.extend import Extension
from data.faces import FaceCutter
from data.images import MAX_PIXELS, ImageError
from data.loading import Picture, batches, in_order, load_ahead
from data.store import Dump, DumpWriter, Row, ShardWriter, read_dump
from features.regions import REGIONS, Crop
from models import CLIP_MODEL, EXPERTS, PROFILES
from models.panel import (
    BATCH_CPU,
    BATCH_GPU,
    Panel,
    experts_of,
    find_device,
    out_of_memory,
    profile_of,
    usual_precision,
)

BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} images [{elapsed}, {remaining} left, {rate_noinv_fmt}]"
PRECISIONS = {"float32": False, "bfloat16": True}


@dataclass
class Config:
    """What to do.

    data_root: the dataset. index: its index.csv where that lies elsewhere. out: the folder of the dump, None is
    outputs/features/<dataset>/<profile>. experts: some, instead of all of the profile. extend: add them to a finished
    dump. precision: None is what the dump was begun with, else `usual_precision`. batch_size: images, "auto" is what fits
    on the GPU, None is BATCH_CPU or BATCH_GPU. workers: threads.
    """

    data_root: Path
    out: Path | None = None
    index: Path | None = None
    profile: str = "lite"
    experts: tuple[str, ...] = ()
    extend: bool = False
    clip_model: str = CLIP_MODEL
    faces: str = "one"
    limit: int | None = None
    overwrite: bool = False
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    detect_on: str = "cpu"
    batch_size: int | str | None = None
    workers: int = min(8, os.cpu_count() or 1)
    precision: str | None = None
    max_pixels: int = MAX_PIXELS
    shard_size: int = 256
    weights_dir: Path | None = None


Batch = list[tuple[Sample, Picture | ImageError]]


@dataclass
class Found:
    """What a batch of a shard yields.

    answers: `<expert>.<output>` -> (len(rows), R, D) float16; none where there are no rows.
    """

    shard: int
    images: int
    rows: list[Row]
    failures: list[tuple[str, str]]
    views: dict[Crop, torch.Tensor]
    answers: dict[str, torch.Tensor]


def cut(shard: int, batch: Batch, find: Finder | Recutter) -> Found:
    """The faces of a batch, before any expert sees them."""
    failures = [(sample.path, item.reason) for sample, item in batch if isinstance(item, ImageError)]
    rows, views, faceless = find([(sample, item) for sample, item in batch if isinstance(item, Picture)])
    return Found(shard, len(batch), rows, failures + faceless, views, {})


def ask(found: Found, panel: Panel) -> Found:
    """The same with the experts' answers, and without the crops."""
    return replace(found, views={}, answers=panel(found.views) if found.rows else {})


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


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(config: Config) -> Path:
    """Make the dump, finish it, or extend it. Returns: its folder.

    Raises: ValueError, FileNotFoundError, PermissionError for a dataset, option or folder that cannot be used; OSError on
    a full disk.
    """
    if config.workers < 1 or config.batch_size not in (None, "auto") and config.batch_size < 1:
        raise ValueError("--batch-size and --workers must be at least 1")
    root = Path(config.data_root)
    names = experts_of(config.profile, config.experts)
    profile = profile_of(config.profile, names)
    name = root.resolve().name or "root"
    out = config.out or DUMPS / name / profile
    samples = spread(find_samples(root, config.index), config.limit)
    device = find_device(config.device)
    find_device(config.detect_on, "--detect-on")
    precision = config.precision or begun_with(out, "precision") or usual_precision(device, names)
    before = read_dump(out) if config.extend else None
    if before is not None and before.meta.get("clip_model", config.clip_model) != config.clip_model:
        raise ValueError(
            f"{out}: holds answers of CLIP {before.meta['clip_model']}; choose another --out for another tower"
        )
    if before is not None:
        names = tuple(expert for expert in names if expert not in before.meta["weights"])
        if not names:
            print(f"dump      {out}: has these experts already: {', '.join(before.meta['weights'])}")
            return out
    panel = Panel(names, device, PRECISIONS[precision], config.weights_dir, config.clip_model)
    if config.batch_size in (None, "auto"):
        usual = BATCH_CPU if device.type == "cpu" else BATCH_GPU
        config = replace(config, batch_size=panel.largest_batch() if config.batch_size else usual)
    made = {"profile": profile, "regions": list(REGIONS), "weights": panel.weights}
    made |= {"clip_model": config.clip_model} if "clip" in names else {}
    outputs = {key: output.to_json() for key, output in panel.outputs.items()}
    settings = {"faces": config.faces, "precision": precision, "max_pixels": config.max_pixels}
    if before is not None:
        made = merged(before, made, settings, samples)
        writer: ShardWriter = Extension(before, outputs, {**made, **settings}, config.shard_size)
        find: Finder | Recutter = Recutter(writer.rows, panel.crops.values())
        both = before.meta["outputs"] | outputs
        outputs = {key: both[key] for expert in EXPERTS for key in both if key.startswith(f"{expert}.")}
    else:
        writer = DumpWriter(out, {**made, **settings}, samples, config.shard_size, config.overwrite)
        find = Finder(FaceCutter(config.faces, crops=panel.crops.values(), detect_on=config.detect_on))
    with writer:
        announce(config, name, samples, precision, panel, writer)
        process(writer, root, find, panel, config)
        versions = {package: version(package) for package in ("torch", "facenet-pytorch", "numpy", "pillow")}
        more = {} if before is not None else {"dataset": name, "data_root": str(root.resolve())}
        dump = writer.finish({**more, **made, "outputs": outputs, "versions": versions})
    conclude(dump)
    return dump.path


def merged(before: Dump, made: dict, settings: dict, samples: list[Sample]) -> dict:
    """What an extended dump is made of. Raises: ValueError where the new answers would not fit the old ones."""
    now = {**settings, "regions": made["regions"]}
    there = {key: before.meta["config"].get(key) for key in now}
    differing = [f"\n  {key}: {there[key]!r} there, {now[key]!r} now" for key in now if there[key] != now[key]]
    if differing:
        raise ValueError(f"{before.path}: cannot be extended, it has other settings:{''.join(differing)}")
    lost = set(before.rows["path"].tolist()) - {sample.path for sample in samples}
    if lost:
        raise ValueError(
            f"{before.path}: cannot be extended, {len(lost)} of its pictures are not in this dataset, such as {min(lost)}"
        )
    weights = before.meta["weights"] | made["weights"]
    kept = {"clip_model": before.meta["clip_model"]} if "clip_model" in before.meta else {}
    names = tuple(expert for expert in EXPERTS if expert in weights)
    profile = profile_of(before.meta["profile"] if before.meta["profile"] in PROFILES else "lite", names)
    return kept | made | {"profile": profile, "weights": {expert: weights[expert] for expert in names}}


def process(writer: ShardWriter, root: Path, find: Finder | Recutter, panel: Panel, config: Config) -> None:
    """Write the shards that are missing. Threads decode ahead, others cut and ask; no batch belongs to two shards.

    On a CPU each core cuts a batch of its own and asks about it. On a GPU, cores cut while it answers about earlier batches.
    """
    pending = writer.pending()
    left = [sample for _, samples in pending for sample in samples]
    paths, size, workers = (root / sample.path for sample in left), config.batch_size, config.workers
    total = len(writer.samples)
    with (
        one_thread_per_operation(),
        closing(load_ahead(paths, workers, size + workers, config.max_pixels)) as pictures,
        tqdm(total=total, initial=total - len(left), unit=" images", bar_format=BAR, disable=not left) as bar,
    ):
        loaded = zip(left, pictures, strict=True)
        jobs = ((n, batch) for n, samples in pending for batch in batches(islice(loaded, len(samples)), size))
        if panel.device.type == "cpu":
            asked = in_order(lambda job: ask(cut(*job, find), panel), jobs, workers, workers)
        else:
            asked = in_order(
                lambda found: ask(found, panel), in_order(lambda job: cut(*job, find), jobs, workers, workers), 1, 1
            )
        with closing(asked):
            for number, parts in groupby(asked, key=lambda found: found.shard):
                shard = []
                for found in parts:
                    shard.append(found)
                    bar.update(found.images)
                write(writer, number, shard)


def write(writer: ShardWriter, number: int, parts: list[Found]) -> None:
    """Put together what the batches of one shard yielded."""
    names = next((part.answers for part in parts if part.answers), {})
    arrays = {name: torch.cat([p.answers[name] for p in parts if p.answers]).numpy() for name in names}
    rows, failures = ([item for part in parts for item in getattr(part, kind)] for kind in ("rows", "failures"))
    writer.write_shard(number, rows, arrays, failures)


def announce(
    config: Config, name: str, samples: list[Sample], precision: str, panel: Panel, writer: ShardWriter
) -> None:
    """Say what was chosen, before anything takes long."""
    fake = sum(sample.label for sample in samples)
    splits = {split: sum(sample.split == split for sample in samples) for split in ("train", "val", "test")}
    given = ", ".join(f"{count} {split}" for split, count in splits.items() if count) or "not given, 70/10/20 by group"
    experts = ", ".join(f"{expert} (weights {sha[:12]})" for expert, sha in panel.weights.items())
    total, left = len(writer.samples), sum(len(samples) for _, samples in writer.pending())
    state = "complete already" if writer.complete else f"{total - left} of {total} images are done"
    print(f"dataset   {name} ({config.data_root}): {len(samples) - fake} real, {fake} fake; splits: {given}")
    print(f"experts   {experts}; {config.faces} face{'s' * (config.faces == 'all')} per image")
    print(f"device    {panel.device}, {precision}; batches of {config.batch_size}, {config.workers} threads")
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
    for expert in dump.meta["weights"]:
        lacking = sum(entry[2] == expert for entry in dump.missing)
        if lacking:
            warn(f"{lacking} faces have no answer of {expert}; why: {dump.path / 'missing.csv'}")
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
    add("--experts", nargs="+", metavar="NAME", help=f"some experts instead of a profile: {', '.join(EXPERTS)}")
    add("--extend", action="store_true", help="add experts that a finished dump (--out, or the default) lacks")
    add("--clip-model", metavar="NAME", help="ViT-B/32, ViT-L/14, or a tower as timm calls it (default %(default)s)")
    add("--weights-dir", type=Path, metavar="DIR", help="local weight files; nothing is downloaded (or MASC_WEIGHTS)")
    add("--faces", choices=("one", "all"), help="the most central large face, or every face (default %(default)s)")
    precisions = (
        "bfloat16 is faster on recent hardware; lite's answers differ by up to .02 (default: for `full` on a GPU)"
    )
    add("--precision", choices=PRECISIONS, help=precisions)
    add("--max-pixels", type=int, metavar="N", help="refuse larger images (default %(default)s)")
    add = parser.add_argument_group("speed (may change between two starts)").add_argument
    add("--device", help="of the experts: cpu, cuda, cuda:1, ... (default here: %(default)s)")
    add("--detect-on", metavar="DEVICE", help="of the face detector (default %(default)s: its threads keep a GPU busy)")
    batch = f"images at a time, or auto: what fits (default {BATCH_CPU}, on a GPU {BATCH_GPU})"
    add("--batch-size", "--batch_size", type=batch_size, metavar="N", help=batch)
    add("--workers", type=int, metavar="N", help="threads that decode, find and cut faces (default here: %(default)s)")
    add("--shard-size", type=int, metavar="N", help="images that a killed run repeats at most (default %(default)s)")
    parser.set_defaults(**asdict(Config(Path())))
    given = vars(parser.parse_args(arguments))
    if given["extend"] and given["overwrite"]:
        parser.error("--extend keeps what is there, --overwrite replaces it; give one of them")
    return Config(**{**given, "experts": tuple(given["experts"])})


def batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


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
    except (OSError, RuntimeError, MemoryError) as error:
        short = out_of_memory(error)
        if isinstance(error, RuntimeError) and not short:
            raise
        print(f"error: {error}{'. Go on with a smaller --batch-size, or fewer --workers' * short}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli())
