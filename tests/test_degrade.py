import numpy as np
import pytest

from data.degrade import DEGRADATIONS


@pytest.fixture(scope="module")
def picture(astronaut):
    return np.ascontiguousarray(astronaut[:128, 160:288])


@pytest.mark.parametrize(
    ("name", "mild", "strong"),
    [("jpeg", 90, 10), ("blur", 0.5, 3), ("downscale", 1.5, 6), ("noise", 2, 25), ("brightness", 0.95, 0.4)],
)
def test_stronger_degradation_is_further_from_the_original(picture, name, mild, strong):
    def distance(strength):
        degraded = DEGRADATIONS[name](picture, strength)
        assert degraded.shape == picture.shape and degraded.dtype == np.uint8
        return np.abs(degraded.astype(int) - picture).mean()

    assert 0 < distance(mild) < distance(strong)


def test_every_degradation_is_listed_and_keeps_colours_in_order(picture):
    red = np.zeros_like(picture)
    red[..., 0] = 200
    strengths = {"jpeg": 80, "blur": 1, "downscale": 2, "noise": 1, "brightness": 0.9}
    assert set(strengths) == set(DEGRADATIONS)
    for name, function in DEGRADATIONS.items():
        mean = function(red, strengths[name]).reshape(-1, 3).mean(0)
        assert mean[0] > 150 and mean[1:].max() < 20, name
