"""When it is real, when fake, and when it cannot be told; and how rare a score is said to be."""

import json
import re

import numpy as np
import pytest

from inference.verdict import FAKE, REAL, UNSURE, Verdict, beyond, decide, rarity

SEEN = {"face_px": 60.0, "sharpness": 10.0, "score": 0.9, "yaw": 50.0, "distance": 1.4}
FINE = {"face_px": 100.0, "sharpness": 50.0, "score": 1.0, "yaw": -20.0}


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
    said, doubts = decide(p, threshold, [], calibrated)
    assert said == verdict and bool(doubts) == (verdict == UNSURE)


@pytest.mark.parametrize("p", [0.01, 0.6, 0.99])
def test_whoever_is_in_doubt_does_not_judge(p):
    assert decide(p, 0.74, ["too small"], True) == (UNSURE, ["too small"])


def test_faces_like_those_of_training_are_judged():
    assert beyond(FINE, 1.0, SEEN) == []
    edge = {"face_px": 60.0, "sharpness": 10.0, "score": 0.9, "yaw": -50.0}
    assert beyond(edge, 1.4, SEEN) == []
    assert beyond({**FINE, "sharpness": np.nan}, 1.0, {"distance": 1.4}) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("face_px", 30.0, "only 30 px wide, less than 99 of 100"),
        ("sharpness", 3.0, r"blurred \(sharpness 3\)"),
        ("score", 0.5, "hardly looks like a face"),
        ("yaw", -70.0, "turned away by 70 degrees, more than 99 of 100"),
    ],
)
def test_every_quality_is_a_reason_not_to_judge(name, value, words):
    (doubt,) = beyond({**FINE, name: value}, 1.0, SEEN)
    assert re.search(words, doubt), doubt


def test_strange_faces_are_not_judged():
    assert beyond(FINE, 1.5, SEEN) == [
        "the face as a whole is unlike the faces that the detector learned from"
    ]


def test_rarity_is_the_share_of_real_faces_with_its_interval():
    scores = np.arange(200) / 200
    rare = rarity(0.95, scores)
    assert (
        rare.share == 0.05
        and rare.low == pytest.approx(0.0242, abs=2e-4)
        and rare.high == pytest.approx(0.0900, abs=2e-4)
    )
    assert rare.words == "1 in 20 real faces scores as high (1 in 11 to 1 in 41)"
    assert rarity(0.1, scores).words == "90% of real faces score as high or higher"
    none = rarity(2.0, scores)
    assert (
        none.share == 0
        and none.low == 0
        and none.words == "fewer than 1 in 55 real faces score as high"
    )
    assert rarity(-1.0, scores).high == 1


def test_what_cannot_be_judged_is_told_in_json_and_csv():
    verdict = Verdict("a.jpg", error="no face found")
    assert json.loads(json.dumps(verdict.to_json(whole=True)))["error"] == "no face found"
    assert verdict.to_csv()["p_fake"] == "" and verdict.to_csv()["doubts"] == ""
    assert Verdict("a", doubts=["x", "y"]).to_csv()["doubts"] == "x | y"
