"""MTCNN for a stack of pictures finds what facenet-pytorch's finds in each."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.detection import FaceFinder
from data.faces import FaceCutter
from data.mtcnn import _suppress, search
from data.stack import Stack
from features.regions import ALIGNED, Crop

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def pictures(astronaut: np.ndarray, hopper: np.ndarray) -> list[np.ndarray]:
    """Whole, tight, several faces, one that needs the third search, none."""
    tight = astronaut[50:190, 160:290]
    pair = np.concatenate([astronaut[:300, 100:400], astronaut[:300, 100:400, ::-1]], axis=1)
    far = np.zeros((900, 900, 3), np.uint8)
    far[400:550, 400:550] = cv2.resize(astronaut[:300, 80:380], (150, 150))
    none = np.full((100, 200, 3), 128, np.uint8)
    return [astronaut, tight, hopper, pair, far, none, astronaut[::2, ::2].copy()]


@pytest.mark.parametrize("device", DEVICES)
def test_the_faces_of_a_stack_are_those_of_each_picture(pictures, device):
    find = FaceFinder(torch.device("cpu"), 0.9)
    stack = Stack.of(pictures).to(torch.device(device))
    found = FaceFinder(torch.device(device), 0.9).of_stack(stack)
    expected = find(pictures)
    assert [len(faces) for faces in found] == [len(faces) for faces in expected]
    assert [len(faces) for faces in found] == [1, 1, 1, 2, 1, 0, 1]
    for one, other in zip(found, expected, strict=True):
        width = other[:, 2] - other[:, 0]
        assert (np.abs(one - other).max(1) < 0.02 * width).all()
    moved = [np.abs(a - b).max(initial=0) for a, b in zip(found, expected, strict=True)]
    assert np.median(moved) < 0.01


@pytest.mark.parametrize("size", [224, 300])
def test_search_is_the_librarys(pictures, size):
    mtcnn = FaceFinder(torch.device("cpu"), 0.9).mtcnn
    squares = np.stack([cv2.resize(image, (size, size)) for image in pictures])
    with torch.inference_mode():
        boxes, image = search(mtcnn, torch.from_numpy(squares).permute(0, 3, 1, 2).float())
        theirs, scores, _ = mtcnn.detect(squares, landmarks=True)
    for i, (box, score) in enumerate(zip(theirs, scores, strict=True)):
        found = boxes[image == i].numpy()
        if box is None:
            assert not len(found)
            continue
        expected = np.column_stack([box, score]).astype(np.float32)
        found, expected = (x[np.lexsort(x.T)] for x in (found, expected))
        assert found.shape == expected.shape and np.abs(found - expected).max() < 0.01


def test_of_equal_scores_the_last_is_kept_and_pictures_are_apart():
    boxes = torch.tensor(
        [[0, 0, 99, 99, 0.9], [5, 5, 94, 94, 0.9], [300, 0, 399, 99, 0.8], [0, 0, 99, 99, 0.7]]
    )
    image = torch.tensor([0, 0, 0, 1])
    assert sorted(_suppress(boxes, image, 0.7).tolist()) == [1, 2, 3]
    chain = torch.tensor([[0, 0, 99, 99, 0.9], [20, 0, 119, 99, 0.8], [40, 0, 139, 99, 0.7]])
    assert sorted(_suppress(chain, torch.zeros(3), 0.7).tolist()) == [0, 2]


@pytest.mark.parametrize("device", DEVICES)
def test_a_cutter_takes_stacks(pictures, device):
    crop = Crop.of_box(1.25, 160)
    plain = FaceCutter("all", crops=[crop])(pictures)
    found = FaceCutter("all", crops=[crop], device=device)(Stack.of(pictures))
    assert found.image.tolist() == plain.image.tolist() == [0, 1, 2, 3, 3, 4, 6]
    assert found.face.tolist() == plain.face.tolist()
    assert {view.device.type for view in found.views.values()} == {device}
    for view in (ALIGNED, crop):
        apart = (found.views[view].cpu().float() - plain.views[view].float()).abs()
        assert apart.mean() < 1.0
    apart = {"score": 1e-3, "face_px": 2, "sharpness": 40, "yaw": 2, "pitch": 2, "roll": 1}
    for name, least in apart.items():
        moved = np.abs(getattr(found, name) - getattr(plain, name))
        assert moved.max() < least and np.median(moved) < least / 100, name
