"""The decision rule, its abstention limits, and the false-alarm rate of a score."""

import json
import re

import numpy as np
import pytest

from inference.verdict import (
    BORDERLINE,
    CSV_COLUMNS,
    FAKE,
    REAL,
    UNSURE,
    FalseAlarmRate,
    Verdict,
    decide,
    out_of_distribution,
    outside_limits,
)

LIMITS = {"face_px": 60.0, "sharpness": 10.0, "score": 0.9, "yaw": 50.0, "distance": 1.4}
GOOD = {"face_px": 100.0, "sharpness": 50.0, "score": 1.0, "yaw": -20.0}


@pytest.mark.parametrize(
    ("p", "threshold", "calibrated", "verdict"),
    [
        (0.8, 0.74, True, FAKE),
        (0.74, 0.74, True, FAKE),
        (0.6, 0.74, True, UNSURE),
        (0.5, 0.74, True, UNSURE),
        (0.49, 0.74, True, REAL),
        (0.45, 0.4, True, FAKE),
        (0.39, 0.4, True, REAL),
        (0.6, 0.95, False, REAL),
    ],
)
def test_the_verdict_follows_the_score(p, threshold, calibrated, verdict):
    found, abstain = decide(p, threshold, [], calibrated)
    assert found == verdict and bool(abstain) == (verdict == UNSURE)
    assert not out_of_distribution(abstain)


@pytest.mark.parametrize("p", [0.01, 0.6, 0.99])
def test_a_reason_to_abstain_overrides_the_score(p):
    assert decide(p, 0.74, ["too small"], True) == (UNSURE, ["too small"])
    assert out_of_distribution([BORDERLINE, "too small"])


def test_faces_within_the_limits_are_predicted():
    assert outside_limits(GOOD, 1.0, LIMITS) == []
    edge = {"face_px": 60.0, "sharpness": 10.0, "score": 0.9, "yaw": -50.0}
    assert outside_limits(edge, 1.4, LIMITS) == []
    assert outside_limits({**GOOD, "sharpness": np.nan}, 1.0, {"distance": 1.4}) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("face_px", 30.0, "only 30 px wide, less than 99%"),
        ("sharpness", 3.0, r"blurred.*\(3\)"),
        ("score", 0.5, r"face detector.*\(0.50\)"),
        ("yaw", -70.0, "turned by 70 degrees, more than 99%"),
    ],
)
def test_every_quality_has_a_limit(name, value, words):
    (reason,) = outside_limits({**GOOD, name: value}, 1.0, LIMITS)
    assert re.search(words, reason), reason


def test_features_have_a_limit():
    (reason,) = outside_limits(GOOD, 1.5, LIMITS)
    assert "unlike the training faces" in reason


def test_false_alarm_rate_has_an_interval():
    scores = np.arange(200) / 200
    rate = FalseAlarmRate.at(0.95, scores)
    numbers = (rate.share, rate.low, rate.high)
    assert numbers == pytest.approx((0.05, 0.0242, 0.09), abs=2e-4)
    assert rate.words == "1 in 20 real faces scores as high (1 in 11 to 1 in 41)"
    assert FalseAlarmRate.at(0.1, scores).words == "90% of real faces score as high or higher"
    none = FalseAlarmRate.at(2.0, scores)
    assert none.share == 0 and none.low == 0
    assert none.words == "fewer than 1 in 55 real faces score as high"
    assert FalseAlarmRate.at(-1.0, scores).high == 1


def test_json_and_csv_of_a_face_without_a_score():
    verdict = Verdict("a.jpg", error="no face found")
    assert json.loads(json.dumps(verdict.to_json(whole=True)))["error"] == "no face found"
    row = verdict.to_csv()
    assert tuple(row) == CSV_COLUMNS and row["p_fake"] == "" and row["doubts"] == ""
    assert Verdict("a", reasons_to_abstain=["x", "y"]).to_csv()["doubts"] == "x | y"
