"""Faces found and aligned: a real one that ships with scikit-image, and some of known geometry."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.alignment import SIZE, TEMPLATE, TOGETHER, align, similarity
from data.detection import FaceFinder
from data.faces import FaceCutter
from data.images import read_image
from features.regions import ALIGNED

ROOT = Path(__file__).parent.parent
# Where a viewer sees them in scikit-image's astronaut, read off an enlargement, px.
ASTRONAUT = np.array([[204, 103], [248, 104], [226, 129], [203, 141], [248, 143]])


@pytest.fixture(scope="module")
def cutter() -> FaceCutter:
    return FaceCutter()


@pytest.fixture(scope="module")
def every() -> FaceCutter:
    return FaceCutter(faces="all")


@pytest.fixture(scope="module")
def portrait(astronaut: np.ndarray) -> np.ndarray:
    """The face with its surroundings, 200 px a side."""
    return np.ascontiguousarray(astronaut[20:220, 125:325])


def wavy(height: int, width: int) -> np.ndarray:
    """A smooth picture, every place of which looks different."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = (np.sin(x / 9) + np.cos(y / 11), x / width + np.sin(y / 13), np.cos((x + y) / 15))
    return np.stack([127 + 60 * wave for wave in waves], -1).clip(0, 255).astype(np.uint8)


