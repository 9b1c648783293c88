"""Where the faces of a picture are: MTCNN (Zhang et al., 2016) with the weights of facenet-pytorch.

Coordinates are pixels of the picture, a pixel's centre being a whole number.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

# The search: side of the square canvas in pixels, and empty space on each side as a fraction of the picture's. Each try
# is for the pictures in which those before found nothing: of 650 tight crops (DFDC) the first finds a face in 643, the
# second in 4 more. The third is for photographs with small faces, down to a twentieth of the longer side instead of a
# sixth.
TRIES = ((224, 0.0), (224, 0.1), (960, 0.1))
# px of the canvas, the smallest face. MTCNN searches for sizes a factor of 1 / .709 apart, from this one up, and the
# last should just fill the canvas, as faces do in tight crops: 40 / .709 ** 5 = 223.
SMALLEST = 40
TOGETHER = 64  # pictures that a GPU searches at a time
SAME = 0.7  # of the smaller box covered by another: the same face, as in MTCNN's own last selection

T = TypeVar("T")
R = TypeVar("R")


class FaceFinder:
    """Finds the faces of pictures.

    device: where the networks run. min_score: what they must be sure of, 0..1.

    Every picture is scaled to fit the same canvas, so what is found in it does not depend on its neighbours in the
    batch. On a CPU each is searched by one thread alone, as many at a time as torch has threads: that is faster than
    all threads sharing the small sums of one batch, and gives the same bytes whatever the batch and the number of
    threads. On a GPU the batch is searched together, where sums in another order may move a landmark by a thousandth of
    a pixel.
    """

    def __init__(self, device: torch.device, min_score: float) -> None:
        self.device = device
        self.min_score = min_score
        mtcnn = MTCNN(min_face_size=SMALLEST, keep_all=True, device=device).eval()
        self.mtcnn = mtcnn.to(
            memory_format=torch.channels_last
        )  # a third faster on a CPU, with the same bits

    def __call__(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """images: (H, W, 3) uint8 RGB each, of any sizes.

        Returns: for each its faces, the most central large one first, (n, 15) float64: box x0, y0, x1, y1, score, and
        x, y of the viewer's left eye, right eye, the nose tip, left and right corner of the mouth.
        """
        if self.device.type == "cpu":
            found = one_thread_each(lambda image: self._find([image])[0], images)
        else:
            found = [
                faces
                for i in range(0, len(images), TOGETHER)
                for faces in self._find(images[i : i + TOGETHER])
            ]
        return [ranked(faces, *image.shape[:2]) for faces, image in zip(found, images, strict=True)]

    @torch.inference_mode()
    def _find(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """For each picture its faces: (n, 15) float64 of box, score and landmarks."""
        found = [np.empty((0, 5))] * len(images)
        for canvas, padding in TRIES:
            faceless = [i for i, faces in enumerate(found) if not len(faces)]
            again = self._search([images[i] for i in faceless], canvas, padding) if faceless else []
            for i, faces in zip(faceless, again, strict=True):
                found[i] = faces
        counts = [len(faces) for faces in found]
        rows = np.concatenate(found)
        box, landmarks = self._settle(
            images, np.repeat(np.arange(len(images)), counts), rows[:, :4]
        )
        rows = np.column_stack([box, rows[:, 4], landmarks.reshape(-1, 10)])
        return np.split(rows, np.cumsum(counts)[:-1])

    def _search(self, images: list[np.ndarray], canvas: int, padding: float) -> list[np.ndarray]:
        """For each picture what MTCNN finds in it: (n, 5) float64 box and score. canvas, padding: see `letterbox`."""
        squares = np.stack([letterbox(image, canvas, padding) for image in images])
        boxes, scores, _ = self.mtcnn.detect(squares, landmarks=True)
        found = []
        for image, box, score in zip(images, boxes, scores, strict=True):
            if box is None:
                found.append(np.empty((0, 5)))
                continue
            height, width = image.shape[:2]
            left, top, w, h = placement(height, width, canvas, padding)
            corners = box.reshape(-1, 2, 2).astype(np.float64)
            corners = (corners + 0.5 - (left, top)) * (width / w, height / h) - 0.5
            rows = np.column_stack([corners.reshape(-1, 4), score.astype(np.float64)])
            found.append(rows[rows[:, 4] >= self.min_score])
        return found

    def _settle(
        self, images: list[np.ndarray], which: np.ndarray, box: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (F, 4) and landmarks (F, 5, 2), float64, as MTCNN's last network sees them in the picture itself.

        `detect` squeezes faces that reach over the border of its canvas and so misplaces the landmarks of tight crops:
        two ways of finding the same face differ by 9% of the distance between the eyes, after two such looks by 2.5%.
        """
        landmarks = np.empty((len(box), 5, 2))
        for _ in range(2 if len(box) else 0):
            size = (box[:, 2:] - box[:, :2]).max(1)
            corner = np.floor((box[:, :2] + box[:, 2:] - size[:, None]) / 2)
            side = np.ceil(size).clip(1)
            views = [
                window(images[i], int(x), int(y), int(s))
                for i, (x, y), s in zip(which, corner, side, strict=True)
            ]
            pixels = torch.from_numpy(np.stack(views)).to(self.device).permute(0, 3, 1, 2)
            moves, points, _ = self.mtcnn.onet(
                (pixels.float() - 127.5) / 128
            )  # in sides of the view
            moves = moves.view(-1, 2, 2).double().cpu().numpy() + [[0, 0], [1, 1]]
            points = points.view(-1, 2, 5).transpose(1, 2).double().cpu().numpy()
            box = (corner[:, None] + side[:, None, None] * moves).reshape(-1, 4)
            landmarks = corner[:, None] + side[:, None, None] * points
        return box, landmarks


