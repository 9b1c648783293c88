"""The crops of the published experts are those of their libraries."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import extract_face
from PIL import Image

from data.alignment import TEMPLATE, align
from data.faces import FaceCutter
from features.regions import ALIGNED
from models.fairface import FairFace
from models.pyfeat import import_feat
from tests.test_experts import FULL


def test_fairface_sees_dlibs_face_chip():
    landmarks, px = 5 * TEMPLATE + 160, FairFace.crop.px
    rows, columns = np.mgrid[:900, :900]
    found = []
    for x, y in landmarks:
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / 12**2)
        picture = np.repeat(spot.round().astype(np.uint8)[..., None], 3, axis=2)
        light = align([picture], np.array([0]), landmarks[None], FairFace.crop)[0, 0].double()
        middles = (torch.arange(px).double() + 0.5) / px
        found.append([(light.sum(axis) @ middles / light.sum()).item() for axis in (0, 1)])
    left, right, nose, *mouth = np.array(found)
    # dlib's mean face: outer and inner corner of the left and of the right eye, base of the nose; padding .25.
    dlib = [
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.8595674595992, 0.2134981538014],
    ]
    dlib += [[0.6460604764104, 0.2289674387677], [0.4901123135679, 0.6277975316475]]
    chip = (np.array(dlib) + 0.25) / 1.5
    eyes = chip[:2].mean(0), chip[2:4].mean(0)
    assert np.allclose([left, right], eyes, atol=0.003)
    assert (
        np.allclose((left + right) / 2, (0.493, 0.314), atol=0.002)
        and abs(right[0] - left[0] - 0.350) < 0.002
    )
    assert nose[1] < chip[4, 1] < min(y for _, y in mouth), (
        "the base of the nose is below its tip and above the mouth"
    )


def test_arcface_sees_the_template(ensembles, views):
    expert, image = (
        ensembles["arcface"].experts[0],
        views["arcface"][0, :3].permute(1, 2, 0).numpy(),
    )
    assert expert.crop == ALIGNED and ALIGNED.px == 112
    placed = align([image], np.array([0]), TEMPLATE[None], expert.crop)
    assert np.array_equal(placed[0, :3].permute(1, 2, 0).numpy(), image), (
        "landmarks on the template: nothing moves"
    )
    assert torch.allclose(
        expert.network_input(placed)[FULL],
        torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1,
        atol=1e-6,
    )


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """Correlation of the two as grey pictures."""
    return np.corrcoef(*(image.double().mean(0).flatten().numpy() for image in (one, other)))[0, 1]


def test_box_crops_are_those_of_the_libraries(ensembles, astronaut):
    upright = cv2.getRotationMatrix2D(
        (224, 119), 4.4, 1
    )  # a box does not turn with the face, our crops do
    picture = cv2.warpAffine(
        astronaut, upright, astronaut.shape[1::-1], borderMode=cv2.BORDER_REFLECT
    )
    crops = {name: ensembles[name].experts[0].crop for name in ("pyfeat", "clip", "facenet")}
    faces = FaceCutter(crops=crops.values())([picture])
    box, frames = faces.box[0], torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    square = import_feat("utils.image_operations").extract_face_square_pad_torch

    def chip(box: np.ndarray, px: int, margin: float) -> torch.Tensor:
        return square(
            frames,
            torch.from_numpy(box)[None],
            px,
            margin,
            frame_idx=torch.zeros(1, dtype=torch.long),
        )[0][0]

    theirs = {
        "pyfeat": lambda box: chip(box, 256, 1.2),
        "clip": lambda box: chip(box, 224, 1.3),
        "facenet": lambda box: extract_face(Image.fromarray(picture), box, 160, 14),
    }
    width, height = box[2:] - box[:2]
    aside = 0.15 * np.float32([[width, 0], [-width, 0], [0, height], [0, -height]])
    for name, cut in theirs.items():
        ours = faces.views[crops[name]][0, :3]
        assert alike(ours, cut(box)) > 0.85, name
        assert max(alike(ours, cut(box + np.tile(shift, 2))) for shift in aside) < 0.7, name
