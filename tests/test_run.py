import json

import numpy as np
import pytest

from data.degrade import Condition
from data.dump import read_dump
from data.feature_dataset import join_dumps
from evaluation import plan as planning
from evaluation import results, systems
from evaluation.card import for_card
from evaluation.metrics import auc, short, threshold_at_fpr
from evaluation.plan import Config, also, planned
from evaluation.predictions import read_predictions
from evaluation.protocols import experiments_of, few_shot
from evaluation.run import Progress, work
from evaluation.systems import MASC, REALS_ONLY, Fitted, System
from tests.synthetic import OUTPUTS, write_dump
from training.detector import Settings as Training


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("dumps")
    return join_dumps(
        [read_dump(write_dump(root / name / "toy", 80, seed=i)) for i, name in enumerate("ab")]
    )


def told(score):
    """A system that needs no training: `score` of every face."""
    return lambda train, val: Fitted(lambda faces: score(faces), 0.5, ["as told"])


@pytest.fixture(scope="module")
def oracle():
    def half_right(faces):
        rng = np.random.default_rng(len(faces))
        p = 0.3 * faces.rows["label"] + 0.7 * rng.random(len(faces))
        p[0] = np.nan
        return p

    def refuse(train, val):
        raise ValueError("no eyes")

    return [
        System(MASC, "masc", told(half_right)),
        System("coin", "baseline", told(lambda faces: np.random.default_rng(1).random(len(faces)))),
        System("blind", "baseline", refuse),
    ]


def nothing(experiment, system, fitted):
    return {}


def test_a_killed_run_goes_on_with_the_system_it_was_at(faces, oracle, tmp_path):
    plan = [(experiment, oracle) for experiment in experiments_of(faces, ["given"])]
    calls = []

    def stop_at_third(experiment, system, fitted):
        calls.append((experiment.name, system.name))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"order": len(calls)}

    progress = Progress.begin(tmp_path / "r", {"a": (1, 2)})
    with pytest.raises(KeyboardInterrupt):
        work(progress, plan, stop_at_third)
    again = Progress.begin(tmp_path / "r", {"a": [1, 2]})
    assert list(again.done) == ["a/MASC", "a/coin", "a/blind"]
    work(again, plan, stop_at_third)
    assert calls == [("a", MASC), ("a", "coin"), ("b", MASC), ("b", MASC), ("b", "coin")]
    assert again.done["b/MASC"]["order"] == 4
    with pytest.raises(ValueError, match=r"other settings \(a\)"):
        Progress.begin(tmp_path / "r", {"a": [1, 3]})
    assert Progress.begin(tmp_path / "r", {"a": [1, 3]}, overwrite=True).done == {}
    assert not (tmp_path / "r" / "predictions").exists()


def test_what_failed_or_is_gone_is_tried_again_and_what_changes_no_fit_may_change(
    faces, oracle, tmp_path
):
    plan = [(experiments_of(faces, ["given"])[0], oracle)]
    progress = Progress.begin(tmp_path / "r", {"a": 1, "replicates": 5})
    assert (
        work(progress, plan, nothing, "abc") == 3
        and progress.done["a/blind"]["failed"] == "no eyes"
    )
    assert progress.done["a/coin"]["commit"] == "abc"
    again = Progress.begin(tmp_path / "r", {"a": 1, "replicates": 9})
    progress.predictions("in-a", "coin").unlink()
    seeing = [*oracle[:2], System("blind", "baseline", told(lambda faces: np.zeros(len(faces))))]
    assert work(again, [(plan[0][0], seeing)], nothing) == 2
    assert not again.done["a/blind"]["failed"] and again.predictions("in-a", "coin").is_file()
    now = {"git": {"commit": "def"}}
    (remark,) = results.made_by(again, [(plan[0][0], seeing)], now)
    assert remark == "fitted by commit abc, unknown, told by def"
    assert work(again, [(plan[0][0], seeing)], nothing) == 0


