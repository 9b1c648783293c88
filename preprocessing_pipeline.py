"""Dataset folder -> dump: find the faces, show every region of them to the experts, store what those say.

    python preprocessing_pipeline.py --data_root faces                            # the bundled experts; a GPU if there is one
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
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from data.cutting import Finder, Recutter, samples_of
from data.datasets import FRAMES, Sample, find_samples, spread
from data.degrade import FAMILIES, Condition
from data.dump import DUMPS, begun_with
from data.extend import Extension, check_extendable
from data.faces import FaceCutter
from data.filling import fill
from data.images import MAX_PIXELS
from data.store import Dump, DumpWriter, ShardWriter, read_dump
from data.video import split_frame
from features.regions import REGIONS
from models import CLIP_MODEL, EXPERTS, PROFILES
from models.ensemble import (
    BATCH_CPU,
    BATCH_GPU,
    Ensemble,
    experts_of,
    find_device,
    out_of_memory,
    profile_of,
    usual_precision,
)

DEGRADED = Path("outputs/degraded")  # <dataset>/<profile>/<family>-<level> below it
PRECISIONS = {"float32": False, "bfloat16": True}


@dataclass
class Config:
    """What to do.

    data_root: the dataset. index: its index.csv where that lies elsewhere. out: the folder of the dump, None is
    outputs/features/<dataset>/<profile>. layout, frames, compression: see data.datasets.find_samples. like: a dump whose
    pictures are taken instead. split: of this one only. degrade: a data.degrade.Condition that every picture goes through
    first. experts: some, instead of all of the profile. extend: add them to a finished dump. precision: None is what the
    dump was begun with, else `usual_precision`. batch_size: images, "auto" is what fits on the GPU, None is BATCH_CPU or
    BATCH_GPU. workers: threads.
    """

    data_root: Path
    out: Path | None = None
    index: Path | None = None
    layout: str | None = None
    frames: int = FRAMES
    compression: str | None = None
    like: Path | None = None
    split: str = ""
    degrade: str = ""
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
    condition = Condition.of(config.degrade) if config.degrade else None
    out = config.out or (
        degraded_at(name, profile, condition, config.limit) if condition else DUMPS / name / profile
    )
    if config.like and Path(config.like).resolve() == Path(out).resolve():
        raise ValueError(
            f"{out}: --like names this dump and --out would replace it; choose another --out"
        )
    samples = spread(listed(config, root), config.limit)
    if (
        condition
        and condition.clips_only
        and (picture := next((s for s in samples if not split_frame(s.path)), None))
    ):
        raise ValueError(
            f"{root / picture.path}: a picture; {condition.family} compresses clips, and takes video files alone"
        )
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
            print(
                f"dump      {out}: has these experts already: {', '.join(before.meta['weights'])}"
            )
            return out
    ensemble = Ensemble(names, device, PRECISIONS[precision], config.weights_dir, config.clip_model)
    if config.batch_size in (None, "auto"):
        usual = BATCH_CPU if device.type == "cpu" else BATCH_GPU
        config = replace(
            config, batch_size=ensemble.largest_batch() if config.batch_size else usual
        )
    made = {"profile": profile, "regions": list(REGIONS), "weights": ensemble.weights}
    made |= {"clip_model": config.clip_model} if "clip" in names else {}
    outputs = {key: output.to_json() for key, output in ensemble.outputs.items()}
    settings = {"faces": config.faces, "precision": precision, "max_pixels": config.max_pixels}
    settings |= {"degrade": config.degrade}
    if before is not None:
        made = merged(before, made, settings, samples)
        writer: ShardWriter = Extension(before, outputs, {**made, **settings}, config.shard_size)
        find: Finder | Recutter = Recutter(writer.rows, ensemble.crops.values())
        both = before.meta["outputs"] | outputs
        outputs = {
            key: both[key] for expert in EXPERTS for key in both if key.startswith(f"{expert}.")
        }
    else:
        writer = DumpWriter(out, {**made, **settings}, samples, config.shard_size, config.overwrite)
        find = Finder(
            FaceCutter(config.faces, crops=ensemble.crops.values(), detect_on=config.detect_on)
        )
    with writer:
        announce(config, name, samples, precision, ensemble, writer)
        on_cpu, size = ensemble.device.type == "cpu", config.batch_size
        fill(
            writer, root, find, ensemble, on_cpu, size, config.workers, config.max_pixels, condition
        )
        versions = {
            package: version(package) for package in ("torch", "facenet-pytorch", "numpy", "pillow")
        }
        more = {} if before is not None else {"dataset": name, "data_root": str(root.resolve())}
        dump = writer.finish({**more, **made, "outputs": outputs, "versions": versions})
    conclude(dump)
    return dump.path


def degraded_at(name: str, profile: str, condition: Condition, limit: int | None) -> Path:
    """Where a dump of degraded pictures lies unless told otherwise."""
    return (
        DEGRADED
        / name
        / profile
        / (f"{condition.family}-{condition.level}" + (f"-of-{limit}" if limit else ""))
    )


def listed(config: Config, root: Path) -> list[Sample]:
    """The pictures and frames to look at. Raises: ValueError, FileNotFoundError."""
    if config.like is None:
        samples = find_samples(root, config.index, config.layout, config.frames, config.compression)
        samples = [sample for sample in samples if config.split in ("", sample.split)]
    else:
        if not root.is_dir():
            raise FileNotFoundError(
                f"{root}: no such folder; give the one with the pictures of {config.like}"
            )
        samples = samples_of(read_dump(config.like), config.split)
        files = [root / (split_frame(sample.path) or [sample.path])[0] for sample in samples]
        if files and not any(file.exists() for file in files):
            raise FileNotFoundError(
                f"{files[0]}: not there, nor any other picture of {config.like}; give their folder"
            )
    if not samples:
        raise ValueError(f"{config.like or root}: no picture is in the split {config.split!r}")
    return samples


def merged(before: Dump, made: dict, settings: dict, samples: list[Sample]) -> dict:
    """What an extended dump is made of. Raises: ValueError where the new answers would not fit the old ones."""
    check_extendable(before, {**settings, "regions": made["regions"]}, samples)
    weights = before.meta["weights"] | made["weights"]
    kept = {"clip_model": before.meta["clip_model"]} if "clip_model" in before.meta else {}
    names = tuple(expert for expert in EXPERTS if expert in weights)
    profile = profile_of(
        before.meta["profile"] if before.meta["profile"] in PROFILES else "lite", names
    )
    return (
        kept | made | {"profile": profile, "weights": {expert: weights[expert] for expert in names}}
    )


def announce(
    config: Config,
    name: str,
    samples: list[Sample],
    precision: str,
    ensemble: Ensemble,
    writer: ShardWriter,
) -> None:
    """Say what was chosen, before anything takes long."""
    fake = sum(sample.label for sample in samples)
    splits = {
        split: sum(sample.split == split for sample in samples)
        for split in ("train", "val", "test")
    }
    given = (
        ", ".join(f"{count} {split}" for split, count in splits.items() if count)
        or "not given, 70/10/20 by group"
    )
    experts = ", ".join(
        f"{expert} (weights {sha[:12]})" for expert, sha in ensemble.weights.items()
    )
    total, left = len(writer.samples), sum(len(samples) for _, samples in writer.pending())
    state = "complete already" if writer.complete else f"{total - left} of {total} images are done"
    print(
        f"dataset   {name} ({config.data_root}): {len(samples) - fake} real, {fake} fake; splits: {given}"
    )
    print(f"experts   {experts}; {config.faces} face{'s' * (config.faces == 'all')} per image")
    print(
        f"device    {ensemble.device}, {precision}; batches of {config.batch_size}, {config.workers} threads"
    )
    print(f"dump      {writer.out}: {state}; shards of {writer.shard_size}")
    if fake in (0, len(samples)):
        only = "fake" if fake else "real"
        warn(
            f"all images of {config.data_root} are {only}; train.py needs both, or only real ones with --one-class"
        )


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what to read and write").add_argument
    add(
        "--data_root",
        "--data-root",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder of the dataset",
    )
    add(
        "--index",
        type=Path,
        metavar="FILE",
        help="an index.csv, or a DeepfakeBench JSON, that lies elsewhere",
    )
    add(
        "--layout",
        metavar="NAME",
        help="of the dataset, where `evaluate.py inventory` cannot tell (docs/datasets.md)",
    )
    add(
        "--frames",
        type=int,
        metavar="N",
        help="of every video, evenly spaced (default %(default)s)",
    )
    add("--compression", metavar="LEVEL", help="which of FaceForensics++: raw, c23 or c40")
    add(
        "--like",
        type=Path,
        metavar="DUMP",
        help="the pictures in which this dump has faces, with its groups and splits",
    )
    add("--split", choices=("train", "val", "test"), help="pictures of this split only")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"the folder of the dump (default {DUMPS}/<dataset>/<profile>)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace a dump that is finished or has other settings",
    )
    add("--limit", type=int, metavar="N", help="only N images, evenly spaced over the dataset")
    add = parser.add_argument_group("how to look at the faces (kept in the dump)").add_argument
    add("--profile", choices=PROFILES, help="which experts (default %(default)s)")
    add(
        "--experts",
        nargs="+",
        metavar="NAME",
        help=f"some experts instead of a profile: {', '.join(EXPERTS)}",
    )
    add(
        "--extend",
        action="store_true",
        help="add experts that a finished dump (--out, or the default) lacks",
    )
    add(
        "--clip-model",
        metavar="NAME",
        help="ViT-B/32, ViT-L/14, or a tower as timm calls it (default %(default)s)",
    )
    add(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="local weight files; nothing is downloaded (or MASC_WEIGHTS)",
    )
    levels = ", ".join(f"{name}:1 to {len(family.levels)}" for name, family in FAMILIES.items())
    add(
        "--degrade",
        metavar="WHAT",
        help=f"what every picture goes through before its face is looked for: {levels}",
    )
    add(
        "--faces",
        choices=("one", "all"),
        help="the most central large face, or every face (default %(default)s)",
    )
    precisions = "bfloat16 is faster on recent hardware; lite's answers differ by up to .02 (default: for `full` on a GPU)"
    add("--precision", choices=PRECISIONS, help=precisions)
    add("--max-pixels", type=int, metavar="N", help="refuse larger images (default %(default)s)")
    add = parser.add_argument_group("speed (may change between two starts)").add_argument
    add("--device", help="of the experts: cpu, cuda, cuda:1, ... (default here: %(default)s)")
    add(
        "--detect-on",
        metavar="DEVICE",
        help="of the face detector (default %(default)s: its threads keep a GPU busy)",
    )
    batch = f"images at a time, or auto: what fits (default {BATCH_CPU}, on a GPU {BATCH_GPU})"
    add("--batch-size", "--batch_size", type=batch_size, metavar="N", help=batch)
    add(
        "--workers",
        type=int,
        metavar="N",
        help="threads that decode, find and cut faces (default here: %(default)s)",
    )
    add(
        "--shard-size",
        type=int,
        metavar="N",
        help="images that a killed run repeats at most (default %(default)s)",
    )
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
        print(
            "\nstopped. Finished shards are kept: run the same command again to go on.",
            file=sys.stderr,
        )
        return 130
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError, MemoryError) as error:
        short = out_of_memory(error)
        if isinstance(error, RuntimeError) and not short:
            raise
        print(
            f"error: {error}{'. Go on with a smaller --batch-size, or fewer --workers' * short}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli())
