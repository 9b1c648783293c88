"""Look for manipulated faces in images and videos: what is found, how certain that is, and why.

One picture, several, or folders of them, with the bundled detector:

    python predict.py photo.jpg
    python predict.py photo.jpg folder/ --csv verdicts.csv --explain outputs/cards

A video, with a verdict for every person and scores over time:

    python predict.py clip.mp4 --frames 64 --explain outputs/cards

Your own detector, all faces of each picture, JSON on the screen:

    python predict.py folder/ --checkpoint checkpoints/mine --faces all --json -

Is this really Ann? Genuine photographs of her beside the picture (docs/reference.md):

    python predict.py photo.jpg --person photographs_of_ann/ --explain outputs/cards

Metrics of the newest checkpoint on the test split of the newest dump, and its predictions.csv:

    python predict.py

There are three verdicts; none says that a face is real.
`fake` (shown as "looks manipulated"): the score reaches the checkpoint's threshold, as few real faces do.
`nothing found`: the score is so low that at most a quarter of fakes unlike those of training go there.
`cannot tell`: the score is between, or the face is outside the abstention limits (percentiles of the
training set: smaller, blurrier, more turned away or stranger than nearly all training faces).
Verdicts are written as they come; what is not finished has a name that ends in .partial.
Exit code: 0 all inputs scored, 1 memory or a disk is full, 2 a mistake in the command, 3 some inputs,
frames or cards are missing, 130 Ctrl-C (143 SIGTERM), 141 nobody reads the output any more.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from command_line import run
from data.dump import Dump, newest_dump, read_dump
from data.feature_dataset import join_dumps
from data.files import write_csv
from data.images import MAX_PIXELS
from data.isolated import IsolatedReader
from data.layouts.tree import everything_below
from data.quality import QUALITIES
from data.reader import Reader
from data.samples import FRAMES
from evaluation.metrics import summary, table
from inference.bundled import for_dump, for_pictures
from inference.detector import Detector, Explainer, default_device
from inference.files import Results, predict_files
from inference.output import is_screen
from inference.person import SOMEBODY, Person
from inference.verdict import Verdict
from models.checkpoint import PRIOR
from models.tensors import sha256_of
from training.photographs import with_photographs

__all__ = ["Detector", "Verdict"]  # for use in Python: see inference/detector.py
NOT_SCORED = 3  # the exit code where some inputs could not be scored
log = logging.getLogger("masc")


@dataclass(frozen=True)
class Config:
    inputs: Annotated[tuple[str, ...], Positional, arg(metavar="[IMAGE|VIDEO|FOLDER ...]")] = ()
    """Pictures, videos, or folders of them."""
    checkpoint: Path | None = None
    """A folder that train.py wrote, instead of the bundled one."""
    json: str | None = None
    """Write all verdicts as JSON into this file; - for the screen."""
    csv: str | None = None
    """Write all verdicts as CSV into this file; - for the screen."""
    explain: Path | None = None
    """Write a card (PNG) and JSON of each face into this folder."""
    person: tuple[Path, ...] | None = None
    """After the pictures: genuine photographs of the person whom they claim to show, or a folder of
    them (its name is taken for the person's). Every face gets a second answer: does each of its parts fit them? In a
    video that of the person most like them."""
    comparison: Path | None = None
    """With --person: a file that training/reference.py wrote, instead of the bundled one."""
    faces: Literal["one", "all"] = "one"
    """The most central large face of a picture, or every face."""
    prior: float = PRIOR
    """How many of the faces you look at are fakes, as far as you know: 0.1 for one in ten. p_fake is the
    probability that a face is a fake among faces like these; with fewer fakes it is lower for all of
    them. Verdicts do not depend on it."""
    frames: int = FRAMES
    """Frames of every video, evenly spaced."""
    features: Path | None = None
    """Without pictures: the dump to score, instead of the newest."""
    split: str = "test"
    """Without pictures: the split to score."""
    device: str = field(default_factory=default_device)
    """cpu or cuda."""
    weights_dir: Path | None = None
    """Folder of local weight files (or MASC_WEIGHTS)."""
    batch_size: int = 16
    """Pictures at a time."""
    max_pixels: int = MAX_PIXELS
    """Larger pictures are refused."""
    isolate: bool = False
    """For files of strangers: decode in a process of its own, at most 20 s and some memory for each."""

    def reader(self) -> Reader:
        return (IsolatedReader if self.isolate else Reader)(self.max_pixels)

    def check(self) -> None:
        if min(self.batch_size, self.max_pixels, self.frames) < 1:
            raise ValueError("--batch-size, --max-pixels and --frames must be at least 1")
        if not 0 < self.prior < 1:
            raise ValueError(f"--prior lies between 0 and 1 (given: {self.prior})")
        if not self.inputs and self.prior != PRIOR:
            raise ValueError("--prior needs pictures")
        if "" in self.inputs:
            raise ValueError("an empty name was given; name pictures or folders")
        if self.json and self.csv and is_screen(self.json) and is_screen(self.csv):
            raise ValueError("--json - and --csv - cannot share the screen; give one a file")
        if self.json and self.csv and Path(self.json).resolve() == Path(self.csv).resolve():
            raise ValueError("--json and --csv cannot share a file")
        if not self.inputs and (self.json or self.csv or self.explain):
            raise ValueError("--json, --csv and --explain need pictures")
        if self.person is not None:
            if not self.person or Path() in self.person:
                raise ValueError("--person needs photographs, or a folder of them")
            if not self.inputs:
                told = "--person takes all that follows; name the pictures to judge before it"
                raise ValueError(f"no pictures are left: {told}")
        if self.comparison and not self.person:
            raise ValueError("--comparison needs --person")
        if self.inputs and self.features:
            raise ValueError("give pictures or --features, not both")


def score_dump(detector: Explainer, dump: Dump, split: str, name_of: str) -> Path:
    """Score one split of a dump, print the metrics, write predictions.csv beside it.

    name_of: the detector.
    """
    detector.checkpoint.check_outputs(dump.meta, str(dump.path))
    rows = np.flatnonzero(dump.rows["split"] == split)
    if not len(rows):
        splits = ", ".join(sorted(map(str, set(dump.rows["split"]))))
        raise ValueError(f"{dump.path}: no rows in split {split!r}; it has {splits}")
    arrays = dump.arrays
    if detector.checkpoint.info.get("photographs"):
        arrays = with_photographs(join_dumps([dump]), dump.meta["outputs"], []).arrays
    features, p_fake = detector.score({name: value[rows] for name, value in arrays.items()})
    known = ~np.isnan(p_fake)
    if not known.any():
        raise ValueError(f"{dump.path}: no face of split {split!r} has a feature; see missing.csv")
    label, group = dump.rows["label"][rows][known], dump.rows["group"][rows][known]
    figures = summary(label, p_fake[known], group, detector.threshold)
    print(table({f"{dump.meta['dataset']} {split}": figures}))
    if not known.all():
        log.warning("%d faces have no feature and no score; see missing.csv", (~known).sum())
    columns, found = ("path", "face", "label", "group", "split"), []
    for row, p, values in zip(rows, p_fake, features, strict=True):
        quality = {name: float(dump.rows[name][row]) for name in QUALITIES}
        result = ("", "")
        if not np.isnan(p):
            result = f"{p:.6f}", detector.decide(p, values, quality)[0]
        found.append([*(dump.rows[name][row] for name in columns), *result, name_of])
    header = (*columns, "p_fake", "verdict", "checkpoint")
    write_csv(dump.path / "predictions.csv", header, found)
    return dump.path / "predictions.csv"


def read_person(detector: Detector, given: Sequence[Path], reader: Reader) -> Person:
    """The person in photographs, or folders of them. Says which do not count, and why.

    Raises: ImageError: none can be used; FileNotFoundError: one is not there.
    """
    paths = []
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"--person {path}: not there; name photographs, or a folder")
        inside, others = everything_below(path) if path.is_dir() else ([path], [])
        for other, reason in others:
            log.warning("--person %s: left out: %s", other, reason)
        paths += inside
    folders = {path.resolve().name for path in given if path.is_dir()}
    name = folders.pop() if len(folders) == 1 and len(given) == 1 else SOMEBODY
    if not paths:
        raise ValueError(f"--person {given[0]}: no photographs in it")
    person = detector.read_person(paths, name, reader)
    for text in (*person.left_out, *person.notes):
        log.warning("--person %s", text)
    many = len(person.used)
    log.info("person      %s: %d photograph%s", name, many, "s" * (many != 1))
    return person


def _name(checkpoint: Path) -> str:
    """Of a detector: its folder, and the start of its SHA-256."""
    return f"{checkpoint.resolve().name} {sha256_of(checkpoint / 'checkpoint.json')[:12]}"


def main(config: Config) -> int:
    config.check()
    if not config.inputs:
        dump = read_dump(config.features or newest_dump())
        checkpoint = config.checkpoint or for_dump(dump)
        detector = Explainer(checkpoint)
        print(f"checkpoint: {checkpoint}\ndump: {dump.path}, split {config.split}")
        if warning := detector.checkpoint.warning_for(dump.meta, dump.digest):
            log.warning(warning)
        print("written:", score_dump(detector, dump, config.split, _name(checkpoint)))
        return 0
    checkpoint = config.checkpoint or for_pictures(config.weights_dir)
    # Before anything takes long: what cannot be written fails here.
    with (
        closing(config.reader()) as reader,
        Results(reader, _name(checkpoint), config.json, config.csv, config.explain) as results,
    ):
        options = (config.device, config.faces, config.weights_dir, config.comparison)
        detector = Detector(checkpoint, *options)
        if detector.prior is None and config.prior != PRIOR:
            rank = "p_fake of this detector is a rank among real faces, which no prior changes"
            raise ValueError(f"{checkpoint}: {rank}; leave out --prior")
        if config.person:
            person = read_person(detector, config.person, reader)
            detector = detector.compared_with(person)
        inputs = [Path(given) for given in config.inputs]
        for verdict in predict_files(
            detector, inputs, config.batch_size, reader, config.frames, config.explain
        ):
            results.add(verdict if detector.prior is None else verdict.at_prior(config.prior))
            del verdict  # before the next pictures are read
        results.record = detector.record.lines if detector.record.rows else []
    return 0 if results.complete else NOT_SCORED


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__))
