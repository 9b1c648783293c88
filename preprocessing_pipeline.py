"""Dataset folder -> dump: find the faces, store the experts' raw outputs for every region.

    python preprocessing_pipeline.py --data-root faces             # the bundled experts
    python preprocessing_pipeline.py --data-root faces --limit 200 --out outputs/try --device cpu

With the published experts (`python -m models.weights list` shows their weights and terms):

    python preprocessing_pipeline.py --data-root faces --profile full --batch-size auto --workers 16
    python preprocessing_pipeline.py --data-root faces --profile full --weights-dir WEIGHTS
    python preprocessing_pipeline.py --data-root faces --experts fairface clip
    python preprocessing_pipeline.py --data-root faces --experts arcface    # adds it to that dump

`faces` has real/ and fake/ in it, or train/, val/ and test/ with both in each, or an index.csv
(path,label[,group][,split]), or is a published dataset (docs/datasets.md). Stop it at any time: the
same command continues and ends with the same bytes. failures.csv says why a picture has no face,
missing.csv why a face has no output. --batch-size and --workers change the stored values by rounding
at most; on a GPU landmarks, and what depends on them, now and then differ by more (--detect-on). A
dump with other settings, or of other pictures under the same names (pictures.csv), is refused
without --overwrite. A dump without any face ends with exit code 3.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from command_line import run
from data.cutting import samples_of
from data.datasets import find_samples
from data.decoding import Reading
from data.degrade import Condition
from data.dump import DUMPS, Dump, read_dump, read_settings
from data.dump_folder import settings_of
from data.duplicates import two_labels
from data.faces import FaceCutter
from data.filling import fill_faces, fill_outputs
from data.images import MAX_PIXELS
from data.pictures import check_pictures
from data.samples import FRAMES, Sample, even_subsample
from data.splits import SPLITS
from data.store import DumpWriter
from data.video import file_of, split_frame
from features.regions import REGIONS
from models import CLIP_MODEL, CLIP_MODELS, EXPERTS, PROFILES
from models.clip_image import left_out_heads
from models.ensemble import (
    Ensemble,
    experts_of,
    find_device,
    out_of_memory,
    profile_of,
    usual_batch,
    usual_precision,
)
from models.tensors import sha256_of

DEGRADED = Path("outputs/degraded")  # <dataset>/<profile>/<family>-<level> below it
FOUND_TOGETHER = 256  # pictures in which a GPU finds faces at once: launching is what takes time
NOTHING = 3  # the exit code where no picture has a face
log = logging.getLogger("masc")


@dataclass
class Config:
    data_root: Path
    """The folder of the dataset."""
    out: Path | None = None
    """The folder of the dump (default: outputs/features/<dataset>/<profile>)."""
    index: Path | None = None
    """An index.csv, or a list of DeepfakeBench (.json), that lies elsewhere."""
    layout: str | None = None
    """The layout of the dataset where it is ambiguous (docs/datasets.md)."""
    frames: int = FRAMES
    """Frames of every video, evenly spaced."""
    compression: str | None = None
    """Compression level of FaceForensics++: raw, c23 or c40."""
    like: Path | None = None
    """A dump: take the pictures in which it has faces, with its groups and splits."""
    split: Literal["", "train", "val", "test"] = ""
    """Pictures of this split only."""
    degrade: str = ""
    """A degradation of every picture before its face is found, such as jpeg:4 (data/degrade.py)."""
    profile: str = "lite"
    """Which experts: lite, standard (with CLIP; .7 s a face) or full."""
    experts: tuple[str, ...] = ()
    """Some experts instead of a profile; those that the dump lacks are added to it."""
    clip_model: str | None = None
    """ViT-B/16, ViT-B/32, ViT-L/14, or another image tower by its timm name (default: ViT-B/16 in standard, else
    ViT-B/32)."""
    left_out_heads: Path | None = None
    """A folder that `python -m training.block_head --left-out` wrote: what those heads say is kept beside, for
    figures on what is left out of training (docs/block_head.md)."""
    faces: Literal["one", "all"] = "one"
    """The most central large face of a picture, or every face."""
    limit: int | None = None
    """Only so many images, evenly spaced over the dataset."""
    overwrite: bool = False
    """Replace a dump that is finished or has other settings."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Device of the experts: cpu, cuda, cuda:1, ..."""
    detect_on: str | None = None
    """The device of the face detector (default: that of the experts). A GPU is ten times as fast; its landmarks
    differ by rounding, one in a hundred by half a pixel or more."""
    batch_size: int | Literal["auto"] | None = None
    """Images per batch; auto: what is fastest on the GPU, after some seconds of trying (default: 8; on a GPU 64,
    for bundled experts alone 256)."""
    workers: int = min(16 if torch.cuda.is_available() else 8, os.cpu_count() or 1)
    """Threads that decode pictures, find and cut faces; for a GPU, processes that decode."""
    precision: Literal["float32", "tf32", "bfloat16"] | None = None
    """Precision of the experts (default: that of the dump; else, on a GPU, bfloat16 for published experts and
    tf32 for bundled ones). tf32 is float32 on a CPU; on a GPU it is twice as fast and moves the outputs of
    `lite`: years by .02, the forgery logit by .005 at most on 128 faces. bfloat16 moves them by up to .03."""
    max_pixels: int = MAX_PIXELS
    """Larger images are refused."""
    shard_size: int = 256
    """Images that a killed run repeats at most."""
    weights_dir: Path | None = None
    """Local weight files, so that nothing is downloaded (or the variable MASC_WEIGHTS)."""


