"""What is written is read back, and halves, damage and strangers are told apart."""

import json
import os

import numpy as np
import pytest

from models.checkpoint import FORMAT, Checkpoint, newest_checkpoint
from predict import BUNDLED

ARRAYS = {
    "head.coef": np.arange(3.0),
    "b": np.zeros((2, 2), np.float16)[:, ::-1],
    "s": np.array(2.5, np.float32),
}


def test_round_trip_keeps_values_types_and_other_files(tmp_path):
    (tmp_path / "README.md").write_text("a card")
    Checkpoint({"head": "logreg", "a": {"ü": 1.5}}, ARRAYS).save(tmp_path)
    again = Checkpoint.load(tmp_path)
    assert again.info == {"format": FORMAT, "head": "logreg", "a": {"ü": 1.5}}
    assert set(again.arrays) == set(ARRAYS)
    for name, value in ARRAYS.items():
        assert np.array_equal(again.arrays[name], value) and again.arrays[name].dtype == value.dtype
    assert {file.name for file in tmp_path.iterdir()} == {
        "README.md",
        "checkpoint.json",
        "arrays.safetensors",
    }


def test_the_same_detector_gives_the_same_bytes(tmp_path):
    for name in "ab":
        Checkpoint({"x": 1}, ARRAYS).save(tmp_path / name)
    for file in ("checkpoint.json", "arrays.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_files_of_two_detectors_are_refused(tmp_path):
    Checkpoint({"x": 1}, ARRAYS).save(tmp_path / "a")
    Checkpoint({"x": 1}, {"other": np.ones(2)}).save(tmp_path / "b")
    (tmp_path / "a" / "arrays.safetensors").replace(tmp_path / "b" / "arrays.safetensors")
    with pytest.raises(ValueError, match="does not belong to"):
        Checkpoint.load(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="arrays.safetensors: missing"):
        Checkpoint.load(tmp_path / "a")


def test_other_files_are_refused_with_a_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with train.py"):
        Checkpoint.load(tmp_path)
    description = tmp_path / "checkpoint.json"
    description.write_text("{ not JSON")
    with pytest.raises(ValueError, match="not JSON"):
        Checkpoint.load(tmp_path)
    for stranger in ({"format": FORMAT - 1}, [], {}):
        description.write_text(json.dumps(stranger))
        with pytest.raises(ValueError, match="format"):
            Checkpoint.load(tmp_path)


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Checkpoint({"x": float("nan")}, {}).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_newest_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python train\.py"):
        newest_checkpoint(tmp_path)
    for age, name in enumerate("bca"):
        Checkpoint({}, {}).save(tmp_path / name)
        os.utime(tmp_path / name / "checkpoint.json", (1000 - age, 1000 - age))
    assert newest_checkpoint(tmp_path) == tmp_path / "b"


def test_the_bundled_detector_adds_the_pretrained_forgery_logit():
    found = Checkpoint.load(BUNDLED)
    counts = np.flatnonzero(found.arrays["head.forgery_weight"])
    assert [found.info["features"][column] for column in counts] == ["traces.altered/level/full"]
    assert found.info["forgery_weight"] > 0 and found.arrays["head.forgery_weight"][counts] > 0
