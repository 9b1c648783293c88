"""Real training faces on the alignment template, with their surroundings and landmarks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from data.alignment import SIZE, similarity
from data.cutting import cut_again
from data.dump import Dump, landmarks_of
from data.images import ImageError
from features.regions import Crop

log = logging.getLogger("masc")
WIDE_CROP = Crop.of_box(1.75, 224)
FACE_WIDTH = 90  # px, about, on such a crop
CANDIDATES = 60  # random faces of which the most similar one is the donor


FACE_WINDOW = (34, 28, 160)  # x, y, side px of it that an autoencoder reconstructs


def on_crop(landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """Landmarks (N, 5, 2) px of a picture in px of the aligned crop."""
    scale, shift = similarity(landmarks)
    points = (landmarks @ (1, 1j) - shift[:, None]) / scale[:, None]  # px of the template
    step = np.array([crop.width, crop.height]) * SIZE / crop.px
    start = np.array([crop.x0, crop.y0]) * SIZE - 0.5 + step / 2
    return (np.stack([points.real, points.imag], -1) - start) / step


@dataclass
class AlignedCrops:
    """N real faces."""

    images: np.ndarray  # (N, 224, 224, 4) uint8 RGBA of `WIDE_CROP`, alpha 0: not in the photograph
    landmarks: np.ndarray  # (N, 5, 2) px of it
    sources: np.ndarray  # (N,) str, names of datasets
    reconstructed: np.ndarray | None = None  # (N, S, S, 3) uint8, `FACE_WINDOW` by an autoencoder
    appearance: np.ndarray = field(init=False)  # (N, 13) float32: pose and skin colour, to compare

    def __post_init__(self) -> None:
        skin = self.images[:, 80:150, 80:145, :3].reshape(len(self), -1, 3).mean(1) / 255
        lab = cv2.cvtColor(skin[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
        pose = self.landmarks.reshape(len(self), -1) / 2
        self.appearance = np.column_stack([pose, 0.35 * lab]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, rng: Generator) -> int:
        """A random face: half of the time of a random dataset, so that small ones count."""
        if rng.random() < 0.5:
            names = np.unique(self.sources)
            pool = np.flatnonzero(self.sources == names[rng.integers(len(names))])
            return int(pool[rng.integers(len(pool))])
        return int(rng.integers(len(self)))

    def donor(self, index: int, rng: Generator) -> int:
        """Another face, similar in pose and colour, mostly of the same dataset."""
        others = np.arange(len(self)) != index
        same = others & (self.sources == self.sources[index])
        pool = np.flatnonzero(same if rng.random() < 0.7 and same.any() else others)
        pool = pool[rng.integers(len(pool), size=CANDIDATES)]
        distance = np.square(self.appearance[pool] - self.appearance[index]).sum(1)
        return int(pool[distance.argmin()])


def training_rows(dump: Dump) -> np.ndarray:
    """Rows of the real faces of the train split."""
    return np.flatnonzero((dump.rows["label"] == 0) & (dump.rows["split"] == "train"))


def roots_of(dumps: Sequence[Dump], moved: Sequence[str]) -> list[Path]:
    """Where the pictures of each dump lie. moved: DATASET=DIR."""
    places = dict(pair.partition("=")[::2] for pair in moved)
    return [Path(places.get(dump.meta["dataset"], dump.meta["data_root"])) for dump in dumps]


def real_faces(
    dumps: Sequence[Dump], roots: Sequence[Path], limit: int = 0, workers: int = 2
) -> AlignedCrops:
    """The real faces of the train split of each dump.

    limit: faces of each dump, 0 for all. Raises: ValueError for fewer than two faces.
    """
    images, landmarks, sources = [], [], []
    for dump, root in zip(dumps, roots, strict=True):
        rows, name, failed = dump.rows, dump.meta["dataset"], []
        index = training_rows(dump)[: limit or None]
        points = landmarks_of(rows)[index]
        paths = [root / path for path in rows["path"][index]]
        faces = cut_again(paths, points, WIDE_CROP, workers)
        bar = tqdm(faces, total=len(index), desc=name, unit=" faces", disable=None)
        for face, marks in zip(bar, on_crop(points, WIDE_CROP), strict=True):
            if isinstance(face, ImageError):
                failed.append(face)
                continue
            images.append(face.permute(1, 2, 0).numpy())
            landmarks.append(marks)
            sources.append(name)
        if failed:
            log.warning(f"{dump.path}: {len(failed)} pictures left out; the first: {failed[0]}")
    if len(sources) < 2:
        raise ValueError("fewer than two real training faces could be read; nothing can be swapped")
    return AlignedCrops(np.stack(images), np.stack(landmarks), np.array(sources))
