"""Whether two pictures are of one event: by what surrounds the face, not by the face.

Photographs of one event share light, background and clothes, and flatter a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data.cutting import cut_again
from data.images import ImageError
from features.regions import Crop

AROUND = Crop.around(0.5, 0.5, 2.4, 2.4, 48)
CELLS = 12  # a side
# Around heads: half width and half height of an ellipse that is not looked at, as fractions of the crop.
HEAD = (0.3, 0.36)
RARE = 0.01  # share of pictures of different people that are as alike as those of one event
DRAWN = 20_000  # pairs of them


def surroundings(paths: Sequence[Path], landmarks: np.ndarray) -> np.ndarray:
    """(N, 12, 12, 4) float32 colours in [0, 1] and the known share of each cell, without the head.

    landmarks: (N, 5, 2) px. All unknown where a picture cannot be read.
    """
    found = np.zeros((len(paths), CELLS, CELLS, 4), np.float32)
    at = (np.arange(AROUND.px) + 0.5) / AROUND.px - 0.5
    outside = (at / HEAD[0]) ** 2 + (at[:, None] / HEAD[1]) ** 2 > 1
    for row, crop in enumerate(cut_again(list(paths), landmarks, AROUND)):
        if isinstance(crop, ImageError):
            continue
        known = ((np.asarray(crop[3]) > 127) & outside).astype(np.float32)
        colours = np.moveaxis(np.asarray(crop[:3], np.float32), 0, -1) / 255 * known[..., None]
        cells = cv2.resize(
            np.dstack([colours, known]), (CELLS, CELLS), interpolation=cv2.INTER_AREA
        )
        cells[..., :3] /= np.maximum(cells[..., 3:], 1e-6)
        found[row] = cells
    return found


def distance(crops: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) mean difference of the colours of the cells that both know; 1 where there are few."""
    a, b = crops[first], crops[second]
    known = (a[..., 3] > 0.5) & (b[..., 3] > 0.5)
    apart = np.abs(a[..., :3] - b[..., :3]).mean(-1)
    count = known.sum((1, 2))
    mean = (apart * known).sum((1, 2)) / np.maximum(count, 1)
    return np.where(count >= 8, mean, 1.0)


def same_event(crops: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) bool: surroundings as alike as those of one random pair of pictures in a hundred.

    crops: of `surroundings`; first, second: (P,) rows.
    """
    rng = np.random.default_rng(0)
    pairs = rng.integers(len(crops), size=(2, DRAWN))
    pairs = pairs[:, pairs[0] != pairs[1]]
    limit = np.quantile(distance(crops, *pairs), RARE)
    return distance(crops, first, second) < limit
