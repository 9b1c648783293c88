"""Measures of disagreement against values worked out by hand."""

import numpy as np
import pytest

from features.measures import FLOOR, cosine, js, kl

HALF, QUARTER = np.array([0.5, 0.5]), np.array([0.25, 0.75])


def test_kl_by_hand():
    assert kl(HALF, QUARTER) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert kl(QUARTER, HALF) == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))


def test_js_by_hand():
    middle = np.array([0.375, 0.625])
    by_hand = 0.5 * (0.5 * np.log(0.5 / 0.375) + 0.5 * np.log(0.5 / 0.625))
    by_hand += 0.5 * (0.25 * np.log(0.25 / 0.375) + 0.75 * np.log(0.75 / 0.625))
    assert js(HALF, QUARTER) == pytest.approx(by_hand) == js(QUARTER, HALF)
    assert js(HALF, QUARTER) == pytest.approx((kl(HALF, middle) + kl(QUARTER, middle)) / 2)


def test_identical_outputs():
    p = np.random.default_rng(0).dirichlet(np.ones(9), size=20).astype(np.float16)
    assert np.allclose(kl(p, p), 0) and np.allclose(js(p, p), 0)
    assert np.allclose(cosine(p, 3 * p), 1)


def test_opposite_distributions_stay_finite():
    yes, no = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert kl(yes, no) == pytest.approx(-np.log(FLOOR), rel=1e-4)
    assert js(yes, no) == pytest.approx(np.log(2), rel=1e-4)
    assert js(yes, no) <= np.log(2)


def test_rough_distributions_are_renormalised():
    assert kl(HALF * 0.998, QUARTER * 1.003) == pytest.approx(kl(HALF, QUARTER))


def test_cosine_of_known_angles():
    a = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    b = np.array([[0.0, 2.0], [1.0, 0.0], [-3.0, 0.0]])
    assert np.allclose(cosine(a, b), [0, np.sqrt(0.5), -1])


def test_missing_outputs_are_nan():
    assert np.isnan(kl(np.array([np.nan, 0.5]), HALF)) and np.isnan(
        js(HALF, np.array([0.5, np.nan]))
    )
    assert np.isnan(cosine(np.zeros(2), HALF)) and np.isnan(cosine(np.array([np.nan, 1]), HALF))


def test_last_axis_is_compared_and_the_others_broadcast():
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 5))
    assert kl(p, p[:, :1]).shape == js(p, p[:1]).shape == cosine(p, p[0]).shape == (4, 5)
    assert kl(p, p[:1])[2, 3] == pytest.approx(kl(p[2, 3], p[0, 3]))