def test_a_fit_outlives_what_could_not_be_measured_further(faces, oracle, tmp_path):
    def no_pictures(experiment, system, fitted):
        raise FileNotFoundError("the pictures are gone")

    progress = Progress.begin(tmp_path / "r", {})
    work(progress, [(experiments_of(faces, ["given"])[0], oracle[:1])], no_pictures)
    done = progress.done[f"a/{MASC}"]
    assert not done["failed"] and "not measured further: the pictures are gone" in done["notes"]


def test_files_of_others_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds files and no report"):
            Progress.begin(tmp_path / "thesis", {}, overwrite)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds files and no report"):
        Progress.begin(tmp_path, {})
    (tmp_path / "progress.json").write_text("[1]")
    with pytest.raises(ValueError, match="not written by this program"):
        Progress.begin(tmp_path, {})


def test_results_are_what_the_predictions_say(faces, oracle, tmp_path):
    plan = [(experiment, oracle) for experiment in experiments_of(faces, ["given"])]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan, nothing)
    runs, growth = results.runs_of(progress, plan, 50, 0)
    assert growth == [] and [run["id"] for run in runs][:3] == ["in-a", "from-a", "cross-auc-a"]
    masc, coin, blind = runs[0]["systems"]
    (test,) = masc["tests"]
    found = read_predictions(tmp_path / "r" / masc["predictions"])
    known = ~np.isnan(found["p_fake"])
    assert (
        test["figures"]["n"] == known.sum() == len(found["label"]) - 1
    )  # the face without a score does not count
    assert test["figures"]["auc"]["value"] == auc(found["label"][known], found["p_fake"][known])
    assert (
        test["figures"]["auc"]["low"]
        < test["figures"]["auc"]["value"]
        < test["figures"]["auc"]["high"]
    )
    assert test["delong"] is None and test["level"] == "frame"
    against = coin["tests"][0]["delong"]
    other = read_predictions(tmp_path / "r" / coin["predictions"])
    gap = auc(found["label"][known], found["p_fake"][known]) - auc(
        other["label"][known], other["p_fake"][known]
    )
    assert (
        against["against"] == MASC
        and against["difference"] == pytest.approx(gap)
        and 0 < against["p"] < 1
    )
    assert (
        blind["note"] == "failed: no eyes" and blind["tests"] == [] and blind["predictions"] is None
    )
    json.dumps(results.without_nan(runs), allow_nan=False)


def test_videos_are_measured_apart_from_frames(faces, oracle, tmp_path):
    clips = faces.select(np.arange(len(faces)))
    clips.rows["video"] = np.array(
        [f"{g}-{y}" for g, y in zip(clips.rows["group"], clips.rows["label"], strict=True)]
    )
    plan = [(experiment, oracle[:1]) for experiment in experiments_of(clips, ["given"])[:1]]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan, nothing)
    levels = {
        test["level"]: test["figures"]
        for test in results.runs_of(progress, plan, 20, 0)[0][0]["systems"][0]["tests"]
    }
    assert levels["video"]["n"] == len(
        set(clips.rows["video"][(clips.rows["dataset"] == "a") & (clips.rows["split"] == "test")])
    )
    assert levels["frame"]["n"] == 2 * levels["video"]["n"] - 1


