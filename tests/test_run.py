"""Fitting, predicting and measuring, on made-up faces and systems."""

from __future__ import annotations

import numpy as np
import pytest

from data.degrade import Condition
from data.dump import read_dump
from data.feature_dataset import join_dumps
from evaluation import measure, plan, systems
from evaluation.metrics import auc, threshold_at_fpr
from evaluation.metrics_table import read_metrics, table_of, write_metrics
from evaluation.plan import Config, planned
from evaluation.predictions import read_predictions
from evaluation.protocols import experiments_of
from evaluation.run import Progress, work
from evaluation.sections import derived_remarks
from evaluation.systems import (
    ABLATION,
    BASELINE,
    ENSEMBLE,
    MASC,
    METADATA,
    ZERO_SHOT,
    Fitted,
    System,
)
from tests.synthetic import OUTPUTS, dumps_of, write_dump
from training.detector import Settings


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("dumps")
    return join_dumps(
        [read_dump(write_dump(root / name / "toy", 80, seed=i)) for i, name in enumerate("ab")]
    )


@pytest.fixture(scope="module")
def experiment(faces):
    return experiments_of(faces, ["given"])[0]


def untrained(score):
    """`fit` of a system that needs no training: `score` of every face."""
    return lambda train, val: Fitted(score, 0.5, ["a note"])


def half_right(faces):
    p = 0.3 * faces.rows["label"] + 0.7 * np.random.default_rng(len(faces)).random(len(faces))
    p[0] = np.nan
    return p


def refuse(train, val):
    raise ValueError("no eyes")


COIN = System(
    "coin", BASELINE, untrained(lambda faces: np.random.default_rng(1).random(len(faces)))
)
SYSTEMS = [System(MASC, ENSEMBLE, untrained(half_right)), COIN, System("blind", BASELINE, refuse)]


def nothing(experiment, system, fitted):
    return []


def figures(progress, jobs, faces, outputs=(), replicates=20):
    test = faces.split("test")
    known = {name: OUTPUTS[name] for name in outputs}
    return table_of(measure.all_figures(progress, jobs, test, known, replicates, 0))


def test_a_killed_evaluation_goes_on_with_the_system_it_was_at(faces, tmp_path):
    jobs = [(each, SYSTEMS) for each in experiments_of(faces, ["given"])]
    calls = []

    def stop_at_third(experiment, system, fitted):
        calls.append((experiment.name, system.name))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [{"metric": "order", "value": len(calls)}]

    progress = Progress.begin(tmp_path / "r", {"a": (1, 2)})
    with pytest.raises(KeyboardInterrupt):
        work(progress, jobs, stop_at_third)
    again = Progress.begin(tmp_path / "r", {"a": [1, 2]})
    assert list(again.done) == ["a/MASC", "a/coin", "a/blind"]
    work(again, jobs, stop_at_third)
    assert calls == [("a", MASC), ("a", "coin"), ("b", MASC), ("b", MASC), ("b", "coin")]
    assert again.done["b/MASC"]["rows"] == [{"metric": "order", "value": 4}]
    with pytest.raises(ValueError, match=r"other settings \(a\)"):
        Progress.begin(tmp_path / "r", {"a": [1, 3]})
    assert Progress.begin(tmp_path / "r", {"a": [1, 3]}, overwrite=True).done == {}
    assert not (tmp_path / "r" / "predictions").exists()


def test_what_failed_or_is_gone_is_tried_again(faces, experiment, tmp_path):
    progress = Progress.begin(tmp_path / "r", {})
    assert work(progress, [(experiment, SYSTEMS)], nothing, "abc") == 3
    assert progress.done["a/blind"]["failed"] == "no eyes"
    again = Progress.begin(tmp_path / "r", {})
    progress.predictions("in-a", "coin").unlink()
    seeing = [*SYSTEMS[:2], System("blind", BASELINE, COIN.fit)]
    assert work(again, [(experiment, seeing)], nothing) == 2
    assert not again.done["a/blind"]["failed"] and again.predictions("in-a", "coin").is_file()
    remark = measure.remarks_of(faces, again, [(experiment, seeing)], {"git": {"commit": "def"}})[0]
    assert remark == "fitted by commit abc, unknown, reported by def"
    assert work(again, [(experiment, seeing)], nothing) == 0


