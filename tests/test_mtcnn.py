"""MTCNN for a stack of pictures finds what facenet-pytorch's finds in each."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import nms

from data.detection import FaceFinder
from data.faces import FaceCutter
from data.mtcnn import _nms, search
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
    assert not any(map(len, FaceFinder(torch.device(device), 1.0).of_stack(stack)))
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
    assert _nms(boxes, image, 0.7, of_smaller=True).tolist() == [1, 2, 3]
    chain = torch.tensor([[0, 0, 99, 99, 0.9], [20, 0, 119, 99, 0.8], [40, 0, 139, 99, 0.7]])
    assert _nms(chain, torch.zeros(3, dtype=torch.long), 0.7, True).tolist() == [0, 2]
    assert not len(_nms(boxes[:0], image[:0], 0.5))


def test_suppression_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(900, 2, generator=generator) * 150
    side = 20 + torch.rand(900, 2, generator=generator) * 60
    scores = torch.rand(900, 1, generator=generator).round(decimals=2)  # many are equal
    boxes = torch.cat([corner, corner + side, scores], dim=1)
    image = torch.randint(3, (900,), generator=generator) * 2  # of five pictures, two have none
    for threshold in (0.3, 0.5, 0.7):
        expected = [
            rows[nms(boxes[rows, :4], boxes[rows, 4], threshold)]
            for rows in ((image == i).nonzero()[:, 0] for i in range(5))
        ]
        found = _nms(boxes, image, threshold)
        assert (boxes[found, 4].diff() <= 0).all()
        for i, rows in enumerate(expected):
            assert found[image[found] == i].tolist() == rows.tolist()


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