def placement(height: int, width: int, canvas: int, padding: float) -> tuple[int, int, int, int]:
    """Where a picture of this size lies on the canvas: left, top, width, height in its pixels."""
    scale = canvas / (1 + 2 * padding) / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    return (canvas - w) // 2, (canvas - h) // 2, w, h


def letterbox(image: np.ndarray, canvas: int, padding: float) -> np.ndarray:
    """The picture in the middle of a black square, (canvas, canvas, 3) uint8 RGB.

    canvas: px. padding: empty space on each side, as a fraction of the picture's longer side.
    """
    left, top, w, h = placement(*image.shape[:2], canvas, padding)
    square = np.zeros((canvas, canvas, 3), np.uint8)
    method = cv2.INTER_AREA if h < image.shape[0] else cv2.INTER_LINEAR
    square[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=method)
    return square


def window(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """A square of the picture, black where it reaches over the border, scaled to (48, 48, 3) uint8 RGB.

    x, y: px, the upper left corner. side: px.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = np.clip(
        [x, y, x + side, y + side], 0, [width, height, width, height]
    )
    square = np.zeros((side, side, 3), np.uint8)
    square[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return cv2.resize(
        square, (48, 48), interpolation=cv2.INTER_AREA if side > 48 else cv2.INTER_LINEAR
    )


def ranked(faces: np.ndarray, height: int, width: int) -> np.ndarray:
    """The faces of one picture, (n, 15), the most central large one first, without those that are another one again.

    A face counts by the side of its box, in full in the middle of the picture and not at all in its corners.
    """
    low, high = faces[:, :2], faces[:, 2:4]
    away = np.linalg.norm(low + high + 1 - (width, height), axis=1) / np.hypot(width, height)
    weight = np.sqrt((high - low).clip(0).prod(1)) * (1 - away).clip(0)
    kept: list[int] = []
    for row in np.argsort(-weight, kind="stable"):
        if all(_overlap(faces[row], faces[other]) <= SAME for other in kept):
            kept.append(row)
    return faces[kept]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Shared area of two boxes, the first four numbers of each, over the area of the smaller one."""
    shared = (np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    return shared / max(min((box[2:4] - box[:2]).clip(0).prod() for box in (a, b)), 1e-9)


def one_thread_each(work: Callable[[T], R], items: list[T]) -> list[R]:
    """`[work(item) for item in items]`, as many at a time as torch may use threads, and each with one thread."""
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # takes over torch's setting, which would undo the next line if it came later
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(threads, initializer=alone) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # threads still to come start from the last setting
