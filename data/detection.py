"""Face detection: MTCNN (Zhang et al., 2016) with the weights of facenet-pytorch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

from data.mtcnn import batched, search
from data.stack import Stack

# (search size in px, empty space on each side as a fraction of the picture). Each is for pictures
# in which those before found nothing: of 650 tight crops (DFDC) the first finds a face in 643, the
# second in 4 more. The third finds faces down to 1/20 of the longer side instead of 1/6.
TRIES = ((224, 0.0), (224, 0.1), (960, 0.1))
# Besides, where every face is wanted and the picture is longer than LONG px: down to 1/40 of it.
LARGEST, LONG = (1920, 0.1), 800
# px, the smallest face. MTCNN searches for sizes a factor of 1 / .709 apart, from this one up; the
# last should just fill the letterbox, as faces do in tight crops: 40 / .709 ** 5 = 223.
SMALLEST = 40
PIXELS = 40_000_000  # that a GPU searches at a time, in floats of 0.5 GB: 270 pictures of 384 px
SAME = 0.7  # of the smaller box covered by another: the same face, as in MTCNN itself

T = TypeVar("T")
R = TypeVar("R")


class FaceFinder:
    """Finds the faces of pictures, letterboxed to the same size.

    On a CPU each picture is searched by one thread: faster, and the same bytes whatever the batch.
    On a GPU a stack of pictures is searched together. Boxes and landmarks then differ by rounding;
    where a box ends between two pixels, another pixel may be taken, and a landmark moves by up to a
    few hundredths of the face's width.
    """

    def __init__(self, device: torch.device, min_score: float) -> None:
        self.device, self.min_score = torch.device(device), min_score
        self.threads = 0  # of the CPU; 0: as many as torch uses
        if self.device.type == "cuda":
            # For the whole process. On by default, and landmarks would move by hundredths of a pixel.
            torch.backends.cudnn.allow_tf32 = False
        mtcnn = MTCNN(min_face_size=SMALLEST, keep_all=True, device=self.device).eval()
        # A third faster on a CPU, with the same bits.
        self.mtcnn = mtcnn.to(memory_format=torch.channels_last)

    def __call__(
        self, images: list[np.ndarray], every_scale: bool = False, last: bool = True
    ) -> list[np.ndarray]:
        """The faces of each picture, the most central large one first. Computed on the CPU.

        every_scale: search at every scale, not only until one finds a face; last: also at the last
        one, which takes as long as those before it together, or longer.

        Returns:
            (n, 15) float64 each: box, score, and x, y of the viewer's left eye, right eye, the nose
            tip, left and right corner of the mouth.
        """
        find = partial(self._find, every_scale=every_scale, last=last)
        found = one_thread_each(find, images, self.threads)
        return [ranked(faces, *image.shape[:2]) for faces, image in zip(found, images, strict=True)]

    @torch.inference_mode()
    def of_stack(self, stack: Stack, every_scale: bool = False) -> list[np.ndarray]:
        """As a call, for pictures on the device. One transfer brings all faces back."""
        boxes, which, left = [], [], np.arange(len(stack))
        for size, padding in (*TRIES, LARGEST) if every_scale else TRIES:
            if (size, padding) == LARGEST:
                left = left[stack.shapes[left].max(1) > LONG]
            if not len(left):
                break
            some = stack if len(left) == len(stack) else stack.select(left)
            found, image = self._search_stack(some, size, padding)
            boxes.append(found)
            which.append(stack.tensor(left)[image])
            if not every_scale:
                left = left[torch.bincount(image, minlength=len(left)).cpu().numpy() == 0]
        attempt = np.repeat(np.arange(len(boxes)), [len(faces) for faces in boxes])
        boxes, which = torch.cat(boxes), torch.cat(which)
        box, landmarks = self._refine_stack(stack, which, boxes[:, :4])
        rows = [which[:, None].double(), box, boxes[:, 4:], landmarks.flatten(1)]
        rows = torch.cat(rows, dim=1).cpu().numpy()
        order = rows[:, 0].argsort(kind="stable")
        rows, attempt = rows[order], attempt[order]
        ends = np.searchsorted(rows[:, 0], np.arange(1, len(stack)))
        parts = zip(np.split(rows[:, 1:], ends), np.split(attempt, ends), strict=True)
        found = [new_faces(*part) for part in parts]
        return [ranked(faces, *shape) for faces, shape in zip(found, stack.shapes, strict=True)]

    def _search_stack(
        self, stack: Stack, size: int, padding: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes and scores (n, 5) float64, pictures (n,). size, padding: see `letterbox`."""
        height, width = stack.pixels.shape[1:3]
        places = np.array([placement(h, w, size, padding) for h, w in stack.shapes])
        shapes = stack.shapes[:, ::-1].copy()  # width, height
        part = np.concatenate([np.zeros_like(shapes), shapes], axis=1)
        part, places, shapes = map(stack.tensor, (part, places, shapes))
        together = max(1, PIXELS // max(size * size, height * width))
        found, image = [], []
        for start in range(0, len(stack), together):
            rows = slice(start, start + together)
            pixels = stack.pixels[rows].permute(0, 3, 1, 2).float()
            offset, inner = places[rows].split(2, dim=1)
            squares = stack.resized(pixels, part[rows], inner, size, offset)
            boxes, which = search(self.mtcnn, squares)
            kept = (boxes[:, 4] >= self.min_score).nonzero()[:, 0]
            found.append(boxes[kept].double())
            image.append(which[kept] + start)
        boxes, image = torch.cat(found), torch.cat(image)
        corner, inner, outer = (places[image, :2], places[image, 2:], shapes[image])
        corners = boxes[:, :4].view(-1, 2, 2) + 0.5 - corner[:, None]
        corners = corners * (outer.double() / inner)[:, None] - 0.5
        return torch.cat([corners.flatten(1), boxes[:, 4:]], dim=1), image

    def _refine_stack(
        self, stack: Stack, which: torch.Tensor, box: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_refine`. which: (F,), the picture of each box (F, 4) float64."""
        height, width = stack.pixels.shape[1:3]
        shapes = stack.tensor(stack.shapes[:, ::-1])[which]
        together = max(1, PIXELS // (height * width))
        for _ in range(2):
            size = (box[:, 2:] - box[:, :2]).amax(1, keepdim=True)
            corner = ((box[:, :2] + box[:, 2:] - size) / 2).floor()
            side = size.ceil().clamp_min(1)
            part = torch.cat([corner, corner + side], dim=1)
            views = [torch.empty(0, 3, 48, 48, device=stack.device)]
            for start in range(0, len(which), together):
                rows = slice(start, start + together)
                pixels = stack.pixels[which[rows]].permute(0, 3, 1, 2).float()
                zero, px = torch.zeros_like(corner[rows]), torch.full_like(corner[rows], 48)
                views.append(stack.resized(pixels, part[rows], px, 48, zero, shapes[rows]))
            moves, points, _ = batched(self.mtcnn.onet, (torch.cat(views) - 127.5) / 128)
            moves = moves.view(-1, 2, 2).double()  # in sides
            moves[:, 1] += 1
            box = (corner[:, None] + side[:, None] * moves).flatten(1)
            points = points.view(-1, 2, 5).transpose(1, 2).double()
            landmarks = corner[:, None] + side[:, None] * points
        return box, landmarks

    @torch.inference_mode()
    def _find(self, image: np.ndarray, every_scale: bool, last: bool) -> np.ndarray:
        """(n, 15), in no order."""
        long = every_scale and max(image.shape[:2]) > LONG
        tries = (*TRIES, LARGEST) if long else TRIES
        found = []
        for size, padding in tries if last else tries[:-1]:
            rows = self._search([image], size, padding)[0]
            # Each attempt by itself: its bits are the same whatever the others find.
            box, landmarks = self._refine([image], np.zeros(len(rows), int), rows[:, :4])
            found.append(np.column_stack([box, rows[:, 4], landmarks.reshape(-1, 10)]))
            if len(rows) and not every_scale:
                break
        attempt = np.repeat(np.arange(len(found)), [len(faces) for faces in found])
        return new_faces(np.concatenate(found), attempt)

    def _search(self, images: list[np.ndarray], size: int, padding: float) -> list[np.ndarray]:
        """MTCNN's boxes and scores for each picture, (n, 5). size, padding: see `letterbox`."""
        squares = np.stack([letterbox(image, size, padding) for image in images])
        boxes, scores, _ = self.mtcnn.detect(squares, landmarks=True)
        found = []
        for image, box, score in zip(images, boxes, scores, strict=True):
            rows = np.empty((0, 5))
            if box is not None:
                height, width = image.shape[:2]
                left, top, w, h = placement(height, width, size, padding)
                corners = box.reshape(-1, 2, 2).astype(np.float64)
                corners = (corners + 0.5 - (left, top)) * (width / w, height / h) - 0.5
                rows = np.column_stack([corners.reshape(-1, 4), score.astype(np.float64)])
            found.append(rows[rows[:, 4] >= self.min_score])
        return found

    def _refine(
        self, images: list[np.ndarray], which: np.ndarray, box: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (F, 4) and landmarks (F, 5, 2) by MTCNN's last network on the picture itself.

        `detect` misplaces the landmarks of tight crops: two ways of finding the same face differ by 9%
        of the distance between the eyes, after two refinements by 2.5%.
        """
        landmarks = np.empty((len(box), 5, 2))
        for _ in range(2 if len(box) else 0):
            size = (box[:, 2:] - box[:, :2]).max(1)
            corner = np.floor((box[:, :2] + box[:, 2:] - size[:, None]) / 2)
            side = np.ceil(size).clip(1)
            places = zip(which, corner.astype(int), side.astype(int), strict=True)
            views = [window(images[i], x, y, s) for i, (x, y), s in places]
            pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
            moves, points, _ = self.mtcnn.onet((pixels.float() - 127.5) / 128)  # in sides
            moves = moves.view(-1, 2, 2).double().numpy() + [[0, 0], [1, 1]]
            points = points.view(-1, 2, 5).transpose(1, 2).double().numpy()
            box = (corner[:, None] + side[:, None, None] * moves).reshape(-1, 4)
            landmarks = corner[:, None] + side[:, None, None] * points
        return box, landmarks


def placement(height: int, width: int, size: int, padding: float) -> tuple[int, int, int, int]:
    """Left, top, width, height in pixels of a picture of this size in its letterbox."""
    scale = size / (1 + 2 * padding) / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - w) // 2, (size - h) // 2, w, h


def letterbox(image: np.ndarray, size: int, padding: float) -> np.ndarray:
    """The picture in a black square, (size, size, 3); padding: of its longer side, each side."""
    left, top, w, h = placement(*image.shape[:2], size, padding)
    square = np.zeros((size, size, 3), np.uint8)
    method = cv2.INTER_AREA if h < image.shape[0] else cv2.INTER_LINEAR
    square[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=method)
    return square


def window(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """A square of the picture from (x, y), black outside it, scaled to (48, 48, 3) uint8 RGB."""
    height, width = image.shape[:2]
    ends = np.clip([x, y, x + side, y + side], 0, [width, height, width, height])
    left, top, right, bottom = ends
    square = np.zeros((side, side, 3), np.uint8)
    square[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    method = cv2.INTER_AREA if side > 48 else cv2.INTER_LINEAR
    return cv2.resize(square, (48, 48), interpolation=method)


def new_faces(faces: np.ndarray, attempt: np.ndarray) -> np.ndarray:
    """The faces (n, 15) that no earlier attempt found: face 0 is the same for `one` and `all`."""
    new = [
        all(overlap(face, other) <= SAME for other in faces[attempt < number])
        for face, number in zip(faces, attempt, strict=True)
    ]
    return faces[np.array(new, bool)]


def ranked(faces: np.ndarray, height: int, width: int) -> np.ndarray:
    """The faces (n, 15) of a picture, the most central large one first, without duplicates.

    The weight falls from the side of the box in the middle of the picture to 0 in its corners.
    """
    if len(faces) < 2:
        return faces
    low, high = faces[:, :2], faces[:, 2:4]
    away = np.linalg.norm(low + high + 1 - (width, height), axis=1) / np.hypot(width, height)
    weight = np.sqrt((high - low).clip(0).prod(1)) * (1 - away).clip(0)
    kept = []
    for row in np.argsort(-weight, kind="stable"):
        if all(overlap(faces[row], faces[other]) <= SAME for other in kept):
            kept.append(row)
    return faces[kept]


def turned_back(faces: np.ndarray, turns: int, height: int, width: int) -> np.ndarray:
    """Faces (n, 15) of `np.rot90(picture, turns)` in the picture itself, (height, width)."""
    xy = np.delete(faces, 4, axis=1).reshape(-1, 7, 2)
    x, y = xy[..., 0], xy[..., 1]
    places = [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)]
    xy = np.stack(places[turns], axis=-1)
    box = np.concatenate([xy[:, :2].min(1), xy[:, :2].max(1)], axis=1)
    return np.column_stack([box, faces[:, 4], xy[:, 2:].reshape(-1, 10)])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The shared area of two boxes (x0, y0, x1, y1, ...) over the area of the smaller one."""
    shared = (np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    return shared / max(min((box[2:4] - box[:2]).clip(0).prod() for box in (a, b)), 1e-9)


def one_thread_each(work: Callable[[T], R], items: list[T], count: int = 0) -> list[R]:
    """`[work(item) for item in items]` on `count` threads, else torch's number of them, one torch
    thread each.
    """
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # takes over torch's setting, which would undo the next line later
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(count or threads, initializer=alone) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # threads still to come start from the last setting
