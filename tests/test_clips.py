"""Videos: tracking of people, memory, and the verdict over frames."""

import json
import socket
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

import predict
from command_line import run
from data import reader
from data.images import ImageError
from data.video import seconds_of
from inference import clips
from inference.card import draw_scores
from inference.clips import Track, assign, iou, predict_clip, read_worst_frame, summarise
from inference.verdict import BETWEEN, CLEAR, FAKE, UNSURE, Verdict
from models.record import Record
from training.examples import COLLINS, HOPPER, photograph

FRAMES = 6


def write_video(path, images, rate=2):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=rate, options={"crf": "18"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """24 frames, 2 a second: two people change places in the middle; one leaves at the end."""
    one, two = (
        np.asarray(Image.fromarray(photograph(*person)[:500]).resize((320, 320)))
        for person in (COLLINS, HOPPER)
    )
    parts = [(one, two)] * 12 + [(two, one)] * 8 + [(two, np.zeros_like(one))] * 4
    images = [np.concatenate(part, axis=1) for part in parts]
    return write_video(tmp_path_factory.mktemp("film") / "two people.mp4", images)


@pytest.fixture(scope="module")
def people(detector, film):
    return predict_clip(detector, film, FRAMES)


def test_two_people_stay_two_people_when_they_change_places(people):
    assert [person.clip["frames"] for person in people] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    assert [person.face for person in people] == [0, 1]
    assert len({person.path for person in people}) == 1
    assert np.ptp(people[0].clip["p_fake"]) < 0.25, "one person, not two by turns"


def test_the_score_is_the_mean_and_the_worst_frame_is_reported(people, film):
    for person in people:
        clip, scores = person.clip, np.array(person.clip["p_fake"])
        assert person.p_fake == pytest.approx(scores.mean(), abs=1e-3)
        assert clip["low"] <= person.p_fake + 1e-3 and clip["high"] >= person.p_fake - 1e-3
        assert person.worst_frame.p_fake == pytest.approx(scores.max(), abs=1e-3)
        worst = clip["worst"]
        top = scores[clip["frames"].index(worst["frame"])]
        assert top == pytest.approx(scores.max(), abs=1e-4)
        assert worst["seconds"] == pytest.approx((worst["frame"] + 0.5) / FRAMES * 12, abs=0.1)
        assert isinstance(read_worst_frame(film, person), np.ndarray)
        whole = person.to_json(whole=True)  # contributions are those of the worst frame
        assert "families" not in whole
        assert whole["worst_frame"]["p_fake"] == person.worst_frame.p_fake
        assert person.verdict in (CLEAR, FAKE, UNSURE) and clip["frames_looked_at"] == FRAMES


def test_few_frames_are_in_memory_at_once(detector, film, monkeypatch):
    counts, read = [], reader.read_frames

    def count(path, wanted, *rest):
        counts.append(len(wanted))
        return read(path, wanted, *rest)

    monkeypatch.setattr(clips, "FRAMES_IN_MEMORY", 2)
    monkeypatch.setattr(reader, "read_frames", count)
    assert len(predict_clip(detector, film, FRAMES)) == 2 and counts == [2, 2, 2]


def test_a_video_that_is_unreadable_or_shows_nobody_has_an_error(detector, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (verdict,) = predict_clip(detector, tmp_path / "text.mp4", FRAMES)
    assert verdict.error and verdict.p_fake is None
    assert seconds_of(tmp_path / "text.mp4") is None
    grey = write_video(tmp_path / "grey.mp4", [np.full((64, 64, 3), 99, np.uint8)] * 8)
    (verdict,) = predict_clip(detector, grey, 4)
    assert verdict.error == "no face found in 4 frames"
    assert seconds_of(grey) == pytest.approx(4, abs=0.6)


def face(identity, box=(0, 0, 10, 10), abstain=()):
    identity = None if identity is None else np.array(identity, np.float32)
    return Verdict("x", p_fake=0.5, box=box, identity=identity, reasons_to_abstain=list(abstain))


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)


def test_faces_are_assigned_by_identity_and_strangers_are_new():
    tracks: list[Track] = []
    assign(tracks, [face([1, 0], LEFT), face([0, 1], RIGHT)], 0)
    assign(tracks, [face([0.1, 1], LEFT), face([1, 0.2], RIGHT, [BETWEEN])], 1)
    assign(tracks, [face([-1, -1], (50, 0, 60, 10), ["the face is blurred"])], 2)
    assert [track.frames for track in tracks] == [[0, 1], [0, 1], [2]]
    assert [track.out_of_distribution for track in tracks] == [0, 0, 1]
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0


def test_faces_without_identity_are_assigned_by_position():
    tracks: list[Track] = []
    for frame in range(3):
        assign(tracks, [face(None, (0, frame, 10, 10 + frame)), face(None, RIGHT)], frame)
    assert [track.frames for track in tracks] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("scores", "outside", "read", "verdict", "words"),
    [
        ([0.9] * 8, 0, 8, FAKE, ""),
        ([0.1] * 8, 0, 8, CLEAR, ""),
        ([0.5] * 8, 0, 8, UNSURE, BETWEEN),
        ([0.1, 0.1, 0.1, 0.6], 0, 4, UNSURE, "interval of the mean ends in doubt"),
        ([0.9] * 8, 5, 8, UNSURE, "in 5 of 8 frames the face is unlike"),
        ([0.9], 0, 30, UNSURE, "only 1 of 30 frames"),
        ([0.99, 0.99, 0.99, 0.4], 0, 4, UNSURE, "interval of the mean contains the threshold"),
    ],
)
def test_the_verdict_over_frames(detector, scores, outside, read, verdict, words, monkeypatch):
    rows = [{"kind": "swaps", "left_out": "", "fakes": 4, "found": 2, "nothing_found": 1}]
    record = Record(rows, {"p_fake": 0.3, "fakes": 0.25, "reals": 0.5}, 60)
    monkeypatch.setattr(detector, "clear_below", 0.3)
    monkeypatch.setattr(detector, "record", record)
    worst = Verdict("x", p_fake=max(scores), box=(0, 0, 1, 1))
    track = Track(worst.box, 0.0, list(range(len(scores))), scores, outside, worst)
    found = summarise(detector, track, 0, read, read, None)
    assert found.verdict == verdict and words in " ".join(found.reasons_to_abstain)
    assert ("swaps 1 of 4" in found.meaning) == (verdict == CLEAR)


