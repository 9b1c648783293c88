"""What a detector finds of kinds of fakes and of datasets that were left out of its training."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import train
from command_line import run
from data.dump import read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from inference.detector import Explainer
from inference.scorer import Scorer
from inference.verdict import CLEAR, UNSURE
from models.checkpoint import Checkpoint
from models.heads import calibrate
from models.record import NOT_MEASURED, Record
from tests.synthetic import OUTPUTS, predictions, write_dump
from training import left_out
from training.detector import Settings, fit
from training.left_out import LeftOut, Scored, clear_below, kinds_of, measure

SETTINGS = Settings(only=("raw",), forgery_weight=0)
GROUPS = 60
FAKES = np.tile([0, 0, 1, 1], GROUPS) == 1


def methods(*names: str) -> np.ndarray:
    """(N,) of a dump: the names by turns for the groups' fakes, nothing for real faces."""
    by_group = np.repeat([names[i % len(names)] for i in range(GROUPS)], 4)
    return np.where(FAKES, by_group, "")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> FeatureDataset:
    """Dataset a: swaps, which are seen, and edits, whose regions agree; b: fakes without a method."""
    folder = tmp_path_factory.mktemp("left")
    method = methods("swaps: one", "swaps: two", "edits")
    arrays = predictions(np.repeat(np.arange(GROUPS), 4), FAKES & (method != "edits"))
    a = write_dump(folder / "a" / "toy", GROUPS, change={"method": method, **arrays})
    b = write_dump(folder / "b" / "toy", GROUPS, seed=1)
    return join_dumps([read_dump(a), read_dump(b)])


def measure_of(faces: FeatureDataset) -> LeftOut:
    return measure(faces.split("train"), faces.split("val"), OUTPUTS, SETTINGS)


@pytest.fixture(scope="module")
def found(faces) -> LeftOut:
    return measure_of(faces)


def test_a_kind_is_what_stands_before_a_colon_in_the_method(faces):
    kinds = kinds_of(faces)
    assert set(kinds[faces.rows["label"] == 1]) == {"swaps", "edits", ""}
    assert set(kinds[faces.rows["label"] == 0]) == {""}


def test_every_kind_and_every_dataset_is_left_out_once(found):
    named = {(row["left_out"], row["kind"]): row for row in found.rows}
    wanted = [("method", "edits"), ("method", "swaps"), ("dataset", "a"), ("dataset", "b")]
    assert list(named) == wanted
    swaps, edits = named["method", "swaps"], named["method", "edits"]
    # Of 48 groups that train or validate, two fakes each: a third are edits.
    assert (swaps["fakes"], edits["fakes"]) == (64, 32)
    assert swaps["auc"]["value"] > 0.85 > 0.65 > edits["auc"]["value"]
    assert edits["auc"]["low"] < edits["auc"]["value"] < edits["auc"]["high"]
    assert swaps["found"] > 4 * edits["found"]
    assert swaps["false_alarms"] is None, "the threshold was set on these real faces"
    assert named["dataset", "b"]["reals"] == 96 and named["dataset", "b"]["false_alarms"] < 20


