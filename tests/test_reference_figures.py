"""Threshold, calibration and limits of the comparison, as they are measured."""

from dataclasses import replace

import numpy as np
import pytest

from data.claims import Claims
from evaluation import reference
from inference.comparison import Comparison
from tests.toy_people import OUTPUTS, toy_people
from training.reference import LIMITS, fits_of, safe_threshold


@pytest.fixture(scope="module")
def comparison():
    columns, fits, about = fits_of(toy_people(), OUTPUTS, 0.05)
    about |= {"fpr": 0.05}
    return Comparison(tuple(columns), {"lite": "0" * 64}, fits, LIMITS, about)


def test_the_threshold_holds_in_four_of_five_draws_of_people():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 4)
    conflict = np.clip(rng.random(40)[people] ** 3 + rng.normal(0, 0.05, 160), 0, 1)
    threshold = safe_threshold(conflict, people, 0.05)
    kept = []
    for _ in range(300):
        drawn = np.concatenate([np.flatnonzero(people == x) for x in rng.integers(40, size=40)])
        kept.append((conflict[drawn] >= threshold).mean() <= 0.05)
    assert 0.7 < np.mean(kept) < 0.9


def test_calibration_error_is_the_gap_between_p_and_wrong_claims():
    kind = np.array([0] * 6 + [1, 2, 3] * 2)  # as the prior: half of them wrong
    rows = np.arange(12)
    claims = Claims(rows, kind, rows.astype(object), [rows[:1]] * 12)
    for p, error in ((0.5, 0.0), (0.9, 0.4), (0.2, 0.3)):
        scores = {reference.MASC: np.full(12, p)}
        found = reference.Scored(claims, scores, np.zeros((12, 4)), rows > 99, rows, rows)
        assert reference.calibration_error(found) == pytest.approx(error)


def test_faces_outside_the_limits_are_no_alarms_and_pairs_of_one_event_are_apart(comparison):
    faces = toy_people("test", seed=1)
    small = replace(faces, rows=faces.rows | {"face_px": np.full(len(faces), 9.0)})
    rows = [*reference.figures(small, comparison, 2)]
    assert {row["value"] for row in rows if row["metric"] == "false_alarms"} == {0.0}
    said = [row for row in rows if row["metric"] == "named" and "coverage" not in row["test"]]
    assert said and {row["value"] for row in said} == {0.0}
    assert all(row["note"].endswith("cannot tell") for row in said)
    # All pictures of the first two people are of one event, the others of events of their own.
    colours = np.random.default_rng(0).random((len(faces), 12, 12, 3))
    colours[faces.rows["person"] < "test02"] = 0.5
    crops = np.concatenate([colours, np.ones((*colours.shape[:3], 1))], -1).astype(np.float32)
    rows = [*reference.figures(faces, comparison, 2, crops=crops)]
    counts = {
        row.get("group", ""): row["n"]
        for row in rows
        if row["metric"] == "false_alarms" and row["size"] == 1
    }
    assert counts[reference.EVENTS] == counts[""] * 22 / 24