def test_every_system_learns_and_nothing_is_learned_from_permuted_labels(faces, tmp_path):
    """The made-up fakes disagree with themselves, and are otherwise like the real faces."""
    config = Config((tmp_path,), Training(), permutations=6, few_shot=False, protocols=("given",))
    dumps = [
        type("D", (), {"meta": {"outputs": OUTPUTS, "dataset": name, "data_root": "x"}})
        for name in "ab"
    ]
    plan = planned(config, faces, dumps, None, tmp_path / "networks")
    names = [system.name for system in plan[0][1]]
    assert names[:4] == [
        MASC,
        f"{MASC}, real faces only",
        f"{MASC}, raw columns only",
        f"{MASC}, expected columns only",
    ]
    assert {"first 16 columns", "toy.identity, whole face", "metadata"} <= set(names)
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan[:1] + plan[2:3], also(config, dumps))
    runs, _ = results.runs_of(progress, plan[:1] + plan[2:3], 50, 0)
    in_a = {system["name"]: system for system in runs[0]["systems"]}
    aucs = {
        name: system["tests"][0]["figures"]["auc"]
        for name, system in in_a.items()
        if system["tests"]
    }
    assert aucs[MASC]["low"] > 0.9 and aucs[f"{MASC}, real faces only"]["low"] > 0.6
    assert aucs["metadata"]["value"] == 0.5  # all of its columns are 0
    assert aucs["toy.identity, whole face"]["low"] < 0.5 < aucs["toy.identity, whole face"]["high"]
    (remark,) = results.chance_remarks(runs)
    assert "6 permutations" in remark and "as it must" in remark
    falls = progress.done[f"a/{MASC}"]["importance"]
    assert falls[0]["group"] == "toy.identity" and falls[0]["fall"]["low"] > 0
    assert {
        entry["name"]: entry["columns"] for entry in results.ablation_of(progress, plan[:1], runs)
    }[MASC] > 50


def test_where_a_number_tells_the_labels_what_is_left_without_it_is_told(faces, oracle, tmp_path):
    leaking = faces.select(np.arange(len(faces)))
    rng = np.random.default_rng(0)
    leaking.rows["face_px"] = 100 + 10 * leaking.rows["label"] + rng.normal(0, 4, len(faces))
    fitted = [*oracle, System(REALS_ONLY, "ablation", oracle[1].fit)]
    plan = [(experiment, fitted) for experiment in experiments_of(leaking, ["given"])[:1]]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan, nothing)
    (remark,) = results.stratified_remarks(progress, plan)
    assert (
        remark.startswith("a: among faces alike in face_px (")
        and f"{MASC} " in remark
        and "; coin 0." in remark
    )
    assert "blind" not in remark and REALS_ONLY not in remark  # it failed; it is no baseline
    same = [(experiment, oracle) for experiment in experiments_of(faces, ["given"])[:1]]
    assert results.stratified_remarks(progress, same) == []


def test_few_training_faces_are_told_as_a_curve_and_not_as_runs(faces, oracle, tmp_path):
    experiment = experiments_of(faces, ["given"])[0]
    plan = [(few_shot(experiment, size, 2), oracle) for size in (40, 100)]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan, nothing)
    runs, growth = results.runs_of(progress, plan, 20, 0)
    assert runs == []
    told = [(point["dataset"], point["system"], point["faces"], point["seed"]) for point in growth]
    assert told == [("a", name, size, 2) for size in (40, 100) for name in (MASC, "coin")]
    assert (
        growth[0]["figures"]["n_real"] + growth[0]["figures"]["n_fake"] == growth[0]["figures"]["n"]
    )
    text = for_card(
        {
            "runs": [],
            "remarks": [],
            "robustness": [],
            "importance": [],
            "subgroups": [],
            "few_shot": growth,
        }
    )
    assert "40 faces  100 faces" in text and short(growth[0]["figures"]["auc"]["value"]) in text


def test_people_are_told_apart_by_what_was_said_of_their_faces(faces, oracle, tmp_path):
    plan = [(experiments_of(faces, ["given"])[0], oracle)]
    progress = Progress.begin(tmp_path / "r", {})
    work(progress, plan, nothing)
    found = read_predictions(progress.predictions("in-a", MASC))
    keys = list(zip(*(found[name].tolist() for name in ("dataset", "path", "face")), strict=True))
    said = {key: {"gender": ("x", "y")[row % 4 > 1]} for row, key in enumerate(keys)}
    (entry,) = results.subgroups_of(progress, plan, said, [MASC, "blind"])
    assert (entry["run"], entry["system"], entry["attribute"]) == ("in-a", MASC, "gender")
    part = np.array([said[key]["gender"] == "x" for key in keys]) & ~np.isnan(found["p_fake"])
    (x,) = (group for group in entry["groups"] if group["name"] == "x")
    assert x["n_real"] + x["n_fake"] == part.sum()
    reals = part & (found["label"] == 0)
    if x["fpr"]:
        assert x["fpr"]["value"] == (found["p_fake"][reals] >= 0.5).mean()


