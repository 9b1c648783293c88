"""From the pictures of a batch to rows of a dump and crops: faces found anew, or cut again where a dump has found them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from data.datasets import Sample
from data.degrade import Condition
from data.dump import NO_FACE, Dump, Row
from data.faces import FaceCrops, FaceCutter, align
from data.images import ImageError
from data.loading import Picture, load_ahead
from features.regions import Crop

AHEAD = 16  # pictures decoded before they are needed
CHANGED = "the picture has changed since the dump was made"

Pictures = list[tuple[Sample, Picture]]
# A row for every face, its crops (F, 4, px, px), and (path, reason) of pictures without.
Cut = tuple[list[Row], dict[Crop, torch.Tensor], list[tuple[str, str]]]


def samples_of(dump: Dump, split: str = "") -> list[Sample]:
    """The pictures of a dump in which a face was found, with the groups and splits they have there; of one split, or all."""
    names = [field.name for field in fields(Sample)]
    rows = dict.fromkeys(
        zip(*(dump.rows[name].tolist() for name in names), strict=True)
    )  # one for several faces
    samples = [Sample(**dict(zip(names, row, strict=True))) for row in rows]
    return [sample for sample in samples if split in ("", sample.split)]


class Finder:
    """Finds the faces of pictures and cuts them out: for a new dump."""

    def __init__(self, cutter: FaceCutter) -> None:
        self.cutter = cutter

    def __call__(self, pictures: Pictures) -> Cut:
        crops = self.cutter([picture.image for _, picture in pictures])
        seen = set(crops.image.tolist())
        failures = [
            (sample.path, NO_FACE) for i, (sample, _) in enumerate(pictures) if i not in seen
        ]
        return rows_of(crops, pictures), crops.views, failures


class Recutter:
    """Cuts out the faces that a dump has found before: to extend it. rows: path -> its faces."""

    def __init__(self, rows: dict[str, list[Row]], crops: Iterable[Crop]) -> None:
        self.rows, self.crops = rows, set(crops)

    def __call__(self, pictures: Pictures) -> Cut:
        failures, rows, which = [], [], []
        for index, (sample, picture) in enumerate(pictures):
            mine = self.rows[sample.path]
            if (mine[0].phash, mine[0].file_bytes) != (picture.phash, picture.file_bytes):
                failures.append((sample.path, CHANGED))
                continue
            rows += mine
            which += [index] * len(mine)
        landmarks = np.array(
            [[getattr(r, f"l{axis}{i}") for i in range(5) for axis in "xy"] for r in rows]
        )
        images = [picture.image for _, picture in pictures]
        if not rows:
            return [], {}, failures
        views = {
            crop: align(images, np.array(which), landmarks.reshape(-1, 5, 2), crop)
            for crop in self.crops
        }
        return rows, views, failures


def cut_again(
    paths: Sequence[Path],
    landmarks: np.ndarray,
    crop: Crop,
    threads: int = 2,
    condition: Condition | None = None,
) -> Iterator[torch.Tensor | ImageError]:
    """The faces that a dump has found, one after another: (4, px, px) uint8 RGBA each, or why its picture cannot be read.

    paths: N pictures or frames. landmarks: (N, 5, 2) px of them. condition: what every picture goes through first.
    """
    for picture, points in zip(
        load_ahead(paths, threads, AHEAD, condition=condition), landmarks, strict=True
    ):
        unread = isinstance(picture, ImageError)
        yield picture if unread else align([picture.image], np.array([0]), points[None], crop)[0]


def rows_of(crops: FaceCrops, pictures: Pictures) -> list[Row]:
    """One row of index.csv per face. crops: of the batch `pictures`."""
    rows = []
    for i, index in enumerate(crops.image):
        sample, picture = pictures[index]
        height, width = picture.image.shape[:2]
        rows.append(
            Row(
                *(
                    sample.path,
                    crops.face[i],
                    sample.label,
                    sample.group,
                    sample.split,
                    sample.video,
                    sample.method,
                ),
                *crops.box[i],
                *crops.landmarks[i].ravel(),
                *(
                    crops.score[i],
                    crops.face_px[i],
                    crops.sharpness[i],
                    crops.yaw[i],
                    crops.pitch[i],
                    crops.roll[i],
                ),
                *(width, height, picture.file_bytes, *picture.mean, picture.phash),
            )
        )
    return rows
