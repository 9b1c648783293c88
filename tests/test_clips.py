"""Videos: two people stay two people, long films take no more memory, and what is said of each adds up."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.video import read_frames, seconds_of
from inference import clips
from inference.clips import Person, assign, draw_scores, overlap, predict_clip, summarise
from inference.detector import Detector
from inference.verdict import FAKE, LEANS, REAL, UNSURE, Verdict
from tests.conftest import ROOT
from training.examples import COLLINS, HOPPER, photograph

FRAMES = 6


@pytest.fixture(scope="module")
def detector():
    return Detector(faces="all")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two people who change places in the middle, and one of them leaves for the last sixth: 24 frames, 2 a second."""
    path = tmp_path_factory.mktemp("film") / "two people.mp4"
    one, two = (
        np.asarray(Image.fromarray(photograph(*who)[:500]).resize((320, 320)))
        for who in (COLLINS, HOPPER)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=2, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 640, 320, "yuv420p"
        for number in range(24):
            left, right = (
                (one, two) if number < 12 else (two, one if number < 20 else np.zeros_like(one))
            )
            picture = av.VideoFrame.from_ndarray(
                np.concatenate([left, right], axis=1), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def said(detector, film):
    return predict_clip(detector, film, FRAMES)


def test_two_people_stay_two_people_when_they_change_places(said):
    assert [len(person.clip["frames"]) for person in said] == [6, 5]
    assert [person.face for person in said] == [0, 1] and {person.path for person in said} == {
        said[0].path
    }
    assert said[0].clip["frames"] == [0, 1, 2, 3, 4, 5] and said[1].clip["frames"] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert np.ptp(said[0].clip["p_fake"]) < 0.25, "one person, not two by turns"


def test_a_person_is_the_mean_of_their_frames_and_the_worst_is_told(said):
    for person in said:
        scores = np.array(person.clip["p_fake"])
        assert person.p_fake == pytest.approx(scores.mean(), abs=1e-3)
        assert (
            person.clip["low"] <= person.p_fake + 1e-3
            and person.clip["high"] >= person.p_fake - 1e-3
        )
        assert person.worst.p_fake == pytest.approx(scores.max(), abs=1e-3)
        spot = person.clip["worst"]
        assert person.clip["p_fake"][person.clip["frames"].index(spot["frame"])] == pytest.approx(
            scores.max(), abs=1e-4
        )
        assert spot["seconds"] == pytest.approx((spot["frame"] + 0.5) / FRAMES * 12, abs=0.1)
        whole = person.to_json(
            whole=True
        )  # what sums to a logit is that of the worst frame, not of the mean
        assert "families" not in whole and whole["worst_frame"]["p_fake"] == person.worst.p_fake
        assert (
            person.verdict in (REAL, FAKE, UNSURE)
            and person.to_json()["clip"]["frames_looked_at"] == FRAMES
        )


def test_few_frames_are_in_memory_at_once(detector, film, monkeypatch):
    asked = []
    monkeypatch.setattr(clips, "AT_ONCE", 2)
    read = clips.read_frames
    monkeypatch.setattr(
        clips,
        "read_frames",
        lambda path, wanted, *rest: asked.append(len(wanted)) or read(path, wanted, *rest),
    )
    again = predict_clip(detector, film, FRAMES)
    assert asked == [2, 2, 2] and len(again) == 2


def test_what_is_no_video_or_shows_nobody_is_told(detector, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (verdict,) = predict_clip(detector, tmp_path / "text.mp4", FRAMES)
    assert verdict.error and verdict.p_fake is None
    with av.open(str(tmp_path / "grey.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=2)
        stream.width = stream.height = 64
        for _ in range(8):
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
                )
            )
        container.mux(stream.encode())
    (verdict,) = predict_clip(detector, tmp_path / "grey.mp4", 4)
    assert verdict.error == "no face found in 4 frames"
    assert seconds_of(tmp_path / "text.mp4") is None and seconds_of(
        tmp_path / "grey.mp4"
    ) == pytest.approx(4, abs=0.6)


def face(identity, box=(0, 0, 10, 10), p=0.5, doubts=()):
    return Verdict(
        "x", p_fake=p, box=box, identity=np.array(identity, np.float32), doubts=list(doubts)
    )


def test_faces_go_to_whom_they_look_like_and_strangers_are_new():
    people: list[Person] = []
    assign(people, [face([1, 0]), face([0, 1], (20, 0, 30, 10))], 0)
    assign(
        people, [face([0.1, 1], (0, 0, 10, 10)), face([1, 0.2], (20, 0, 30, 10), doubts=[LEANS])], 1
    )
    assign(people, [face([-1, -1], (50, 0, 60, 10), doubts=["the face is blurred"])], 2)
    assert [person.places for person in people] == [[0, 1], [0, 1], [2]]
    assert [person.doubtful for person in people] == [0, 0, 1]
    assert (
        overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
        and overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0
    )


def test_without_an_identity_the_place_tells_people_apart():
    people: list[Person] = []
    for place in range(3):
        faces = [face([0], (0, place, 10, 10 + place)), face([0], (20, 0, 30, 10))]
        for each in faces:
            each.identity = None
        assign(people, faces, place)
    assert [person.places for person in people] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("scores", "doubtful", "seen", "verdict", "words"),
    [
        ([0.9] * 8, 0, 8, FAKE, ""),
        ([0.1] * 8, 0, 8, REAL, ""),
        ([0.9] * 8, 5, 8, UNSURE, "in 5 of 8 frames the face is unlike"),
        ([0.9], 0, 30, UNSURE, "seen in 1 of 30 frames only"),
        ([0.99, 0.99, 0.99, 0.4], 0, 4, UNSURE, "on either side of"),
    ],
)
def test_when_a_clip_can_be_told(detector, scores, doubtful, seen, verdict, words):
    person = Person((0, 0, 1, 1), places=list(range(len(scores))), p_fake=scores, doubtful=doubtful)
    person.worst = Verdict("x", p_fake=max(scores), box=(0, 0, 1, 1))
    found = summarise(detector, person, Path("c.mp4"), 0, seen, seen, None)
    assert found.verdict == verdict and words in " ".join(found.doubts)


def test_the_command_line_tells_each_person_and_draws_them(film, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "predict.py"),
        str(film),
        "--frames",
        "4",
        "--explain",
        str(tmp_path / "cards"),
    ]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "v.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        "(person 1, in 4 of 4 frames)" in done.stdout and "mean over the frames, 95%" in done.stdout
    )
    rows = json.loads((tmp_path / "v.json").read_text())
    assert len(rows) == 2 and len(rows[0]["clip"]["p_fake"]) == 4
    names = sorted(path.name for path in (tmp_path / "cards").iterdir())
    assert len(names) == 5 and names[-1] == "clip_0001_two_people_scores.png"
    card = json.loads(next((tmp_path / "cards").glob("0001*.json")).read_text())
    assert "_person_1_frame_" in next((tmp_path / "cards").glob("0001*.json")).name
    assert next((tmp_path / "cards").glob("0001*.json")).stem.endswith(
        card["verdict"].replace(" ", "_")
    )
    assert card["p_fake"] == pytest.approx(max(rows[0]["clip"]["p_fake"]), abs=1e-3)
    spot = rows[0]["clip"]["worst"]
    assert isinstance(read_frames(film, [(spot["frame"], spot["of"])])[0], np.ndarray)


def test_scores_over_time_are_drawn(said, tmp_path):
    draw_scores(said).savefig(tmp_path / "s.png")
    assert np.asarray(Image.open(tmp_path / "s.png")).shape[1] == 1200
