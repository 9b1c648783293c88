"""Landmarks and aligned crops of the two photographs of conftest.py."""

from __future__ import annotations

import cv2
import numpy as np

from data.alignment import align
from training.aligned_crops import FACE_WINDOW, WIDE_CROP, AlignedCrops, on_crop

# Of `astronaut` and `hopper`, (5, 2) px.
LANDMARKS = np.array(
    [[205.4, 101.5], [246.9, 103.1], [225.1, 129.2], [201.2, 139.6], [245.1, 141.1]]
)
HOPPER_LANDMARKS = np.array(
    [[220.3, 189.9], [308.5, 187.1], [269.2, 238.9], [230.4, 282.6], [306.8, 279.6]]
)


def aligned_crops(astronaut: np.ndarray, hopper: np.ndarray) -> AlignedCrops:
    """Both people, each of a dataset of its own, and once more in another light."""
    images, points = [], []
    for picture, landmarks in ((astronaut, LANDMARKS), (hopper, HOPPER_LANDMARKS)):
        for gain in (1.0, 0.8):
            lit = (picture * gain).astype(np.uint8)
            crop = align([lit], np.array([0]), landmarks[None], WIDE_CROP)[0]
            images.append(crop.permute(1, 2, 0).numpy())
            points.append(on_crop(landmarks[None], WIDE_CROP)[0])
    x, y, side = FACE_WINDOW
    faces = [cv2.resize(image[y : y + side, x : x + side, :3], (128, 128)) for image in images]
    blurred = np.stack([cv2.GaussianBlur(face, (0, 0), 3) for face in faces])
    return AlignedCrops(np.stack(images), np.stack(points), np.array(list("aabb")), blurred)
