"""Faces on the ArcFace template: turned, scaled and shifted crops of pictures.

Coordinates are pixels of the picture; the centre of a pixel is a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from data.stack import Stack
from features.regions import ALIGNED, Crop

SIZE = ALIGNED.px  # px, the side of an aligned crop
# The viewer's left eye, right eye, nose tip and mouth corners in it (InsightFace's `arcface_dst`).
TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
# Faces are sampled straight from the photograph up to this many times their crop's size, and shrunk
# to it before: about as sharp as one resize by Lanczos or antialiased bicubic filtering.
COARSEST = 1.5
TOGETHER = 16  # faces warped at once by a CPU: each needs some megabytes
MARGIN = 4  # px around the crop's surroundings, for the interpolation
FLOATS = 1 << 26  # of pictures that are sampled at once on a device, 256 MiB


def similarity(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the aligned crop to the picture: z -> scale * z + shift in complex numbers x + iy.

    The inverse of the least-squares similarity from the landmarks (F, 5, 2) to the template
    (Umeyama, PAMI 1991), in the plane a complex regression. scale, shift: (F,) complex.
    """
    source = np.asarray(landmarks, np.float64).reshape(-1, 5, 2) @ (1, 1j)
    target = TEMPLATE @ (1, 1j)
    middle = source.mean(1, keepdims=True)
    variance = (np.abs(source - middle) ** 2).sum(1)
    if not (np.isfinite(variance) & (variance > 0)).all():
        raise ValueError("these landmarks are no face: missing, or all the same point")
    forward = ((source - middle).conj() * (target - target.mean())).sum(1) / variance
    return 1 / forward, middle[:, 0] - target.mean() / forward


@dataclass
class Places:
    """Where the pixels of a crop lie in the pictures of F faces.

    part: (F, 4) int, x0, y0, x1, y1 of the part of a picture that the crop can touch;
    size: (F, 2) int, width and height to which the part is shrunk, against aliasing;
    affine: (F, 2, 3) float64, x and y in the shrunk part: factors of column, row and 1;
    side: px, enough for every shrunk part.
    """

    part: np.ndarray
    size: np.ndarray
    affine: np.ndarray
    side: int


def places(landmarks: np.ndarray, shapes: np.ndarray, crop: Crop) -> Places:
    """landmarks: (F, 5, 2). shapes: (F, 2) int, height and width of the picture of each face."""
    scale, shift = similarity(landmarks)
    px = crop.px
    # Pixels of the template per pixel of the crop.
    step = np.array([crop.width, crop.height]) * (SIZE / px)
    first = complex(crop.x0 * SIZE - 0.5 + step[0] / 2, crop.y0 * SIZE - 0.5 + step[1] / 2)
    middle = scale * (first + complex(*step) * (px - 1) / 2) + shift
    side = int(np.ceil(COARSEST * px * np.sqrt(2))) + 2 * MARGIN
    shrink = np.maximum(1.0, np.abs(scale) * step.max() / COARSEST)[:, None]
    half = (side - MARGIN) / 2 * shrink
    centre, length = _xy(middle), np.asarray(shapes, int).reshape(-1, 2)[:, ::-1]
    start = np.clip(np.floor(centre - half), 0, length - 1)
    end = np.clip(np.ceil(centre + half) + 1, start + 1, length)
    size = np.maximum(1, np.rint((end - start) / shrink)).astype(int)
    shrunk = size / (end - start)
    turn = np.stack([_xy(scale), _xy(1j * scale)], axis=2) * step
    origin = (_xy(scale * first + shift) - start + 0.5) * shrunk - 0.5
    affine = np.concatenate([turn * shrunk[:, :, None], origin[:, :, None]], axis=2)
    return Places(np.concatenate([start, end], axis=1).astype(int), size, affine, side)


def _xy(points: np.ndarray) -> np.ndarray:
    return np.stack([points.real, points.imag], axis=1)


