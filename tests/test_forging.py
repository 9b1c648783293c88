"""Pairs for training: the same seed gives the same pair, and only what is said to be forged differs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data import degrade
from data.faces import align
from data.forging import (
    ALIGNED_PX,
    KINDS,
    AlignedCrops,
    PseudoFakes,
    _taken,
    _window,
    changed,
    on_crop,
    soft_mask,
    window,
)
from features.regions import Crop
from models.trace_net import CROP, GRID
from tests.test_forge import HOPPER_LANDMARKS, LANDMARKS, hopper  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def faces(astronaut: np.ndarray, hopper: np.ndarray) -> AlignedCrops:  # noqa: F811
    """Two people, each of a dataset of its own, and once more in another light."""
    images, points, sources = [], [], []
    for picture, landmarks, name in ((astronaut, LANDMARKS, "a"), (hopper, HOPPER_LANDMARKS, "b")):
        for gain in (1.0, 0.8):
            lit = (picture * gain).astype(np.uint8)
            images.append(
                align([lit], np.array([0]), landmarks[None], ALIGNED_PX)[0].permute(1, 2, 0).numpy()
            )
            points.append(on_crop(landmarks[None], ALIGNED_PX)[0])
            sources.append(name)
    x, y, side = window()
    redrawn = [
        cv2.GaussianBlur(cv2.resize(i[y : y + side, x : x + side, :3], (128, 128)), (0, 0), 3)
        for i in images
    ]
    return AlignedCrops(np.stack(images), np.stack(points), np.array(sources), np.stack(redrawn))


def test_landmarks_fall_where_the_face_is_cut(astronaut: np.ndarray) -> None:
    dotted = np.zeros_like(astronaut)
    for x, y in LANDMARKS:
        cv2.circle(dotted, (round(x), round(y)), 2, (255, 255, 255), -1)
    for crop in (ALIGNED_PX, CROP, Crop(0.1, 0.2, 0.9, 0.7, 150)):
        cut = align([dotted], np.array([0]), LANDMARKS[None], crop)[0, 0].numpy()
        for x, y in on_crop(LANDMARKS[None], crop)[0]:
            if 3 < x < crop.px - 4 and 3 < y < crop.px - 4:
                near = cut[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4].astype(float)
                rows, columns = np.mgrid[-3:4, -3:4]
                middle = np.array([(columns * near).sum(), (rows * near).sum()]) / near.sum()
                assert np.abs(middle - (x - round(x), y - round(y))).max() < 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_changes_what_its_mask_says_and_nothing_else(
    faces: AlignedCrops, kind: str
) -> None:
    pseudo_fakes, rng, made = PseudoFakes(faces, {kind: 1.0}), np.random.default_rng(0), 0
    for _ in range(12):
        index = faces.draw(rng)
        prediction = pseudo_fakes.forgery(index, rng)
        if prediction is None:
            continue
        image, mask, name = prediction
        real = faces.images[index, ..., :3].astype(float)
        assert name == kind and image.dtype == np.uint8 and mask.min() >= 0 and mask.max() <= 1
        apart = np.abs(image - real).mean(-1)
        # A self-blend may keep the inside and change everything around it.
        inside, outside = (
            apart[mask > 0.2].mean(),
            apart[mask < 1e-3].mean() if (mask < 1e-3).any() else 0.0,
        )
        assert max(inside, outside if kind == "self_blend" else 0) > 0.1
        if kind != "self_blend":
            assert outside < 0.51
        made += 1
    assert made >= 6


def test_the_same_seed_gives_the_same_pair_and_other_seeds_others(faces: AlignedCrops) -> None:
    pseudo_fakes = PseudoFakes(faces)
    pairs = [pseudo_fakes.pair(0, seed, CROP, GRID) for seed in (1, 1, 2, 3, 4)]
    one, again, *others = [pair for pair in pairs if pair is not None]
    assert all((a == b).all() for a, b in zip(one[:3], again[:3], strict=True))
    assert others and all((one[0] != other[0]).any() for other in others)
    assert one[0].shape == (CROP.px, CROP.px, 3) and one[2].shape == (20, 20) and one[2].max() > 0.1


def test_real_and_forged_face_differ_by_the_forgery_alone(faces: AlignedCrops) -> None:
    """Both go through the same light, blur and window, and end at the border of the photograph."""
    holes = faces.images.copy()
    holes[:, :60, :, 3] = 0
    pseudo_fakes = PseudoFakes(replace(faces, images=holes), {"resynthesis": 1.0})
    for seed in range(6):
        real, forged, share, _ = pseudo_fakes.pair(0, seed, CROP, GRID)
        untouched = cv2.resize(share, (CROP.px, CROP.px), interpolation=cv2.INTER_NEAREST) == 0
        untouched = cv2.erode(untouched.astype(np.uint8), np.ones((17, 17))) > 0
        assert untouched.any() and np.abs(real.astype(float) - forged)[untouched].mean() < 2.0
        assert (real.max(-1) == 0).mean() > 0.05


def test_donors_are_others_who_look_alike(faces: AlignedCrops) -> None:
    rng = np.random.default_rng(0)
    donors = [faces.donor(0, rng) for _ in range(40)]
    assert 0 not in donors and donors.count(1) > 20  # the same person in another light is nearest


def test_donors_come_from_other_datasets_too_and_are_never_the_face_itself(
    faces: AlignedCrops,
) -> None:
    rng = np.random.default_rng(0)
    strangers = replace(faces, sources=np.array(list("abcd")))  # nobody else is of the same dataset
    assert 0 not in {strangers.donor(0, rng) for _ in range(60)}
    mixed = replace(faces, sources=np.array(["a", "b", "a", "b"]))
    donors = [mixed.donor(0, rng) for _ in range(200)]
    assert (
        0.1 < np.mean(np.array(donors) == 1) < 0.5
    )  # who looks most alike is of the other dataset


def test_faces_of_small_datasets_are_drawn_oftener(faces: AlignedCrops) -> None:
    rng = np.random.default_rng(0)
    uneven = replace(faces, sources=np.array(["a", "b", "b", "b"]))
    assert (
        0.3 < np.mean([uneven.draw(rng) == 0 for _ in range(1000)]) < 0.45
    )  # 1/2 * 1/2 + 1/2 * 1/4


def test_self_blends_change_the_inside_or_the_outside(faces: AlignedCrops) -> None:
    pseudo_fakes, kept = PseudoFakes(faces, {"self_blend": 1.0}), []
    for seed in range(40):
        made = pseudo_fakes.forgery(0, np.random.default_rng(seed))
        if made is not None:
            far = made[1] < 1e-3
            kept.append((made[0] == faces.images[0, ..., :3])[far].mean() > 0.99)
    assert 0.2 < np.mean(kept) < 0.8


@pytest.mark.parametrize("crop", [CROP, CROP.at(80)])
def test_the_window_shows_what_the_crop_shows_sometimes_mirrored(
    faces: AlignedCrops, crop: Crop
) -> None:
    """Seen through many windows the landmarks lie, on average, where those of the crop do."""
    middle = np.full(2, (ALIGNED_PX.px - 1) / 2)
    scale = crop.px / crop.width * ALIGNED_PX.width / ALIGNED_PX.px
    wanted = (faces.landmarks[0] - middle) * scale + (crop.px - 1) / 2
    flipped, found = 0, []
    for seed in range(200):
        view = _window(crop, np.random.default_rng(seed))
        points = faces.landmarks[0] @ view[:, :2].T + view[:, 2]
        if points[0, 0] > points[1, 0]:
            flipped += 1
            points = (points * (-1, 1) + (crop.px - 1, 0))[:]
        found.append(points)
    assert 60 < flipped < 140 and np.abs(np.mean(found, axis=0) - wanted).max() < 0.02 * crop.px
    assert 0.5 < np.std(found, axis=0).min() < np.std(found, axis=0).max() < 0.08 * crop.px


def test_masks_are_soft_and_lie_on_the_face(faces: AlignedCrops) -> None:
    rng, middle = np.random.default_rng(0), faces.landmarks[0].mean(0)
    for _ in range(20):
        mask = soft_mask(faces.landmarks[0], rng)
        rows, columns = np.nonzero(mask > 0.5)
        assert mask.shape == (224, 224) and ((mask > 0.05) & (mask < 0.95)).any() and len(rows)
        assert np.hypot(columns.mean() - middle[0], rows.mean() - middle[1]) < 45


def test_slight_changes_are_slight(faces: AlignedCrops) -> None:
    image = faces.images[0, ..., :3]
    apart = [
        np.abs(changed(image, np.random.default_rng(seed)).astype(float) - image).mean()
        for seed in range(20)
    ]
    assert max(apart) < 40 and min(apart) < 5 < max(apart)


def test_some_pictures_go_through_a_bad_channel() -> None:
    """Milder ones leave a grey picture less than 8.5 of noise, and a fine pattern more than 3 of its 60."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    fine = np.uint8(np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) // 3 % 2 * 120 + 60)
    noise, detail = (
        np.array(
            [_taken(image, np.random.default_rng(seed)).std((0, 1)).mean() for seed in range(300)]
        )
        for image in (grey, fine)
    )
    assert 0.005 < (noise > 8.5).mean() < 0.1
    assert 0.02 < (detail < 3).mean() < 0.15 and np.median(detail) > 25


