"""Ranks among real faces, and one face's columns by region, pair and family."""

import numpy as np
import pytest

from features.disagreement import PARTS, by_family, of_regions, pairs_of, ranks, regions_of, unusual
from features.explain import PERCENTILES

NAMES = [
    "a.identity/cos/upper~lower",
    "a.age/js/full~upper",
    "a.age/expected/left>right",
    "traces.altered/level/lower",
    "b.unheard/diff/inner~outer",
]
REALS = np.random.default_rng(0).normal(size=(4000, 5))
REFERENCE = np.percentile(REALS, PERCENTILES, axis=0)


def test_ranks_are_shares_of_real_faces():
    rank = ranks(REALS, REFERENCE)
    for share in (0.05, 0.3, 0.5, 0.9):
        assert (rank < share).mean(0) == pytest.approx(share, abs=0.03)
    extremes = ranks(np.array([[-99.0] * 5, [99.0] * 5, [np.nan] * 5]), REFERENCE)
    assert (
        (extremes[0] == 0.005).all()
        and (extremes[1] == 0.995).all()
        and np.isnan(extremes[2]).all()
    )
    flat = np.repeat(np.array([[0.0], [0.0], [0.0], [0.0], [0.0], [1.0], [2.0]]), 5, axis=1)
    assert 0.1 < ranks(np.zeros(5), flat)[0] < 0.8, "what half of the real faces have is usual"


def test_unusual_is_towards_inconsistency_for_every_measure():
    odd = unusual(NAMES, np.full(5, -3.0), REFERENCE)
    assert odd[0] > 0.98, "a low cosine disagrees"
    assert (odd[1:] < 0.02).all(), "a low divergence agrees"


def test_families_sum_to_everything():
    sums = by_family(NAMES, np.array([0.5, -0.25, 1.0, 2.0, 4.0]))
    assert sums == {"attributes": 0.75, "identities": 0.5, "traces": 2.0, "other": 4.0}


def test_pairs_are_the_cosines_of_one_output():
    (pair,) = pairs_of("a.identity", NAMES, np.zeros(5), REFERENCE)
    assert (pair.first, pair.second, pair.value) == ("upper", "lower", 0.0)
    assert (
        pair.low == REFERENCE[1, 0]
        and pair.high == REFERENCE[5, 0]
        and pair.rank == pytest.approx(0.5, abs=0.02)
    )
    assert pairs_of("a.identity", NAMES, np.full(5, np.nan), REFERENCE) == []


def test_regions_of_a_column():
    assert [regions_of(name) for name in NAMES] == [
        ("upper", "lower"),
        ("upper",),
        ("left", "right"),
        ("lower",),
        ("inner", "outer"),
    ]
    assert regions_of("no column") == ()


def test_the_part_that_was_changed_disagrees_most():
    usual = np.zeros((1, 5))
    assert of_regions(NAMES, usual, REFERENCE) == pytest.approx(
        np.array([[0, np.nan, 0, 0, 0, 0, 0]]), abs=0.05, nan_ok=True
    )
    changed = usual.copy()
    changed[0, 3], changed[0, 0] = 3.0, -3.0
    found = dict(zip(PARTS, of_regions(NAMES, changed, REFERENCE)[0], strict=True))
    spread = REFERENCE[5, 3] - REFERENCE[1, 3]
    assert found["lower"] == pytest.approx(0.99 + 3.0 / spread, abs=0.05) and found[
        "upper"
    ] == pytest.approx(0.49, abs=0.05)
    changed[0, 3] = np.nan
    assert of_regions(NAMES, changed, REFERENCE)[0, 2] == pytest.approx(0.99, abs=0.05)


def test_of_two_forgery_logits_the_mean_of_those_that_are_there_counts():
    """In either order, and each beside its own real faces."""
    names = ["traces.altered/level/lower", "clip.made/level/lower"]
    both = np.column_stack([REALS[:, 0], 10 + 100 * REALS[:, 0]])
    reference = np.percentile(both, PERCENTILES, axis=0)
    spread = reference[5, 0] - reference[1, 0]
    lower = PARTS.index("lower")

    def disagreement(*values: float, order: slice = slice(None)) -> float:
        given = np.array([values])[:, order]
        return of_regions(names[order], given, reference[:, order])[0, lower]

    usual, odd = 10 + 100 * reference[3, 0], 10 + 100 * 3.0
    alone = 0.99 + (3.0 - reference[3, 0]) / spread
    assert disagreement(np.nan, odd) == pytest.approx(alone, abs=0.02)
    assert disagreement(3.0, np.nan) == pytest.approx(alone, abs=0.02)
    assert disagreement(3.0, odd) == pytest.approx(alone, abs=0.02)
    half = 0.495 + (3.0 - reference[3, 0]) / spread / 2
    for order in (slice(None), slice(None, None, -1)):
        assert disagreement(3.0, usual, order=order) == pytest.approx(half, abs=0.02)
        assert disagreement(reference[3, 0], odd, order=order) == pytest.approx(half, abs=0.02)
