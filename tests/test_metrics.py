"""Figures against values worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from evaluation.metrics import (
    accuracy,
    ap,
    auc,
    bootstrap,
    brier,
    ece,
    eer,
    fpr_at,
    summary,
    table,
    threshold_at_fpr,
    tpr_at_fpr,
)

Y = np.array([0, 0, 1, 0, 1, 1])
P = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])


def test_by_hand():
    assert auc(Y, P) == pytest.approx(8 / 9)
    assert ap(Y, P) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert eer(Y, P) == pytest.approx(1 / 3)
    assert tpr_at_fpr(Y, P, 0.01) == pytest.approx(2 / 3) and tpr_at_fpr(Y, P, 0.34) == 1
    assert accuracy(Y, P, 0.5) == pytest.approx(4 / 6) and accuracy(Y, P, 0.7) == pytest.approx(
        5 / 6
    )
    assert fpr_at(Y, P, 0.6) == pytest.approx(1 / 3) and fpr_at(Y, P, 0.61) == 0
    assert brier(Y, P) == pytest.approx((0.01 + 0.04 + 0.49 + 0.36 + 0.09 + 0.01) / 6)


def test_ece_of_two_bins():
    y, p = np.array([0, 1, 1, 1]), np.array([0.61, 0.62, 0.99, 0.99])
    assert ece(y, p) == pytest.approx((abs(0.5 - 0.615) * 2 + 0.01 * 2) / 4)
    assert ece(np.array([0, 1]), np.array([0.0, 1.0])) == 0


@pytest.mark.parametrize("digits", [1, 8])
def test_with_and_without_ties_as_scikit_learn_has_it(digits):
    rng = np.random.default_rng(digits)
    y = rng.integers(0, 2, 400)
    p = np.round(np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1), digits)
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert ap(y, p) == pytest.approx(average_precision_score(y, p))
    fpr, tpr, _ = roc_curve(y, p, drop_intermediate=False)
    nearest = np.abs(1 - tpr - fpr).argmin()
    assert eer(y, p) == pytest.approx((fpr[nearest] + 1 - tpr[nearest]) / 2)
    assert eer(y, np.zeros(len(y))) == 0.5
    assert tpr_at_fpr(y, p, 0.05) == pytest.approx(tpr[fpr <= 0.05].max())


def test_one_class_leaves_rates_undefined():
    for figure in (auc, ap, eer, tpr_at_fpr):
        assert np.isnan(figure(np.zeros(3, int), P[:3])) and np.isnan(
            figure(np.ones(3, int), P[:3])
        ), figure
    row = summary(np.zeros(6, int), P, list("abcdef"), 0.5, replicates=50)
    assert row["auc"] == {"value": None, "low": None, "high": None}
    assert row["accuracy"]["value"] == pytest.approx(3 / 6) and row["n_fake"] == 0


@pytest.mark.parametrize(("n", "fpr", "above"), [(100, 0.05, 5), (10, 0.05, 0), (40, 0.1, 4)])
def test_threshold_lets_the_stated_share_through(n, fpr, above):
    p = np.random.default_rng(0).random(n)
    assert (p >= threshold_at_fpr(p, fpr)).sum() == above


def test_threshold_errs_on_the_strict_side_with_ties():
    assert (
        np.array([0.5] * 30 + [0.1] * 70)
        >= threshold_at_fpr(np.array([0.5] * 30 + [0.1] * 70), 0.05)
    ).sum() == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_at_fpr(P, 5)
    with pytest.raises(ValueError, match="no real faces"):
        threshold_at_fpr(P[:0], 0.05)


def test_intervals_are_by_group():
    """Copies of a face within its group add nothing: they leave the interval as it was, and would
    halve one by face.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    p = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    groups = np.arange(200)
    once = bootstrap({"auc": auc}, y, p, groups, 400)["auc"]
    copied = bootstrap({"auc": auc}, np.tile(y, 4), np.tile(p, 4), np.tile(groups, 4), 400)["auc"]
    by_face = bootstrap({"auc": auc}, np.tile(y, 4), np.tile(p, 4), np.arange(800), 400)["auc"]
    assert copied == pytest.approx(once)
    assert by_face[1] - by_face[0] < 0.7 * (once[1] - once[0])
    assert once[0] < auc(y, p) < once[1]


def test_summary_counts_and_refuses_what_cannot_be_measured():
    row = summary(Y, P, list("aabbcc"), 0.5, replicates=100)
    assert (row["n"], row["n_real"], row["n_fake"], row["n_groups"]) == (6, 3, 3, 3)
    assert row == summary(Y, P, list("aabbcc"), 0.5, replicates=100)
    with pytest.raises(ValueError, match="1 of them without a score"):
        summary(Y, np.append(P[:5], np.nan), list("aabbcc"), 0.5)
    with pytest.raises(ValueError, match="0 faces"):
        summary(Y[:0], P[:0], [], 0.5)


def test_table_shows_values_intervals_and_gaps():
    rows = {
        "lfw val": summary(Y, P, list("abcdef"), 0.5, replicates=50),
        "x": summary(Y[:2], P[:2], "ab", 0.5, 50),
    }
    lines = table(rows).splitlines()
    assert len(lines) == 5 and lines[0].split()[:3] == ["faces", "groups", "AUC"]
    assert lines[1].startswith("lfw val") and ".889" in lines[1] and "n/a" in lines[3]


def test_faces_without_a_score_set_no_threshold():
    scores = np.linspace(0, 1, 100)
    assert threshold_at_fpr(np.append(scores, [np.nan] * 30), 0.05) == threshold_at_fpr(
        scores, 0.05
    )
    with pytest.raises(ValueError, match="no real faces"):
        threshold_at_fpr(np.array([np.nan]), 0.05)
