"""The family `reference`: likeness to other pictures of the person, as features of a detector."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from data.dump import COLUMNS, Dump
from data.feature_dataset import join_dumps
from features.columns import directions, groups_of, raw_features, select
from features.disagreement import by_family
from features.explain import sentence
from features.pipeline import FeaturePipeline
from features.reference import PERSON, names_of
from features.regions import REGIONS
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from predict import score_dump
from tests.toy_people import INNER, OUTER, OUTPUTS, SIZE, toy_people
from train import Config, check_folder, main
from training.detector import Settings, fit
from training.photographs import with_photographs

TABLE = {"lite.identity": {"kind": "embedding", "size": SIZE, "names": []}}


@pytest.fixture(scope="module")
def parts():
    """Training and validation faces with their photographs, and what was noted."""
    found, notes = [], []
    for split, seed in (("train", 0), ("val", 1)):
        found.append(with_photographs(toy_people(split, seed), TABLE, notes))
    return found, notes


def test_every_face_gets_the_photographs_of_its_person(parts):
    (train, _), notes = parts
    assert notes[0] == f"{len(train)} of {len(train)} faces have photographs of their person (100%)"
    table = raw_features(train.arrays, TABLE)
    columns = table.ordered(names_of(OUTPUTS)).values
    real = train.rows["label"] == 0
    # A swap has the face of the donor on its person's head.
    assert columns[real, INNER].mean() > columns[~real, INNER].mean() + 0.4
    assert abs(columns[real, OUTER].mean() - columns[~real, OUTER].mean()) < 0.05


def test_faces_without_a_known_person_have_no_values():
    faces = toy_people()
    faces.rows["person"] = faces.rows["person"].copy()
    faces.rows["person"][:3] = ""
    notes = []
    found = with_photographs(faces, TABLE, notes)
    assert np.isnan(found.arrays["lite.identity" + PERSON][:3]).all()
    columns = raw_features(found.arrays, TABLE).ordered(names_of(OUTPUTS)).values
    assert np.isnan(columns[:3]).all() and np.isfinite(columns[3:]).all()
    assert not any("/reference/" in name for name in raw_features(faces.arrays, TABLE).names)


def test_the_family_has_its_groups_and_words():
    name = "lite.identity/reference/inner"
    assert {"reference", "lite", "lite.identity", "raw"} <= groups_of(name)
    assert "identities" not in groups_of(name)
    assert directions([name]).tolist() == [-1]
    assert select([name, "lite.identity/cos/full~inner"], drop=["reference"]) == [
        "lite.identity/cos/full~inner"
    ]
    assert by_family([name], np.array([2.0])) == {"reference": 2.0}
    assert sentence(name, 0.1, 0.5, 0.9) == (
        "Inner face and photographs of the person: identity similarity 0.10 "
        "(real faces 0.50 to 0.90; unusually different)"
    )


def test_a_detector_learns_from_them_and_lives_without(parts):
    (train, val), _ = parts
    checkpoint, _ = fit(train, val, TABLE, Settings(photographs=True), [])
    own = names_of(OUTPUTS)
    assert set(own) <= set(checkpoint.info["features"])
    scorer = Scorer(checkpoint)
    test = with_photographs(toy_people("test", 2), TABLE, [])
    label = test.rows["label"]
    p_fake = scorer.score(test.arrays)[1]
    assert p_fake[label == 1].mean() > p_fake[label == 0].mean() + 0.5
    alone = {"lite.identity": test.arrays["lite.identity"]}
    values, without = scorer.score(alone)
    assert np.isnan(values[:, [checkpoint.info["features"].index(name) for name in own]]).all()
    assert np.isfinite(without).all()
    plain, _ = FeaturePipeline.fit(
        train.arrays, TABLE, label[: len(train)] == 0, train.rows["group"], only=["reference"]
    )
    assert plain.names == own


def test_train_writes_that_photographs_were_used(tmp_path, monkeypatch):
    faces = [toy_people(split, seed) for split, seed in (("train", 0), ("val", 1))]
    rows = {x: np.concatenate([each.rows[x] for each in faces]) for x in faces[0].rows}
    count = len(rows["label"])
    for name, kind in COLUMNS.items():
        rows.setdefault(name, np.array([""] * count, object) if kind is str else np.zeros(count))
    arrays = {"lite.identity": np.concatenate([each.arrays["lite.identity"] for each in faces])}
    meta = {
        "dataset": "toy",
        "profile": "lite",
        "regions": list(REGIONS),
        "outputs": TABLE,
        "weights": {"lite": "0" * 64},
        "config": {"precision": "float32"},
        "data_root": "nowhere",
    }
    dump = Dump(tmp_path, meta, rows, arrays)
    monkeypatch.setattr("train.read_dump", lambda path: dump)
    config = Config(features=(tmp_path,), out=tmp_path / "made", photographs=True, left_out=False)
    info = Checkpoint.load(main(config)).info
    assert info["photographs"] is True
    check_folder(config.out, config, [dump])
    with pytest.raises(ValueError, match="other photographs"):
        check_folder(config.out, replace(config, photographs=False), [dump])
    assert join_dumps([dump]).rows["person"][0].startswith("toy/")


def test_a_dump_is_scored_with_photographs_by_a_detector_that_learned_from_them(tmp_path):
    faces = toy_people("test", 2)
    count, seen = len(faces), []
    rows = faces.rows | {"person": faces.rows["person"].astype(str)}
    rows |= {name: np.zeros(count) for name in COLUMNS if name not in rows}
    meta = {"dataset": "toy", "regions": list(REGIONS), "outputs": TABLE, "weights": {}}
    dump = Dump(tmp_path, meta | {"config": {}}, rows, faces.arrays)

    def score(arrays):
        seen.append(arrays)
        return np.zeros((count, 1)), np.linspace(0, 1, count)

    for info in ({"photographs": True}, {}):
        checkpoint = SimpleNamespace(info=info, check_outputs=lambda *_: None)
        decide = lambda *_: ("cannot tell", [])  # noqa: E731
        detector = SimpleNamespace(checkpoint=checkpoint, score=score, decide=decide, threshold=0.5)
        score_dump(detector, dump, "test", "toy")
    assert ["lite.identity" + PERSON in arrays for arrays in seen] == [True, False]
