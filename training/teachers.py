"""Training data of the region network: aligned real faces and the outputs of teachers."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from tqdm import tqdm

from data.cutting import cut_again
from data.dump import landmarks_of, read_dump
from data.images import ImageError
from features.regions import ALIGNED

SIZE = ALIGNED.px
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
RACES = ("White", "Black", "Asian", "Indian", "Other")
GENDERS = ("Male", "Female")


@dataclass
class Teachers:
    """Faces and their targets, row by row."""

    faces: np.ndarray  # (N, 4, 112, 112) uint8 RGBA, alpha 0 outside the photograph
    # Name -> (N, D) float32, NaN rows unknown; `age` over years or FairFace's bins.
    targets: dict[str, np.ndarray]
    kinds: dict[str, str]  # of each target, as in models/base.py
    names: dict[str, tuple[str, ...]]  # of the components of a target
    person: np.ndarray  # (N,) int, -1 unknown
    fold: np.ndarray  # (N,) of train/val/test
    # `age` in years, `gender`, `race`: (N,) int, -1 unknown.
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, fold: str) -> Teachers:
        """The faces of one fold."""
        rows = self.fold == fold
        some = {name: getattr(self, name)[rows] for name in ("faces", "person", "fold")}
        for table in ("targets", "labels"):
            some[table] = {name: value[rows] for name, value in getattr(self, table).items()}
        return replace(self, **some)


def missing_pixels(rgb: np.ndarray) -> np.ndarray:
    """Black areas that touch the border, (H, W) bool: corners left empty by a warp, or background.

    rgb: (H, W, 3) uint8.
    """
    parts, _ = ndimage.label(rgb.max(-1) <= 6)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    large = np.flatnonzero(np.bincount(parts.ravel()) >= 40)
    return np.isin(parts, np.intersect1d(border, large)) & (parts > 0)


def _years(centre: np.ndarray, deviation: float) -> np.ndarray:
    """Normal label distributions over the years 0..100. centre: (N,), NaN gives NaN rows."""
    distance = np.arange(101) - np.clip(centre, 0, 100)[:, None]
    density = np.exp(-0.5 * (distance / deviation) ** 2)
    return (density / density.sum(1, keepdims=True)).astype(np.float32)


def _one_hot(codes: np.ndarray, size: int) -> np.ndarray:
    """codes: (N,) int, -1 unknown (a NaN row)."""
    return np.vstack([np.eye(size), np.full(size, np.nan)]).astype(np.float32)[codes]


def _some(rows: np.ndarray, limit: int) -> np.ndarray:
    """A fixed random selection, in order. limit: 0 for all."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:limit]) if limit else rows


def load_teachers(folder: Path, limit: int = 0) -> Teachers:
    """The folder of aligned crops, teacher outputs and labels, which go before the teacher.

    A tenth of the training people, and a twentieth of the other training faces, become the `val`
    fold. limit: 0 for all.
    """
    if not (folder / "aligned112.zip").is_file():
        raise FileNotFoundError(f"{folder}: expected aligned112.zip, index.csv, *.npy there")
    index = pd.read_csv(folder / "index.csv", keep_default_na=False)
    keep = _some(np.arange(len(index)), limit)
    index = index.iloc[keep]
    faces = np.empty((len(index), 4, SIZE, SIZE), np.uint8)
    with zipfile.ZipFile(folder / "aligned112.zip") as archive:
        for face, name in zip(faces, index["aligned"], strict=True):
            encoded = np.frombuffer(archive.read(name), np.uint8)
            rgb = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
            face[:3] = rgb.transpose(2, 0, 1)
            face[3] = np.where(missing_pixels(rgb), 0, 255)

    def load(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy")[keep].astype(np.float32)

    labels = index[["age", "gender", "race"]].apply(pd.to_numeric).fillna(-1).astype(int)
    labels = {name: labels[name].to_numpy() for name in labels}
    age, gender, race = labels.values()
    teacher, known = load("age_gender"), (age >= 0)[:, None]
    targets = {
        "identity": load("identity"),
        "age": np.where(known, _years(age, 2.5), _years(teacher[:, 0], 5.0)),
        "gender": np.where((gender >= 0)[:, None], _one_hot(gender, 2), teacher[:, 1:3]),
        "race": _one_hot(race, len(RACES)),
    }
    targets |= {name: load(name) for name in ("expression", "blendshapes", "appearance")}
    person = pd.factorize(index["identity"].replace("", None), sort=True)[0]
    fold, rng = index["fold"].to_numpy(str), np.random.default_rng(1)
    people = rng.random(person.max() + 1) < 0.1
    rows = rng.random(len(index)) < 0.05
    validates = np.where(person >= 0, np.append(people, False)[person], rows)
    fold[(fold == "train") & validates] = "val"
    names = {"gender": GENDERS, "race": RACES, "expression": EXPRESSIONS}
    names["blendshapes"] = tuple((folder / "blendshapes.txt").read_text().split())
    kinds = dict.fromkeys(targets, "distribution") | {"blendshapes": "vector"}
    kinds |= dict.fromkeys(("identity", "appearance"), "embedding")
    return Teachers(faces, targets, kinds, names, person, fold, labels)


def teachers_from_dump(folder: Path, data_root: Path | None = None, limit: int = 0) -> Teachers:
    """The real faces of a dump, with its experts' outputs for the whole face as targets.

    data_root: where its images are now, if they have moved. limit: 0 for all.
    Raises: ValueError for an image that cannot be read, or without real faces.
    """
    dump = read_dump(folder)
    root = Path(data_root or dump.meta["data_root"])
    rows = _some(np.flatnonzero(dump.rows["label"] == 0), limit)
    if not len(rows):
        raise ValueError(f"{folder}: no real faces; a region network learns from real faces only")
    paths = [root / path for path in dump.rows["path"][rows]]
    cut = cut_again(paths, landmarks_of(dump.rows)[rows], ALIGNED)
    faces = np.empty((len(rows), 4, SIZE, SIZE), np.uint8)
    for face, found in zip(tqdm(faces, desc="cutting faces", disable=None), cut, strict=True):
        if isinstance(found, ImageError):
            raise found
        face[:] = found
    # age_years follows from age; traces of manipulation in one region do not follow from another.
    left_out = (".age_years", "traces.source")
    outputs = {
        name: output
        for name, output in dump.meta["outputs"].items()
        if not name.endswith(left_out) and output["kind"] != "forgery_logit"
    }
    # An output takes its own name (`identity`), and its expert's too where two experts share it.
    counts = Counter(name.rpartition(".")[2] for name in dump.arrays)
    targets, kinds, names = {}, {}, {}
    for key, output in outputs.items():
        name = key.rpartition(".")[2]
        name = name if counts[name] == 1 else key.replace(".", "_")
        targets[name] = dump.arrays[key][rows, 0].astype(np.float32)
        kinds[name], names[name] = output["kind"], tuple(output["names"])
    person = np.full(len(rows), -1)
    return Teachers(faces, targets, kinds, names, person, dump.rows["split"][rows])