@pytest.mark.usefixtures("lite_is_default")
def test_the_command_line_reports_every_person(film, tmp_path, capsys):
    cards, table = tmp_path / "cards", tmp_path / "v.json"
    options = ["--frames", "4", "--explain", str(cards), "--json", str(table)]
    assert run(predict.main, predict.Config, "", [str(film), *options]) == 0
    printed = capsys.readouterr().out
    assert "(person 1, in 4 of 4 frames)" in printed and "mean over the frames, 95%" in printed
    rows = json.loads(table.read_text())
    assert len(rows) == 2 and len(rows[0]["clip"]["p_fake"]) == 4
    names = sorted(path.name for path in cards.iterdir())
    assert len(names) == 5 and names[-1] == "clip_0001_two_people_scores.png"
    (path,) = cards.glob("0001*_person_1_frame_*.json")
    card = json.loads(path.read_text())
    assert path.stem.endswith(card["verdict"].replace(" ", "_"))
    assert card["p_fake"] == pytest.approx(max(rows[0]["clip"]["p_fake"]), abs=1e-3)
    picture = np.asarray(Image.open(cards / names[-1]))
    assert picture.shape[1] == 1200


def test_scores_are_drawn_over_frames_where_the_time_is_unknown(people):
    untimed = [
        replace(person, clip=person.clip | {"seconds": [None] * len(person.clip["frames"])})
        for person in people
    ]
    assert draw_scores(untimed).axes[0].get_xlabel() == "frame"


class Torn(reader.Reader):
    """Of 8 frames, those in `lost` are damaged and the last one would repeat another."""

    lost = (2, 3)

    def frames(self, video, wanted):
        return [self.one(video, i) for i, _ in wanted]

    def one(self, video, i):
        if i in self.lost:
            return ImageError(video, "damaged or cut short")
        if i == 7:
            return ImageError(video, "would repeat an earlier one", repeated=True)
        return photograph(*COLLINS)[:500]


def test_frames_lost_by_damage_are_told_apart_from_those_that_would_repeat(detector, film):
    (person,) = predict_clip(detector, film, 8, Torn())
    assert person.clip["frames_asked"] == 8 and person.clip["frames_looked_at"] == 5
    assert person.clip["frames_unreadable"] == 2
    assert person.clip["unreadable_because"] == "damaged or cut short"


def test_a_clip_of_which_nothing_can_be_read_says_so(detector, film):
    torn = Torn()
    torn.lost = range(8)
    (verdict,) = predict_clip(detector, film, 8, torn)
    assert verdict.error == "8 of 8 frames could not be read (damaged or cut short)"


def test_a_short_clip_has_lost_nothing(detector, film):
    person = predict_clip(detector, film, 30)[0]
    assert person.clip["frames_asked"] == 30 and person.clip["frames_looked_at"] == 24
    assert person.clip["frames_unreadable"] == 0 and not person.clip["unreadable_because"]


def test_a_name_of_a_video_is_no_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for name in (f"tcp:127.0.0.1:{port}?x.mp4", f"http://127.0.0.1:{port}/x.mp4"):
            assert seconds_of(name) is None
            assert isinstance(reader.Reader().frames(name, [(0, 1)])[0], ImageError)
            with pytest.raises(ImageError):
                reader.Reader().image(name)
        with pytest.raises(BlockingIOError):
            server.accept()


class Faces:
    """Answers about the faces of a clip, as `Comparer` gives them."""

    def over(self, references):
        return ("over", [found.name for found in references])


def compared(name, somebody_else):
    probabilities = {"consistent": 1 - somebody_else, "somebody else": somebody_else}
    return SimpleNamespace(name=name, probabilities=probabilities, p_conflict=somebody_else)


def test_in_a_clip_the_person_most_like_the_photographs_is_compared():
    """The swapped one, who fits half of them, not a bystander; nor a face of a single frame."""
    scores = {"swapped": [0.3, 0.4], "bystander": [0.9, 0.95], "short": [0.0], "lost": [np.nan] * 2}
    tracks, people = [], []
    for name, values in scores.items():
        found = [compared(name, value) for value in values]
        tracks.append(Track(frames=list(range(len(values))), references=found))
        people.append(Verdict("", worst_frame=Verdict("")))
    tracks[2].frames = [0]
    clips.compare_most_like(SimpleNamespace(comparer=Faces()), tracks, people, 20)
    assert [person.reference for person in people] == [("over", ["swapped"] * 2), None, None, None]
    assert people[0].worst_frame.reference == people[0].reference
