"""How good the view of a face is: sharpness and pose."""

from __future__ import annotations

import numpy as np
import torch

# The same points on a head in three dimensions, in the template's pixels, z towards the viewer. x and y are the
# template's mean with its mirror image, the depths those of a typical skull: this face seen from the front is
# 'straight'.
HEAD = np.array(
    [
        [-17.6, -20.1, 0.0],
        [17.6, -20.1, 0.0],
        [0.0, 0.0, 14.0],
        [-14.6, 20.5, 2.0],
        [14.6, 20.5, 2.0],
    ]
)

QUALITIES = (
    "face_px",
    "sharpness",
    "yaw",
    "score",
)  # of data/faces.py, that tell how far a verdict can be trusted
# Below or beyond these a verdict deserves a warning; shorter side of the face in source pixels, variance of the Laplacian
# of the aligned crop, degrees.
SMALL_FACE, BLURRED, TURNED = 64, 30.0, 35.0


def sharpness(aligned: torch.Tensor) -> np.ndarray:
    """Variance of the Laplacian of the grey crop where it and its four neighbours lie inside the photograph.

    Small for blurred, but also for small faces: they were enlarged. Whole-number sums: the same on every device.
    aligned: (F, 4, S, S) uint8 RGBA. Returns: (F,) float32, grey levels squared; NaN where nothing is inside.
    """
    red, green, blue, alpha = aligned.long().unbind(1)
    grey = 299 * red + 587 * green + 114 * blue  # thousandths
    inner = (slice(None), slice(1, -1), slice(1, -1))
    around = [
        (slice(None), rows, columns)
        for rows, columns in ((slice(0, -2), inner[2]), (slice(2, None), inner[2]))
    ]
    around += [
        (slice(None), rows, columns)
        for rows, columns in ((inner[1], slice(0, -2)), (inner[1], slice(2, None)))
    ]
    inside = alpha[inner] > 0
    for place in around:
        inside = inside & (alpha[place] > 0)
    laplacian = (sum(grey[place] for place in around) - 4 * grey[inner]) * inside
    count, total, squares = (x.sum((1, 2)).double() for x in (inside, laplacian, laplacian**2))
    return ((squares / count - (total / count) ** 2) / 1e6).float().cpu().numpy()


def pose(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where faces look, roughly, from five points alone: enough to tell a profile from a portrait.

    A head of average proportions is laid under the landmarks (scaled orthography: DeMenthon & Davis, IJCV 1995).
    landmarks: (F, 5, 2).
    Returns: yaw (to the viewer's right is positive), pitch (upwards) and roll (clockwise), each (F,) float32 degrees.
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    axes = np.linalg.pinv(HEAD - HEAD.mean(0)) @ (
        points - points.mean(1, keepdims=True)
    )  # (F, 3, 2)
    right, down = np.moveaxis(axes / np.linalg.norm(axes, axis=1, keepdims=True), -1, 0)
    ahead = np.cross(right, down)[:, 2]
    yaw = np.arctan2(right[:, 2], ahead)
    pitch = np.arctan2(-down[:, 2], np.hypot(right[:, 2], ahead))
    roll = np.arctan2(down[:, 0], right[:, 0])
    return tuple(np.degrees(angle).astype(np.float32) for angle in (yaw, pitch, roll))


def in_words(figures: dict[str, float]) -> dict[str, float | str]:
    """What a verdict rests on, and a word where one of it is poor. figures: `QUALITIES` of one face. Adds `overall`."""
    poor = []
    if figures["face_px"] < SMALL_FACE:
        poor.append("small face")
    if figures["sharpness"] < BLURRED:
        poor.append("blurred")
    if abs(figures["yaw"]) > TURNED:
        poor.append("turned away")
    return {
        "overall": ", ".join(poor) or "good",
        **{name: round(value, 2) for name, value in figures.items()},
    }
