"""The parts of the search for faces; that it finds them is tested with the crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.detection import FaceFinder, letterbox, one_thread_each, ranked, window
from data.faces import FaceCutter
from data.stack import Stack


def test_one_thread_each() -> None:
    before = torch.get_num_threads()
    assert one_thread_each(lambda i: (i * i, torch.get_num_threads()), list(range(9))) == [
        (i * i, 1) for i in range(9)
    ]
    with pytest.raises(ZeroDivisionError):
        one_thread_each(lambda i: 1 // i, [0])
    assert torch.get_num_threads() == before
    assert one_thread_each(lambda _: torch.get_num_threads(), []) == []


def test_central_and_large_are_weighed() -> None:
    def face(x: float, y: float, side: float) -> list[float]:
        return [x, y, x + side, y + side, 1, *[0] * 10]

    def first(*faces: list[float]) -> int:
        return int(
            np.flatnonzero((np.array(faces) == ranked(np.array(faces), 1000, 1000)[0]).all(1))[0]
        )

    assert first(face(0, 0, 100), face(450, 450, 100)) == 1  # equally large: the central one
    assert first(face(490, 490, 20), face(100, 300, 400)) == 1  # a speck in the middle loses
    assert first(face(300, 300, 400), face(600, 600, 390)) == 0


def test_a_face_is_not_counted_twice() -> None:
    faces = np.zeros((3, 15))
    faces[:, :4] = [[100, 100, 200, 200], [105, 98, 203, 195], [400, 100, 500, 200]]
    assert len(ranked(faces, 600, 600)) == 2
    assert len(ranked(np.empty((0, 15)), 600, 600)) == 0


def test_letterbox() -> None:
    image = np.full((50, 100, 3), 9, np.uint8)
    square = letterbox(image, 224, 0.0)
    assert square.shape == (224, 224, 3)
    assert (square[56:168] == 9).all()
    assert (square[:56] == 0).all()
    assert (square[168:] == 0).all()
    padded = letterbox(image, 300, 0.25)
    assert (padded[100:200, 50:250] == 9).all()
    assert int((padded > 0).sum()) == 100 * 200 * 3


def test_window_is_black_outside() -> None:
    image = np.full((100, 100, 3), 9, np.uint8)
    assert (window(image, 10, 10, 60) == 9).all()
    corner = window(image, -48, 76, 96)
    assert (corner[:12, 24:] == 9).all()
    assert int((corner > 0).sum()) == 12 * 24 * 3
    assert (window(image, 500, 500, 30) == 0).all()


def test_the_number_of_threads_does_not_matter(astronaut: np.ndarray) -> None:
    find, threads, found = FaceFinder(torch.device("cpu"), 0.9), torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(find([astronaut, astronaut[:300]])[0])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0].shape == (1, 15)
    assert (found[0] == found[1]).all()


def group(astronaut: np.ndarray, large: bool) -> np.ndarray:
    """Three faces of 50 px in 1000; large: and one of 250 px in front of them."""
    picture = np.full((800, 1000, 3), 130, np.uint8)
    head = astronaut[0:200, 140:340]
    for x, y in ((20, 20), (20, 620), (860, 20)):
        picture[y : y + 120, x : x + 120] = cv2.resize(head, (120, 120))
    if large:
        picture[100:700, 200:800] = cv2.resize(head, (600, 600))
    return picture


def test_small_faces_are_found_beside_a_large_one(astronaut: np.ndarray) -> None:
    pictures = [group(astronaut, large=True), group(astronaut, large=False), astronaut]
    cutter, counts = FaceCutter("all"), [4, 3, 1]
    found = cutter(pictures)
    assert np.bincount(found.image).tolist() == counts
    assert (cutter(pictures[:1]).box == found.box[:4]).all()
    assert np.bincount(cutter(Stack.of(pictures)).image).tolist() == counts
    assert len(FaceCutter("one")(pictures)) == 3


def test_faces_beyond_the_limit_are_counted(astronaut: np.ndarray) -> None:
    found = FaceCutter("all", max_faces=3)([group(astronaut, large=True), astronaut])
    assert found.image.tolist() == [0, 0, 0, 1]
    assert found.left_out.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("turns", [1, 2])
def test_a_picture_on_its_side(astronaut: np.ndarray, turns: int) -> None:
    head = cv2.copyMakeBorder(astronaut[0:250, 100:350], *[60] * 4, cv2.BORDER_CONSTANT)
    upright, cutter = FaceCutter()([head]), FaceCutter(turned=True)
    found = cutter([np.ascontiguousarray(np.rot90(head, turns))])
    assert found.turn.tolist() == [{1: 270, 2: 180}[turns]]
    assert np.abs(found.yaw - upright.yaw).max() < 5
    assert np.abs(found.pitch - upright.pitch).max() < 5
    assert (found.aligned.float() - upright.aligned.float()).abs().mean() < 10
    assert len(cutter([np.zeros((200, 300, 3), np.uint8)])) == 0


def test_lying_faces_beside_an_upright_one(astronaut: np.ndarray) -> None:
    """They are found besides, each once; the upright ones stay what they are."""
    head = cv2.copyMakeBorder(astronaut[0:250, 100:350], *[60] * 4, cv2.BORDER_CONSTANT)
    alone, plain = FaceCutter("all", turned=True), FaceCutter("all")
    cutter = FaceCutter("all", turned=True, beside=True)
    for turns, degrees in ((1, 270), (2, 180), (3, 90)):
        picture = np.hstack([np.rot90(head, turns), head])
        found = cutter([picture, head, picture])
        assert found.image.tolist() == [0, 0, 1, 2, 2]
        assert sorted(found.turn.tolist()) == sorted([0, degrees, 0, 0, degrees])
        lies = alone([np.ascontiguousarray(np.rot90(head, turns))])
        assert np.abs(found.box[found.turn > 0] - lies.box[0]).max() < 10
        upright = plain([picture]).box
        assert (found.box[:2][found.turn[:2] == 0] == upright[upright[:, 0] > head.shape[1]]).all()
    both = cutter([np.hstack([np.rot90(head, 1), np.rot90(head, 2)])])
    assert sorted(both.turn.tolist()) == [180, 270]
    assert len(cutter([np.zeros((200, 300, 3), np.uint8)])) == 0


def test_a_turned_face_beside_others_counts_only_if_it_is_surer(monkeypatch) -> None:
    """Upright ones of .95 and .995; turned ones over the first, the second, and none."""
    boxes = {"a": (10, 10, 60, 60), "b": (100, 10, 150, 60), "c": (10, 100, 60, 150)}

    def face(name: str, score: float) -> np.ndarray:
        return np.array([*boxes[name], score, *np.linspace(boxes[name][0], boxes[name][2], 10)])

    cutter = FaceCutter("all", beside=True)
    upright = np.array([face("b", 0.995), face("a", 0.95)])
    turned = [[face("a", 0.992), face("c", 0.98)], [face("a", 0.998), face("b", 0.999)], []]
    answers = iter(np.array(faces).reshape(-1, 15) for faces in turned)
    monkeypatch.setattr("data.faces.turned_back", lambda faces, *_: faces)
    monkeypatch.setattr(cutter, "find", lambda images, *_, **__: [next(answers)])
    found, turns = [upright], [np.zeros(2, int)]
    cutter._add_turned([np.zeros((200, 200, 3), np.uint8)], [upright], found, turns)
    assert found[0][:, 4].tolist() == [0.995, 0.998]
    assert turns[0].tolist() == [0, 180]
