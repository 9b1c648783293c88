"""Masks of many faces and affine maps between them, on any device: face_masks.py in batches.

Landmarks are (N, 5, 2) px, maps (N, 2, 3).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.alignment import TEMPLATE
from training.aligned_crops import FACE_WIDTH
from training.device_images import Draws, constant, each, gaussian, pixels, separable
from training.face_masks import OUTLINES

POINTS = 24  # of an outline; the last repeats
DIRECTIONS = 96  # in which the extent of a hull is measured
ANGLES = 192  # at which its radius is known; between them it is interpolated
BEND = 0.08  # of the face's width, as are the edges
EDGE = (0.008, 0.06)
WIDE_BEND, WIDE_EDGE = 0.03, (0.025, 0.12)
MIDDLE = 56.0  # x of the template's middle line


def fit(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares affine maps (N, 2, 3) from points to points (N, P, 2)."""
    middles = [points.mean(1, keepdim=True) for points in (source, target)]
    a, b = source - middles[0], target - middles[1]
    turn = (_inverse2(a.mT @ a) @ (a.mT @ b)).mT
    return torch.cat([turn, middles[1].mT - turn @ middles[0].mT], 2)


def inverse(maps: Tensor) -> Tensor:
    turn = _inverse2(maps[:, :, :2])
    return torch.cat([turn, -turn @ maps[:, :, 2:]], 2)


def _inverse2(matrices: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(1) for row in matrices.unbind(1))
    adjugate = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2)
    return adjugate / (a * d - b * c)[:, None, None]


def transform(maps: Tensor, points: Tensor) -> Tensor:
    return points @ maps[:, :, :2].mT + maps[:, None, :, 2]


