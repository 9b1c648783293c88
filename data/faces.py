"""Faces cut out of pictures and aligned to the ArcFace template, with what is worth knowing about their quality.

One way of cutting serves datasets and single pictures: a detector or a margin that differs between training and use
costs more than most improvements gain. Coordinates are pixels of the source picture, a pixel's centre being a whole
number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from data.detection import FaceFinder
from data.quality import pose, sharpness

SIZE = 112  # px, the side of an aligned crop
# Where the viewer's left eye, right eye, the nose tip and the mouth corners lie in it (InsightFace's `arcface_dst`).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# A face this many times larger than its crop is still sampled straight from the photograph; larger ones are shrunk to
# that first. The result is about as sharp as one resize by Lanczos or antialiased bicubic filtering.
COARSEST = 1.5
MARGIN = 4  # px around the crop's surroundings, for the interpolation


@dataclass
class FaceCrops:
    """F faces of a batch of pictures, sorted by picture, then by number.

    aligned: (F, 4, 112, 112) uint8 RGBA on the device, alpha 0 (and black) outside the photograph.
    image: (F,) int, which picture of the batch. face: (F,) int, number within the picture, 0 the chosen one.
    box: (F, 4) float32 x0, y0, x1, y1. landmarks: (F, 5, 2) float32, in the template's order. score: (F,) float32, the
    detector's, 0..1. face_px: (F,) float32, the box's shorter side. sharpness: (F,) float32, see `sharpness`. yaw,
    pitch, roll: (F,) float32 degrees, see `pose`.
    """

    aligned: torch.Tensor
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

    def select(self, rows: np.ndarray) -> FaceCrops:
        """These faces only. rows: (K,) indices or (F,) bool."""
        rows = np.arange(len(self))[rows]
        aligned = self.aligned[torch.from_numpy(rows).to(self.aligned.device)]
        return FaceCrops(aligned, *(getattr(self, field.name)[rows] for field in fields(self)[1:]))


class FaceCutter:
    """Finds the faces of pictures and cuts them out.

    device: where the networks run and the crops end up. faces: `one`, the most central large face of each picture, or
    `all`. min_score: what the detector must be sure of, 0..1. On a CPU the same picture gives the same bytes whatever
    the batch.
    """

    def __init__(self, device: str | torch.device = "cpu", faces: str = "one", min_score: float = 0.9) -> None:
        if faces not in ("one", "all"):
            raise ValueError(f"faces is {faces!r}; give 'one' or 'all'")
        self.faces = faces
        self.find = FaceFinder(torch.device(device), min_score)

    def __call__(self, images: list[np.ndarray]) -> FaceCrops:
        """images: (H, W, 3) uint8 RGB each, of any sizes. A picture without a face has no rows in the answer."""
        found = [faces[: 1 if self.faces == "one" else None] for faces in self.find(images)]
        image = np.repeat(np.arange(len(images)), [len(faces) for faces in found])
        face = np.concatenate([np.arange(0), *(np.arange(len(faces)) for faces in found)])
        rows = np.concatenate([np.empty((0, 15)), *found])
        box, score, landmarks = rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2)
        aligned = align(images, image, landmarks, self.find.device)
        numbers = (box, landmarks, score, (box[:, 2:] - box[:, :2]).min(1), sharpness(aligned), *pose(landmarks))
        return FaceCrops(aligned, image, face, *(values.astype(np.float32) for values in numbers))


def similarity(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """From the aligned crop to the picture: z -> scale * z + shift in complex numbers x + iy, both (F,).

    The least-squares similarity from the landmarks to the template (Umeyama, PAMI 1991; in the plane a complex
    regression gives the same one), inverted. landmarks: (F, 5, 2). size: px, the side of the crop.

    Raises: ValueError where the landmarks are missing or all the same point.
    """
    source = np.asarray(landmarks, np.float64).reshape(-1, 5, 2) @ (1, 1j)
    target = ((TEMPLATE + 0.5) * (size / SIZE) - 0.5) @ (1, 1j)
    middle = source.mean(1, keepdims=True)
    spread = (np.abs(source - middle) ** 2).sum(1)
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise ValueError("these landmarks are no face: some are missing or all five are the same point")
    forward = ((source - middle).conj() * (target - target.mean())).sum(1) / spread
    return 1 / forward, middle[:, 0] - target.mean() / forward


def align(
    images: list[np.ndarray], which: np.ndarray, landmarks: np.ndarray, device: str | torch.device, size: int = SIZE
) -> torch.Tensor:
    """Faces turned, scaled and shifted so that their landmarks come as near the ArcFace template as they can.

    The surroundings of each face are cut out of its picture, shrunk with area averaging where the face is much larger
    than the crop, so that nothing aliases, and sent to the device, where all are turned at once with bicubic
    interpolation.

    images: (H, W, 3) uint8 RGB each. which: (F,) int, each face's picture. landmarks: (F, 5, 2).
    Returns: (F, 4, size, size) uint8 RGBA on the device; alpha 0, and black, outside the photograph.
    """
    scale, shift = similarity(landmarks, size)
    middle = scale * ((size - 1) / 2 * (1 + 1j)) + shift
    side = int(np.ceil(COARSEST * size * np.sqrt(2))) + 2 * MARGIN
    patches = np.empty((len(which), side, side, 3), np.uint8)
    placed = np.empty((len(which), 2, 4))  # x and y in the patch: factors of column, row, 1; the photograph's end
    for i, picture in enumerate(which):
        patches[i], corner, shrunk, placed[i, :, 3] = _surroundings(images[picture], middle[i], abs(scale[i]), side)
        to_picture = np.array([[scale[i].real, -scale[i].imag], [scale[i].imag, scale[i].real]])
        placed[i, :, :2] = to_picture * shrunk[:, None]
        placed[i, :, 2] = ((shift[i].real, shift[i].imag) - corner + 0.5) * shrunk - 0.5
    column, row, constant, reach = torch.from_numpy(placed).to(device, torch.float32)[:, None, None].unbind(-1)
    steps = torch.arange(size, device=device, dtype=torch.float32)
    where = column * steps[:, None] + row * steps[:, None, None] + constant  # (F, size, size, 2), x and y in the patch
    inside = ((where >= -0.5) & (where <= reach - 0.5)).all(-1)[:, None]
    patch = torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).float()
    grid = (2 * where + 1) / side - 1
    rgb = F.grid_sample(patch, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.cat([rgb.round().clamp(0, 255) * inside, inside * 255.0], dim=1).to(torch.uint8)


def _surroundings(
    image: np.ndarray, middle: complex, scale: float, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """What of a picture a crop can touch, however it is turned.

    middle: the crop's, in the picture. scale: pixels of the picture per pixel of the crop.
    Returns: the patch (side, side, 3), filled up at the right and the bottom; its upper left corner in the picture
    (2,); the factors (2,) by which it is shrunk; width and height of what is not filling.
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
