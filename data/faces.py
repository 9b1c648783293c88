"""Faces in pictures: found by MTCNN, aligned to the ArcFace template, with what is worth knowing about their quality.

One way of cutting serves datasets and single pictures: a detector or a margin that differs between training and use costs
more than most improvements gain. Coordinates are pixels of the source picture, a pixel's centre being a whole number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from torch.nn import functional as F

SIZE = 112  # px, the side of an aligned crop
# Where the viewer's left eye, right eye, the nose tip and the mouth corners lie in it (InsightFace's `arcface_dst`).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# The same points on a head in three dimensions, in the template's pixels, z towards the viewer. x and y are the template's
# mean with its mirror image, the depths those of a typical skull: this face seen from the front is 'straight'.
HEAD = np.array([[-17.6, -20.1, 0.0], [17.6, -20.1, 0.0], [0.0, 0.0, 14.0], [-14.6, 20.5, 2.0], [14.6, 20.5, 2.0]])

CANVAS = 320  # px; every picture is scaled to fit this square before the search
FINE_CANVAS = 960  # the second try for larger pictures: small faces
PADDING = 0.4  # the last try: empty space on each side, as a fraction of the picture's sides, for tight crops
# px of the canvas: the smallest face that is searched for. Just under CANVAS * .709 ** 6: MTCNN searches for sizes a factor
# of .709 apart from this one up, and the largest should fill the canvas.
SMALLEST = 40
MARGIN = 4  # px around the crop's surroundings, for the interpolation


@dataclass
class FaceCrops:
    """F faces of a batch of pictures, sorted by picture, then by number.

    aligned: (F, 4, 112, 112) uint8 RGBA on the device, alpha 0 (and black) outside the photograph.
    image: (F,) int, which picture of the batch. face: (F,) int, number within the picture, 0 the chosen one.
    box: (F, 4) float32 x0, y0, x1, y1. landmarks: (F, 5, 2) float32, in the template's order. score: (F,) float32, the
    detector's, 0..1. face_px: (F,) float32, the box's shorter side. sharpness: (F,) float32, see `sharpness`. yaw, pitch,
    roll: (F,) float32 degrees, see `pose`.
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

    device: where the networks run and the crops end up. faces: `one`, the most central large face of each picture, or `all`.
    min_score: what the detector must be sure of, 0..1.

    Every picture is scaled to fit the same canvas, so what is found in it does not depend on its neighbours in the batch. On
    a CPU they are searched one at a time, which is as fast and gives the same bytes whatever the batch; on a GPU together,
    where sums of another order may move a landmark by a thousandth of a pixel.
    """

    def __init__(self, device: str | torch.device = "cpu", faces: str = "one", min_score: float = 0.9) -> None:
        if faces not in ("one", "all"):
            raise ValueError(f"faces is {faces!r}; give 'one' or 'all'")
        self.device = torch.device(device)
        self.faces = faces
        self.min_score = min_score
        self.mtcnn = MTCNN(min_face_size=SMALLEST, keep_all=True, device=self.device).eval()

    def __call__(self, images: list[np.ndarray]) -> FaceCrops:
        """images: (H, W, 3) uint8 RGB each, of any sizes. A picture without a face has no rows in the answer."""
        found = self._search(images, CANVAS, 0.0)
        for canvas, padding in ((FINE_CANVAS, 0.0), (CANVAS, PADDING)):
            again = [
                i for i, faces in enumerate(found) if not len(faces) and (padding or max(images[i].shape) > CANVAS)
            ]
            for i, faces in zip(again, self._search([images[i] for i in again], canvas, padding), strict=True):
                found[i] = faces
        if self.faces == "one":
            found = [faces[:1] for faces in found]
        counts = [len(faces) for faces in found]
        rows = np.concatenate([np.empty((0, 15), np.float32), *found])
        image = np.repeat(np.arange(len(images)), counts)
        face = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)])
        box, score, landmarks = rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2)
        aligned = align(images, image, landmarks, self.device)
        face_px = (box[:, 2:] - box[:, :2]).min(1)
        return FaceCrops(aligned, image, face, box, landmarks, score, face_px, sharpness(aligned), *pose(landmarks))

    def _search(self, images: list[np.ndarray], canvas: int, padding: float) -> list[np.ndarray]:
        """For each picture its faces, the chosen one first: (n, 15) float32 of box, score and landmarks.

        canvas, padding: as for `letterbox`.
        """
        found = []
        together = 1 if self.device.type == "cpu" else 64
        for start in range(0, len(images), together):
            chunk = images[start : start + together]
            boxes, scores, landmarks = self.mtcnn.detect(
                np.stack([letterbox(image, canvas, padding) for image in chunk]), landmarks=True
            )
            for image, *seen in zip(chunk, boxes, scores, landmarks, strict=True):
                found.append(self._ranked(image, canvas, padding, *seen))
        return found

    def _ranked(
        self,
        image: np.ndarray,
        canvas: int,
        padding: float,
        boxes: np.ndarray | None,
        scores: np.ndarray,
        landmarks: np.ndarray | None,
    ) -> np.ndarray:
        """What MTCNN found on the canvas (None: nothing) as rows of `_search`."""
        if boxes is None:
            return np.empty((0, 15), np.float32)
        height, width = image.shape[:2]
        left, top, w, h = placement(height, width, canvas, padding)
        # (n, 7, 2): two corners and five landmarks, from the canvas to the picture.
        points = np.concatenate([boxes.reshape(-1, 2, 2), landmarks], axis=1).astype(np.float64)
        points = (points + 0.5 - (left, top)) * (width / w, height / h) - 0.5
        sides = points[:, 1] - points[:, 0]
        away = np.linalg.norm(points[:, :2].mean(1) - ((width - 1) / 2, (height - 1) / 2), axis=1)
        # Large and central: the box's size counts in full in the middle of the picture and not at all in a corner.
        rank = np.sqrt(sides.prod(1).clip(0)) * (1 - away / np.hypot(width, height) * 2).clip(0)
        flat = points.reshape(-1, 14)
        rows = np.concatenate([flat[:, :4], scores.astype(np.float64)[:, None], flat[:, 4:]], axis=1).astype(np.float32)
        order = np.argsort(-rank, kind="stable")
        return rows[order][rows[order, 4] >= self.min_score]


def placement(height: int, width: int, canvas: int, padding: float) -> tuple[int, int, int, int]:
    """Where a picture of this size lies on the canvas: left, top, width, height in its pixels."""
    scale = canvas / (1 + 2 * padding) / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    return (canvas - w) // 2, (canvas - h) // 2, w, h


def letterbox(image: np.ndarray, canvas: int, padding: float) -> np.ndarray:
    """The picture in the middle of a black square, (canvas, canvas, 3) uint8 RGB.

    canvas: px. padding: empty space on each side, as a fraction of the picture's sides.
    """
    left, top, w, h = placement(*image.shape[:2], canvas, padding)
    square = np.zeros((canvas, canvas, 3), np.uint8)
    method = cv2.INTER_AREA if h < image.shape[0] else cv2.INTER_LINEAR
    square[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=method)
    return square


def similarity(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """From the aligned crop to the picture: z -> scale * z + shift in complex numbers x + iy, both (F,).

    The least-squares similarity from the landmarks to the template (Umeyama, PAMI 1991; in the plane a complex regression
    gives the same one), inverted. landmarks: (F, 5, 2). size: px, the side of the crop.

    Raises: ValueError where the landmarks are missing or all the same point.
    """
    source = np.asarray(landmarks, np.float64).reshape(-1, 5, 2) @ (1, 1j)
    target = TEMPLATE @ (1, 1j) * (size / SIZE)
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

    The surroundings of each face are cut out of its picture, shrunk with area averaging where the face is larger than the
    crop, so that nothing aliases, and sent to the device, where all are turned at once with bicubic interpolation.

    images: (H, W, 3) uint8 RGB each. which: (F,) int, each face's picture. landmarks: (F, 5, 2).
    Returns: (F, 4, size, size) uint8 RGBA on the device; alpha 0, and black, outside the photograph.
    """
    scale, shift = similarity(landmarks, size)
    middle = scale * ((size - 1) / 2 * (1 + 1j)) + shift
    side = int(np.ceil(size * np.sqrt(2))) + 2 * MARGIN
    patches = np.empty((len(which), side, side, 3), np.uint8)
    placed = np.empty(
        (len(which), 2, 4)
    )  # of x and y: coefficients of column, row and 1; how far the photograph reaches
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
    Returns: the patch (side, side, 3), filled up at the right and the bottom; its upper left corner in the picture (2,); the
    factors (2,) by which it is shrunk; width and height of what is not filling.
    """
    shrink = max(1.0, scale)
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


def sharpness(aligned: torch.Tensor) -> np.ndarray:
    """Variance of the Laplacian of the grey crop where it and its four neighbours lie inside the photograph.

    Small for blurred, but also for small faces: they were enlarged. Whole-number sums: the same on every device.
    aligned: (F, 4, S, S) uint8 RGBA. Returns: (F,) float32, grey levels squared; NaN where nothing is inside.
    """
    red, green, blue, alpha = aligned.long().unbind(1)
    grey = 299 * red + 587 * green + 114 * blue  # thousandths
    inner = (slice(None), slice(1, -1), slice(1, -1))
    around = [(slice(None), rows, columns) for rows, columns in ((slice(0, -2), inner[2]), (slice(2, None), inner[2]))]
    around += [(slice(None), rows, columns) for rows, columns in ((inner[1], slice(0, -2)), (inner[1], slice(2, None)))]
    inside = alpha[inner] > 0
    for place in around:
        inside = inside & (alpha[place] > 0)
    laplacian = (sum(grey[place] for place in around) - 4 * grey[inner]) * inside
    count, total, squares = (x.sum((1, 2)).double() for x in (inside, laplacian, laplacian**2))
    return ((squares / count - (total / count) ** 2) / 1e6).float().cpu().numpy()


def pose(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where faces look, from five points alone: good to some ten degrees, enough to tell a profile from a portrait.

    A head of average proportions is laid under the landmarks (scaled orthography: DeMenthon & Davis, IJCV 1995).
    landmarks: (F, 5, 2).
    Returns: yaw (to the viewer's right is positive), pitch (upwards) and roll (clockwise), each (F,) float32 degrees.
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    axes = np.linalg.pinv(HEAD - HEAD.mean(0)) @ (points - points.mean(1, keepdims=True))  # (F, 3, 2)
    right, down = np.moveaxis(axes / np.linalg.norm(axes, axis=1, keepdims=True), -1, 0)
    ahead = np.cross(right, down)[:, 2]
    yaw = np.arctan2(right[:, 2], ahead)
    pitch = np.arctan2(-down[:, 2], np.hypot(right[:, 2], ahead))
    roll = np.arctan2(down[:, 0], right[:, 0])
    return tuple(np.degrees(angle).astype(np.float32) for angle in (yaw, pitch, roll))
