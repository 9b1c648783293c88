"""Genuine photographs of a person, and the answers about faces compared with them."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

import predict
from command_line import run
from data import degrade
from data.images import ImageError
from features.reference import PATTERNS, names_of
from features.regions import REGIONS
from inference.comparison import CANNOT_TELL, Comparison, Fit
from inference.detector import Detector
from inference.person import Faces, Person, Photograph, person_of
from inference.person_card import draw_person_card, shade
from inference.reference import Comparer, Likeness
from training.pseudo_fakes import face_swap

NAME = "person.identity"
SIZE = 8


def fit(threshold=0.6, clear=0.4):
    """p_conflict grows where inner and outer face are less alike than .5."""
    columns = len(REGIONS)
    weights = np.zeros((4, columns))
    inner, outer = REGIONS.index("inner"), REGIONS.index("outer")
    for pattern, (a, b) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        weights[pattern, [inner, outer]] = 4 * a, 4 * b
    tables = np.linspace(0.3, 1, 201)[:, None], np.linspace(-0.5, 0.6, 201)[:, None]
    tables = [np.repeat(table, columns, axis=1) for table in tables]
    half = np.full(columns, 0.5)
    return Fit(half, half, weights, np.zeros(4), threshold, clear, *tables)


LIMITS = {"face_px": 32.0, "sharpness": 5.0, "noise": 6000.0, "yaw": 45.0, "seen": 0.5}
COMPARISON = Comparison(tuple(names_of((NAME,))), {}, {1: fit()}, LIMITS, {"fpr": 0.05})


def vector(direction, noise=0.0, seed=0):
    """(R, D), every region in one direction."""
    value = np.zeros(SIZE)
    value[direction] = 1
    return np.tile(value, (len(REGIONS), 1)) + np.random.default_rng(seed).normal(
        0, noise, (len(REGIONS), SIZE)
    )


def faces(*vectors):
    views = np.zeros((len(vectors), 128, 128, 3), np.uint8)
    views[:] = np.arange(len(vectors))[:, None, None, None]
    return Faces({NAME: np.stack(vectors).astype(np.float32)}, views)


def test_a_photograph_of_somebody_else_is_left_out():
    given = [faces(vector(0, 0.1, seed)) for seed in range(3)]
    given.insert(1, faces(vector(5)))
    person = person_of("Ann", list("abcd"), given, COMPARISON)
    assert [x.name for x in person.used] == ["a", "c", "d"]
    assert person.left_out == ["b: left out: its face is unlike those of the others"]
    assert person.embedding[NAME][0, 0] > 0.9
    more = [*given, faces(vector(5, 0.1)), "no face found", faces(vector(0, 0.1, 1))]
    both = person_of("Ann", list("abcdefg"), more, COMPARISON)
    assert [x.name for x in both.used] == ["a", "c", "d"]
    assert {"f: left out: no face found", "g: left out: a copy of c"} < set(both.left_out)


def test_photographs_of_several_people_are_refused():
    given = [faces(vector(who, 0.1, seed)) for seed, who in enumerate((0, 5, 0, 5))]
    with pytest.raises(ImageError, match=r"several people \(a, b, c, d\); name those of Ann alone"):
        person_of("Ann", list("abcd"), given, COMPARISON)
    three = [faces(vector(who)) for who in (0, 3, 5)]
    with pytest.raises(ImageError, match="several people"):
        person_of("Ann", list("abc"), three, COMPARISON)


def test_poor_photographs_are_left_out_where_there_are_better_ones():
    poor = replace(faces(vector(0, 0.1, 1)), doubts=[["the face is only 20 px wide"]])
    good = replace(faces(vector(0, 0.1, 2)), doubts=[[]])
    person = person_of("Ann", ["a", "b"], [poor, good], COMPARISON)
    assert [x.name for x in person.used] == ["b"] and not person.poor
    assert person.left_out == ["a: left out: the face is only 20 px wide"]
    alone = person_of("Ann", ["a"], [poor], COMPARISON)
    assert alone.poor and alone.notes == ["a: the face is only 20 px wide"]


def test_two_photographs_that_are_unlike_are_both_kept_with_a_note():
    person = person_of("Ann", ["a", "b"], [faces(vector(0)), faces(vector(5))], COMPARISON)
    assert len(person.used) == 2 and "less alike" in person.notes[0]
    alike = person_of("Ann", ["a", "b"], [faces(vector(0)), faces(vector(0, 0.1))], COMPARISON)
    assert alike.notes == []


def test_of_several_faces_the_one_like_the_others_is_taken():
    group = faces(vector(5), vector(0, 0.1), vector(6))
    person = person_of("Ann", ["group", "a"], [group, faces(vector(0))], COMPARISON)
    assert person.photographs[0].view[0, 0, 0] == 1  # the second face
    assert person.notes == ["group: has 3 faces; the one most like the other photographs was taken"]
    alone = person_of("Ann", ["group"], [group], COMPARISON)
    assert alone.photographs[0].view[0, 0, 0] == 0 and "in the middle" in alone.notes[0]


@pytest.fixture
def comparer():
    made = Comparer.__new__(Comparer)
    made.comparison = COMPARISON
    return made


PERSON = Person("Ann", (Photograph("a", view=np.zeros((128, 128, 3), np.uint8)),), {})


def likeness(inner=0.9, outer=0.9):
    value = {"inner": inner, "outer": outer}
    return [Likeness(x, value.get(x, 0.8), 0.7, 0.01, 0.4, 0.95, -0.4, 0.5) for x in REGIONS]


def answer(comparer, inner, outer, doubts=()):
    similarities = np.full(len(REGIONS), 0.8)
    similarities[[REGIONS.index("inner"), REGIONS.index("outer")]] = inner, outer
    p = fit().probabilities(similarities[None])[0]
    view = np.full((128, 128, 3), 120, np.uint8)
    return comparer.answer(PERSON, p, likeness(inner, outer), list(doubts), view)


def test_an_answer_names_the_pattern_and_says_why(comparer):
    values = {"consistent": (0.9, 0.9), "another face on this head": (0, 0.9)}
    values |= {"this face on another head": (0.9, 0), "somebody else": (0, 0)}
    for pattern, parts in values.items():
        found = answer(comparer, *parts)
        assert found.pattern == pattern and PATTERNS.count(pattern) == 1
        assert found.sentences[0].count("Ann") == 1
        assert found.p_conflict == pytest.approx(1 - found.probabilities["consistent"])
        data = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert data["pattern"] == pattern and len(data["regions"]) == len(REGIONS)
        assert data["photographs"] == ["a"]
    unsure = answer(comparer, 0.9, 0.9, ["the face is only 20 px wide"])
    assert unsure.pattern == CANNOT_TELL and "only 20 px" in unsure.sentences[1]


def test_a_face_without_outputs_cannot_be_told(comparer):
    p = np.full(4, np.nan)
    parts = [replace(each, similarity=np.nan) for each in likeness()]
    found = comparer.answer(PERSON, p, parts, ["the comparison has no output for this face"], None)
    assert found.pattern == CANNOT_TELL and found.conflict_words == ""
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["p_conflict"] is None and data["regions"] == []


def test_over_the_frames_of_a_clip_probabilities_are_averaged(comparer):
    frames = [answer(comparer, 0.9, 0.9), answer(comparer, 0.9, 0), answer(comparer, 0.9, 0)]
    found = comparer.over(frames)
    assert found.pattern == "this face on another head"
    assert found.p_conflict == pytest.approx(np.mean([each.p_conflict for each in frames]))
    assert found.likeness("outer").similarity == pytest.approx(0.3)
    small = [answer(comparer, 0.9, 0, ["the face is only 9 px wide"]) for _ in range(3)]
    told = comparer.over([*small, answer(comparer, 0.9, 0)])
    assert told.pattern == CANNOT_TELL and told.doubts == [
        "in 3 of 4 frames the face is only 9 px wide"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("face_px", 10), ("yaw", 80), ("seen", 0.2), ("sharpness", 1), ("sharpness", 9000)],
)
def test_what_is_too_small_turned_blurred_or_cut_off_is_not_told(comparer, name, value):
    good = {"face_px": 90.0, "sharpness": 90.0, "yaw": 5.0, "seen": 0.9}
    assert comparer.doubts(good) == []
    (doubt,) = comparer.doubts(good | {name: value})
    assert f"{value:.0%}" in doubt if name == "seen" else str(value) in doubt


def test_a_region_says_how_rare_its_likeness_is():
    each = likeness()[-1]
    assert replace(each, genuine=0.623).sentence == (
        "Hair, ears, jaw and neck: similarity 0.90; more alike than 62 of 100 genuine pairs"
    )
    assert replace(each, similarity=0.1, genuine=0.002, different=0.4).sentence == (
        "Hair, ears, jaw and neck: similarity 0.10; less alike than 199 of 200 genuine pairs, "
        "more alike than 60 of 100 pairs of different people"
    )
    assert "more alike than 199 of 200" in replace(each, genuine=1.0).sentence


def test_regions_are_coloured_by_how_they_fit():
    fits, differs = likeness()[0], replace(likeness()[0], genuine=0.01)
    assert shade(fits)[0] != shade(differs)[0]
    assert shade(differs)[1] > shade(replace(differs, genuine=0.08))[1]  # the worse the stronger
    assert shade(fits)[1] > shade(replace(fits, genuine=0.2))[1]


def test_the_card_holds_all_sentences(comparer):
    person = person_of(
        "Ann $x$",
        [f"/home/ann/{i}.jpg" for i in range(8)],
        [faces(vector(0, 0.1, seed)) for seed in range(7)] + ["empty"],
        COMPARISON,
    )
    found = replace(answer(comparer, 0.9, 0), person=person)
    figure = draw_person_card(found, "somewhere/suspect.jpg")
    texts = [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))]
    assert "this face on another head" in texts and "suspect.jpg" in texts
    assert all(sentence in texts for sentence in found.sentences)
    assert any("7.jpg: left out: empty" in text for text in texts)
    assert not any("/home/ann" in text for text in texts)


# The commands.


@pytest.fixture(scope="module")
def album(tmp_path_factory, astronaut, hopper):
    """Photographs of Collins in other light and size, one of Hopper, a broken one; a swap."""
    folder = tmp_path_factory.mktemp("album")
    own = folder / "Collins"
    own.mkdir()
    for number, gain in enumerate((0.8, 1.0, 1.2)):
        lit = np.clip(astronaut * gain, 0, 255).astype(np.uint8)
        Image.fromarray(lit[:, ::-1] if number == 1 else lit).save(own / f"{number}.jpg")
    Image.fromarray(hopper).save(own / "hopper.jpg")
    (own / "broken.jpg").write_bytes(b"nothing")
    comparer = Comparer()
    points = comparer.cutter([astronaut, hopper]).landmarks
    swap, _ = face_swap(astronaut, hopper, *points)
    Image.fromarray(swap).save(folder / "swap.png")
    turn = cv2.getRotationMatrix2D((225, 130), 12, 0.8)
    other = degrade.blur(cv2.warpAffine(astronaut, turn, (512, 512)), 2)
    Image.fromarray(np.uint8(other * 0.7)).save(folder / "genuine.png")
    return folder


def test_predict_answers_for_the_person_in_photographs(album, tmp_path, capfd):
    out = tmp_path / "out"
    code = run(
        predict.main,
        predict.Config,
        predict.__doc__,
        [str(album / "genuine.png"), str(album / "swap.png"), "--person", str(album / "Collins")]
        + [
            "--checkpoint",
            "checkpoints/lite",
            "--explain",
            str(out),
            "--csv",
            str(tmp_path / "v.csv"),
        ]
        + ["--json", str(tmp_path / "v.json")],
    )
    assert code == 0
    told = capfd.readouterr()
    assert "broken.jpg: left out: not an image" in told.err
    assert "hopper.jpg: left out: its face is unlike those of the others" in told.err
    assert "Against 3 genuine photographs of Collins: consistent" in told.out
    with (tmp_path / "v.csv").open(newline="") as file:
        genuine, swap = csv.DictReader(file)
    assert (genuine["person"], genuine["photographs"], genuine["pattern"]) == (
        "Collins",
        "3",
        "consistent",
    )
    assert float(swap["p_conflict"]) > float(genuine["p_conflict"])
    rows = json.loads((tmp_path / "v.json").read_text())
    assert rows[1]["reference"]["pattern"] == swap["pattern"]
    assert len(list(out.glob("*_person.png"))) == 2
    with Image.open(next(out.glob("*_person.png"))) as card:
        assert card.size == (1200, 720)


def test_python_takes_files_arrays_and_images(album, astronaut):
    detector = Detector.load("checkpoints/lite")
    files = sorted((album / "Collins").glob("[0-2].jpg"))
    with Image.open(files[1]) as image:
        given = [files[0], image, astronaut, str(files[2])]
        found = detector.predict(album / "genuine.png", person=given).reference
    assert found.pattern == "consistent" and len(found.person.used) == 4
    assert 0 <= found.p_conflict < found.threshold
    assert [region.region for region in found.regions] == list(REGIONS)
    (among,) = detector.predict(astronaut, person=astronaut).reference.doubts
    assert "among the photographs" in among
    person = detector.read_person(files, "Collins")
    assert (
        detector.predict(astronaut, person=person).reference.of
        == "3 genuine photographs of Collins"
    )
    assert detector.predict(astronaut).reference is None  # the detector itself is as before
    with pytest.raises(
        ImageError, match=r"no photograph of the person can be used .*no face found"
    ):
        detector.predict(astronaut, person=[np.zeros((64, 64, 3), np.uint8)])


def test_a_detector_is_given_the_photographs_of_the_person(album, monkeypatch):
    seen, score = [], Detector.score
    monkeypatch.setattr(
        Detector, "score", lambda self, arrays: (seen.append(set(arrays)), score(self, arrays))[1]
    )
    detector = Detector.load("checkpoints/lite")
    detector.predict(album / "genuine.png", person=album / "Collins" / "0.jpg")
    detector.predict(album / "genuine.png")
    assert ["person.identity@person" in names for names in seen] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jpg", "--person", "nowhere"], "--person nowhere: not there"),
        (["--person", "."], "--person needs photographs"),
        (["--person", "x.jpg"], "name the pictures to judge before it"),
        (["x.jpg", "--person"], "--person needs photographs"),
        (["x.jpg", "--comparison", "y.json"], "--comparison needs --person"),
    ],
)
def test_mistakes_with_photographs_are_told(arguments, message, capfd):
    assert run(predict.main, predict.Config, predict.__doc__, arguments) == 2
    assert message in capfd.readouterr().err
