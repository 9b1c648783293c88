"""A dataset of face swaps between people of whom there are several photographs, to measure comparison.

    python -m training.swaps PEOPLE --out outputs/swaps [--teachers DIR]

PEOPLE has a folder of photographs for each person. Every photograph gets the faces of random people
and of one who resembles its person: of 50 the most similar one of the same apparent gender, age and
skin tone. The dataset has an index.csv with the columns `person` (whose head it is) and `donor` (whose
face). Half of the people are for calibration (split `val`), half for testing. With the folder that the
bundled networks were trained on (docs/region_net.md), nobody is taken whom they have learned from.
"""

from __future__ import annotations

import logging
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm
from tyro.conf import Positional

from command_line import run
from data.faces import FaceCutter
from data.files import write_csv
from data.images import SUFFIXES, ImageError, read_image
from features.reference import units
from features.regions import REGIONS
from models.ensemble import Ensemble
from training.pseudo_fakes import face_swap

log = logging.getLogger("masc")
COLUMNS = ("path", "label", "person", "donor", "group", "split", "method")
RANDOM, HARD = "random donor", "similar donor"
CANDIDATES = 50  # people of whom the similar donor is the most similar one
YEARS, TONE = 10.0, 20.0  # by which a similar donor may differ; grey levels of the cheeks
QUALITY = 95  # of JPEG, of all pictures alike
WHOLE = REGIONS.index("full")


@dataclass(frozen=True)
class Config:
    people: Positional[Path]
    """A folder with a folder of photographs for each person."""
    out: Path = Path("outputs/swaps")
    """The folder of the dataset."""
    teachers: Path | None = None
    """The folder that the bundled networks were trained on: its people are left out, but for those who
    were held out (split val) and of its test fold (split test)."""
    donors: int = 2
    """Random donors of every photograph."""
    limit: int = 0
    """Number of people; 0: all."""


@dataclass
class Photographs:
    """N photographs with one face each. names: of every one another, with the person's in it."""

    paths: list[Path]
    names: list[str]
    person: np.ndarray  # (N,) str
    split: np.ndarray  # (N,) str
    landmarks: np.ndarray  # (N, 5, 2) px
    identity: np.ndarray  # (N, D) unit vectors
    about: np.ndarray  # (N, 3) apparent age in years, P(male), lightness of the cheeks

    def donors(self, index: int, count: int) -> Iterator[tuple[str, int]]:
        """What kind of donor, and which photograph; of the same split. Always the same ones."""
        name = f"{self.names[index]}{self.paths[index].suffix}"
        rng = np.random.default_rng(zlib.crc32(name.encode(errors="replace")))
        others = np.flatnonzero(
            (self.person != self.person[index]) & (self.split == self.split[index])
        )
        chosen = rng.permutation(others)
        for other in chosen[:count]:
            yield RANDOM, int(other)
        pool = chosen[:CANDIDATES]
        age, male, tone = np.abs(self.about[pool] - self.about[index]).T
        fitting = pool[(age < YEARS) & (male < 0.5) & (tone < TONE)]
        if len(fitting):
            yield HARD, int(fitting[(self.identity[fitting] @ self.identity[index]).argmax()])


def splits_of(people: list[str], teachers: Path | None) -> dict[str, str]:
    """person -> `val` or `test`, of those whom the bundled networks have not learned from."""
    if teachers is None:
        return {
            name: ("val", "test")[zlib.crc32(name.encode(errors="replace")) % 2] for name in people
        }
    from training.person_net import folds

    known = folds(teachers)
    side = {"test": "test", "val": "val", "held out": "val"}
    return {name: side[known[name]] for name in people if known.get(name) in side}


def photographs_in(folder: Path, splits: dict[str, str]) -> Photographs:
    """Photographs without a face, or that cannot be read, are named and left out."""
    paths = [
        path
        for name in splits
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    cutter, ensemble, rows, kept = FaceCutter("one"), Ensemble(("lite",)), [], []
    for path in tqdm(paths, desc="photographs", disable=None):
        try:
            crops = cutter([read_image(path)])
        except ImageError as error:
            log.warning("%s: left out: %s", path, error.reason)
            continue
        if not len(crops):
            log.warning("%s: left out: no face found", path)
            continue
        found = {name: x.float().numpy()[0, WHOLE] for name, x in ensemble(crops.views).items()}
        cheeks = crops.aligned[0, :3, 55:85, 30:82].float().mean()
        male = found["lite.gender"][0]
        about = (float(found["lite.age_years"][0]), float(male), float(cheeks))
        rows.append((crops.landmarks[0], units(found["lite.identity"]), about))
        kept.append(path)
    if not kept:
        raise ValueError(f"{folder}: no photograph with a face; expected a folder for each person")
    person = np.array([path.parent.name for path in kept])
    landmarks, identity, about = (np.stack(each) for each in zip(*rows, strict=True))
    split = np.array([splits[name] for name in person])
    return Photographs(kept, names_of(kept), person, split, landmarks, identity, about)


def names_of(paths: Sequence[Path]) -> list[str]:
    """Ann_0001 of Ann/Ann_0001.jpg, Ann_1 of Ann/1.jpg; and of Ann/1.png beside that Ann_1_png."""
    found: dict[str, None] = {}
    for path in paths:
        person, stem = path.parent.name, path.stem.replace("__", "_")
        name = stem if stem.startswith(person) else f"{person}_{stem}"
        name = name if name not in found else f"{name}_{path.suffix[1:]}"
        found[name] = None
    return list(found)


def main(config: Config) -> Path:
    if not config.people.is_dir():
        raise FileNotFoundError(f"{config.people}: no such folder")
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out}: not empty; delete it, or choose another --out")
    people = sorted(path.name for path in config.people.iterdir() if path.is_dir())
    splits = splits_of(people, config.teachers)
    if config.limit:
        splits = dict(list(splits.items())[: config.limit])
    found, out, lines = photographs_in(config.people, splits), config.out, []
    for index, path in enumerate(tqdm(found.paths, desc="swaps", disable=None)):
        image, person, split = read_image(path), found.person[index], found.split[index]
        name = f"pictures/real/{person}/{found.names[index]}.jpg"
        _save(image, out / name)
        lines.append((name, "real", person, "", person, split, ""))
        for kind, donor in found.donors(index, config.donors):
            source = read_image(found.paths[donor])
            try:
                swap, _ = face_swap(image, source, *found.landmarks[[index, donor]], seed=index)
            except ValueError:  # too small, or the face leaves the photograph
                continue
            both = f"{found.names[index]}__{found.names[donor]}"
            name = f"pictures/fake/{person}/{both}.jpg"
            if any(line[0] == name for line in lines[-config.donors :]):
                continue  # the similar donor was drawn at random, too
            _save(swap, out / name)
            lines.append((name, "fake", person, found.person[donor], person, split, kind))
    write_csv(out / "index.csv", COLUMNS, lines)
    counts = Counter((line[5], line[6] or "genuine") for line in lines)
    for (split, kind), count in sorted(counts.items()):
        log.info("%s: %d %s", split, count, kind)
    print(f"written: {out}")
    return out


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=QUALITY)


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.swaps"))
