import numpy as np
import pytest

from data import degrade
from data.degrade import FAMILIES, Condition, conditions

STILL = tuple(name for name, family in FAMILIES.items() if family.function)


@pytest.fixture(scope="module")
def picture(astronaut):
    return np.ascontiguousarray(astronaut[:128, 160:288])


def distance(degraded, picture):
    assert degraded.shape == picture.shape and degraded.dtype == np.uint8
    return np.abs(degraded.astype(int) - picture).mean()


@pytest.mark.parametrize(
    ("name", "mild", "strong"),
    [
        ("jpeg", 90, 10),
        ("blur", 0.5, 3),
        ("downscale", 1.5, 6),
        ("noise", 2, 25),
        ("brightness", 0.95, 0.4),
    ],
)
def test_stronger_degradation_is_further_from_the_original(picture, name, mild, strong):
    function = getattr(degrade, name)
    assert (
        0
        < distance(function(picture, mild), picture)
        < distance(function(picture, strong), picture)
    )


@pytest.mark.parametrize("family", [name for name in STILL if name != "resize"])
def test_every_level_is_further_from_the_original_than_the_one_before(picture, family):
    distances = [distance(condition(picture), picture) for condition in conditions((family,))]
    assert len(distances) == 5 and distances[0] > 0 and sorted(distances) == distances


def test_the_published_parameters():
    levels = {name: family.levels for name, family in FAMILIES.items()}
    assert levels["saturation"] == (0.4, 0.3, 0.2, 0.1, 0.0) and levels["contrast"] == (
        0.85,
        0.725,
        0.6,
        0.475,
        0.35,
    )
    assert levels["blocks"] == (16, 32, 48, 64, 80) and levels["noise"] == (
        0.001,
        0.002,
        0.005,
        0.01,
        0.05,
    )
    assert levels["blur"] == (7, 9, 13, 17, 21) and levels["pixelation"] == (2, 3, 4, 5, 6)
    assert levels["h264"] == (30, 32, 35, 38, 40) and levels["jpeg"] == (90, 70, 50, 30, 20)


def test_known_answers():
    colour = np.full((256, 300, 3), (200, 100, 50), np.uint8)
    grey = degrade.saturation(colour, 0)
    assert (
        np.ptp(grey[0, 0].astype(int)) <= 1 and abs(int(grey[0, 0, 0]) - 124) <= 1
    )  # .299 x 200 + .587 x 100 + ...
    assert (degrade.saturation(colour, 1) == colour).all()
    assert (degrade.brightness(colour, 0.5)[0, 0] == (100, 50, 25)).all()
    covered = (degrade.blocks(colour, 16) == 128).all(-1).sum()
    assert 8 * 64 < covered <= 16 * 64  # blocks may lie on each other
    flat = np.full((256, 256, 3), 128, np.uint8)
    noisy = degrade.colour_noise(flat, 0.001).astype(float)
    luma = noisy @ (0.299, 0.587, 0.114)
    assert luma.std() == pytest.approx(np.sqrt(0.001) * 255 * 255 / 219, rel=0.05)
    step = np.zeros((60, 60, 3), np.uint8)
    step[:, 30:] = 255
    ramp = degrade.kernel_blur(step, 7)[30, :, 0].astype(int)
    assert ((ramp > 0) & (ramp < 255)).sum() == 6  # a kernel of 7 px reaches 3 px to both sides
    assert (
        len(
            np.unique(
                degrade.pixelation(
                    np.tile(np.arange(60, dtype=np.uint8)[:, None, None], (1, 60, 3)), 6
                )
            )
        )
        < 60
    )


def test_resize_shrinks_the_shorter_side_and_never_enlarges():
    image = np.zeros((300, 448, 3), np.uint8)
    assert [condition(image).shape[:2] for condition in conditions(("resize",))] == [
        (224, 335),
        (112, 167),
        (64, 96),
    ]
    small = np.zeros((60, 90, 3), np.uint8)
    assert all(condition(small).shape == small.shape for condition in conditions(("resize",)))


@pytest.mark.parametrize("family", STILL)
def test_the_same_picture_gives_the_same_bytes_and_is_left_alone(picture, family):
    before = picture.copy()
    last = conditions((family,))[-1]
    assert (last(picture) == last(picture.copy())).all() and (picture == before).all()


def test_colours_stay_in_order():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    for name in STILL:
        mean = Condition(name, 1)(red).reshape(-1, 3).mean(0)
        assert mean[0] == mean.max() and mean[0] > mean[1:].max() + 30, name


def test_conditions_are_written_as_family_and_level():
    assert Condition.of("jpeg:4") == Condition("jpeg", 4) and Condition.of("jpeg:4").value == 30
    assert str(Condition("blur", 2)) == "blur:2"
    for text in ("jpeg", "jpeg:0", "jpeg:6", "resize:4", "fog:1", "jpeg:x"):
        with pytest.raises(ValueError, match="resize:1 to 3"):
            Condition.of(text)
    with pytest.raises(ValueError, match="families are"):
        conditions(("fog",))
    with pytest.raises(ValueError, match="resize:1 to 3"):
        conditions(("jpeg", "fog:1"))
    assert conditions(("jpeg:4", "resize", "resize:2")) == [
        Condition("jpeg", 4),
        *(Condition("resize", level) for level in (1, 2, 3)),
    ]
    with pytest.raises(ValueError, match="clips"):
        Condition.of("h264:1")(np.zeros((64, 64, 3), np.uint8))