def placed(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    """The template's landmarks, enlarged, turned clockwise and moved: (5, 2)."""
    turn = scale * np.exp(1j * np.radians(degrees))
    points = turn * (TEMPLATE @ (1, 1j)) + x + 1j * y
    return np.stack([points.real, points.imag], -1)


# Alignment.


def test_similarity_inverts_a_known_one() -> None:
    scale, shift = similarity(placed(2.5, 30, 40, -7)[None])
    assert np.allclose(scale, 2.5 * np.exp(1j * np.pi / 6))
    assert np.allclose(shift, 40 - 7j)


def test_similarity_is_umeyamas() -> None:
    """Against the textbook form with a singular value decomposition, on landmarks with noise."""
    points = placed(1.7, -20, 10, 20) + np.random.default_rng(0).normal(0, 3, (5, 2))
    x, y = points - points.mean(0), TEMPLATE - TEMPLATE.mean(0)
    u, values, vt = np.linalg.svd(y.T @ x)
    sign = np.array([1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    factor = (values * sign).sum() / (x**2).sum()
    back = np.linalg.inv(factor * rotation)
    scale, shift = similarity(points[None])
    assert np.allclose([scale[0].real, scale[0].imag], [back[0, 0], back[1, 0]])
    assert np.allclose((shift[0].real, shift[0].imag), points.mean(0) - back @ TEMPLATE.mean(0))


@pytest.mark.parametrize("broken", [np.full((1, 5, 2), np.nan), np.ones((1, 5, 2))])
def test_landmarks_that_are_no_face(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no face"):
        align([wavy(50, 50)], np.zeros(1, int), broken)


def test_align_with_whole_shift_copies_pixels() -> None:
    image = wavy(200, 300)
    crop = align([image], np.zeros(1, int), placed(1, 0, 50, 30)[None])[0]
    assert crop.dtype == torch.uint8
    assert (crop[3] == 255).all()
    assert (crop[:3].permute(1, 2, 0).numpy() == image[30:142, 50:162]).all()


@pytest.mark.parametrize(
    ("scale", "degrees"), [(0.6, 0), (1, 25), (1.4, -40), (2.2, 10), (5, 170), (9.3, 45)]
)
def test_align_takes_every_pixel_from_where_it_belongs(scale: float, degrees: float) -> None:
    image = wavy(1600, 1500)
    landmarks = placed(scale, degrees, 750, 800)
    landmarks += 750 - landmarks.mean(0)
    crop = align([image], np.zeros(1, int), landmarks[None])[0].permute(1, 2, 0).numpy()
    turn, shift = similarity(landmarks[None])
    row, column = np.mgrid[:SIZE, :SIZE]
    place = turn[0] * (column + 1j * row) + shift[0]
    smooth = cv2.GaussianBlur(image, (0, 0), max(scale / 3, 0.3))
    expected = cv2.remap(
        smooth, place.real.astype(np.float32), place.imag.astype(np.float32), cv2.INTER_LINEAR
    )
    inside = crop[..., 3] == 255
    assert inside.mean() > 0.8
    error = np.abs(crop[..., :3].astype(int) - expected)[inside]
    assert np.median(error) <= 2
    assert np.percentile(error, 99) <= 2 + 4 * scale


def test_align_marks_what_lies_outside() -> None:
    """A face with its upper left quarter outside the picture: alpha 0 and black there, exactly."""
    image = np.full((200, 200, 3), 200, np.uint8)
    crop = align([image], np.zeros(1, int), placed(1, 0, -56, -40)[None])[0].numpy()
    expected = np.zeros((SIZE, SIZE), bool)
    expected[40:, 56:] = True
    assert ((crop[3] == 255) == expected).all()
    assert (crop[3][~expected] == 0).all()
    assert (crop[:3, ~expected] == 0).all()
    assert (crop[:3, expected] == 200).all()
    assert (align([image], np.zeros(1, int), placed(1, 0, 900, 900)[None]) == 0).all()


def test_align_does_not_alias() -> None:
    """Single-pixel stripes of a face ten times too large become grey, not new stripes."""
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = align([stripes], np.zeros(1, int), placed(10, 0, 20, 20)[None])[0, :3].numpy()
    assert crop.std() < 3
    assert abs(crop.mean() - 127.5) < 2


def test_align_of_many_is_align_of_each() -> None:
    images = [wavy(300, 200), wavy(90, 700), wavy(1000, 1000)]
    which = np.array([2, 0, 1, 2])
    landmarks = np.stack(
        [
            placed(6, 20, 300, 300),
            placed(1, -5, 40, 90),
            placed(0.7, 0, 300, 5),
            placed(2, 90, 500, 9),
        ]
    )
    together = align(images, which, landmarks)
    for i in range(4):
        alone = align([images[which[i]]], np.zeros(1, int), landmarks[i : i + 1])
        assert (alone[0] == together[i]).all()


def test_align_more_faces_than_are_turned_at_once(astronaut: np.ndarray) -> None:
    landmarks = np.stack([ASTRONAUT + shift for shift in range(2 * TOGETHER + 3)])
    many = align([astronaut], np.zeros(len(landmarks), int), landmarks)
    assert len(many) == len(landmarks) > 2 * TOGETHER
    for i in (0, TOGETHER - 1, TOGETHER, 2 * TOGETHER, len(landmarks) - 1):
        assert torch.equal(many[i], align([astronaut], np.zeros(1, int), landmarks[i : i + 1])[0])


def test_align_other_sizes(astronaut: np.ndarray) -> None:
    small, large = (
        align([astronaut], np.zeros(1, int), ASTRONAUT[None], ALIGNED.at(px))[0]
        for px in (112, 224)
    )
    assert large.shape == (4, 224, 224)
    halved = cv2.resize(
        large[:3].permute(1, 2, 0).numpy(), (112, 112), interpolation=cv2.INTER_AREA
    )
    assert np.abs(halved.astype(int) - small[:3].permute(1, 2, 0).numpy()).mean() < 2


# Detection.


def test_finds_the_astronaut(cutter: FaceCutter, astronaut: np.ndarray) -> None:
    crops = cutter([astronaut])
    assert len(crops) == 1
    assert (crops.image[0], crops.face[0]) == (0, 0)
    assert crops.score[0] > 0.99
    assert np.abs(crops.landmarks[0] - ASTRONAUT).max() < 4
    assert crops.face_px[0] == pytest.approx((crops.box[0, 2:] - crops.box[0, :2]).min(), abs=1e-3)
    assert 75 < crops.face_px[0] < 105
    assert crops.aligned.shape == (1, 4, SIZE, SIZE)
    assert (crops.aligned[:, 3] == 255).all()
    for name in ("box", "landmarks", "score", "face_px", "sharpness", "yaw", "pitch", "roll"):
        exact = name == "landmarks"
        assert getattr(crops, name).dtype == (np.float64 if exact else np.float32), name
    # A regression test: the eyes are where the template has them.
    again = cutter([np.ascontiguousarray(crops.aligned[0, :3].permute(1, 2, 0).numpy())])
    assert np.abs(again.landmarks[0] - TEMPLATE).max() < 5


def test_pictures_without_faces_have_no_rows(cutter: FaceCutter, astronaut: np.ndarray) -> None:
    crops = cutter([wavy(120, 160), astronaut, np.zeros((16, 900, 3), np.uint8), astronaut])
    assert crops.image.tolist() == [1, 3]
    for images in ([], [np.full((64, 48, 3), 255, np.uint8)]):
        empty = cutter(images)
        assert len(empty) == 0
        assert empty.aligned.shape == (0, 4, SIZE, SIZE)
        assert empty.landmarks.shape == (0, 5, 2)


def test_the_batch_does_not_matter(
    cutter: FaceCutter, astronaut: np.ndarray, portrait: np.ndarray
) -> None:
    turned = np.ascontiguousarray(
        cv2.warpAffine(portrait, cv2.getRotationMatrix2D((100, 100), 15, 1), (200, 240))
    )
    images = [astronaut, portrait, wavy(99, 130), turned, np.ascontiguousarray(portrait[:, ::-1])]
    forward, backward = cutter(images), cutter(images[::-1])
    assert forward.image.tolist() == [0, 1, 3, 4]
    for name in ("aligned", "landmarks", "box", "score", "sharpness", "yaw"):
        values = np.asarray(getattr(forward, name))
        assert (values == np.asarray(getattr(backward, name))[::-1]).all(), name
        for row, index in enumerate(forward.image):
            assert (np.asarray(getattr(cutter([images[index]]), name))[0] == values[row]).all(), (
                name
            )


@pytest.mark.parametrize("cut", [0, 30, 55])
def test_tight_crops_get_the_same_landmarks(
    cutter: FaceCutter, astronaut: np.ndarray, cut: int
) -> None:
    """The face as cut in face datasets, from brows to chin, without space around it."""
    x0, y0, x1, y1 = 150 + cut // 2, 35 + cut // 2, 300 - cut // 2, 205 - cut // 2
    crops = cutter([np.ascontiguousarray(astronaut[y0:y1, x0:x1])])
    assert len(crops) == 1
    assert np.abs(crops.landmarks[0] + (x0, y0) - ASTRONAUT).max() < 5
    assert (crops.aligned[0, 3] == 0).any() == (cut > 0)


def test_small_faces_in_large_photographs(cutter: FaceCutter, astronaut: np.ndarray) -> None:
    photograph = np.full((1200, 1400, 3), 90, np.uint8)
    photograph[600:1112, 100:612] = astronaut
    crops = cutter([photograph])
    assert np.abs(crops.landmarks[0] - (100, 600) - ASTRONAUT).max() < 4


def test_large_and_tiny_pictures_agree(cutter: FaceCutter, portrait: np.ndarray) -> None:
    reference = cutter([portrait]).landmarks[0]
    for factor in (0.3, 0.7, 6):
        scaled = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        points = (cutter([scaled]).landmarks[0] + 0.5) / factor - 0.5
        assert np.abs(points - reference).max() < 5, factor


def test_chosen_face_and_all_faces(
    cutter: FaceCutter, every: FaceCutter, portrait: np.ndarray
) -> None:
    """Three people in a row: the large one in the middle is chosen, the others follow by size."""
    scene = np.full((300, 700, 3), 120, np.uint8)
    scene[50:250, 250:450] = portrait
    scene[90:230, 20:160] = cv2.resize(portrait, (140, 140), interpolation=cv2.INTER_AREA)
    scene[80:260, 500:680] = cv2.resize(portrait, (180, 180), interpolation=cv2.INTER_AREA)
    one, crops = cutter([scene, portrait]), every([scene, portrait])
    assert (one.image.tolist(), one.face.tolist()) == ([0, 1], [0, 0])
    assert (crops.image.tolist(), crops.face.tolist()) == ([0, 0, 0, 1], [0, 1, 2, 0])
    middles = crops.box[:3, [0, 2]].mean(1)
    assert [int(np.abs(middle - (350, 590, 90)).argmin()) for middle in middles] == [0, 1, 2]
    assert (one.box[0] == crops.box[0]).all()
    assert (one.aligned[0] == crops.aligned[0]).all()


def test_select(every: FaceCutter, astronaut: np.ndarray, portrait: np.ndarray) -> None:
    crops = every([astronaut, portrait])
    second = crops.select(np.array([False, True]))
    assert second.image.tolist() == [1]
    assert (second.aligned[0] == crops.aligned[1]).all()
    assert (crops.select(np.array([1, 0])).landmarks == crops.landmarks[::-1]).all()
    assert len(crops.select(np.array([], int))) == 0


def test_min_score_and_faces(astronaut: np.ndarray) -> None:
    assert len(FaceCutter(min_score=1.0)([astronaut])) == 0
    with pytest.raises(ValueError, match="'one' or 'all'"):
        FaceCutter(faces="some")
    assert FaceFinder(torch.device("cpu"), 0.9)([]) == []


# Against other people's alignment of the same pictures, and as many faces found as were promised.


def test_agrees_with_reference_crops(cutter: FaceCutter, shared_data: Path) -> None:
    with (shared_data / "distill" / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"] and row["fold"] == "train"]
    rows = [
        row
        for source in ("dfdc", "lfw", "utkface")
        for row in [r for r in rows if r["source"] == source][:12]
    ]
    crops = cutter([read_image(shared_data / row["image"]) for row in rows])
    assert len(crops) >= len(rows) - 1
    differences = []
    with zipfile.ZipFile(shared_data / "distill" / "aligned112.zip") as archive:
        for crop, index in zip(crops.aligned.permute(0, 2, 3, 1).numpy(), crops.image, strict=True):
            data = np.frombuffer(archive.read(rows[index]["aligned"]), np.uint8)
            reference = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
            inside = crop[..., 3] == 255
            differences.append(np.median(np.abs(crop[..., :3] - reference)[inside]))
    assert np.median(differences) <= 5
    assert np.percentile(differences, 90) <= 12


def test_tight_crops_of_both_classes_are_found(cutter: FaceCutter, shared_data: Path) -> None:
    paths = [
        p
        for kind in ("real", "fake")
        for p in sorted((shared_data / "dfdc" / "train" / kind).iterdir())[::44]
    ]
    crops = cutter([read_image(path) for path in paths])
    assert len(paths) == 80
    assert len(crops) >= 0.97 * len(paths)


def test_same_bytes_in_another_process(cutter: FaceCutter, astronaut: np.ndarray) -> None:
    script = (
        "import hashlib; from skimage import data; from data.faces import FaceCutter;"
        "c = FaceCutter()([data.astronaut()]);"
        "print(hashlib.sha256(c.aligned.numpy().tobytes() + c.landmarks.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    crops = cutter([astronaut])
    assert (
        done.stdout.strip()
        == hashlib.sha256(crops.aligned.numpy().tobytes() + crops.landmarks.tobytes()).hexdigest()
    )
