"""What train.py says where its result means little: one line for each reason, with numbers."""

import json

import numpy as np
import pytest

from data.dump import read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from tests.synthetic import predictions, write_dump
from train import Config, main
from training import remarks

PEOPLE, LABEL = np.repeat(np.arange(60), 4), np.tile([0, 0, 1, 1], 60)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return join_dumps([read_dump(write_dump(tmp_path_factory.mktemp("plain") / "made" / "toy"))])


def said(faces: FeatureDataset, one_class: bool = False) -> str:
    notes = remarks.on_faces(faces, faces.split("train"), one_class)
    assert not any("\n" in note for note in notes)
    return "\n".join(notes)


def changed(faces: FeatureDataset, **rows) -> FeatureDataset:
    return FeatureDataset(faces.arrays, faces.rows | rows)


def test_little_is_said_of_an_ordinary_dataset(plain):
    assert said(plain) == "only 24 fake validation faces: the figures are rough"
    twice = {name: np.repeat(value, 5, 0) for name, value in plain.arrays.items()}
    rows = {name: np.repeat(value, 5) for name, value in plain.rows.items()}
    assert said(FeatureDataset(twice, rows)) == ""


@pytest.mark.parametrize(("label", "word"), [(0, "real"), (1, "fake")])
def test_few_faces_of_one_label(plain, label, word):
    mine = np.flatnonzero((plain.rows["label"] == label) & (plain.rows["split"] == "train"))
    few = plain.select(np.setdiff1d(np.arange(len(plain)), mine[3:]))
    other = ("fake", "real")[label]
    assert f"only 3 {word} training faces, of 2 groups" in said(few)
    assert f"72 {other} training faces and 3 {word}" in said(few)
    assert ("training faces" in said(few, one_class=True)) == (label == 0)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(("label", "word"), [(0, "real"), (1, "fake")])
def test_a_split_of_one_label(plain, split, label, word):
    faces = plain.select((plain.rows["split"] != split) | (plain.rows["label"] == label))
    assert f"all faces of the {split} split are {word}" in said(faces)
    assert f"all faces of the {split} split are {word}" in said(faces, one_class=True)


def test_a_group_or_a_picture_in_two_splits(plain):
    split = plain.rows["split"].copy()
    split[:2] = "test"
    assert "1 groups have faces in more than one split, such as made/g000" in said(
        changed(plain, split=split)
    )
    split[:2] = ""
    assert "more than one split" not in said(changed(plain, split=split)), "left out on purpose"
    path = plain.rows["path"].copy()
    path[-1] = path[0]
    assert "1 pictures have faces in more than one split, such as made/real/0000.jpg" in said(
        changed(plain, path=path)
    )


def test_the_same_face_with_two_labels_is_named(plain):
    """Also where its outputs are rounded in another way, and where some are missing."""
    arrays = {name: value.copy() for name, value in plain.arrays.items()}
    for value in arrays.values():
        value[2] = (value[0].astype(np.float32) * 1.002).astype(np.float16)
    arrays["toy.age"][[0, 2]] = np.nan
    found = said(FeatureDataset(arrays, plain.rows))
    assert (
        "1 fakes show the same face as a real picture, such as fake/0002.jpg = real/0000.jpg"
        in found
    )
    phash = plain.rows["phash"].copy()
    phash[[0, 2, 4, 6]] = ["0f" * 8, "0f" * 8, "a" * 16, "a" * 16]
    more = found + (
        "\n1 fakes have the perceptual hash of a real picture, such as fake/0006.jpg = "
        "real/0004.jpg: they were made from it, or one of the two labels is wrong"
    )
    assert said(changed(FeatureDataset(arrays, plain.rows), phash=phash)) == more
    for value in arrays.values():
        value[20:40] = np.nan
    assert said(FeatureDataset(arrays, plain.rows)) == found, "nothing is known of those faces"


def test_columns_that_say_nothing_or_too_much():
    rng, label = np.random.default_rng(0), np.repeat([0, 1], 100)
    values, names = rng.normal(size=(200, 4)), [f"toy.{name}/diff/full~upper" for name in "abcd"]
    assert remarks.on_columns(names, values, label) == []
    values[:, 0], values[label == 1, 1], values[label == 0, 2] = 3, np.nan, np.nan
    values[::5, 3] = np.nan
    constant, first, second = remarks.on_columns(names, values, label)
    assert constant.startswith("1 of 4 columns have the same value") and "toy.a/" in constant
    assert first.startswith("toy.b is missing for 0% of the real and 100% of the fake training")
    assert second.startswith("toy.c is missing for 100% of the real and 0% of the fake training")
    assert remarks.on_columns(names, values[label == 0], label[:100])[1:] == []


