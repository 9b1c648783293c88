"""The decision rule, its abstention limits, and the false-alarm rate of a score."""

import json
import re

import numpy as np
import pytest

from inference.verdict import (
    BETWEEN,
    CLEAR,
    CSV_COLUMNS,
    FAKE,
    NEVER_CLEAR,
    UNSURE,
    FalseAlarmRate,
    Verdict,
    decide,
    out_of_distribution,
    outside_limits,
)

LIMITS = {
    "face_px": 60.0,
    "sharpness": 10.0,
    "score": 0.9,
    "yaw": 50.0,
    "missing": 0.2,
    "distance": 1.4,
}
GOOD = {"face_px": 100.0, "sharpness": 50.0, "score": 1.0, "yaw": -20.0}


@pytest.mark.parametrize(
    ("p", "clear_below", "verdict", "because"),
    [
        (0.8, 0.3, FAKE, []),
        (0.74, 0.3, FAKE, []),
        (0.73, 0.3, UNSURE, [BETWEEN]),
        (0.3, 0.3, UNSURE, [BETWEEN]),
        (0.29, 0.3, CLEAR, []),
        (0.73, 0.74, CLEAR, []),
        (0.0, 0.0, UNSURE, [NEVER_CLEAR]),
        (0.8, 0.0, FAKE, []),
    ],
)
def test_the_verdict_follows_the_score(p, clear_below, verdict, because):
    assert decide(p, 0.74, clear_below, []) == (verdict, because)
    assert not out_of_distribution(because)


@pytest.mark.parametrize("p", [0.01, 0.6, 0.99])
def test_a_reason_to_abstain_overrides_the_score(p):
    assert decide(p, 0.74, 0.3, ["too small"]) == (UNSURE, ["too small"])
    assert out_of_distribution([BETWEEN, "too small"])


def test_faces_within_the_limits_are_predicted():
    assert outside_limits(GOOD, 0.0, 1.0, LIMITS) == []
    edge = {"face_px": 60.0, "sharpness": 10.0, "score": 0.9, "yaw": -50.0}
    assert outside_limits(edge, 0.2, 1.4, LIMITS) == []
    assert outside_limits({**GOOD, "sharpness": np.nan}, 1.0, 1.0, {"distance": 1.4}) == []


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
    (reason,) = outside_limits({**GOOD, name: value}, 0.0, 1.0, LIMITS)
    assert re.search(words, reason), reason


def test_features_have_a_limit():
    (reason,) = outside_limits(GOOD, 0.0, 1.5, LIMITS)
    assert "unlike the training faces" in reason
    (reason,) = outside_limits(GOOD, 0.21, 1.0, LIMITS)
    assert "features are missing" in reason


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


def of_score(p_fake, **other):
    rate = FalseAlarmRate(0.02, 0.01, 0.04)
    about = {"threshold": 0.8, "clear_below": 0.2, "prior": 0.5, "fpr": 0.05, "baseline_logit": 0.3}
    return Verdict("a.jpg", 0, p_fake, FAKE, false_alarm_rate=rate, **{**about, **other})


def test_a_prior_moves_the_odds_by_its_own():
    """Bayes' rule: at a prior of .5 the odds of 9 to 1 are evidence of 9; 1 in 10 makes them 1."""
    found = of_score(0.9).at_prior(0.1)
    assert found.p_fake == pytest.approx(0.5)
    assert found.threshold == pytest.approx(4 / 13) and found.clear_below == pytest.approx(1 / 37)
    assert found.baseline_logit == pytest.approx(0.3 - np.log(9))
    assert found.verdict == FAKE and "p_fake 0.50 (if 10% of faces are fakes)" in found.to_text()
    assert found.to_json()["prior"] == 0.1 and found.to_csv()["prior"] == 0.1
    assert found.at_prior(0.5).p_fake == pytest.approx(0.9)


def test_a_prior_moves_a_clip_and_never_a_certain_score():
    clip = {"p_fake": [0.9, 0.5], "low": 0.5, "high": 0.9, "frames": [0, 1]}
    found = of_score(0.7, clip=clip, worst_frame=of_score(0.9), clear_below=0.0).at_prior(0.1)
    assert found.clip["p_fake"] == [0.5, 0.1] and (found.clip["low"], found.clip["high"]) == (
        0.1,
        0.5,
    )
    assert found.worst_frame.p_fake == pytest.approx(0.5) and found.clear_below == 0
    assert clip["low"] == 0.5, "the first verdict stays"
    assert of_score(0.7, threshold=1 + 1e-15).at_prior(0.1).threshold > 1


def test_a_rank_among_real_faces_has_no_prior():
    with pytest.raises(ValueError, match="rank among real faces"):
        of_score(0.9, prior=None).at_prior(0.1)
    failed = Verdict("a.jpg", error="no face found")
    assert failed.at_prior(0.1) is failed
