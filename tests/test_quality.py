"""Sharpness and pose, of pictures and heads for which they are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.alignment import TEMPLATE
from data.faces import FaceCutter
from data.quality import HEAD, pose, sharpness


def test_sharpness_of_known_pictures() -> None:
    faces = torch.zeros(4, 4, 8, 8, dtype=torch.uint8)
    faces[:3, 3] = 255
    faces[0, :3] = 77  # flat
    faces[1, :3, :, ::2] = 10  # stripes: the Laplacian is +20 and -20 in turn
    faces[2, :3] = faces[1, :3]
    faces[2, 3, :, 5:] = 0  # of which columns 1 to 3 count: two of one sign, one of the other
    values = sharpness(faces)
    assert values[:3].tolist() == pytest.approx([0, 400, 400 - (20 / 3) ** 2])
    assert np.isnan(values[3])


def test_sharpness_falls_with_blur(astronaut: np.ndarray) -> None:
    sharp, soft = FaceCutter()([astronaut, cv2.GaussianBlur(astronaut, (0, 0), 2)]).sharpness
    assert soft < sharp / 3


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (35, 0, 0), (0, 20, 0), (0, 0, -30), (-50, 0, 12)]
)
def test_pose_of_a_turned_head(yaw: float, pitch: float, roll: float) -> None:
    def turn(axis: tuple[int, int], degrees: float) -> np.ndarray:
        matrix, angle = np.eye(3), np.radians(degrees)
        matrix[np.ix_(axis, axis)] = [
            [np.cos(angle), -np.sin(angle)],
            [np.sin(angle), np.cos(angle)],
        ]
        return matrix

    # x right, y down, z towards the viewer: yaw takes z to x, pitch z to -y, roll x to y.
    head = HEAD @ (turn((0, 1), roll) @ turn((2, 0), yaw) @ turn((1, 2), pitch)).T
    seen = pose(3.3 * head[None, :, :2] + (200, 100))
    assert seen[2] == pytest.approx(roll, abs=0.01)
    if not roll:
        assert (seen[0][0], seen[1][0]) == pytest.approx((yaw, pitch), abs=0.01)
    assert np.sign(seen[0][0].round()) == np.sign(yaw)


def test_pose_of_the_template_is_straight() -> None:
    assert np.abs(np.array(pose(TEMPLATE[None]))).max() < 6
    assert pose(np.empty((0, 5, 2)))[0].shape == (0,)