def similar_pose(landmarks: Tensor, target: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(N, 5, 2) landmarks, mirrored where that fits the target better, and (N,) whether they are."""
    left, right, nose, mouth_left, mouth_right = landmarks.unbind(1)
    flipped = torch.stack([right, left, nose, mouth_right, mouth_left], 1)
    flipped = torch.cat([side - 1 - flipped[..., :1], flipped[..., 1:]], 2)
    given, other = (
        (transform(fit(points, target), points) - target).abs().sum((1, 2))
        for points in (landmarks, flipped)
    )
    turned = other < given
    return torch.where(turned[:, None, None], flipped, landmarks), turned


@cache
def _outlines(device: torch.device) -> tuple[Tensor, Tensor]:
    """Outlines (5, 24, 2) around their middles, and those (5, 1, 2), in px of the template."""
    shapes, middles = [], []
    for points in OUTLINES.values():
        more = np.repeat(points[-1:], POINTS - len(points), axis=0)
        middles.append(points.mean(0))
        shapes.append(np.concatenate([points, more]) - middles[-1])
    shapes, middles = (torch.from_numpy(np.stack(x)).float() for x in (shapes, middles))
    return shapes.to(device), middles[:, None].to(device)


def outline(parts: Tensor, landmarks: Tensor, stretch: Tensor) -> Tensor:
    """Outlines (N, 24, 2) px of parts (N,) of faces. stretch: (N, 2) of width and height.

    See `training.face_masks.outline`.
    """
    shapes, middles = _outlines(landmarks.device)
    points = shapes[parts] * stretch[:, None] + middles[parts]
    template = constant(tuple(map(tuple, TEMPLATE.tolist())), landmarks.device)
    flat, seen = (torch.cat([p[:, :2], p[:, 3:]], 1) for p in (template[None], landmarks))
    flat = flat.expand_as(seen)
    nose = transform(fit(seen, flat), landmarks[:, 2:3])[..., 0]  # (N, 1)
    side = torch.where(nose > MIDDLE, 1.0, -1.0)
    eye = torch.where(nose > MIDDLE, template[1, 0], template[0, 0])
    width = (side * (eye - nose) / 17.6).clamp(0.4, 1)
    beyond = side * (points[..., 0] - MIDDLE)
    turned = MIDDLE + side * (side * (nose - MIDDLE) + beyond * width)
    x = torch.where(beyond > 0, turned, points[..., 0])
    return transform(fit(flat, seen), torch.stack([x, points[..., 1]], 2))


def depth(points: Tensor, places: Tensor) -> Tensor:
    """How far places (N, S, S, 2) px lie inside the convex hull of points (N, P, 2): (N, 1, S, S).

    Measured towards the middle of the points; negative outside. Exact to about half a pixel.
    """
    middle = points.mean(1, keepdim=True)
    turn = 2 * math.pi / DIRECTIONS
    directions = torch.arange(DIRECTIONS, device=points.device) * turn
    unit = torch.stack([directions.cos(), directions.sin()])
    extent = ((points - middle) @ unit).amax(1)  # (N, D)
    angles = torch.arange(ANGLES + 1, device=points.device) * (2 * math.pi / ANGLES)
    slant = (angles[:, None] - directions).cos()  # (A, D)
    radius = torch.where(slant > 0.05, extent[:, None] / slant.clamp_min(0.05), math.inf).amin(-1)
    away = places - middle[:, None]
    angle = torch.atan2(away[..., 1], away[..., 0]) % (2 * math.pi) * (ANGLES / (2 * math.pi))
    angle = angle.flatten(1).clamp(0, ANGLES)
    low = angle.floor().long().clamp_max(ANGLES - 1)
    first, second = radius.gather(1, low), radius.gather(1, low + 1)
    border = torch.lerp(first, second, angle - low)
    return (border - away.square().sum(-1).sqrt().flatten(1)).view(
        len(points), 1, *places.shape[1:3]
    )


def soft_mask(landmarks: Tensor, draws: Draws, side: int) -> Tensor:
    """Random face-like masks with soft edges: (N, 1, side, side) in [0, 1].

    Shapes and their shares as in `training.face_masks.soft_mask`.
    """
    n, device, face = len(landmarks), landmarks.device, FACE_WIDTH
    shape, middle = draws.uniform(0.0, 1.0, n), landmarks.mean(1, keepdim=True)
    is_face = shape < 0.6
    parts = torch.where(is_face, 0, 1 + draws.below(len(OUTLINES) - 1, n))
    whole_face, part = draws.uniform(0.88, 1.12, n, 2), draws.uniform(0.9, 1.25, n, 2)
    points = outline(parts, landmarks, torch.where(is_face[:, None], whole_face, part))
    low, high = constant((0.35, 0.45), device), constant((0.6, 0.73), device)
    radii = draws.uniform(low, high, n, 2)[:, None] * face
    ellipse = middle + draws.normal(n, 1, 2) * 3 + _circle(device) * radii
    low, high = constant((0.35, 0.42), device), constant((0.58, 0.67), device)
    half = draws.uniform(low, high, n, 2)[:, None] * face
    box = middle + _corners(device) * half
    shape = shape[:, None, None]
    is_ellipse, is_box = (shape >= 0.6) & (shape < 0.75), shape >= 0.9
    points = torch.where(is_ellipse, ellipse, torch.where(is_box, box, points))
    return softened(points, draws, side, BEND, EDGE)


def wide_mask(landmarks: Tensor, draws: Draws, side: int) -> Tensor:
    """As `training.face_masks.wide_mask`: (N, 1, side, side) in [0, 1]."""
    n, device = len(landmarks), landmarks.device
    up = (landmarks[:, :2].mean(1) - landmarks[:, 3:].mean(1))[:, None]
    rise, half = draws.uniform(0.1, 0.45, n, 1, 1), draws.uniform(0.52, 0.76, n, 2)[:, None]
    box = landmarks.mean(1, keepdim=True) + up * rise + _corners(device) * half * FACE_WIDTH
    low, high = constant((1.05, 1.0), device), constant((1.3, 1.45), device)
    stretch = draws.uniform(low, high, n, 2)
    face = torch.zeros(n, dtype=torch.long, device=device)
    hull = outline(face, landmarks, stretch) + up * (stretch[:, 1:, None] - 1)
    points = torch.where(draws.chance(0.5, n)[:, None, None], box, hull)
    return softened(points, draws, side, WIDE_BEND, WIDE_EDGE)


def softened(
    points: Tensor, draws: Draws, side: int, bend: float, edge: tuple[float, float]
) -> Tensor:
    """Convex hulls of points (N, 24, 2), deformed and blurred as by `training.face_masks`."""
    n, face = len(points), FACE_WIDTH
    coarse = round(side / face * 5)
    bends = draws.uniform(-bend * face, bend * face, n, 2, coarse, coarse)
    bends = F.interpolate(bends, size=(side, side), mode="bicubic").permute(0, 2, 3, 1)
    mask = (depth(points, pixels(side, points.device) + bends) + 1).clamp(0, 1)
    mask = separable(mask, gaussian(draws.uniform(*edge, n) * face, side, reach=4))
    return mask / each(mask.amax((1, 2, 3))).clamp_min(1 / 255)


@cache
def _circle(device: torch.device) -> Tensor:
    """(24, 2) points around the unit circle."""
    angle = torch.arange(POINTS, device=device) * (2 * math.pi / POINTS)
    return torch.stack([angle.cos(), angle.sin()], 1)


def _corners(device: torch.device) -> Tensor:
    """(24, 2) points, each a corner of the square from -1 to 1."""
    circle = _circle(device)
    return torch.where(circle.abs() < 1e-3, 1.0, circle.sign())
