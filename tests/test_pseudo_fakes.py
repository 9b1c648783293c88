"""Pseudo-fakes: repeatable, changed where the mask says, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data import degrade
from data.alignment import align
from features.regions import ALIGNED, Crop
from models.trace_net import CROP, GRID
from tests.photographs import HOPPER_LANDMARKS, LANDMARKS
from training import augment
from training.aligned_crops import FACE_WIDTH, WIDE_CROP, AlignedCrops, on_crop
from training.face_masks import OUTLINES, mirrored, soft_mask
from training.pseudo_fakes import (
    KINDS,
    PseudoFakes,
    colour_transfer,
    face_swap,
    region_swap,
    self_blend,
)

TURN = cv2.getRotationMatrix2D((225, 120), 25, 1.7)  # 25 degrees, 1.7 times as large


def difference(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b)[where].mean())


def swap(part: str, target: np.ndarray, source: np.ndarray, *landmarks: np.ndarray):
    more = () if part == "face" else (part,)
    return (region_swap if more else face_swap)(target, source, *landmarks, *more)


@pytest.mark.parametrize("part", OUTLINES)
def test_swap_changes_the_part_and_nothing_else(part, astronaut, hopper) -> None:
    image, mask = swap(part, astronaut, hopper, LANDMARKS, HOPPER_LANDMARKS)
    assert image.shape == astronaut.shape and image.dtype == mask.dtype == np.uint8
    assert (image[mask == 0] == astronaut[mask == 0]).all()
    assert difference(image, astronaut, mask > 0) > 5
    # She looks up a little, so her nose lies where the jaw's outline begins.
    points = {"eyes": LANDMARKS[:2], "nose": LANDMARKS[2:3], "mouth": LANDMARKS[3:]}
    inside = {name for name in points for x, y in points[name] if mask[int(y), int(x)]}
    expected = {"face": {*points}, "jaw": {"nose", "mouth"}}
    assert inside == expected.get(part, {part})
    if part in ("eyes", "mouth"):
        rows, columns = np.nonzero(mask)
        assert (columns.mean(), rows.mean()) == pytest.approx(points[part].mean(0), abs=4)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("part", OUTLINES)
def test_same_person_from_another_view_fits(part, flip, astronaut) -> None:
    source = cv2.warpAffine(astronaut, TURN, (512, 512), flags=cv2.INTER_CUBIC)
    landmarks = LANDMARKS @ TURN[:, :2].T + TURN[:, 2]
    if flip:
        source, landmarks = source[:, ::-1], mirrored(landmarks, 512)
    image, mask = swap(part, astronaut, source, LANDMARKS, landmarks)
    assert mask.any() and difference(image, astronaut, mask > 0) < 3
    # The same with landmarks that are 7 px off.
    image, mask = swap(part, astronaut, source, LANDMARKS, landmarks + (7, 0))
    assert difference(image, astronaut, mask > 0) > 4


def test_seed_decides(astronaut, hopper) -> None:
    def both(seed: int) -> list[np.ndarray]:
        swapped, _ = face_swap(astronaut, hopper, LANDMARKS, HOPPER_LANDMARKS, seed=seed)
        return [swapped, self_blend(astronaut, LANDMARKS, seed)[0]]

    for first, again, other in zip(both(1), both(1), both(2), strict=True):
        assert (first == again).all() and (first != other).any()


def test_self_blend_is_slight_and_on_the_face(astronaut) -> None:
    kept = set()
    for seed in range(8):
        image, mask = self_blend(astronaut, LANDMARKS, seed)
        assert image.shape == astronaut.shape and image.dtype == mask.dtype == np.uint8
        assert mask[129, 225] > 0.4 * 255  # the nose
        assert mask[:30].max() == mask[200:].max() == 0  # hair, collar
        assert ((mask > 0) & (mask < mask.max())).sum() > 200  # soft
        level = 128 if mask.max() > 128 else 64
        assert 0.5 < difference(image, astronaut, mask > level) < 40
        kept.add(bool((image[mask == 0] == astronaut[mask == 0]).all()))
    assert kept == {True, False}  # changes the inside or the outside


def test_colour_transfer_gives_mean_and_deviation(astronaut) -> None:
    mask = np.zeros((512, 512), bool)
    mask[100:160, 200:250] = True
    given = cv2.convertScaleAbs(astronaut, alpha=0.9, beta=12)
    image = colour_transfer(given, astronaut, mask)
    for statistic in (np.mean, np.std):
        wanted = statistic(astronaut[mask], axis=0)
        assert statistic(image[mask], axis=0) == pytest.approx(wanted, abs=1.5)
    flat = np.full_like(astronaut, 127)
    assert colour_transfer(flat, astronaut, mask)[mask].std(0).max() < 1


def test_face_at_the_border_of_the_photograph(astronaut, hopper) -> None:
    x, y = 195, 95
    cut = np.ascontiguousarray(astronaut[y:, x:])
    image, mask = face_swap(cut, hopper, LANDMARKS - (x, y), HOPPER_LANDMARKS)
    assert mask[0].any() and mask[:, 0].any() and (image[mask == 0] == cut[mask == 0]).all()


def test_source_that_ends_in_the_face(astronaut, hopper) -> None:
    below_the_nose = hopper[:260]
    _, mask = face_swap(astronaut, below_the_nose, LANDMARKS, HOPPER_LANDMARKS)
    assert mask[103, 226] and not mask[141, 225]
    with pytest.raises(ValueError, match="mouth of the face lies outside"):
        region_swap(astronaut, hopper[:240], LANDMARKS, HOPPER_LANDMARKS, "mouth")


BLACK = np.zeros((300, 300, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "landmarks", "message"),
    [
        (BLACK[..., 0], LANDMARKS, "uint8 RGB"),
        (BLACK * 1.0, LANDMARKS, "uint8 RGB"),
        ([[1, 2], [3, 4]], LANDMARKS, "uint8 RGB"),
        (BLACK, LANDMARKS[:4], "five finite landmarks"),
        (BLACK, LANDMARKS * np.nan, "five finite landmarks"),
        (BLACK, LANDMARKS * 0.1, "4 px apart"),
    ],
)
def test_bad_input_is_refused(image, landmarks, message, astronaut) -> None:
    with pytest.raises(ValueError, match=message):
        self_blend(image, landmarks)
    with pytest.raises(ValueError, match=message):
        face_swap(astronaut, image, LANDMARKS, landmarks)


def test_unknown_region_lists_the_known(astronaut) -> None:
    with pytest.raises(ValueError, match="'ear'; the regions are face, eyes, nose, mouth, jaw"):
        region_swap(astronaut, astronaut, LANDMARKS, LANDMARKS, "ear")


def test_landmarks_on_crops(astronaut) -> None:
    dotted = np.zeros_like(astronaut)
    for x, y in LANDMARKS:
        cv2.circle(dotted, (round(x), round(y)), 2, (255, 255, 255), -1)
    for crop in (WIDE_CROP, CROP, Crop(0.1, 0.2, 0.9, 0.7, 150)):
        cut = align([dotted], np.array([0]), LANDMARKS[None], crop)[0, 0].numpy()
        for x, y in on_crop(LANDMARKS[None], crop)[0]:
            if 3 < x < crop.px - 4 and 3 < y < crop.px - 4:
                near = cut[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4].astype(float)
                rows, columns = np.mgrid[-3:4, -3:4]
                middle = np.array([(columns * near).sum(), (rows * near).sum()]) / near.sum()
                assert np.abs(middle - (x - round(x), y - round(y))).max() < 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_change_what_the_mask_says(kind, crops: AlignedCrops) -> None:
    fakes, rng, made = PseudoFakes(crops, {kind: 1.0}), np.random.default_rng(0), 0
    for _ in range(12):
        result = fakes.make(crops.sample(rng), rng)
        if result is None:
            continue
        made += 1
        real, fake, mask, name = result
        assert name == kind and real.dtype == fake.dtype == np.uint8
        assert 0 <= mask.min() < mask.max() <= 1
        assert (real[mask == 0] == fake[mask == 0]).all()
        assert difference(real, fake, mask > 0.2) > 0.1
    assert made >= 6


def test_pairs_repeat_for_a_seed(crops: AlignedCrops) -> None:
    fakes = PseudoFakes(crops)
    pairs = [fakes.pair(0, seed, CROP, GRID) for seed in (1, 1, 2, 3, 4)]
    one, again, *others = [pair for pair in pairs if pair is not None]
    assert all((a == b).all() for a, b in zip(one[:3], again[:3], strict=True))
    assert others and all((one[0] != other[0]).any() for other in others)
    assert one[0].shape == (CROP.px, CROP.px, 3)
    assert one[2].shape == (GRID, GRID) and one[2].max() > 0.1


def test_pairs_differ_by_the_manipulation_alone(crops: AlignedCrops) -> None:
    """Both pass the same light, blur and window, and end at the border of the photograph."""
    holes = crops.images.copy()
    holes[:, :60, :, 3] = 0
    fakes = PseudoFakes(replace(crops, images=holes), {"reconstruction": 1.0})
    for seed in range(4):
        real, fake, share, _ = fakes.pair(0, seed, CROP, GRID)
        untouched = cv2.resize(share, (CROP.px, CROP.px), interpolation=cv2.INTER_NEAREST) == 0
        untouched = cv2.erode(untouched.astype(np.uint8), np.ones((17, 17))) > 0
        assert untouched.any() and difference(real, fake, untouched) < 2.0
        assert (real.max(-1) == 0).mean() > 0.05


def test_both_faces_of_a_pair_pass_the_same_channel(crops: AlignedCrops, monkeypatch) -> None:
    """Noise of its own on one of them would tell the pseudo-fakes from the real faces."""
    clean = PseudoFakes(crops, {"reconstruction": 1.0}).pair(0, 0, CROP, GRID)
    monkeypatch.setattr(augment, "transmit", lambda image, rng: degrade.noise(image, 40, rng))
    noisy = PseudoFakes(crops, {"reconstruction": 1.0}).pair(0, 0, CROP, GRID)
    untouched = cv2.resize(noisy[2], (CROP.px, CROP.px), interpolation=cv2.INTER_NEAREST) == 0
    untouched = cv2.erode(untouched.astype(np.uint8), np.ones((17, 17))) > 0
    assert difference(noisy[0], noisy[1], untouched) < 2.0
    for before, after in zip(clean[:2], noisy[:2], strict=True):
        assert difference(before, after, untouched) > 10


def test_unknown_or_impossible_kinds_are_refused(crops: AlignedCrops) -> None:
    with pytest.raises(ValueError, match="unknown kinds of pseudo-fake: magic"):
        PseudoFakes(crops, {"magic": 1.0})
    with pytest.raises(ValueError, match="none given"):
        PseudoFakes(crops, {"alpha_swap": 0.0})
    with pytest.raises(ValueError, match="needs reconstructed faces"):
        PseudoFakes(replace(crops, reconstructed=None))


def test_donors_are_similar_faces_of_all_datasets(crops: AlignedCrops) -> None:
    rng = np.random.default_rng(0)
    donors = [crops.donor(0, rng) for _ in range(40)]
    assert 0 not in donors and donors.count(1) > 20  # the same person in another light is nearest
    alone = replace(crops, sources=np.array(list("abcd")))
    assert 0 not in {alone.donor(0, rng) for _ in range(60)}
    mixed = replace(crops, sources=np.array(list("abab")))  # the nearest is of the other dataset
    donors = np.array([mixed.donor(0, rng) for _ in range(200)])
    assert 0.1 < (donors == 1).mean() < 0.5


def test_small_datasets_are_sampled_more_often(crops: AlignedCrops) -> None:
    rng = np.random.default_rng(0)
    uneven = replace(crops, sources=np.array(list("abbb")))
    share = np.mean([uneven.sample(rng) == 0 for _ in range(1000)])
    assert 0.3 < share < 0.45  # 1/2 * 1/2 + 1/2 * 1/4


def test_masks_are_soft_and_lie_on_the_face(crops: AlignedCrops) -> None:
    rng, landmarks = np.random.default_rng(0), crops.landmarks[0]
    for _ in range(20):
        mask = soft_mask(landmarks, rng, 224, FACE_WIDTH)
        rows, columns = np.nonzero(mask > 0.5)
        assert mask.shape == (224, 224) and ((mask > 0.05) & (mask < 0.95)).any() and len(rows)
        assert np.hypot(*(landmarks.mean(0) - (columns.mean(), rows.mean()))) < 45


@pytest.mark.parametrize("crop", [CROP, CROP.at(80)])
def test_random_windows_lie_around_the_crop(crops: AlignedCrops, crop: Crop) -> None:
    """Seen through many windows the landmarks lie, on average, where those of the crop do."""
    middle = np.full(2, (WIDE_CROP.px - 1) / 2)
    scale = crop.px / crop.width * WIDE_CROP.width / WIDE_CROP.px
    wanted = (crops.landmarks[0] - middle) * scale + (crop.px - 1) / 2
    flipped, found = 0, []
    for seed in range(200):
        view = augment.random_window(WIDE_CROP, crop, np.random.default_rng(seed))
        points = crops.landmarks[0] @ view[:, :2].T + view[:, 2]
        if points[0, 0] > points[1, 0]:
            flipped += 1
            points = points * (-1, 1) + (crop.px - 1, 0)
        found.append(points)
    assert 60 < flipped < 140 and np.abs(np.mean(found, axis=0) - wanted).max() < 0.02 * crop.px
    assert 0.5 < np.std(found, axis=0).min() < np.std(found, axis=0).max() < 0.08 * crop.px


def test_perturbations_are_slight(crops: AlignedCrops) -> None:
    image = crops.images[0, ..., :3]
    changed = [augment.perturb(image, np.random.default_rng(seed)) for seed in range(20)]
    change = [np.abs(each.astype(float) - image).mean() for each in changed]
    assert max(change) < 40 and min(change) < 5 < max(change)


def test_some_channels_are_bad() -> None:
    """The others add less than 8.5 of noise and leave more than 3 of a fine pattern's 60."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    fine = np.uint8(np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) // 3 % 2 * 120 + 60)
    rngs = [np.random.default_rng(seed) for seed in range(300)]
    noise, detail = (
        np.array([augment.transmit(image, rng).std((0, 1)).mean() for rng in rngs])
        for image in (grey, fine)
    )
    assert 0.005 < (noise > 8.5).mean() < 0.1
    assert 0.02 < (detail < 3).mean() < 0.15 and np.median(detail) > 25


def test_some_pictures_are_compressed_while_small(monkeypatch) -> None:
    sides, noisy = [], []
    monkeypatch.setattr(degrade, "noise", lambda image, *_: noisy.append(len(image)) or image)
    monkeypatch.setattr(degrade, "jpeg", lambda image, _: sides.append(len(image)) or image)
    grey = np.full((224, 200, 3), 128, np.uint8)
    for seed in range(400):
        assert augment.transmit(grey, np.random.default_rng(seed)).shape == grey.shape
    small = np.array(sides)[np.array(sides) < 224]
    assert min(noisy) < 200 and max(noisy) == 224
    assert 0.2 < len(small) / len(sides) < 0.29 and 56 <= small.min() < 90 and small.max() > 170


def test_random_regions_are_named_ones_and_others() -> None:
    masks = [augment.random_region(80, np.random.default_rng(seed)) for seed in range(200)]
    assert all(mask.shape == (80, 80) and mask.any() for mask in masks)
    assert 0.08 < np.mean([mask.all() for mask in masks]) < 0.25  # the whole face, uncovered
    assert ALIGNED.px == 112 and len({mask.tobytes() for mask in masks}) > 40