@pytest.mark.parametrize(
    ("auc", "told"),
    [
        ((0.52, 0.45, 0.6), "AUC 0.520 (0.450 to 0.600): not shown to be better than chance"),
        ((0.9, None, None), "AUC 0.900 (too few groups for an interval)"),
        ((0.52, 0.51, 0.53), None),
        ((None, None, None), None),
    ],
)
def test_figures_at_chance(auc, told):
    cell = dict(zip(("value", "low", "high"), auc, strict=True))
    notes = remarks.on_figures({"x val": {"auc": cell}})
    assert (told in notes[0]) if told else notes == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("head", ["logreg", "oneclass"])
def test_warnings_are_kept_with_the_detector(tmp_path, head, caplog):
    """Huge and infinite outputs, an output that fakes lack and one that nobody has: no crash."""
    arrays = predictions(PEOPLE, LABEL)
    arrays["toy.age_years"][::7] = np.inf
    arrays["toy.age_years"][1::7] = 60_000
    arrays["toy.age"][LABEL == 1] = np.nan
    arrays["toy.moves"][:] = np.nan
    dump = write_dump(tmp_path / "made" / "toy", change=arrays)
    options = {"one_class": True} if head == "oneclass" else {}
    out = main(Config(features=(dump,), only=("raw",), out=tmp_path / "out", **options))
    kept = json.loads((out / "metrics.json").read_text())["warnings"]
    assert any(
        "toy.age is missing for 0% of the real and 100% of the fake" in note for note in kept
    )
    assert "toy.moves has no value on any real training face and is left out" in kept
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == kept


# Faces without any feature.

SPLIT = np.repeat(["train", "val", "test"], (144, 48, 48))


def lacking(folder, rows, *names):
    """A dump in which these faces lack outputs; names: which ones, none: all."""
    arrays = predictions(PEOPLE, LABEL)
    for name in names or arrays:
        arrays[name][rows] = np.nan
    return write_dump(folder / "made" / "toy", change=arrays)


def warnings_of(dump, **options) -> list[str]:
    out = main(Config(features=(dump,), out=dump.parent.parent / "out", **options))
    return json.loads((out / "metrics.json").read_text())["warnings"]


REAL_VAL = (SPLIT == "val") & (LABEL == 0)
LEFT_OUT = {
    "all but one": (
        REAL_VAL & (np.arange(240) != 144),
        "23 validation faces have not a single feature and are left out: 23 of 24 real, 0 of 24 fake",
        "only 1 real validation faces",
    ),
    "all real ones": (REAL_VAL, "24 of 24 real, 0 of 24 fake", "only 10 real validation faces"),
    "all fakes": (
        (SPLIT == "val") & (LABEL == 1),
        "0 of 24 real, 24 of 24 fake",
        "all faces of the val split are real",
    ),
    "two thirds": (
        (SPLIT == "val") & (PEOPLE >= 40),
        "32 validation faces have not a single feature and are left out: 16 of 24 real, 16 of 24 fake",
        "only 8 real validation faces",
    ),
    "in training": (
        (SPLIT == "train") & (PEOPLE >= 20),
        "64 training faces have not a single feature and are left out: 32 of 72 real, 32 of 72 fake",
        "only 40 real training faces, of 20 groups",
    ),
}


@pytest.mark.parametrize("names", [(), ("toy.age",)])
@pytest.mark.parametrize("which", LEFT_OUT)
def test_faces_without_a_feature_do_not_count(tmp_path, which, names):
    """Also where they have outputs, and the chosen columns are made of others."""
    rows, *wanted = LEFT_OUT[which]
    notes = warnings_of(lacking(tmp_path, rows, *names), only=names)
    for text in wanted:
        assert sum(text in note for note in notes) == 1, notes


def test_no_feature_left_to_train_on(tmp_path, caplog):
    training = SPLIT == "train"
    reals, fakes = training & (LABEL == 0), training & (LABEL == 1)
    with pytest.raises(ValueError, match="no real training face has an output .*--drop or --only"):
        warnings_of(lacking(tmp_path / "reals", reals, "toy.age"), only=("toy.age",))
    with pytest.raises(ValueError, match="and no fake; add fakes"):
        warnings_of(lacking(tmp_path / "fakes", fakes))
    assert "0 of 72 real, 72 of 72 fake" in caplog.text


@pytest.mark.parametrize(
    ("groups", "drop", "advice"),
    [
        (np.where(SPLIT == "train", np.where(LABEL, PEOPLE, 99), PEOPLE), (), "--drop expected"),
        (np.where(SPLIT == "train", 99, PEOPLE), (), "the column `group` of index.csv"),
        (np.where(SPLIT == "train", 99, PEOPLE), ("expected",), "the column `group` of index.csv"),
    ],
)
def test_real_faces_of_one_group(tmp_path, groups, drop, advice):
    dump = write_dump(tmp_path / "made" / "toy", change={"group": groups.astype(str)})
    with pytest.raises(ValueError, match=advice):
        main(Config(features=(dump,), out=tmp_path / "out", drop=drop))
