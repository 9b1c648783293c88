"""How good the view of a face is: sharpness and pose."""

from __future__ import annotations

import numpy as np
import torch

# The landmarks on a head in three dimensions, in pixels of the template, z towards the viewer: x
# and y are the template's mean with its mirror image, the depths those of a typical skull.
HEAD = np.array(
    [(-17.6, -20.1, 0), (17.6, -20.1, 0), (0, 0, 14), (-14.6, 20.5, 2), (14.6, 20.5, 2)], float
)
QUALITIES = ("face_px", "sharpness", "yaw", "score")  # measures that tell how reliable a verdict is
# A verdict deserves a warning below or beyond these: px, variance of the Laplacian, degrees.
SMALL_FACE, BLURRED, TURNED = 64, 30.0, 35.0


def sharpness(aligned: torch.Tensor) -> np.ndarray:
    """(F,) variance of the Laplacian of the grey crops (F, 4, S, S), where its 3x3 cross is inside.

    Whole-number sums: the same on every device. NaN where nothing is inside the photograph.
    """
    red, green, blue, alpha = aligned.long().unbind(1)
    grey = 299 * red + 587 * green + 114 * blue  # thousandths

    def neighbours(x: torch.Tensor) -> list[torch.Tensor]:
        return [x[:, :-2, 1:-1], x[:, 2:, 1:-1], x[:, 1:-1, :-2], x[:, 1:-1, 2:]]

    inside = torch.stack([alpha[:, 1:-1, 1:-1], *neighbours(alpha)]).amin(0) > 0
    laplacian = (sum(neighbours(grey)) - 4 * grey[:, 1:-1, 1:-1]) * inside
    count, total, squares = (x.sum((1, 2)).double() for x in (inside, laplacian, laplacian**2))
    return ((squares / count - (total / count) ** 2) / 1e6).float().cpu().numpy()


def pose(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Yaw (to the viewer's right is positive), pitch (upwards) and roll (clockwise) in degrees.

    Rough, from landmarks (F, 5, 2): a head of average proportions is fitted (scaled orthography:
    DeMenthon & Davis, IJCV 1995).
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    points = points - points.mean(1, keepdims=True)
    axes = np.linalg.pinv(HEAD - HEAD.mean(0)) @ points  # (F, 3, 2)
    right, down = np.moveaxis(axes / np.linalg.norm(axes, axis=1, keepdims=True), -1, 0)
    ahead = np.cross(right, down)[:, 2]
    yaw = np.arctan2(right[:, 2], ahead)
    pitch = np.arctan2(-down[:, 2], np.hypot(right[:, 2], ahead))
    roll = np.arctan2(down[:, 0], right[:, 0])
    return tuple(np.degrees(angle).astype(np.float32) for angle in (yaw, pitch, roll))


def in_words(figures: dict[str, float]) -> dict[str, float | str]:
    """`QUALITIES` of one face, rounded, and `overall`: "good", or what is poor."""
    poor = {
        "small face": figures["face_px"] < SMALL_FACE,
        "blurred": figures["sharpness"] < BLURRED,
        "turned away": abs(figures["yaw"]) > TURNED,
    }
    overall = ", ".join(word for word, is_poor in poor.items() if is_poor) or "good"
    return {"overall": overall, **{name: round(value, 2) for name, value in figures.items()}}
