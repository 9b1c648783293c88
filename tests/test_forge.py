"""Forgeries: changed where they should be, and nowhere else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import forge

LANDMARKS = np.array(
    [[205.4, 101.5], [246.9, 103.1], [225.1, 129.2], [201.2, 139.6], [245.1, 141.1]]
)
HOPPER_LANDMARKS = np.array(
    [[220.3, 189.9], [308.5, 187.1], [269.2, 238.9], [230.4, 282.6], [306.8, 279.6]]
)
TURN = cv2.getRotationMatrix2D((225, 120), 25, 1.7)  # 25 degrees, 1.7 times as large


@pytest.fixture(scope="module")
def hopper() -> np.ndarray:
    """Grace Hopper, (600, 512, 3) uint8 RGB: ships with matplotlib (public domain, US Navy)."""
    path = Path(find_spec("matplotlib").origin).parent / "mpl-data/sample_data/grace_hopper.jpg"
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def difference(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b)[where].mean())


def swap(
    region: str,
    target: np.ndarray,
    source: np.ndarray,
    to: np.ndarray,
    of: np.ndarray,
    seed: int = 0,
):
    if region == "face":
        return forge.face_swap(target, source, to, of, seed)
    return forge.region_swap(target, source, to, of, region, seed)


@pytest.mark.parametrize("region", forge.OUTLINES)
def test_changes_the_region_and_nothing_else(
    region: str, astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    image, mask = swap(region, astronaut, hopper, LANDMARKS, HOPPER_LANDMARKS)
    assert image.shape == astronaut.shape
    assert image.dtype == mask.dtype == np.uint8
    assert (image[mask == 0] == astronaut[mask == 0]).all()
    assert difference(image, astronaut, mask > 0) > 5
    # She looks up a little, so her nose lies where the jaw's share begins; the rest is where the landmarks are.
    points = {"eyes": LANDMARKS[:2], "nose": LANDMARKS[2:3], "mouth": LANDMARKS[3:]}
    inside = {
        name
        for name, (x, y) in ((name, xy) for name in points for xy in points[name])
        if mask[int(y), int(x)]
    }
    wanted = {"face": {*points}, "jaw": {"nose", "mouth"}}
    assert inside == wanted.get(region, {region})
    if region in ("eyes", "mouth"):
        rows, columns = np.nonzero(mask)
        assert (columns.mean(), rows.mean()) == pytest.approx(points[region].mean(0), abs=4)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("region", forge.OUTLINES)
def test_own_face_from_another_view_fits_like_a_glove(
    region: str, mirrored: bool, astronaut: np.ndarray
) -> None:
    source = cv2.warpAffine(astronaut, TURN, (512, 512), flags=cv2.INTER_CUBIC)
    landmarks = LANDMARKS @ TURN[:, :2].T + TURN[:, 2]
    if mirrored:
        source, landmarks = source[:, ::-1], landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (511, 0)
    image, mask = swap(region, astronaut, source, LANDMARKS, landmarks)
    assert mask.any()
    assert difference(image, astronaut, mask > 0) < 3
    # The same with the source's landmarks off by 7 px: it would show.
    image, mask = swap(region, astronaut, source, LANDMARKS, landmarks + (7, 0))
    assert difference(image, astronaut, mask > 0) > 4


def test_seed_decides(astronaut: np.ndarray, hopper: np.ndarray) -> None:
    def forgeries(seed: int) -> list[np.ndarray]:
        swapped = forge.face_swap(astronaut, hopper, LANDMARKS, HOPPER_LANDMARKS, seed)
        return [swapped[0], forge.self_blend(astronaut, LANDMARKS, seed)[0]]

    for first, again, other in zip(forgeries(1), forgeries(1), forgeries(2), strict=True):
        assert (first == again).all()
        assert (first != other).any()


@pytest.mark.parametrize("seed", range(6))
def test_self_blend_is_slight_and_on_the_face(seed: int, astronaut: np.ndarray) -> None:
    image, mask = forge.self_blend(astronaut, LANDMARKS, seed)
    assert image.shape == astronaut.shape
    assert image.dtype == mask.dtype == np.uint8
    assert mask[129, 225] > 0.4 * 255  # the nose
    assert mask[:30].max() == mask[200:].max() == 0  # hair, collar
    border = (mask > 0) & (mask < mask.max())
    assert border.sum() > 200  # soft
    assert 0.5 < difference(image, astronaut, mask > 128 if mask.max() > 128 else mask > 64) < 40


def test_self_blend_keeps_either_the_inside_or_the_outside(astronaut: np.ndarray) -> None:
    kept = {
        bool((image[mask == 0] == astronaut[mask == 0]).all())
        for image, mask in (forge.self_blend(astronaut, LANDMARKS, seed) for seed in range(12))
    }
    assert kept == {True, False}


def test_colour_transfer_gives_mean_and_spread(astronaut: np.ndarray, hopper: np.ndarray) -> None:
    mask = np.zeros((512, 512), bool)
    mask[100:160, 200:250] = True
    given = cv2.convertScaleAbs(astronaut, alpha=0.9, beta=12)
    image = forge.colour_transfer(given, astronaut, mask)
    for statistic in (np.mean, np.std):
        assert statistic(image[mask], axis=0) == pytest.approx(
            statistic(astronaut[mask], axis=0), abs=1.5
        )
    flat = np.full_like(astronaut, 127)
    assert forge.colour_transfer(flat, astronaut, mask)[mask].std(0).max() < 1  # nothing to spread


def test_face_at_the_border_of_the_photograph(astronaut: np.ndarray, hopper: np.ndarray) -> None:
    x, y = 195, 95
    cut = np.ascontiguousarray(astronaut[y:, x:])
    image, mask = forge.face_swap(cut, hopper, LANDMARKS - (x, y), HOPPER_LANDMARKS)
    assert mask[0].any()
    assert mask[:, 0].any()
    assert (image[mask == 0] == cut[mask == 0]).all()


def test_source_that_ends_in_the_face_gives_what_it_has(
    astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    image, mask = forge.face_swap(
        astronaut, hopper[:260], LANDMARKS, HOPPER_LANDMARKS
    )  # cut below the nose
    assert mask[103, 226]
    assert not mask[141, 225]
    with pytest.raises(ValueError, match="mouth of the face lies outside"):
        forge.region_swap(astronaut, hopper[:240], LANDMARKS, HOPPER_LANDMARKS, "mouth")


@pytest.mark.parametrize(
    ("image", "landmarks", "message"),
    [
        (np.zeros((9, 9), np.uint8), LANDMARKS, "uint8 RGB"),
        (np.zeros((300, 300, 3)), LANDMARKS, "uint8 RGB"),
        ([[1, 2], [3, 4]], LANDMARKS, "uint8 RGB"),
        (np.zeros((300, 300, 3), np.uint8), LANDMARKS[:4], "five finite landmarks"),
        (np.zeros((300, 300, 3), np.uint8), LANDMARKS * np.nan, "five finite landmarks"),
        (np.zeros((300, 300, 3), np.uint8), LANDMARKS * 0.1, "4 px apart"),
    ],
)
def test_bad_input_is_named(
    image: np.ndarray, landmarks: np.ndarray, message: str, astronaut: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=message):
        forge.self_blend(image, landmarks)
    with pytest.raises(ValueError, match=message):
        forge.face_swap(astronaut, image, LANDMARKS, landmarks)


def test_unknown_region_lists_the_known(astronaut: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'ear' alone; the regions are eyes, nose, mouth, jaw"):
        forge.region_swap(astronaut, astronaut, LANDMARKS, LANDMARKS, "ear")