def test_a_fit_is_kept_where_more_could_not_be_measured(experiment, tmp_path):
    def no_pictures(experiment, system, fitted):
        raise FileNotFoundError("the pictures are gone")

    progress = Progress.begin(tmp_path / "r", {})
    work(progress, [(experiment, SYSTEMS[:1])], no_pictures)
    done = progress.done[f"a/{MASC}"]
    assert not done["failed"] and "not measured further: the pictures are gone" in done["notes"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_never_replaced(overwrite, tmp_path):
    (tmp_path / "chapter.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds files and no report"):
        Progress.begin(tmp_path, {}, overwrite)
    (tmp_path / "progress.json").write_text("[1]")
    with pytest.raises(ValueError, match="not written by this version"):
        Progress.begin(tmp_path, {})


def test_figures_are_those_of_the_predictions(faces, experiment, tmp_path):
    jobs, progress = [(experiment, SYSTEMS)], Progress.begin(tmp_path / "r", {})
    work(progress, jobs, nothing)
    table = figures(progress, jobs, faces)
    write_metrics(tmp_path / "metrics.csv", table)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows.equals(table) and list(rows["run"].unique()) == ["in-a", "from-a", "cross-auc-a"]
    rows = rows[rows["run"] == "in-a"].set_index(["system", "metric"])
    found = read_predictions(progress.predictions("in-a", MASC))
    known = found["p_fake"].notna()
    row = rows.loc[MASC, "auc"]
    assert row["n"] == known.sum() == len(found) - 1  # the face without a score does not count
    assert row["value"] == auc(found["label"][known].to_numpy(), found["p_fake"][known].to_numpy())
    assert row["low"] < row["value"] < row["high"]
    other = read_predictions(progress.predictions("in-a", "coin"))
    gap = row["value"] - auc(other["label"][known].to_numpy(), other["p_fake"][known].to_numpy())
    assert rows.loc[("coin", "delta_auc"), "value"] == pytest.approx(gap)
    assert 0 < rows.loc[("coin", "delong_p"), "value"] < 1 and (MASC, "delong_p") not in rows.index
    assert rows.loc[("blind", "threshold"), "note"] == "failed: no eyes"
    assert ("blind", "auc") not in rows.index


def test_videos_are_measured_apart_from_frames(faces, tmp_path):
    clips = faces.select(np.arange(len(faces)))
    pairs = zip(clips.rows["group"], clips.rows["label"], strict=True)
    clips.rows["video"] = np.array([f"{group}-{label}" for group, label in pairs])
    jobs = [(experiments_of(clips, ["given"])[0], SYSTEMS[:1])]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, jobs, nothing)
    table = figures(progress, jobs, clips)
    n = table[(table["metric"] == "auc") & (table["run"] == "in-a")].set_index("level")["n"]
    test = (clips.rows["dataset"] == "a") & (clips.rows["split"] == "test")
    assert n["video"] == len(set(clips.rows["video"][test])) and n["frame"] == 2 * n["video"] - 1


def test_every_system_learns_and_permuted_labels_are_at_chance(faces, tmp_path):
    """The made-up fakes are inconsistent, and otherwise like the real faces."""
    config = Config(permutations=4, few_shot=False, protocols=("given",))
    dumps = dumps_of(OUTPUTS, "a", "b")
    jobs = planned(config, faces, dumps, None, tmp_path / "networks")
    jobs = [job for job in jobs if job[0].name.startswith("a")]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, jobs, plan.measure(config, dumps))
    table = figures(progress, jobs, faces)
    found = table[table["run"] == "in-a"].set_index(["system", "metric"])
    names = found.index.get_level_values("system").unique()
    assert list(names[:2]) == [MASC, f"{MASC}, real faces only (zero-shot)"]
    baselines = {"first 16 columns", "toy.identity, whole face", METADATA}
    assert baselines | {f"{MASC}, only identities"} <= {*names}
    low, high = ({x: found.loc[(x, "auc"), y] for x in names} for y in ("low", "high"))
    assert low[MASC] > 0.9 and low[names[1]] > 0.6
    assert high[METADATA] == 0.5  # all of its columns are 0
    assert low["toy.identity, whole face"] < 0.5 < high["toy.identity, whole face"]
    (remark,) = derived_remarks({"runs": {x: {"title": x} for x in set(table["run"])}}, table)
    assert "4 permutations" in remark and "contains .50" in remark
    importance = table[table["metric"] == "permutation_importance"].iloc[0]
    assert importance["attribute"] == "toy.identity" and importance["low"] > 0
    assert found.loc[(MASC, "columns"), "value"] > 50


