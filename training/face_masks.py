"""Masks of the face and its parts, and affine maps between faces.

Landmarks are (5, 2) px: eyes, nose tip, mouth corners; the viewer's left first.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from data.alignment import TEMPLATE

# Right halves of outlines on the 112 px template, from the top of its middle line, x = 56, down.
_RIGHT_HALVES = {
    "face": "56,36 77,35 86,40 90,48 90,62 87,78 82,93 74,104 56,112",
    "eyes": "56,38 66,36 77,35 86,40 90,48 88,58 80,63 68,62 56,60",
    "nose": "56,50 62,52 65,64 71,71 70,78 63,81 56,82",
    "mouth": "56,81 66,81 76,85 81,92 77,100 67,106 56,107",
    "jaw": "56,79 74,79 86,81 84,90 80,97 74,104 65,111 56,113",
}


def _closed(half: str) -> np.ndarray:
    points = [tuple(map(int, point.split(","))) for point in half.split()]
    return np.float64([*points, *((112 - x, y) for x, y in points[-2:0:-1])])


OUTLINES = {name: _closed(half) for name, half in _RIGHT_HALVES.items()}
PARTS = tuple(OUTLINES)[1:]
FLAT = [0, 1, 3, 4]  # eyes and mouth corners: nearly in one plane


def outline(part: str, landmarks: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """The outline (P, 2) px of a part of a face. stretch: (2,) factors of width and height."""
    points = OUTLINES[part]
    centre = points.mean(0)
    points = (points - centre) * stretch + centre
    # Eyes and mouth place the template. The nose then shows how far the head is turned; the side it
    # is turned to is foreshortened.
    nose = transform(fit(landmarks[FLAT], TEMPLATE[FLAT]), landmarks[2:3])[0, 0]
    side = 1 if nose > 56 else -1
    beyond = side * (points[:, 0] - 56)
    width = np.clip((side * (TEMPLATE[1 if side > 0 else 0, 0] - nose)) / 17.6, 0.4, 1)
    turned = 56 + side * (side * (nose - 56) + beyond * width)
    points[:, 0] = np.where(beyond > 0, turned, points[:, 0])
    return transform(fit(TEMPLATE[FLAT], landmarks[FLAT]), points)


def fit(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares affine map (2, 3) from points to points."""
    homogeneous = np.column_stack([source, np.ones(len(source))])
    return np.linalg.lstsq(homogeneous, target, rcond=None)[0].T.copy()


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def mirrored(landmarks: np.ndarray, width: int) -> np.ndarray:
    """Landmarks of the mirror image of a picture so wide."""
    return landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (width - 1, 0)


def similar_pose(
    image: np.ndarray, landmarks: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The picture and its landmarks, mirrored where that fits the target landmarks better."""
    flipped = mirrored(landmarks, image.shape[1])
    given, other = (
        np.abs(transform(fit(p, target), p) - target).sum() for p in (landmarks, flipped)
    )
    return (image, landmarks) if given <= other else (np.ascontiguousarray(image[:, ::-1]), flipped)


def hull_mask(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """uint8: 255 inside the convex hull of the points."""
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(shape, np.uint8), hull, 255)


def deformed(
    mask: np.ndarray, face_px: float, rng: Generator, bend: float, edge: tuple[float, float]
) -> np.ndarray:
    """A mask (H, W) float32, elastically deformed and blurred.

    bend: largest displacement. edge: range of the blur's sigma. Both in face widths.
    """
    height, width = mask.shape
    coarse = [max(2, round(side / face_px * 5)) for side in mask.shape]
    steps = (rng.uniform(-bend, bend, coarse) * face_px for _ in "xy")
    dx, dy = (cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC) for x in steps)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    mask = cv2.remap(mask, np.float32(x + dx), np.float32(y + dy), cv2.INTER_LINEAR)
    return cv2.GaussianBlur(mask, (0, 0), face_px * rng.uniform(*edge))


def soft_mask(landmarks: np.ndarray, rng: Generator, px: int, face_px: float) -> np.ndarray:
    """A random face-like mask with a soft edge: (px, px) float32 in [0, 1]."""
    middle, shape = landmarks.mean(0), rng.random()
    if shape < 0.6:
        points = outline("face", landmarks, rng.uniform(0.88, 1.12, 2))
    elif shape < 0.75:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = rng.uniform((0.35, 0.45), (0.6, 0.73)) * face_px
        points = middle + rng.normal(0, 3, 2) + np.stack([np.cos(angle), np.sin(angle)], 1) * radii
    elif shape < 0.9:
        points = outline(PARTS[rng.integers(4)], landmarks, rng.uniform(0.9, 1.25, 2))
    else:
        half = rng.uniform((0.35, 0.42), (0.58, 0.67)) * face_px
        points = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    mask = hull_mask(points, (px, px)).astype(np.float32)
    mask = deformed(mask, face_px, rng, bend=0.08, edge=(0.008, 0.06))
    return mask / max(float(mask.max()), 1.0)


def wide_mask(landmarks: np.ndarray, rng: Generator, px: int, face_px: float) -> np.ndarray:
    """A wide mask with a soft edge, as of today's swaps: (px, px) float32 in [0, 1].

    Half are boxes, as of swaps that paste back an aligned square; half the whole face from the chin
    up to the brows, the hairline or into the hair.
    """
    up = landmarks[:2].mean(0) - landmarks[3:].mean(0)  # from the mouth to the eyes
    if rng.random() < 0.5:
        middle = landmarks.mean(0) + up * rng.uniform(0.1, 0.45)
        half = rng.uniform(0.52, 0.76, 2) * face_px
        points = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    else:
        width, height = rng.uniform((1.05, 1.0), (1.3, 1.45))
        points = outline("face", landmarks, np.array([width, height])) + up * (height - 1)
    mask = hull_mask(points, (px, px)).astype(np.float32)
    mask = deformed(mask, face_px, rng, bend=0.03, edge=(0.025, 0.12))
    return mask / max(float(mask.max()), 1.0)
