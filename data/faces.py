"""Faces cut out of pictures and aligned to the ArcFace template, with measures of their quality.

Training and prediction cut by the same code: another detector or margin costs 5 to 10 points of
AUC. Coordinates are pixels of the picture; the centre of a pixel is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from data.detection import FaceFinder
from data.quality import pose, sharpness
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
TOGETHER = 16  # faces warped at once: each needs some megabytes
MARGIN = 4  # px around the crop's surroundings, for the interpolation


@dataclass
class FaceCrops:
    """F faces of a batch of pictures, sorted by picture, then by number.

    Attributes:
        views: crop -> (F, 4, px, px) uint8 RGBA; alpha 0, and black, outside the photograph.
        image, face: (F,) int, index of the picture; 0 for its most central large face.
        box: (F, 4) float32 x0, y0, x1, y1; face_px is its shorter side.
        landmarks: (F, 5, 2) float64, in the order of `TEMPLATE`.
    """

    views: dict[Crop, torch.Tensor]
    image: np.ndarray
    face: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    score: np.ndarray
    face_px: np.ndarray
    sharpness: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @property
    def aligned(self) -> torch.Tensor:
        """(F, 4, 112, 112) uint8 RGBA: the faces on the template."""
        return self.views[ALIGNED]

    def select(self, rows: np.ndarray) -> FaceCrops:
        """Some of the faces. rows: (K,) indices or (F,) bool."""
        rows = np.arange(len(self))[rows]
        views = {crop: view[torch.from_numpy(rows)] for crop, view in self.views.items()}
        return FaceCrops(views, *(getattr(self, field.name)[rows] for field in fields(self)[1:]))


class FaceCutter:
    """Finds the faces of pictures and cuts them out, on the CPU.

    Args:
        faces: `one`, the most central large face of each picture, or `all`.
        min_score: of the detector, 0..1.
        crops: besides `ALIGNED`.
    """

    def __init__(
        self,
        faces: str = "one",
        min_score: float = 0.9,
        crops: Iterable[Crop] = (),
        detect_on: str | torch.device = "cpu",
    ) -> None:
        if faces not in ("one", "all"):
            raise ValueError(f"faces is {faces!r}; give 'one' or 'all'")
        self.faces = faces
        self.crops = tuple(dict.fromkeys((ALIGNED, *crops)))
        self.find = FaceFinder(torch.device(detect_on), min_score)

    def __call__(self, images: list[np.ndarray]) -> FaceCrops:
        """images: (H, W, 3) uint8 RGB each, of any sizes. Pictures without a face have no rows."""
        found = [faces[: 1 if self.faces == "one" else None] for faces in self.find(images)]
        image = np.repeat(np.arange(len(images)), [len(faces) for faces in found])
        face = np.concatenate([np.arange(0), *(np.arange(len(faces)) for faces in found)])
        rows = np.concatenate([np.empty((0, 15)), *found])
        box, score, landmarks = rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2)
        views = {crop: align(images, image, landmarks, crop) for crop in self.crops}
        px = (box[:, 2:] - box[:, :2]).min(1)
        numbers = (score, px, sharpness(views[ALIGNED]), *pose(landmarks))
        numbers = (values.astype(np.float32) for values in numbers)
        return FaceCrops(views, image, face, box.astype(np.float32), landmarks, *numbers)


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


def align(
    images: list[np.ndarray], which: np.ndarray, landmarks: np.ndarray, crop: Crop = ALIGNED
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
    parts = [slice(start, start + TOGETHER) for start in range(0, len(which), TOGETHER)]
    aligned = [_align(images, which[part], landmarks[part], crop) for part in parts]
    return torch.cat([torch.empty(0, 4, crop.px, crop.px, dtype=torch.uint8), *aligned])


def _align(
    images: list[np.ndarray], which: np.ndarray, landmarks: np.ndarray, crop: Crop
) -> torch.Tensor:
    scale, shift = similarity(landmarks)
    px = crop.px
    # Pixels of the template per pixel of the crop.
    step = np.array([crop.width, crop.height]) * (SIZE / px)
    first = complex(crop.x0 * SIZE - 0.5 + step[0] / 2, crop.y0 * SIZE - 0.5 + step[1] / 2)
    middle = scale * (first + complex(*step) * (px - 1) / 2) + shift
    side = int(np.ceil(COARSEST * px * np.sqrt(2))) + 2 * MARGIN
    patches = np.empty((len(which), side, side, 3), np.uint8)
    # x and y in the patch: factors of column, row and 1; and the end of the photograph.
    placed = np.empty((len(which), 2, 4))
    for i, picture in enumerate(which):
        surroundings = _surroundings(images[picture], middle[i], abs(scale[i]) * step.max(), side)
        patches[i], corner, shrunk, placed[i, :, 3] = surroundings
        turn = np.array([[scale[i].real, -scale[i].imag], [scale[i].imag, scale[i].real]]) * step
        placed[i, :, :2] = turn * shrunk[:, None]
        origin = scale[i] * first + shift[i]
        placed[i, :, 2] = ((origin.real, origin.imag) - corner + 0.5) * shrunk - 0.5
    column, row, constant, reach = torch.from_numpy(placed).float()[:, None, None].unbind(-1)
    steps = torch.arange(px, dtype=torch.float32)
    where = column * steps[:, None] + row * steps[:, None, None] + constant  # (F, px, px, 2)
    inside = ((where >= -0.5) & (where <= reach - 0.5)).all(-1)[:, None]
    patch = torch.from_numpy(patches).permute(0, 3, 1, 2).float()
    grid = (2 * where + 1) / side - 1
    rgb = F.grid_sample(patch, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.cat([rgb.round().clamp(0, 255) * inside, inside * 255.0], dim=1).to(torch.uint8)


def _surroundings(
    image: np.ndarray, middle: complex, scale: float, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """The part of a picture that a crop can touch: at `scale` pixels of the picture per pixel.

    Returns:
        The patch (side, side, 3), padded at the right and the bottom; its upper left corner in the
        picture; the factors (2,) by which it is shrunk; width and height without padding.
    """
    shrink = max(1.0, scale / COARSEST)
    half = (side - MARGIN) / 2 * shrink
    spans = []
    for centre, length in ((middle.real, image.shape[1]), (middle.imag, image.shape[0])):
        first = int(np.clip(np.floor(centre - half), 0, length - 1))
        spans.append((first, int(np.clip(np.ceil(centre + half) + 1, first + 1, length))))
    (x0, x1), (y0, y1) = spans
    part = image[y0:y1, x0:x1]
    w, h = max(1, round((x1 - x0) / shrink)), max(1, round((y1 - y0) / shrink))
    if (h, w) != part.shape[:2]:
        part = cv2.resize(part, (w, h), interpolation=cv2.INTER_AREA)
    patch = cv2.copyMakeBorder(part, 0, side - h, 0, side - w, cv2.BORDER_REPLICATE)
    return patch, np.array([x0, y0]), np.array([w / (x1 - x0), h / (y1 - y0)]), (w, h)
