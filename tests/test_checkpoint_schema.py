"""What is no detector is refused by field or array, even where every SHA-256 fits."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from features.regions import REGIONS
from inference.scorer import Scorer
from models import checkpoint as module
from models.checkpoint import FORMAT, INFO, Checkpoint
from tests.test_checkpoint import FEATURES, detector


def sealed(folder, info, arrays: bytes | None = None) -> None:
    """Both files with fitting SHA-256, whatever is in them."""
    arrays = (
        save_arrays({k: v.copy() for k, v in detector().arrays.items()})
        if arrays is None
        else arrays
    )
    info = {"format": FORMAT, **info, "arrays_sha256": hashlib.sha256(arrays).hexdigest()}
    folder.mkdir(exist_ok=True)
    (folder / module._arrays_of(info)).write_bytes(arrays)
    (folder / INFO).write_text(json.dumps({**info, "sha256": module._digest(info)}))


ODD = [None, True, -1, 0, 2, 1e999, 10**400, 0.5, "", "x", [], [[]], {}, {"x": 1}, [None], "0" * 64]


def places(value, path=()):
    yield path
    entries = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    for key, entry in entries:
        yield from places(entry, (*path, key))


def test_odd_values_are_refused_by_field_even_with_a_fitting_sha256(tmp_path):
    """Every field of checkpoint.json in turn is something else, or missing."""
    refused, info = 0, detector().info
    for path in list(places(info))[1:]:
        for odd in [*ODD, "missing"]:
            changed = copy.deepcopy(info)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            if odd == "missing":
                del parent[path[-1]]
            else:
                parent[path[-1]] = odd
            sealed(tmp_path / "odd", changed)
            try:
                scorer = Scorer(Checkpoint.load(tmp_path / "odd"))
                shapes = {x: (1, 8, y["size"]) for x, y in scorer.pipeline.outputs.items()}
                scores = scorer.score({name: np.ones(shape) for name, shape in shapes.items()})[1]
                assert np.isfinite(scores).all(), (path, odd)
            except ValueError as error:
                assert str(error).startswith(str(tmp_path / "odd" / INFO)), error
                assert "\n" not in str(error) and any(str(x) in str(error) for x in path), (
                    path,
                    odd,
                    error,
                )
                refused += 1
    assert refused > 600


KIND = {"kind": "swaps", "left_out": "method", "fakes": 8, "reals": 2, "found": 3}
KIND |= {"nothing_found": 2, "false_alarms": None, "auc": {"value": 0.7, "low": None, "high": None}}
CLEAR = {"p_fake": 0.3, "level": 0.4, "fakes": 0.2, "reals": 0.4}


def test_what_a_detector_finds_is_carried(tmp_path):
    made = detector()
    made.info |= {"kinds": [KIND], "nothing_found": CLEAR}
    found = Checkpoint.load(made.save(tmp_path / "new")).info
    assert found["kinds"] == [KIND] and found["nothing_found"] == CLEAR


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("threshold", {"p_fake": float("inf"), "fpr": 0.05}, "threshold.p_fake: expected a number"),
        ("features", [*FEATURES[:1], *FEATURES[:1]], "features: expected no entry twice"),
        ("features", [FEATURES[0], "toy.sex/js/full~upper"], r"features\[1\]: expected a column"),
        ("features", [FEATURES[0], "toy.age/js/full~upper"], "features are not in this table"),
        ("features", FEATURES[:1], r"of shape \(.*; features, outputs"),
        ("head", "mlp", "lacks the array head.model.w0"),
        ("head", "forest", "head: expected logreg or mlp"),
        ("limits", {"age": 3}, "a name in limits: expected face_px"),
        ("regions", REGIONS[::-1], "regions: expected"),
        ("note", "mine", "note: no such field is known"),
        ("kinds", [], "kinds and nothing_found: expected both or neither"),
        ("kinds", [{**KIND, "left_out": "person"}], r"kinds\[0\].left_out: expected method or"),
        ("kinds", [{**KIND, "found": 7}], r"kinds\[0\]: expected counts of its fakes"),
        ("kinds", [{**KIND, "false_alarms": 3}], r"kinds\[0\]: expected counts of its fakes"),
    ],
)
def test_a_detector_that_is_none_is_refused_and_not_written(tmp_path, field, value, told):
    made = detector()
    made.info |= {"nothing_found": CLEAR} if field == "kinds" and value else {}
    made.info[field] = list(value) if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=told):
        Scorer(Checkpoint.load(made.save(tmp_path / "new")))
    sealed(tmp_path / "old", made.info)
    with pytest.raises(ValueError, match=f"{tmp_path / 'old' / INFO}: .*{told}"):
        Scorer(Checkpoint.load(tmp_path / "old"))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("head.model.coef", torch.ones(2, dtype=torch.bfloat16), "not arrays of numbers"),
        ("head.model.coef", torch.ones(2, dtype=torch.complex64), "of type complex64"),
        ("head.model.coef", torch.ones(2, dtype=torch.int64), "of type int64"),
        ("head.model.coef", torch.full((2,), float("nan")), "not finite"),
        ("head.model.coef", torch.ones(3), "of shape"),
        ("head.scale", torch.zeros(2), "not positive"),
        ("reference", torch.arange(6.0).flip(0).reshape(3, 2), "not in ascending order"),
        ("real_scores", torch.tensor([0.5, 2.0]), "not between 0 and 1"),
        ("real_scores", torch.zeros(0), "empty"),
        ("disagreement", torch.zeros(2, 7), "of shape"),
        ("head.more", torch.zeros(2), "head.more: no array of this name is known"),
        ("expectations.maps/full>upper", torch.zeros(2, 2), "components"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path, name, value, told):
    arrays = {k: torch.from_numpy(v.copy()) for k, v in detector().arrays.items()}
    sealed(tmp_path, detector().info, save_tensors({**arrays, name: value}))
    with pytest.raises(ValueError, match=told):
        Scorer(Checkpoint.load(tmp_path))