def test_stratified_auc_is_measured_where_a_number_separates_the_labels(faces, tmp_path):
    leaking = faces.select(np.arange(len(faces)))
    noise = np.random.default_rng(0).normal(0, 4, len(faces))
    leaking.rows["face_px"] = 100 + 10 * leaking.rows["label"] + noise
    fitted = [*SYSTEMS, System("less", ABLATION, COIN.fit)]
    for data, expected in ((leaking, [MASC, "coin"]), (faces, [])):
        jobs = [(experiments_of(data, ["given"])[0], fitted)]
        progress = Progress.begin(tmp_path / f"{len(expected)}", {})
        work(progress, jobs, nothing)
        table = figures(progress, jobs, data)
        rows = table[table["metric"] == "stratified_auc"]
        assert rows["system"].tolist() == expected
        assert set(rows["attribute"]) <= {"face_px"} and (rows["n"] > 0).all()


def test_subgroups_are_those_of_the_predicted_attributes(faces, experiment, tmp_path, monkeypatch):
    jobs, progress = [(experiment, SYSTEMS)], Progress.begin(tmp_path / "r", {})
    work(progress, jobs, nothing)
    people = measure.face_table(
        faces, {"gender": np.array(["x", "x", "y", "y"] * (len(faces) // 4))}
    )
    monkeypatch.setattr(measure, "attributes", lambda *_: people)
    table = figures(progress, jobs, faces)
    rows = table[table["attribute"] == "gender"]
    assert set(rows["run"]) == {"in-a"} and set(rows["system"]) == {MASC, "coin"}
    found = read_predictions(progress.predictions("in-a", MASC)).merge(people)
    part = found[(found["gender"] == "x") & found["p_fake"].notna()]
    row = rows[(rows["group"] == "x") & (rows["metric"] == "fpr") & (rows["system"] == MASC)].iloc[
        0
    ]
    assert (
        row["n"] == len(part) and row["value"] == (part["p_fake"][part["label"] == 0] >= 0.5).mean()
    )
    assert {"x", "y", "largest gap"} == set(rows["group"])


def test_thresholds_come_from_the_real_validation_faces(experiment):
    for system in systems.baselines(OUTPUTS, Settings(fpr=0.2)):
        fitted = system.fit(experiment.train, experiment.val)
        of_reals = fitted.p_fake(experiment.val)[experiment.val.rows["label"] == 0]
        assert fitted.threshold == threshold_at_fpr(of_reals, 0.2), system.name


def test_robustness_is_measured_for_all_but_ablations(experiment, tmp_path, monkeypatch):
    test = experiment.runs[0].tests["a"]
    found = test.select(np.arange(len(test)) >= 5)  # five faces are lost
    degraded = (test, {Condition("jpeg", 4): found})
    monkeypatch.setattr(plan, "degraded_faces", lambda *_: degraded)
    less = [System("raw", ABLATION, COIN.fit), System("reals", ZERO_SHOT, COIN.fit)]
    progress = Progress.begin(tmp_path / "r", {})
    measured = plan.measure(Config(robustness=("jpeg",)), dumps_of(OUTPUTS, "a"))
    work(progress, [(experiment, [*SYSTEMS[:2], *less])], measured)
    lost = {
        name: [row for row in done["rows"] if row["metric"] == "lost"]
        for name, done in progress.done.items()
    }
    assert {name for name, rows in lost.items() if rows} == {f"a/{MASC}", "a/coin", "a/reals"}
    (row,) = lost["a/coin"]
    assert (row["condition"], row["value"], row["n"]) == ("jpeg:4", 5, len(test))


def test_a_leak_is_not_chance():
    about = {"protocol": "permuted-labels", "test": "t", "level": "frame", "metric": "auc"}
    rows = [{**about, "value": value} for value in (0.71, 0.72, 0.70)]
    (remark,) = derived_remarks({"runs": {}}, table_of(rows))
    assert "does not contain .50" in remark and "look for a leak" in remark
    assert "too few permutations" in derived_remarks({"runs": {}}, table_of(rows[:1]))[0]