def test_some_pictures_are_compressed_at_the_size_to_which_they_were_shrunk(monkeypatch) -> None:
    sides, noisy, noise = [], [], degrade.noise
    monkeypatch.setattr(
        "data.forging.degrade.noise",
        lambda image, sigma, rng: noisy.append(len(image)) or noise(image, sigma, rng),
    )
    monkeypatch.setattr(
        "data.forging.degrade.jpeg", lambda image, quality: sides.append(len(image)) or image
    )
    grey = np.full((224, 200, 3), 128, np.uint8)
    assert all(_taken(grey, np.random.default_rng(seed)).shape == grey.shape for seed in range(400))
    small = np.array(sides)[np.array(sides) < 224]
    assert min(noisy) < 200 and max(noisy) == 224
    assert 0.2 < len(small) / len(sides) < 0.29 and 56 <= small.min() < 90 and small.max() > 170


def test_what_cannot_be_forged_is_said(faces: AlignedCrops) -> None:
    with pytest.raises(ValueError, match="unknown ways to forge: magic"):
        PseudoFakes(faces, {"magic": 1.0})
    with pytest.raises(ValueError, match="none given"):
        PseudoFakes(faces, {"swap": 0.0})
    with pytest.raises(ValueError, match="needs redrawn faces"):
        PseudoFakes(replace(faces, redrawn=None))
