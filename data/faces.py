"""Faces cut out of pictures and aligned to the ArcFace template, with measures of their quality.

Training and prediction cut by the same code: another detector or margin costs 5 to 10 points of
AUC. Coordinates are pixels of the picture; the centre of a pixel is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch

from data.alignment import align, align_stack
from data.detection import SAME, FaceFinder, overlap, turned_back
from data.quality import pose, sharpness
from data.stack import Stack
from features.regions import ALIGNED, Crop

# A score of the detector. Of 17 pictures turned, the right turn had .998 and more, others .987 at most.
SURE = 0.99


@dataclass
class FaceCrops:
    """F faces of a batch of pictures, sorted by picture, then by number.

    Attributes:
        views: crop -> (F, 4, px, px) uint8 RGBA; alpha 0, and black, outside the photograph.
        image, face: (F,) int, index of the picture; 0 for its most central large face.
        box: (F, 4) float32 x0, y0, x1, y1; face_px is its shorter side.
        turn: (F,) int, degrees clockwise by which the face stands turned: 0, 90, 180 or 270.
        left_out: (F,) int, further faces of its picture, beyond `max_faces`.
        landmarks: (F, 5, 2) float64, in the order of `data.alignment.TEMPLATE`.
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
    turn: np.ndarray
    left_out: np.ndarray

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
    """Finds the faces of pictures and cuts them out.

    Args:
        faces: `one`, the most central large face of each picture, or `all`.
        min_score: of the detector, 0..1.
        crops: besides `ALIGNED`.
        max_faces: of a picture, the most central large ones; None: no limit.
        turned: where no face of a picture is sure, search it turned by quarters. Not in stacks.
        beside: search for turned faces beside upright ones, too. Not in stacks.
        device: works on stacks of pictures; lists of pictures are worked on by the CPU.
    """

    def __init__(
        self,
        faces: str = "one",
        min_score: float = 0.9,
        crops: Iterable[Crop] = (),
        device: str | torch.device = "cpu",
        max_faces: int | None = None,
        turned: bool = False,
        beside: bool = False,
    ) -> None:
        if faces not in ("one", "all"):
            raise ValueError(f"faces is {faces!r}; give 'one' or 'all'")
        self.faces, self.max_faces = faces, max_faces
        self.turned, self.beside = turned, beside
        self.crops = tuple(dict.fromkeys((ALIGNED, *crops)))
        self.device = torch.device(device)
        self.find = FaceFinder(torch.device("cpu"), min_score)
        on_cpu = self.device.type == "cpu"
        finder = self.find if on_cpu else FaceFinder(self.device, min_score)
        self.find_in_stack = finder.of_stack

    def __call__(self, images: list[np.ndarray] | Stack) -> FaceCrops:
        """Pictures without a face have no rows. images: (H, W, 3) uint8 RGB each, of any sizes; or
        a stack, whose crops stay on the device."""
        every = self.faces == "all"
        if isinstance(images, Stack):
            images = images.to(self.device)
            found, cut = self.find_in_stack(images, every), align_stack
            turns = [np.zeros(len(faces), int) for faces in found]
        else:
            found, cut = self.find(images, every), align
            upright = list(found)
            degrees = [self._turn(images, found, i) for i in range(len(found))]
            turns = [np.full(len(f), d) for f, d in zip(found, degrees, strict=True)]
            if self.beside:
                self._add_turned(images, upright, found, turns)
        most = self.max_faces if every else 1
        beyond = [len(faces) - len(faces[:most]) if every else 0 for faces in found]
        found = [faces[:most] for faces in found]
        turn = np.concatenate([np.arange(0), *(each[:most] for each in turns)])
        image = np.repeat(np.arange(len(images)), [len(faces) for faces in found])
        face = np.concatenate([np.arange(0), *(np.arange(len(faces)) for faces in found)])
        rows = np.concatenate([np.empty((0, 15)), *found])
        box, score, landmarks = rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2)
        views = {crop: cut(images, image, landmarks, crop) for crop in self.crops}
        px = (box[:, 2:] - box[:, :2]).min(1)
        left_out = np.array(beyond, int)[image]
        numbers = (score, px, sharpness(views[ALIGNED]), *_pose(landmarks, turn))
        numbers = (values.astype(np.float32) for values in numbers)
        box = box.astype(np.float32)
        return FaceCrops(views, image, face, box, landmarks, *numbers, turn, left_out)

    def _turn(self, images: list[np.ndarray], found: list[np.ndarray], i: int) -> int:
        """Searches picture i turned where no face is sure, and keeps what is surest, in `found`.

        Returns the degrees. In a face that lies, an upright one is found at times; its score is lower.
        """
        degrees, best = 0, found[i][0, 4] if len(found[i]) else 0.0
        for turns in (1, 2, 3) if self.turned and best < SURE else ():
            turned = np.ascontiguousarray(np.rot90(images[i], turns))
            faces = self.find([turned], self.faces == "all")[0]
            if len(faces) and faces[0, 4] > best:
                best, degrees = faces[0, 4], 90 * turns
                found[i] = turned_back(faces, turns, *images[i].shape[:2])
        return degrees

    def _add_turned(
        self,
        images: list[np.ndarray],
        upright: list[np.ndarray],
        found: list[np.ndarray],
        turns: list[np.ndarray],
    ) -> None:
        """Adds the sure faces that stand in other ways to those of `found`, and their `turns`.

        Where one is found in several ways, a sure one stays, else the surest is taken.
        """
        more = [[(face, 0) for face in faces if face[4] >= SURE] for faces in upright]
        for quarters in (1, 2, 3):
            turned = [np.ascontiguousarray(np.rot90(image, quarters)) for image in images]
            for i, faces in enumerate(self.find(turned, True, last=False)):
                faces = turned_back(faces[faces[:, 4] >= SURE], quarters, *images[i].shape[:2])
                more[i] += [(face, 90 * quarters) for face in faces]
        for i, others in enumerate(more):
            faces, degrees = list(found[i]), list(turns[i])
            for face, turn in sorted(others, key=lambda other: -other[0][4]):
                same = [k for k, other in enumerate(faces) if overlap(face, other) > SAME]
                if not same:
                    faces.append(face)
                    degrees.append(turn)
                elif len(same) == 1 and faces[same[0]][4] < SURE:
                    faces[same[0]], degrees[same[0]] = face, turn
            found[i] = np.array(faces).reshape(-1, 15)
            turns[i] = np.array(degrees, int)


def _pose(landmarks: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`pose` of faces (F, 5, 2) that stand turned (F,) by 0, 90, 180 or 270 degrees clockwise."""
    cos, sin = np.array([[1, 0, -1, 0], [0, 1, 0, -1]])[:, turn // 90, None]
    x, y = landmarks[..., 0], landmarks[..., 1]
    yaw, pitch, roll = pose(np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1))
    return yaw, pitch, roll + np.where(turn > 180, turn - 360, turn)