def main(config: Config) -> Path:
    """Make a dump, continue it, or add experts to it. Returns its folder."""
    if config.workers < 1 or config.batch_size not in (None, "auto") and config.batch_size < 1:
        raise ValueError("--batch-size and --workers must be at least 1")
    root, names = Path(config.data_root), experts_of(config.profile, config.experts)
    dataset, profile = root.resolve().name or "root", profile_of(config.profile, names)
    config = replace(config, clip_model=config.clip_model or CLIP_MODELS.get(profile, CLIP_MODEL))
    if config.like:  # its pictures may lie in a folder of another name by now
        dataset = read_dump(config.like).meta["dataset"]
    condition = Condition.of(config.degrade) if config.degrade else None
    out = config.out or DUMPS / dataset / profile
    if condition and not config.out:
        out = degraded_at(dataset, profile, condition, config.limit)
    if config.like and Path(config.like).resolve() == Path(out).resolve():
        raise ValueError(f"{out}: --like names this dump; choose another --out")
    here, there = Path(out).resolve(), root.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(
            f"{out}: --out and the dataset {root} are in one another; choose another --out"
        )
    samples = even_subsample(_samples(config), config.limit)
    pictures = [sample.path for sample in samples if not split_frame(sample.path)]
    if condition and condition.clips_only and pictures:
        raise ValueError(f"{root / pictures[0]}: {condition.family} compresses clips, not pictures")
    device = find_device(config.device)
    detect_on = find_device(config.detect_on or config.device, "--detect-on")
    precision = config.precision or settings_of(out).get("precision")
    precision = precision or usual_precision(device, names)
    tower = (read_settings(Path(out) / "meta.json") or {}).get("clip_model", config.clip_model)
    if "clip" in names and tower != config.clip_model and not config.overwrite:
        raise ValueError(f"{out}: holds outputs of CLIP {tower}; choose another --out")
    bf16 = precision == "bfloat16"
    heads, before = config.left_out_heads, read_settings(Path(out) / "meta.json")
    if heads and ("clip" not in names or CLIP_MODELS["standard"] != config.clip_model):
        raise ValueError("--left-out-heads: of CLIP ViT-B/16 alone; give --profile standard, too")
    ensemble = Ensemble(names, device, bf16, config.weights_dir, config.clip_model, heads)
    settings = {"faces": config.faces, "precision": precision, "max_pixels": config.max_pixels}
    settings |= {"degrade": config.degrade, "regions": list(REGIONS)}
    if heads:
        files = {file.stem: sha256_of(file) for file in left_out_heads(heads)}
        settings["left_out_heads"] = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    elif before and not config.overwrite and "left_out_heads" in before["config"]:
        settings["left_out_heads"] = before["config"]["left_out_heads"]  # other experts are added
    how = (ensemble.weights, samples, config.shard_size, config.overwrite)
    with DumpWriter(out, settings, *how, root) as writer:
        _log_plan(config, dataset, samples, writer)
        if not writer.complete:
            new = [expert for expert in ensemble.experts if expert.name in writer.new]
            ensemble = Ensemble.of(new, device)
            ensemble.tf32 = precision == "tf32"
            batch_size = config.batch_size or usual_batch(device, ensemble.crops)
            if batch_size == "auto":
                batch_size = ensemble.best_batch()
            if ensemble.pads:
                ensemble.faces_at_once = batch_size
            batches = f"batches of {batch_size}, {config.workers} workers"
            log.info(f"device    {device}, {precision}; faces found on {detect_on}; {batches}")
            reading = Reading(root, batch_size, config.workers, config.max_pixels, condition)
            cutter, stacked = FaceCutter(config.faces, device=detect_on), works_on_stacks(detect_on)
            together = batch_size
            if stacked and config.batch_size in (None, "auto"):
                together = max(batch_size, FOUND_TOGETHER)
            fill_faces(writer, replace(reading, batch_size=together), cutter, stacked)
            crops = list(ensemble.crops.values())
            stacks_on = device if works_on_stacks(device) else None
            fill_outputs(writer, reading, ensemble, crops, stacks_on)
        dump = writer.finish(_meta(config, dataset, writer.meta, ensemble))
    _log_result(dump)
    return dump.path


def works_on_stacks(device: torch.device) -> bool:
    """Whether pictures are stacked for a device, which then finds and cuts faces of many at once."""
    return device.type == "cuda"