def align(
    images: Sequence[np.ndarray], which: np.ndarray, landmarks: np.ndarray, crop: Crop = ALIGNED
) -> torch.Tensor:
    """Faces turned, scaled and shifted so that their landmarks come nearest to the template.

    The surroundings of a large face are shrunk by area averaging, against aliasing; then all faces
    are warped with bicubic interpolation.

    Args:
        which: (F,) int, the picture of each face.
        landmarks: (F, 5, 2).

    Returns:
        (F, 4, px, px) uint8 RGBA; alpha 0, and black, outside the photograph.
    """
    shapes = np.array([images[i].shape[:2] for i in which])
    found = places(landmarks, shapes, crop)
    aligned = [torch.empty(0, 4, crop.px, crop.px, dtype=torch.uint8)]
    for start in range(0, len(which), TOGETHER):
        rows = slice(start, start + TOGETHER)
        patches = np.empty((len(which[rows]), found.side, found.side, 3), np.uint8)
        for i, patch in enumerate(patches, start):
            _surroundings(images[which[i]], found.part[i], found.size[i], patch)
        patches = torch.from_numpy(patches).permute(0, 3, 1, 2).float()
        affine, size = map(torch.from_numpy, (found.affine[rows], found.size[rows]))
        aligned.append(_sampled(patches, affine.float(), size.float(), crop.px))
    return torch.cat(aligned)


def _surroundings(image: np.ndarray, part: np.ndarray, size: np.ndarray, patch: np.ndarray) -> None:
    """Fill the patch (side, side, 3) with a part of a picture, padded at the right and the bottom."""
    (x0, y0, x1, y1), (width, height) = part, size
    found = image[y0:y1, x0:x1]
    if (height, width) != found.shape[:2]:
        found = cv2.resize(found, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    bottom, right = len(patch) - int(height), len(patch) - int(width)
    patch[:] = cv2.copyMakeBorder(found, 0, bottom, 0, right, cv2.BORDER_REPLICATE)


def align_stack(
    stack: Stack, which: np.ndarray, landmarks: np.ndarray, crop: Crop = ALIGNED
) -> torch.Tensor:
    """As `align`, computed on the device of the stack, where the result stays.

    Equal but for rounding: a colour may differ by 1 where its sum lies between two whole numbers.
    """
    found = places(landmarks, stack.shapes[which], crop)
    height, width = stack.pixels.shape[1:3]
    plain = bool((found.size == found.part[:, 2:] - found.part[:, :2]).all())
    if plain:  # nothing is shrunk: sample from the pictures themselves
        found.affine[:, :, 2] += found.part[:, :2]
        found.size = stack.shapes[which][:, ::-1].copy()
    size, part = stack.tensor(found.size), stack.tensor(found.part)
    affine, which = stack.tensor(found.affine).float(), stack.tensor(which)
    together = max(1, FLOATS // (3 * max(height * width, found.side**2)))
    aligned = [torch.empty(0, 4, crop.px, crop.px, dtype=torch.uint8, device=stack.device)]
    for start in range(0, len(which), together):
        rows = slice(start, start + together)
        images = stack.pixels[which[rows]].permute(0, 3, 1, 2).float()
        if not plain:
            images = stack.resized(images, part[rows], size[rows], found.side)
        aligned.append(_sampled(images, affine[rows], size[rows].float(), crop.px))
    return torch.cat(aligned)


def _sampled(
    images: torch.Tensor, affine: torch.Tensor, size: torch.Tensor, px: int
) -> torch.Tensor:
    """Crops (F, 4, px, px) uint8 RGBA of pictures (F, 3, H, W) float, by bicubic interpolation.

    affine: (F, 2, 3), see `Places`. size: (F, 2), width and height of the photograph in each.
    """
    column, row, constant = affine[:, None, None].unbind(-1)
    steps = torch.arange(px, dtype=torch.float32, device=images.device)
    where = column * steps[:, None] + row * steps[:, None, None] + constant  # (F, px, px, 2)
    inside = ((where >= -0.5) & (where <= size[:, None, None] - 0.5)).all(-1)[:, None]
    height, width = images.shape[2:]
    x, y = (2 * where + 1).unbind(-1)
    grid = torch.stack([x / width - 1, y / height - 1], dim=-1)
    rgb = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.cat([rgb.round().clamp(0, 255) * inside, inside * 255.0], dim=1).to(torch.uint8)