def test_thresholds_come_from_the_real_validation_faces(faces):
    experiment = experiments_of(faces, ["given"])[0]
    for system in systems.baselines(OUTPUTS, Training(fpr=0.2)):
        fitted = system.fit(experiment.train, experiment.val)
        of_reals = fitted.p_fake(experiment.val)[experiment.val.rows["label"] == 0]
        assert fitted.threshold == threshold_at_fpr(of_reals, 0.2), system.name


def test_curves_are_made_for_all_but_ablations_and_are_on_the_card(
    faces, oracle, tmp_path, monkeypatch
):
    experiment = experiments_of(faces, ["given"])[0]
    test = experiment.runs[0].tests["a"]
    found = test.select(np.arange(len(test)) >= 5)  # five faces are lost
    monkeypatch.setattr(
        planning, "degraded_faces", lambda *_: (test, {Condition("jpeg", 4): found})
    )
    dumps = [type("D", (), {"meta": {"dataset": "a", "data_root": "x"}})]
    less = [
        System(f"{MASC}, raw columns only", "ablation", oracle[1].fit),
        System(REALS_ONLY, "ablation", oracle[1].fit),
    ]
    progress = Progress.begin(tmp_path / "r", {})
    work(
        progress, [(experiment, [*oracle[:2], *less])], also(Config((), families=("jpeg",)), dumps)
    )
    curves = [curve for done in progress.done.values() for curve in done.get("robustness", [])]
    assert [curve["system"] for curve in curves] == [MASC, "coin", REALS_ONLY]
    (point,) = curves[1]["points"]
    assert (point["level"], point["parameter"], point["n"], point["lost"]) == (
        4,
        "30 quality",
        len(test) - 5,
        5,
    )
    empty = {name: [] for name in ("runs", "remarks", "importance", "subgroups", "few_shot")}
    (line,) = (
        line
        for line in for_card({**empty, "robustness": curves}).splitlines()
        if line.startswith("coin; a")
    )
    clean, degraded = (short(auc["value"]) for auc in (curves[1]["clean"], point["auc"]))
    assert line.split() == [
        "coin;",
        "a",
        "jpeg",
        clean,
        degraded,
        f"{curves[1]['slope']:+.4f}",
        str(len(test)),
        "5",
    ]


def test_evidence_counts_whatever_labels_teach_unless_it_is_told_not_to(faces):
    outputs = {
        **OUTPUTS,
        "traces.altered": {"kind": "forgery_logit", "size": 1, "names": ["logit"]},
    }
    said = np.random.default_rng(0).normal(
        size=(len(faces), 8, 1)
    )  # nothing that labels could teach
    seen = type(faces)({**faces.arrays, "traces.altered": said.astype(np.float16)}, faces.rows)
    training = Training(drop=("expected",))
    less = {each.name: each for each in systems.ablations(outputs, training)}[
        f"{MASC}, only what labels teach"
    ]
    reals = seen.select(np.flatnonzero((seen.rows["split"] == "test") & (seen.rows["label"] == 0)))
    logits = []
    for system in (systems.consistency(MASC, "masc", outputs, training), less):
        p_fake = system.fit(seen.split("train"), seen.split("val")).p_fake(reals)
        logits.append(np.log(p_fake / (1 - p_fake)))
    added = np.polyfit(logits[1], logits[0], 1)[0] * logits[1] - logits[0]
    assert np.corrcoef(added, reals.arrays["traces.altered"][:, 0, 0].astype(float))[0, 1] < -0.9


