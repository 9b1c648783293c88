import numpy as np
import pandas as pd
import pytest

from data.feature_dataset import FeatureDataset
from evaluation.inspect import inconsistency
from evaluation.metrics import auc
from evaluation.predictions import by_video, of_test, read_predictions, write_predictions
from evaluation.robustness import measured, slope
from evaluation.subgroups import GAP, attributes, by_group
from features.regions import REGIONS

OUTPUTS = {
    "lite.age": {"kind": "distribution", "size": 4, "names": ["0-2", "10-19", "30-39", "70+"]},
    "lite.gender": {"kind": "distribution", "size": 2, "names": ["Male", "Female"]},
    "lite.identity": {"kind": "embedding", "size": 3, "names": []},
}


def faces_of(**rows) -> FeatureDataset:
    count = len(rows["label"])
    names = ("path", "video", "method", "group", "dataset")
    filled = {name: np.full(count, "", dtype=object) for name in names} | {
        "face": np.zeros(count, int)
    }
    return FeatureDataset({}, {**filled, **rows})


def test_attributes_are_those_of_the_whole_face():
    age, gender = np.zeros((3, len(REGIONS), 4)), np.zeros((3, len(REGIONS), 2))
    age[0, 0, 1] = age[1, 0, 3] = age[2, 0, 2] = 1
    gender[:, 0, 1] = 1
    gender[:, 1:, 0] = 1  # the parts differ and are not used
    gender[2] = np.nan
    faces = faces_of(label=np.zeros(3, int))
    faces.arrays.update({"lite.age": age, "lite.gender": gender})
    found = attributes(faces, {k: OUTPUTS[k] for k in list(OUTPUTS)[:2]})
    assert found["age band"].tolist() == ["0-19", "60+", "20-39"]
    assert found["gender"].tolist() == ["Female", "Female", ""]


def test_figures_of_each_group_and_the_largest_gap():
    rng = np.random.default_rng(0)
    group = np.array(["a"] * 100 + ["b"] * 100 + ["c"] * 12 + [""] * 8)
    y = np.arange(220) % 2
    p = np.where(group == "a", 0.9 * y + 0.1 * rng.random(220), rng.random(220))
    columns = {"x": group, "label": y, "p_fake": p, "group": np.arange(220).astype(str)}
    rows = by_group(pd.DataFrame(columns), "x", 0.5)
    found = {(row["group"], row["metric"]): row for row in rows}
    assert [row["group"] for row in rows if row["metric"] == "auc"] == ["a", "b", "c", GAP]
    assert found["c", "auc"]["n"] - found["c", "auc"]["n_fake"] == 6
    assert "value" not in found["c", "auc"] and "value" not in found["c", "fpr"]
    assert found["a", "auc"]["value"] == 1 and found["a", "fpr"]["value"] == 0
    part = group == "b"
    b = found["b", "auc"]
    assert b["value"] == auc(y[part], p[part]) and b["low"] < b["value"] < b["high"]
    assert found["b", "fpr"]["value"] == (p[part & (y == 0)] >= 0.5).mean()
    assert found[GAP, "auc"]["value"] == pytest.approx(1 - b["value"])
    assert found[GAP, "fpr"]["value"] == found["b", "fpr"]["value"]


def test_inconsistency_is_the_mean_over_the_faces_of_a_class():
    identity = np.zeros((2, len(REGIONS), 3), np.float32)
    identity[..., 0] = 1
    identity[1, REGIONS.index("inner")] = (0, 1, 0)  # of the fake, at a right angle to all others
    faces = FeatureDataset({"lite.identity": identity}, {"label": np.array([0, 1])})
    rows = inconsistency(faces, {"lite.identity": OUTPUTS["lite.identity"]})
    assert len(rows) == 2 * 28 and {row["metric"] for row in rows} == {"cosine_distance"}
    for row in rows:
        expected = row["system"] == "fake" and "inner" in row["group"].split("~")
        assert row["value"] == pytest.approx(float(expected), abs=1e-6) and row["n"] == 1


def test_predictions_come_back_with_gaps_and_odd_names(tmp_path):
    names = np.array(
        ["a,b.jpg", 'q"uote.jpg', b"\xff.jpg".decode("utf-8", "surrogateescape")], dtype=object
    )
    faces = faces_of(path=names, label=np.array([0, 1, 1]))
    write_predictions(tmp_path / "x" / "p.csv", {"t": (faces, np.array([0.25, np.nan, 1 / 3]))})
    found = read_predictions(tmp_path / "x" / "p.csv")
    assert found["path"].tolist() == names.tolist() and np.isnan(found["p_fake"][1])
    assert of_test(found, "t")["p_fake"].tolist() == [0.25, 0.333333] and not len(
        of_test(found, "u")["label"]
    )
    (tmp_path / "p.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"p\.csv: expected the columns test,"):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(FileNotFoundError, match="run the evaluation again"):
        read_predictions(tmp_path / "q.csv")


def test_a_video_is_identified_by_dataset_method_and_name(tmp_path):
    """Four methods of FaceForensics++ have videos of the same names."""
    rows = [
        ("m1", "000_003", 1, 0.2),
        ("m1", "000_003", 1, 0.4),
        ("m2", "000_003", 1, 0.9),
        ("", "000", 0, 0.1),
        ("", "", 0, 0.5),
    ]
    method, video, label, p = (np.array(column) for column in zip(*rows, strict=True))
    write_predictions(
        tmp_path / "p.csv", {"t": (faces_of(label=label, method=method, video=video), p)}
    )
    found = of_test(read_predictions(tmp_path / "p.csv"), "t", "video")
    assert found.equals(by_video(of_test(read_predictions(tmp_path / "p.csv"), "t")))
    clips = dict(
        zip(
            zip(found["method"], found["video"], strict=True), found["p_fake"].round(6), strict=True
        )
    )
    assert clips == {("m1", "000_003"): 0.3, ("m2", "000_003"): 0.9, ("", "000"): 0.1}
    assert found["path"].tolist() == found["video"].tolist() and not found["face"].any(), (
        "whichever frames have a score"
    )


def test_faces_lost_to_detection_are_counted_and_raise_no_alarm():
    label = np.array([0, 0, 0, 1, 1, 1])
    path = np.array([f"{i}.jpg" for i in range(6)], dtype=object)
    clean = faces_of(label=label, path=path, group=path)
    p_clean = np.array([0.1, 0.2, np.nan, 0.7, 0.8, 0.9])  # one was never scored: it does not count
    kept = np.array([5, 3, 0])
    degraded = faces_of(label=label[kept], path=path[kept], group=path[kept])
    auc_found, with_lost, lost = measured(clean, p_clean, degraded, np.array([0.9, 0.05, 0.1]))
    assert (auc_found["n"], with_lost["n"], lost["value"]) == (3, 5, 2)
    assert auc_found["value"] == 0.5  # of .1 against .9 and .05
    everything = auc(np.array([0, 0, 1, 1, 1]), np.array([0.1, 0, 0.05, 0, 0.9]))
    assert with_lost["value"] == pytest.approx(everything)
    auc_found, with_lost, lost = measured(clean, p_clean, clean.select(np.arange(0)), np.empty(0))
    assert (auc_found["n"], lost["value"], auc_found["value"]) == (0, 5, None)
    assert with_lost["value"] == 0.5


def test_the_slope_is_per_level_with_the_clean_picture_as_level_0():
    aucs = {level: 0.8 - 0.05 * level for level in range(4)}
    assert slope(aucs) == pytest.approx(-0.05) == slope({**aucs, 4: None})
    assert slope({0: None, 1: 0.8}) is None
