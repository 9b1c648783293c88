"""Find and cut the faces of pictures; cut faces again at the landmarks that a dump holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from data.alignment import align, align_stack
from data.degrade import Condition
from data.dump import BOX, LANDMARKS, NO_FACE, Dump, landmarks_of
from data.faces import FaceCrops, FaceCutter
from data.images import ImageError
from data.loading import Picture, load_ahead
from data.samples import Sample
from data.stack import Stack
from features.regions import Crop

NUMBERS = ("face", "score", "face_px", "sharpness", "yaw", "pitch", "roll")
AHEAD = 16  # pictures decoded before they are needed
CHANGED = "the picture has changed since its faces were found"

Batch = Sequence[tuple[Sample, Picture | ImageError]]
Failures = list[tuple[str, str]]  # (path, reason)


class KnownFaces:
    """The faces of an index.csv. of: path of a picture -> its rows.

    changed: whether the file of a picture holds something else now.
    """

    def __init__(
        self,
        rows: Mapping[str, np.ndarray],
        changed: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self.rows, self.landmarks, self.changed = rows, landmarks_of(rows), changed
        self.of = {}
        for row, path in enumerate(rows["path"].tolist()):
            self.of[path] = range(self.of[path].start if path in self.of else row, row + 1)

    def __len__(self) -> int:
        return len(self.landmarks)

    def key(self, row: int) -> tuple[str, int]:
        """(path, face)."""
        return str(self.rows["path"][row]), int(self.rows["face"][row])

    def shows(self, picture: Picture, path: str) -> bool:
        """Whether the picture is still the one in which the faces were found."""
        known = (self.rows[name][self.of[path].start] for name in ("phash", "file_bytes"))
        return (*known,) == (picture.phash, picture.file_bytes) and not self.changed(path)


def find_faces(
    batch: Batch, cutter: FaceCutter, stack: Stack | None = None
) -> tuple[list[dict], Failures]:
    """A row for every face of a batch, and the pictures without one. stack: of its pictures."""
    failures = [(s.path, item.reason) for s, item in batch if isinstance(item, ImageError)]
    pictures = [(s, item) for s, item in batch if isinstance(item, Picture)]
    crops = cutter([picture.image for _, picture in pictures] if stack is None else stack)
    seen = set(crops.image.tolist())
    failures += [(sample.path, NO_FACE) for i, (sample, _) in enumerate(pictures) if i not in seen]
    return rows_of(crops, pictures), failures


def cut_known(
    batch: Batch, faces: KnownFaces, crops: Iterable[Crop], stack: Stack | None = None
) -> tuple[np.ndarray, dict[Crop, torch.Tensor], Failures]:
    """Rows (F,) of a batch's faces in a dump, their crops (F, 4, px, px), and unusable pictures.

    stack: of its pictures, on the device that cuts; the crops stay there.
    """
    images, which, rows, failures = [], [], [], []
    for sample, item in batch:
        if isinstance(item, ImageError):
            failures.append((sample.path, item.reason))
            continue
        if faces.shows(item, sample.path):
            which += [len(images)] * len(faces.of[sample.path])
            rows += faces.of[sample.path]
        else:
            failures.append((sample.path, CHANGED))
        images.append(item.image)
    rows, which = np.array(rows, int), np.array(which, int)
    cut, pictures = (align, images) if stack is None else (align_stack, stack)
    views = {crop: cut(pictures, which, faces.landmarks[rows], crop) for crop in set(crops)}
    return rows, views, failures


def rows_of(crops: FaceCrops, pictures: Sequence[tuple[Sample, Picture]]) -> list[dict]:
    """One row of index.csv per face. crops: of `pictures`."""
    rows = []
    for i, index in enumerate(crops.image):
        sample, picture = pictures[index]
        height, width = picture.image.shape[:2]
        numbers = {name: getattr(crops, name)[i] for name in NUMBERS}
        numbers |= zip(BOX, crops.box[i], strict=True)
        numbers |= zip(LANDMARKS, crops.landmarks[i].ravel(), strict=True)
        numbers |= zip(("mean_r", "mean_g", "mean_b"), picture.mean, strict=True)
        size = {"width": width, "height": height, "file_bytes": picture.file_bytes}
        rows.append({**vars(sample), **numbers, **size, "phash": picture.phash})
    return rows


def cut_again(
    paths: Sequence[Path],
    landmarks: np.ndarray,
    crop: Crop,
    threads: int = 2,
    condition: Condition | None = None,
) -> Iterator[torch.Tensor | ImageError]:
    """Faces at `landmarks` (N, 5, 2), each (4, px, px) uint8 RGBA or why it cannot be read."""
    pictures = load_ahead(paths, threads, AHEAD, condition=condition)
    for picture, points in zip(pictures, landmarks, strict=True):
        unread = isinstance(picture, ImageError)
        yield picture if unread else align([picture.image], np.array([0]), points[None], crop)[0]


def samples_of(dump: Dump, split: str = "") -> list[Sample]:
    """The pictures with a face in a dump; of one split, or all."""
    columns = (dump.rows[field.name].tolist() for field in fields(Sample))
    samples = (Sample(*values) for values in dict.fromkeys(zip(*columns, strict=True)))
    return [sample for sample in samples if split in ("", sample.split)]