def spied(monkeypatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups and labels of every fit from now on."""
    trained = []

    def spy(kind, x, y, groups, *rest):
        trained.append((groups, y))
        return fitted(kind, x, y, groups, *rest)

    fitted = left_out.head_on.__globals__["fit_head"]
    monkeypatch.setitem(left_out.head_on.__globals__, "fit_head", spy)
    return trained


def test_what_is_left_out_is_really_left_out(faces, monkeypatch):
    """The fits see no face of the kind, or of the dataset, and no test face."""
    trained = spied(monkeypatch)
    measure_of(faces)
    fakes = [int(y.sum()) for _, y in trained]
    # 36 groups of either dataset train: 72 fakes, of a 24 edits and 48 swaps.
    assert fakes == [144 - 24, 144 - 48, 72, 72]
    assert [{name[0] for name in groups} for groups, _ in trained[2:]] == [{"b"}, {"a"}]


def test_fakes_meet_real_faces_of_their_own_dataset(faces, found, monkeypatch):
    """With few that validate, the 36 training groups, too, a third at a time: 72 real faces more."""
    assert [row["reals"] for row in found.rows] == [24, 24, 96, 96]
    monkeypatch.setattr(left_out, "FEW", 25)
    trained = spied(monkeypatch)
    rows = measure_of(faces).rows
    assert [row["reals"] for row in rows] == [96, 96, 96, 96]
    kinds = trained[: 2 * left_out.TURNS]
    # Of 144 real faces and 72 groups that train, a third of those of each dataset is left out.
    assert [int((y == 0).sum()) for _, y in kinds] == [144 - 48] * 6
    for turns in (kinds[:3], kinds[3:]):
        absent = [{*faces.split("train").rows["group"]} - {*g} for g, _ in turns]
        assert [len(groups) for groups in absent] == [24] * 3, "with their fakes"
        assert len(set.union(*absent)) == 72, "each in its turn"
    train, val = faces.split("train"), faces.split("val")
    train.rows["group"] = np.where(train.rows["dataset"] == "a", "one", train.rows["group"])
    turn = left_out._turns(train, val)
    assert {*turn[train.rows["dataset"] == "a"]} == {-1}, "nothing of it would be left"
    assert {*turn[train.rows["dataset"] == "b"]} == {0, 1, 2}


def test_a_real_face_is_scored_by_the_head_that_has_not_seen_it():
    def says(value: float) -> SimpleNamespace:
        return SimpleNamespace(p_fake=lambda x: np.full(len(x), value))

    heads = left_out.Heads({0: (says(0.1), np.array([0.2])), 1: (says(0.5), np.array([0.4]))})
    found = heads.p_fake(np.zeros((3, 1)), np.array([1, -1, 0]))
    assert found == pytest.approx([0.5, 0.3, 0.1]) and heads.real == pytest.approx([0.3])


@pytest.mark.parametrize("left", ["a", "b"])
def test_experts_that_were_trained_without_it_count(faces, found, left):
    """Versions that say nothing of anything; a kind is of its dataset."""
    rng = np.random.default_rng(0)
    versions = {f"{x}~{left}": rng.permutation(array) for x, array in faces.arrays.items()}
    rows = measure_of(replace(faces, versions=versions)).rows
    for row, known in zip(rows, found.rows, strict=True):
        if row["kind"] == left or (left == "a" and row["left_out"] == "method"):
            assert row["auc"]["value"] < 0.65
        else:
            assert row["auc"] == known["auc"]


def test_a_dump_keeps_such_versions_apart(tmp_path, caplog):
    """They are no outputs of their own: nothing is trained on them, and other dumps may lack them."""
    dumps = [write_dump(tmp_path / x / "toy", GROUPS) for x in "ab"]
    before, other = map(read_dump, dumps)
    name = next(iter(before.arrays))
    meta = json.loads((dumps[0] / "meta.json").read_text())
    meta["outputs"][f"{name}~celeb-df.v2"] = meta["outputs"][name]
    (dumps[0] / "meta.json").write_text(json.dumps(meta))
    np.save(dumps[0] / f"{name}~celeb-df.v2.npy", before.arrays[name] + np.float16(1))
    found = read_dump(dumps[0])
    assert found.meta["outputs"] == before.meta["outputs"] and {*found.arrays} == {*before.arrays}
    faces = join_dumps([found])
    assert faces.unseen("v2") is faces
    seen = faces.unseen("celeb-df.v2").select(np.arange(3))
    assert (seen.arrays[name] == before.arrays[name][:3] + np.float16(1)).all()
    found.meta["config"]["left_out_heads"] = "abc"
    with caplog.at_level("WARNING", "masc"):
        assert not join_dumps([found, other]).versions
    assert "not all of these dumps were made with the same --left-out-heads" in caplog.text


def scored(kind, fakes, reals, how="dataset", real=None) -> Scored:
    label = np.repeat([1, 0], [len(fakes), len(reals)])
    p_fake = np.concatenate([fakes, reals])
    real = np.asarray(reals if real is None else real)
    group = np.arange(len(label)).astype(str)
    return Scored(kind, how, label, p_fake, group, 0.9, real, fresh=how == "dataset")


GRID = (np.arange(100) + 0.5) / 100


def test_nothing_found_begins_where_few_left_out_fakes_are():
    """Fakes are uniform on .2 to 1, reals on 0 to 1: a quarter of the fakes lies below .4, where 40%
    of the reals lie; the ratio is 2 below .333, at 33% of the reals."""
    found = LeftOut.of([scored("swaps", 0.2 + 0.8 * GRID, GRID)])
    assert found.level == pytest.approx(0.3)
    assert found.fakes == pytest.approx(0.12, abs=0.015) and found.reals == pytest.approx(0.3)
    better = LeftOut.of([scored("swaps", 0.61 + 0.39 * GRID, GRID)])
    assert better.level == pytest.approx(0.7) and better.fakes == pytest.approx(0.24)
    (row,) = better.rows
    assert row["nothing_found"] == 24 and row["found"] == 26 and row["false_alarms"] == 10
    carried = better.carried(GRID, 0.9)["nothing_found"]
    assert carried["p_fake"] == pytest.approx(0.705)


def test_kinds_count_alike_however_many_fakes_they_have():
    many, few = scored("a", np.full(1000, 0.99), GRID), scored("b", np.full(4, 0.01), GRID)
    assert LeftOut.of([many, few]).fakes == 0, "half of the kinds lies below everything"
    assert LeftOut.of([many]).reals == pytest.approx(0.9), "up to the threshold"


def test_a_source_of_fakes_or_real_faces_alone_is_measured_as_far_as_it_goes():
    rows = [
        part.row(0.5)
        for part in (scored("a", GRID, GRID[:0], real=GRID), scored("b", GRID[:0], GRID))
    ]
    assert [row["false_alarms"] for row in rows] == [None, 10]
    assert [row["auc"]["value"] for row in rows] == [None, None]
    assert "a 1 of 10" in Record(rows, {"p_fake": 0.0}, 60).lines[0]


def test_at_chance_nothing_found_is_never_said():
    found = LeftOut.of([scored("swaps", GRID, GRID)])
    assert (found.level, found.rows[0]["nothing_found"]) == (0, 0)
    assert found.carried(GRID, 0.9)["nothing_found"]["p_fake"] == 0
    assert "never says nothing found" in Record(found.rows, {"p_fake": 0.0}, 60).lines[-1]


def test_nothing_found_ends_at_the_threshold():
    assert clear_below(GRID, 0.95, 0.9) == 0.9 and clear_below(GRID, 0.0, 0.9) == 0


def test_p_fake_is_calibrated_on_what_was_left_out(faces, found):
    """Fakes that were never seen are missed more often than validation fakes: p_fake says less."""
    fitted = [
        fit(faces.split("train"), faces.split("val"), OUTPUTS, SETTINGS, [], each)[0]
        for each in (None, found)
    ]
    plain, honest = (checkpoint.info["calibration"] for checkpoint in fitted)
    assert honest["a"] == pytest.approx(found.a * plain["a"]) and found.a < 0.9
    assert honest["b"] == pytest.approx(found.a * plain["b"] + found.b)
    assert honest["prior"] == 0.5 and "left out" in honest["on"] and "left out" not in plain["on"]
    scores = [Scorer(checkpoint).score(faces.arrays)[1] for checkpoint in fitted]
    called = [p >= c.info["threshold"]["p_fake"] for p, c in zip(scores, fitted, strict=True)]
    assert np.array_equal(*called), "verdicts stay"


def test_calibration_is_for_as_many_fakes_as_real_faces():
    """A score that says nothing gets one half, however rare fakes are among the held-out faces."""
    label = np.repeat([0, 1], [900, 100])
    score = np.random.default_rng(0).normal(size=1000)
    a, b = calibrate(score, label)
    assert abs(b) < 0.05 and a < 0.2


def test_one_dataset_without_methods_is_measured_on_validation_faces(faces):
    b = faces.select(faces.rows["dataset"] == "b")
    found = measure(b.split("train"), b.split("val"), OUTPUTS, SETTINGS)
    (row,) = found.rows
    assert (row["kind"], row["left_out"], row["fakes"], row["reals"]) == ("b", "", 24, 24)
    assert (found.a, found.b) == (1, 0), "already calibrated on them"
    assert "that it was trained on" in Record(found.rows, {"p_fake": 0.0}, 60).lines[0]


def test_many_kinds_share_fits(faces, monkeypatch):
    monkeypatch.setattr(left_out, "FOLDS", 2)
    a = faces.select(faces.rows["dataset"] == "a")
    names = np.where(a.rows["label"] == 1, np.resize(list("uvwxy"), len(a)), "")
    a = replace(a, rows={**a.rows, "method": names})
    fits = []
    fitted = left_out.head_on
    monkeypatch.setattr(left_out, "head_on", lambda *x: fits.append(x) or fitted(*x))
    rows = measure(a.split("train"), a.split("val"), OUTPUTS, SETTINGS).rows
    assert sorted(row["kind"] for row in rows) == list("uvwxy") and len(fits) == 2


def test_a_detector_of_real_faces_alone_has_seen_no_kind(faces):
    settings = replace(SETTINGS, one_class=True)
    found = measure(faces.split("train"), faces.split("val"), OUTPUTS, settings)
    assert {row["kind"] for row in found.rows} == {"edits", "swaps", "a", "b"}
    reals = faces.select(faces.rows["label"] == 0)
    assert measure(reals.split("train"), reals.split("val"), OUTPUTS, settings) is None


def test_train_py_carries_it_and_a_detector_uses_it(tmp_path, capsys):
    dump = write_dump(tmp_path / "a" / "toy", GROUPS, change={"method": methods("x", "y")})
    options = ["--features", str(dump), "--only", "raw", "--forgery-weight", "0"]
    assert run(train.main, train.Config, "", [*options, "--out", str(tmp_path / "m")]) == 0
    assert "It found, of kinds of fakes left out of training:" in capsys.readouterr().out
    info = Checkpoint.load(tmp_path / "m").info
    assert {row["kind"] for row in info["kinds"]} == {"x", "y"}
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["checkpoint"]["kinds"]
    judge, edge = Explainer(tmp_path / "m"), info["nothing_found"]["p_fake"]
    median = judge.percentiles[3]
    quality = {"face_px": 0, "sharpness": 0, "yaw": 0, "score": 0}
    assert 0 < edge <= judge.threshold
    assert judge.decide(0.9 * edge, median, quality) == (CLEAR, [])
    silent = np.full_like(median, np.nan)
    assert judge.decide(0.9 * edge, silent, quality)[0] == UNSURE


def test_without_the_measurement_nothing_is_cleared_and_one_line_says_so(tmp_path, capsys):
    dump = write_dump(tmp_path / "a" / "toy", GROUPS)
    options = ["--features", str(dump), "--only", "raw", "--no-left-out"]
    assert run(train.main, train.Config, "", [*options, "--out", str(tmp_path / "m")]) == 0
    capsys.readouterr()
    judge = Explainer(tmp_path / "m")
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not say what it finds and misses" in line and "train it again" in line
    assert judge.clear_below == 0 and judge.record.lines == [NOT_MEASURED]


def test_it_is_told_in_plain_words():
    auc = {"value": 0.8, "low": 0.7, "high": 0.9}
    rows = [
        {"kind": "swaps", "left_out": "method", "fakes": 20, "reals": 30, "auc": auc, "found": 14},
        {"kind": "edits", "left_out": "method", "fakes": 9, "reals": 30, "auc": auc, "found": 0},
        {"kind": "set", "left_out": "dataset", "fakes": 0, "reals": 50, "found": 0},
    ]
    rows[2]["auc"] = dict.fromkeys(auc)
    others = {"nothing_found": (2, 3, 0), "false_alarms": (None, None, 3)}
    rows = [row | {name: x[i] for name, x in others.items()} for i, row in enumerate(rows)]
    record = Record(rows, {"p_fake": 0.3, "level": 0.5, "fakes": 0.22, "reals": 0.47}, 64)
    assert record.lines == [
        "It found, of kinds of fakes left out of training: swaps 7 of 10, edits 0 of 9.",
        "False alarms, of the real faces of sources left out of training: set 6%.",
        f"{record.meaning}.",
    ]
    assert record.meaning == (
        "Nothing found is said of 47% of real faces and of 22% of fakes of kinds and sources left out "
        "of training, on average, in faces from 64 px on; by kind edits 3 of 9, swaps 1 of 10"
    )
    text = record.markdown()
    assert "| swaps | the kind | 20 | 30 | 0.80 (0.70-0.90) | 70% | 10% | 20% |  |" in text
    assert "| set | the dataset | 0 | 50 |  |  |  |  | 6% (3) |" in text
    many = Record([rows[0] | {"kind": name} for name in "abcdefgh"], record.clear, 64)
    assert "c 7 of 10, ... (2 more), f 7 of 10" in many.lines[0]
