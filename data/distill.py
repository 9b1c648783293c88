"""What the region network learns from: aligned real faces, what teachers say of them, and how they are disturbed.

`load_teachers` reads the folder of aligned crops and teacher outputs that trains the bundled network; `teachers_from_dump`
takes the experts of any dump as teachers, so that large experts can be distilled into a network of one's own.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from data import degrade
from data.cutting import cut_again
from data.dump import landmarks_of, read_dump
from data.images import ImageError
from features.regions import ALIGNED, REGIONS, region_masks

SIZE = 112
YEARS = np.arange(101)
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
RACES = ("White", "Black", "Asian", "Indian", "Other")
GENDERS = ("Male", "Female")


@dataclass
class Teachers:
    """Faces with targets, row by row.

    faces: (N, 4, 112, 112) uint8 RGBA, alpha 0 outside the photograph. targets: name -> (N, D) float32, NaN rows unknown;
    `age` is a distribution over the years 0..100 or over FairFace's nine bins. kinds, names: each target's kind (as in
    models/base.py) and component names. person: (N,) int, -1 unknown. fold: (N,) of train/val/test. labels: ground truth
    for the card where there is one (`age` in years, `gender`, `race`, -1 unknown).
    """

    faces: np.ndarray
    targets: dict[str, np.ndarray]
    kinds: dict[str, str]
    names: dict[str, tuple[str, ...]]
    person: np.ndarray
    fold: np.ndarray
    source: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def missing_pixels(rgb: np.ndarray, black: int = 6, area: int = 40) -> np.ndarray:
    """Black areas that touch the border: the corners a warp left empty. rgb: (H, W, 3) uint8. Returns: (H, W) bool.

    A truly black background is taken for missing too, which loses nothing: it holds no information.
    """
    dark = (rgb.max(-1) <= black).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=4)
    missing = np.zeros(dark.shape, bool)
    for index in range(1, count):
        x, y, w, h, size = stats[index]
        if size >= area and (x == 0 or y == 0 or x + w == dark.shape[1] or y + h == dark.shape[0]):
            missing |= labels == index
    return missing


def _years(centre: np.ndarray, spread: float) -> np.ndarray:
    """Normal label distributions over 0..100 years. centre: (N,), NaN gives NaN rows."""
    density = np.exp(-0.5 * ((YEARS[None] - np.clip(centre, 0, 100)[:, None]) / spread) ** 2)
    return (density / density.sum(1, keepdims=True)).astype(np.float32)


def _one_hot(codes: np.ndarray, size: int) -> np.ndarray:
    """codes: (N,) int, -1 unknown (a NaN row)."""
    rows = np.full((len(codes), size), np.nan, np.float32)
    known = codes >= 0
    rows[known] = np.eye(size, dtype=np.float32)[codes[known]]
    return rows


def load_teachers(folder: Path, limit: int | None = None) -> Teachers:
    """Read the folder of aligned crops, teacher outputs and labels (index.csv, aligned112.zip, *.npy).

    Ground truth replaces the teacher where it exists. A tenth of the training identities and of the other training rows
    become the `val` fold.
    """
    folder = Path(folder)
    if not (folder / "aligned112.zip").is_file():
        raise FileNotFoundError(
            f"{folder}: expected aligned112.zip, index.csv and the teachers' .npy files there"
        )
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    keep = np.arange(len(rows))
    if limit:
        keep = np.sort(np.random.default_rng(0).permutation(len(rows))[:limit])
    rows = [rows[i] for i in keep]
    faces = np.empty((len(rows), 4, SIZE, SIZE), np.uint8)
    with zipfile.ZipFile(folder / "aligned112.zip") as archive:
        for face, row in zip(faces, rows, strict=True):
            rgb = cv2.imdecode(
                np.frombuffer(archive.read(row["aligned"]), np.uint8), cv2.IMREAD_COLOR
            )[..., ::-1]
            face[:3] = rgb.transpose(2, 0, 1)
            face[3] = np.where(missing_pixels(rgb), 0, 255)

    def codes(column: str) -> np.ndarray:
        return np.array([int(row[column]) if row[column] else -1 for row in rows])

    def load(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy")[keep].astype(np.float32)

    age, gender, race = codes("age"), codes("gender"), codes("race")
    teacher = load("age_gender")
    known = age >= 0
    targets = {
        "identity": load("identity"),
        "age": np.where(known[:, None], _years(age.astype(float), 2.5), _years(teacher[:, 0], 5.0)),
        "gender": np.where((gender >= 0)[:, None], _one_hot(gender, 2), teacher[:, 1:3]),
        "race": _one_hot(race, len(RACES)),
        "expression": load("expression"),
        "blendshapes": load("blendshapes"),
        "appearance": load("appearance"),
    }
    people = {
        name: index
        for index, name in enumerate(sorted({row["identity"] for row in rows if row["identity"]}))
    }
    person = np.array([people.get(row["identity"], -1) for row in rows])
    fold = np.array([row["fold"] for row in rows])
    rng = np.random.default_rng(1)
    lucky_people, lucky_rows = (
        np.append(rng.random(len(people)) < 0.1, False),
        rng.random(len(rows)) < 0.05,
    )
    fold[(fold == "train") & np.where(person >= 0, lucky_people[person], lucky_rows)] = "val"
    return Teachers(
        faces,
        targets,
        kinds={
            **dict.fromkeys(("identity", "appearance"), "embedding"),
            **dict.fromkeys(("age", "gender", "race", "expression"), "distribution"),
            "blendshapes": "vector",
        },
        names={
            "gender": GENDERS,
            "race": RACES,
            "expression": EXPRESSIONS,
            "blendshapes": tuple((folder / "blendshapes.txt").read_text().split()),
        },
        person=person,
        fold=fold,
        source=np.array([row["source"] for row in rows]),
        labels={"age": age, "gender": gender, "race": race},
    )


def teachers_from_dump(
    folder: Path, data_root: Path | None = None, limit: int | None = None
) -> Teachers:
    """The real faces of a dump, with what its experts said of the whole face as targets.

    data_root: where the dump's images are (default: where they were when it was made). An output is named after itself
    (`arcface.identity` becomes `identity`), or after its expert too where two experts share the name. Splits are the dump's.
    Raises: FileNotFoundError where an image is gone; ValueError where the dump holds no real faces.
    """
    dump = read_dump(folder)
    root = Path(data_root or dump.meta["data_root"])
    rows = np.flatnonzero(dump.rows["label"] == 0)
    if not len(rows):
        raise ValueError(f"{folder}: no real faces; a region network learns from real faces only")
    if limit:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:limit])
    short = [name.rpartition(".")[2] for name in dump.arrays]
    names = {
        full: name if short.count(name) == 1 else full.replace(".", "_")
        for full, name in zip(dump.arrays, short, strict=True)
    }
    cut = cut_again(
        [root / path for path in dump.rows["path"][rows]], landmarks_of(dump.rows)[rows], ALIGNED
    )
    faces = np.empty((len(rows), 4, SIZE, SIZE), np.uint8)
    for face, found in zip(tqdm(faces, desc="cutting faces", disable=None), cut, strict=True):
        if isinstance(found, ImageError):
            raise found
        face[:] = found.numpy()
    # Years come with the age; traces of how a picture was made are not to be read off a single region of it.
    left_out = (".age_years", "traces.source", "traces.altered")
    outputs = {
        full: dump.meta["outputs"][full] for full in dump.arrays if not full.endswith(left_out)
    }
    return Teachers(
        faces,
        targets={
            names[full]: np.asarray(dump.arrays[full][rows, 0], np.float32) for full in outputs
        },
        kinds={names[full]: info["kind"] for full, info in outputs.items()},
        names={
            names[full]: tuple(info["names"]) for full, info in outputs.items() if info["names"]
        },
        person=np.full(len(rows), -1),
        fold=dump.rows["split"][rows],
        source=np.full(len(rows), dump.meta["dataset"]),
        labels={},
    )


class Augmented(torch.utils.data.Dataset):
    """Training views: a face, shifted, turned, lit and degraded at random, and the mask of the region that is shown.

    Item: (face (4, px, px) uint8, mask (px, px) bool, row). Named regions mostly; sometimes a random box or half-plane.
    """

    def __init__(self, faces: np.ndarray, rows: np.ndarray, px: int, seed: int) -> None:
        self.faces, self.rows, self.px, self.seed = faces, rows, px, seed
        self.masks = region_masks(ALIGNED.at(px))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self.seed, index))
        row = int(self.rows[index])
        image = self._move(np.ascontiguousarray(self.faces[row].transpose(1, 2, 0)), rng)
        rgb = self._degrade(np.ascontiguousarray(image[..., :3]), rng)
        face = np.concatenate([rgb, image[..., 3:]], axis=-1).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(face)), torch.from_numpy(self._mask(rng)), row

    def _move(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mirror, turn, zoom, shift: what detectors err by and more. To `px` pixels."""
        scale = self.px / SIZE * rng.uniform(0.92, 1.1)
        angle = rng.normal(0, 4)
        matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), angle, scale)
        matrix[:, 2] += (self.px - SIZE) / 2 + rng.normal(0, 0.018 * self.px, 2)
        if rng.random() < 0.5:
            matrix = matrix @ np.array([[-1, 0, SIZE - 1], [0, 1, 0], [0, 0, 1.0]])
        return cv2.warpAffine(
            image,
            matrix,
            (self.px, self.px),
            flags=cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR,
        )

    def _degrade(self, rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        curve = np.arange(256)[:, None] / 255.0
        gain = rng.uniform(0.75, 1.25) * rng.normal(1, 0.05, 3)
        curve = (
            np.clip(
                (curve ** np.exp(rng.normal(0, 0.2)) - 0.5) * gain + 0.5 + rng.uniform(-0.1, 0.1),
                0,
                1,
            )
            * 255
        ).astype(np.uint8)
        rgb = cv2.LUT(rgb, curve[:, None, :])
        if rng.random() < 0.15:
            rgb = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if rng.random() < 0.15:
            rgb = degrade.blur(rgb, rng.uniform(0.5, 2.0) * self.px / SIZE)
        elif rng.random() < 0.2:
            rgb = degrade.downscale(rgb, rng.uniform(1.3, 3.5))
        if rng.random() < 0.1:
            rgb = degrade.noise(rgb, rng.uniform(2, 12), rng)
        if rng.random() < 0.25:
            rgb = degrade.jpeg(rgb, int(rng.integers(25, 90)))
        return rgb

    def _mask(self, rng: np.random.Generator) -> np.ndarray:
        px, draw = self.px, rng.random()
        if draw < 0.25:
            mask = self.masks[0].copy()
            if rng.random() < 0.4:  # something in front of the face
                x, y = rng.integers(0, px, 2)
                w, h = rng.integers(px // 8, px // 2, 2)
                mask[max(0, y - h // 2) : y + h // 2, max(0, x - w // 2) : x + w // 2] = False
            return mask
        if draw < 0.85:
            return self.masks[1 + rng.integers(len(REGIONS) - 1)]
        mask = np.zeros((px, px), bool)
        w, h = rng.integers(int(px * 0.35), px, 2)
        x, y = rng.integers(0, px - w + 1), rng.integers(0, px - h + 1)
        mask[y : y + h, x : x + w] = True
        return ~mask if rng.random() < 0.3 and w * h < 0.5 * px * px else mask
