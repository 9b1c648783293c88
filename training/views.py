"""Augmented faces for the head on CLIP's blocks, in numbered lots: a real one and a fake in turn.

The pairs of a lot are of five sources: pseudo-fakes of real faces (pseudo_fakes.py); faces that an
autoencoder redrew as a whole (reconstruction.py); faces that a large network restored
(restoration.py); a real and a fake face of one dataset with labels; and a few as they are, the real
face of any dataset. Both faces of a pair that is not as it is went through the same channel, so that
neither size nor compression tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from data import degrade
from data.cutting import cut_again
from data.dump import Dump, landmarks_of
from data.images import ImageError
from features.regions import Crop
from training import augment
from training.aligned_crops import FACE_WINDOW, WIDE_CROP, training_rows
from training.pseudo_fakes import PseudoFakes
from training.restoration import restored

PAIRS = {"pseudo": 16, "redrawn": 4, "restored": 8, "labelled": 16, "plain": 6}  # of a lot
NEED_LABELS = ("labelled", "plain")
SOFTENED = (0.5, 0.8, 1.1, 1.5, 2.0)  # deviations, px, of a blur that takes detail off a face
# The kind of such a pair; of others that of the pseudo-fake, or `DATASET: METHOD` of the fake, after
# PLAIN where it is as it was.
REDRAWN, RESTORED, PLAIN = "redrawn", "restored", "plain "
Faces = tuple[np.ndarray, np.ndarray]  # a real face and a fake, (S, S, 4) uint8 RGBA
Made = tuple[Faces, str, str]  # with their kind and the dataset of the real face


@dataclass
class Labelled:
    """Training faces of a dataset.

    real: rows of the dump; fakes: rows of each method. Either may be empty.
    """

    name: str
    paths: list[Path]
    landmarks: np.ndarray  # (N, 5, 2)
    real: np.ndarray
    fakes: dict[str, np.ndarray]

    @classmethod
    def of(cls, dump: Dump, root: Path) -> Labelled:
        rows, train = dump.rows, dump.rows["split"] == "train"
        methods, fake = rows["method"].astype(str), train & (rows["label"] == 1)
        names = np.unique(methods[fake]).tolist()
        fakes = {name: np.flatnonzero(fake & (methods == name)) for name in names}
        real = training_rows(dump)
        paths = [root / path for path in rows["path"]]
        return cls(dump.meta["dataset"], paths, landmarks_of(rows), real, fakes)

    @property
    def has_both(self) -> bool:
        return bool(len(self.real) and self.fakes)

    def draw_real(self, crop: Crop, rng: Generator) -> np.ndarray | None:
        """(px, px, 4) uint8, or None where the picture cannot be read."""
        return self._cut(rng.choice(self.real), crop)

    def draw_fake(self, crop: Crop, rng: Generator) -> tuple[np.ndarray | None, str]:
        """A fake, and `DATASET: METHOD`. Every method is as frequent."""
        methods = [*self.fakes]
        method = methods[rng.integers(len(methods))]
        return self._cut(rng.choice(self.fakes[method]), crop), f"{self.name}: {method}"

    def _cut(self, row: int, crop: Crop) -> np.ndarray | None:
        (face,) = cut_again([self.paths[row]], self.landmarks[[row]], crop, 1)
        if isinstance(face, ImageError):
            return None
        return np.ascontiguousarray(face.permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class Views:
    """Lots of pairs of faces, cut to `crop`. The same number and seed give the same lot."""

    fakes: PseudoFakes  # whose crops are reconstructed
    datasets: Sequence[Labelled]
    crop: Crop
    seed: int

    @property
    def labelled(self) -> list[Labelled]:
        return [dataset for dataset in self.datasets if dataset.has_both]

    def lot(self, number: int) -> tuple[np.ndarray, list[str], list[str]]:
        """(2P, px, px, 4) uint8 RGBA, real and fake in turn, alpha 0 outside the photograph; of each
        pair its kind and the dataset of the real face.
        """
        rng, faces, kinds, sources = default_rng((self.seed, number)), [], [], []
        for source, count in PAIRS.items():
            wanted = len(kinds) + count * (source not in NEED_LABELS or bool(self.labelled))
            while len(kinds) < wanted:
                if made := getattr(self, f"_{source}")(rng):
                    faces += made[0]
                    kinds.append(made[1])
                    sources.append(made[2])
        return np.stack(faces), kinds, sources

    def _pseudo(self, rng: Generator) -> Made | None:
        crops = self.fakes.crops
        index = crops.sample(rng)
        made = self.fakes.make(index, rng)
        if made is None:
            return None
        *pair, _, kind = made
        view = augment.random_window(WIDE_CROP, self.crop, rng)
        pair = [_beside(x, crops.images[index]) for x in pair]
        return self._seen(pair, [view, view], rng), kind, str(crops.sources[index])

    def _redrawn(self, rng: Generator) -> Made:
        """The same picture without the autoencoder, as small and as sharp, is the real one."""
        crops, (x, y, side) = self.fakes.crops, FACE_WINDOW
        index, small = crops.sample(rng), int(rng.choice([96, 112, 128]))
        window, px = crops.images[index, y : y + side, x : x + side], self.crop.px
        pair = [
            cv2.resize(cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA), (px, px))
            for face in (window[..., :3], crops.reconstructed[index])
        ]
        if rng.random() < 0.6:
            pair = as_sharp(*pair)
        if rng.random() < 0.3:
            amount = rng.uniform(0.2, 1.0)
            pair = [augment.sharpen(face, 1.2, amount) for face in pair]
        alpha = cv2.resize(window, (px, px), interpolation=cv2.INTER_NEAREST)
        view, source = self._view(rng), str(crops.sources[index])
        return self._seen([_beside(x, alpha) for x in pair], [view, view], rng), REDRAWN, source

    def _restored(self, rng: Generator) -> Made | None:
        source = self._any_real(rng)
        face = source.draw_real(self.crop, rng)
        if face is None:
            return None
        pair = [np.ascontiguousarray(face[..., :3])]
        pair.append(restored(pair[0], rng))
        if rng.random() < 0.6:
            pair = as_sharp(*pair)
        view = self._view(rng)
        pair = self._seen([_beside(x, face) for x in pair], [view, view], rng)
        return pair, RESTORED, source.name

    def _labelled(self, rng: Generator) -> Made | None:
        dataset = _one_of(self.labelled, rng)
        real, (fake, kind) = dataset.draw_real(self.crop, rng), dataset.draw_fake(self.crop, rng)
        if real is None or fake is None:
            return None
        pair = self._seen((real, fake), [self._view(rng), self._view(rng)], rng)
        return pair, kind, dataset.name

    def _plain(self, rng: Generator) -> Made | None:
        """A real face of any dataset, so that no source looks made as a whole."""
        source = self._any_real(rng)
        real = source.draw_real(self.crop, rng)
        fake, kind = _one_of(self.labelled, rng).draw_fake(self.crop, rng)
        if real is None or fake is None:
            return None
        pair = self._through(real, self._view(rng)), self._through(fake, self._view(rng))
        return pair, PLAIN + kind, source.name

    def _any_real(self, rng: Generator) -> Labelled:
        return _one_of([dataset for dataset in self.datasets if len(dataset.real)], rng)

    def _view(self, rng: Generator) -> np.ndarray:
        return augment.random_window(self.crop, self.crop, rng)

    def _seen(self, pair: Sequence[np.ndarray], views: list[np.ndarray], rng: Generator) -> Faces:
        """Through one channel, each through its window. pair: RGBA."""
        channel, seen = int(rng.integers(1 << 30)), []
        for face, view in zip(pair, views, strict=True):
            rgb = np.ascontiguousarray(face[..., :3])
            face = _beside(augment.transmit(rgb, default_rng(channel)), face)
            seen.append(self._through(face, view))
        return seen[0], seen[1]

    def _through(self, face: np.ndarray, view: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(face, view, (self.crop.px,) * 2, flags=cv2.INTER_LINEAR)


def as_sharp(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """The sharper of two pictures loses detail until it has no more than the other."""
    detail = [cv2.Laplacian(x, cv2.CV_32F).std() for x in (first, second)]
    pair, sharper = [first, second], int(detail[1] > detail[0])
    for sigma in SOFTENED:
        softer = degrade.blur((first, second)[sharper], sigma)
        pair[sharper] = softer
        if cv2.Laplacian(softer, cv2.CV_32F).std() <= detail[1 - sharper] * 1.03:
            break
    return pair if max(detail) > min(detail) * 1.03 else [first, second]


def _one_of(datasets: Sequence[Labelled], rng: Generator) -> Labelled:
    return datasets[rng.integers(len(datasets))]


def _beside(rgb: np.ndarray, other: np.ndarray) -> np.ndarray:
    """RGB with the alpha of another picture."""
    return np.dstack([rgb, other[..., 3]])
