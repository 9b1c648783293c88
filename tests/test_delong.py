import numpy as np
import pytest

from evaluation.delong import delong
from evaluation.metrics import auc

# Albumin, total protein, K-G score, and whether surgery helped (0 is the event), of 43 patients of
# DeLong et al. (1988), as the SAS/STAT User's Guide prints them in "Comparing Receiver Operating
# Characteristic Curves".
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def test_the_published_example():
    albumin, protein, score, y = np.array(PATIENTS.split(), float).reshape(-1, 4).T
    score = 10 - score
    assert [round(auc(y, p), 4) for p in (albumin, score, protein)] == [0.7366, 0.7258, 0.6478]
    first, second = delong(y, albumin, score), delong(y, protein, score)
    figures = [
        [round(row[name], 4) for name in ("difference", "error", "low", "high", "p")]
        for row in (first, second)
    ]
    assert figures[0] == [0.0108, 0.0953, -0.1761, 0.1976, 0.9102]
    assert figures[1] == [-0.0780, 0.1046, -0.2830, 0.1271, 0.4561]
    assert (
        round(first["z"] ** 2, 4) == 0.0127 and round(second["z"] ** 2, 3) == 0.555
    )  # chi-square with one degree


def test_agrees_with_resampling_and_is_antisymmetric():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 300)
    common = rng.normal(size=600)
    p, q = y + common + rng.normal(size=600), 0.6 * y + common + rng.normal(size=600)
    draws = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(y == label), 300) for label in (0, 1)])
        draws.append(auc(y[rows], p[rows]) - auc(y[rows], q[rows]))
    found, turned = delong(y, p, q), delong(y, q, p)
    assert found["difference"] == pytest.approx(auc(y, p) - auc(y, q))
    assert found["error"] == pytest.approx(np.std(draws), rel=0.15)
    assert turned["difference"] == pytest.approx(-found["difference"]) and turned[
        "p"
    ] == pytest.approx(found["p"])


def test_the_same_ranking_is_no_difference():
    y = np.array([0, 0, 1, 1, 1])
    p = np.array([0.1, 0.4, 0.3, 0.5, 0.9])
    assert delong(y, p, p**3) == {"difference": 0, "error": 0, "low": 0, "high": 0, "z": 0, "p": 1}


def test_refusals():
    with pytest.raises(ValueError, match="two faces of each class"):
        delong(np.array([0, 1, 1]), np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match="scores"):
        delong(np.array([0, 0, 1, 1]), np.arange(4), np.arange(3))


def test_a_difference_without_an_error_has_no_p():
    y = np.array([0, 0, 1, 1])
    found = delong(y, y.astype(float), np.zeros(4))
    assert found["difference"] == 0.5 and found["error"] == 0 and np.isnan(found["p"])
    assert delong(y, y.astype(float), y * 2.0)["p"] == 1