def test_what_an_expert_says_by_itself_is_measured_without_a_fake(faces):
    outputs = {
        **OUTPUTS,
        "traces.altered": {"kind": "forgery_logit", "size": 1, "names": ["logit"]},
    }
    rng = np.random.default_rng(0)
    said = faces.rows["label"][:, None, None] + rng.normal(0, 0.5, (len(faces), 8, 1))
    seen = type(faces)({**faces.arrays, "traces.altered": said.astype(np.float16)}, faces.rows)
    name = "traces.altered, whole face, no fake seen"
    by_name = {
        each.name: each for each in systems.ablations(outputs, Training(drop=("traces.altered",)))
    }
    train, val, test = (seen.split(split) for split in ("train", "val", "test"))
    train = train.select(np.flatnonzero(train.rows["label"] == 0))  # there is none to see
    p_fake = by_name[name].fit(train, val).p_fake(test)
    assert (
        auc(test.rows["label"], p_fake)
        == auc(test.rows["label"], test.arrays["traces.altered"][:, 0, 0].astype(float))
        > 0.8
    )
    assert name not in {each.name for each in systems.ablations(OUTPUTS, Training())}
    without = {each.name for each in systems.ablations(outputs, Training(forgery_weight=0.0))}
    assert set(by_name) - without == {f"{MASC}, only what labels teach"}
    dump = type("D", (), {"meta": {"outputs": outputs, "dataset": "a", "data_root": "x"}})
    plan = planned(
        Config((), Training(), few_shot=False, permutations=0, protocols=("people",)),
        seen,
        [dump],
        None,
        None,
    )
    assert all({name, REALS_ONLY} <= {each.name for each in fitted} for _, fitted in plan) and plan


def test_permuted_labels_are_checked_without_what_counts_beside_labels(faces, monkeypatch):
    """Evidence needs no labels, so a detector with it is no coin whatever the labels are."""
    weights = {}
    kept = systems.permuted
    monkeypatch.setattr(
        systems,
        "consistency",
        lambda name, kind, outputs, config: System(name, str(config.forgery_weight), len),
    )
    monkeypatch.setattr(
        systems,
        "permuted",
        lambda system, seed: weights.setdefault(seed, system.kind) and kept(system, seed),
    )
    dump = type("D", (), {"meta": {"outputs": OUTPUTS, "dataset": "a", "data_root": "x"}})
    config = Config(
        (),
        Training(forgery_weight=0.5),
        few_shot=False,
        permutations=2,
        ablations=False,
        protocols=("given",),
    )
    plan = planned(config, faces, [dump], None, None)
    assert weights == {0: "0.0", 1: "0.0"}
    assert {s.kind for _, fitted in plan for s in fitted if s.name == MASC} == {"0.5"}


def test_a_leak_is_not_chance():
    tests = [
        {"test": "t", "level": "frame", "figures": {"auc": {"value": value}}}
        for value in (0.71, 0.72, 0.70)
    ]
    run = {"protocol": "sanity", "systems": [{"tests": tests}]}
    (remark,) = results.chance_remarks([run])
    assert (
        "the 99% interval" in remark
        and "does not hold .50" in remark
        and "look for what leaks" in remark
    )
    run["systems"] = run["systems"] * 0 + [{"tests": tests[:1]}]
    assert "too few permutations to say" in results.chance_remarks([run])[0]


def test_provenance_names_the_commit_and_versions():
    found = results.provenance()
    assert set(found) == {"git", "versions"} and found["versions"]["numpy"] == np.__version__
    assert found["git"]["commit"] is None or len(found["git"]["commit"]) == 40


def test_permuting_mixes_labels_of_train_and_val_only(faces):
    seen = []
    base = System("x", "masc", lambda train, val: seen.append((train, val)) or Fitted(len, 0.5))
    experiment = experiments_of(faces, ["given"])[0]
    before = experiment.train.rows["label"].copy()
    systems.permuted(base, 3).fit(experiment.train, experiment.val)
    train, val = seen[0]
    assert (experiment.train.rows["label"] == before).all()
    assert (train.rows["label"] != before).mean() > 0.3 and train.counts()[
        "fake"
    ] == experiment.train.counts()["fake"]
    shares = [train.rows["label"][before == label].mean() for label in (0, 1)]
    assert shares[0] == shares[1]  # they say nothing of the true ones, not even by chance
    assert train.rows["path"].tolist() == experiment.train.rows["path"].tolist() and len(
        val
    ) == len(experiment.val)