def degraded_at(name: str, profile: str, condition: Condition, limit: int | None) -> Path:
    level = f"{condition.family}-{condition.level}" + (f"-of-{limit}" if limit else "")
    return DEGRADED / name / profile / level


def _samples(config: Config) -> list[Sample]:
    root = Path(config.data_root)
    if config.like:
        samples = samples_of(read_dump(config.like), config.split)
        files = [root / file_of(sample.path) for sample in samples]
        if files and not any(file.exists() for file in files):
            raise FileNotFoundError(
                f"{files[0]}: not there, nor any other picture of {config.like}; give their folder"
            )
        advice = "Give the folder of the pictures it was made from."
        check_pictures(read_dump(config.like), root, advice, [sample.path for sample in samples])
    else:
        samples = find_samples(root, config.index, config.layout, config.frames, config.compression)
        samples = [sample for sample in samples if config.split in ("", sample.split)]
    if not samples:
        raise ValueError(f"{config.like or root}: no picture is in the split {config.split!r}")
    return samples


def _meta(config: Config, dataset: str, before: dict, ensemble: Ensemble) -> dict:
    """meta.json. before: that of the dump to which experts are added."""
    outputs = {name: output.to_json() for name, output in ensemble.outputs.items()}
    outputs = before.get("outputs", {}) | outputs
    weights = before.get("weights", {}) | ensemble.weights
    names = tuple(expert for expert in EXPERTS if expert in weights)
    profile = before.get("profile", config.profile)
    packages = ("torch", "facenet-pytorch", "numpy", "pillow")
    meta = {
        "dataset": before.get("dataset", dataset),
        "data_root": before.get("data_root", str(Path(config.data_root).resolve())),
        "profile": profile_of(profile if profile in PROFILES else config.profile, names),
        "regions": list(REGIONS),
        "weights": {name: weights[name] for name in names},
        "outputs": {k: v for name in names for k, v in outputs.items() if k.startswith(f"{name}.")},
        "versions": {package: version(package) for package in packages},
    }
    if "clip" in names:
        meta["clip_model"] = before.get("clip_model", config.clip_model)
    return meta


def _log_plan(config: Config, dataset: str, samples: list[Sample], writer: DumpWriter) -> None:
    fake = sum(sample.label for sample in samples)
    count = Counter(sample.split for sample in samples)
    splits = ", ".join(f"{count[split]} {split}" for split in SPLITS if count[split])
    experts = ", ".join(f"{expert} (weights {sha[:12]})" for expert, sha in writer.weights.items())
    total, left = len(samples), sum(len(some) for _, some in writer.pending_faces())
    state = f"the faces of {total - left} of {total} images are found"
    if writer.complete:
        state = "complete already"
    elif writer.meta:
        state = f"adding {', '.join(writer.new)} to {', '.join(writer.meta['weights'])}"
    log.info(
        f"dataset   {dataset} ({config.data_root}): {total - fake} real, {fake} fake; "
        f"splits: {splits or 'not given, 70/10/20 by group'}"
    )
    log.info(f"experts   {experts}; {config.faces} face{'s' * (config.faces == 'all')} per image")
    log.info(f"dump      {writer.out}: {state}; shards of {writer.shard_size}")
    if writer.meta and not writer.pictures.prints:
        log.warning(
            "made by an earlier version: whether its pictures are still the same is not known; "
            "--overwrite makes it again"
        )
    if fake in (0, total):
        label = "fake" if fake else "real"
        log.warning(f"all images are {label}; train.py needs both, or real ones with --one-class")


def _log_result(dump: Dump) -> None:
    counts = dump.meta["counts"]
    log.info(
        f"kept {counts['kept']} of {counts['images']} images ({counts['faces']} faces: "
        f"{counts['real']} real, {counts['fake']} fake), no face {counts['no_face']}, "
        f"unreadable {counts['unreadable']}"
    )
    if counts["no_face"] or counts["unreadable"]:
        log.info(f"why: {dump.path / 'failures.csv'}")
    if not counts["faces"]:
        log.warning("no face was found in any image; are these pictures of faces?")
    for expert, lacking in Counter(entry[2] for entry in dump.missing).items():
        log.warning(f"{lacking} faces have no output of {expert}; why: {dump.path / 'missing.csv'}")
    for remark in two_labels(dump):
        log.warning(remark)
    log.info(f"dump: {dump.path}")


def _with_advice(config: Config) -> int | Path:
    """`main`; exit code 3 for a dump without a face. Where memory is full it says what to do."""
    try:
        out = main(config)
        return out if read_settings(out / "meta.json")["counts"]["faces"] else NOTHING
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advice = f"{error}. Go on with a smaller --batch-size, or fewer --workers"
        raise MemoryError(advice) from error


def cli(arguments: list[str] | None = None) -> int:
    stopped = "Finished shards are kept: run the same command again to go on."
    return run(_with_advice, Config, __doc__, arguments, "preprocessing_pipeline.py", stopped)


if __name__ == "__main__":
    sys.exit(cli())
