import numpy as np
import pytest

from data.dump import read_dump
from data.feature_dataset import join_dumps
from evaluation import measure
from evaluation.metrics import auc
from evaluation.protocols import (
    experiments_of,
    few_shot,
    on_both_sides,
    permute,
    permuted_labels,
    resembling,
    slug,
    unused,
)
from evaluation.sanity import chance, duplicates, leaks, stratified_auc
from tests.synthetic import write_dump


def hashes(count: int, seed: int) -> np.ndarray:
    return np.array(
        [f"{value:016x}" for value in np.random.default_rng(seed).integers(0, 2**63, count)]
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Two datasets of 120 groups with two real and two fake faces each; the fakes of the second are
    of two methods.
    """
    root = tmp_path_factory.mktemp("dumps")
    method = np.tile(["", "", "Warp", "Blend"], 120)
    a = write_dump(root / "a" / "toy", 120, seed=1, change={"phash": hashes(480, 1)})
    b = write_dump(
        root / "b" / "toy", 120, seed=2, change={"phash": hashes(480, 2), "method": method}
    )
    return join_dumps([read_dump(a), read_dump(b)])


def keys(faces):
    return set(zip(faces.rows["dataset"], faces.rows["path"], strict=True))


def test_given_splits_give_three_runs_of_the_same_training_faces(faces):
    first, second = experiments_of(faces, ["given"])
    assert [run.protocol for run in first.runs] == ["in-dataset", "cross-dataset", "cross-auc"]
    assert set(first.train.rows["dataset"]) == {"a"} and set(first.train.rows["split"]) == {"train"}
    assert set(first.runs[0].tests) == {"a"} and set(first.runs[1].tests) == {"b"}
    cross_auc = first.runs[2].tests["reals of a, fakes of b"]
    assert set(zip(cross_auc.rows["dataset"], cross_auc.rows["label"], strict=True)) == {
        ("a", 0),
        ("b", 1),
    }
    for experiment in (first, second):
        for run in experiment.runs:
            for test in run.tests.values():
                assert set(test.rows["split"]) == {"test"}
                assert not keys(test) & (keys(experiment.train) | keys(experiment.val))


def test_one_dataset_alone_has_no_other_to_cross_with(faces):
    alone = faces.select(faces.rows["dataset"] == "a")
    (experiment,) = experiments_of(alone, ["given", "together", "manipulations"])
    assert [run.id for run in experiment.runs] == ["in-a"]


def test_a_dataset_with_too_few_test_faces_is_not_tested_on(faces):
    test = (faces.rows["dataset"] == "b") & (faces.rows["split"] == "test")
    few = faces.select(~test | (np.cumsum(test) <= 12))
    found = experiments_of(few, ["given"])
    assert [run.id for experiment in found for run in experiment.runs] == ["in-a", "from-b"]
    with pytest.raises(ValueError, match="20 faces of each class"):
        experiments_of(faces.select(faces.rows["split"] != "test"), ["given"])


def test_a_dataset_of_fakes_alone_is_tested_against_the_reals_of_others(faces):
    fakes = faces.select((faces.rows["dataset"] == "a") | (faces.rows["label"] == 1))
    (experiment,) = experiments_of(fakes, ["given"])
    assert [run.id for run in experiment.runs] == ["in-a", "cross-auc-a"]
    (test,) = experiment.runs[1].tests.values()
    assert set(zip(test.rows["dataset"], test.rows["label"], strict=True)) == {("a", 0), ("b", 1)}
    trains, tested = unused(fakes)
    assert trains.startswith("b: nothing is trained on it alone (0 real and ")
    assert tested.startswith("b: not tested by itself (0 real and ")
    assert unused(faces) == []


def test_a_dataset_of_real_faces_alone_is_tested_for_false_alarms(faces):
    known = (faces.rows["dataset"] == "a") | (faces.rows["label"] == 0)
    (experiment,) = experiments_of(faces.select(known), ["given"])
    (cross,) = [run for run in experiment.runs if run.protocol == "cross-dataset"]
    test = cross.tests["b"]
    assert test.counts()["fake"] == 0 and set(test.rows["split"]) == {"test"}
    assert not [line for line in unused(faces.select(known)) if "not tested" in line]


def test_false_alarms_are_counted_with_an_exact_interval():
    scores, groups = np.array([0.1, 0.5, 0.9, *[0.2] * 17]), np.arange(20)
    (row,) = measure.false_alarm_rows(scores, groups, 0.5)
    assert row["note"] == "2 of 20 real faces" and row["value"] == 0.1
    # Clopper & Pearson, from tables of the binomial distribution.
    assert (row["low"], row["high"]) == pytest.approx((0.0123, 0.3170), abs=1e-4)
    assert measure.false_alarm_rows(scores[:0], groups[:0], 0.5) == []


def test_together(faces):
    (experiment,) = experiments_of(faces, ["together"])
    assert set(experiment.train.rows["dataset"]) == {"a", "b"} and set(
        experiment.runs[0].tests
    ) == {"a", "b"}


def test_a_method_left_out_is_in_no_training_face(faces):
    experiments = experiments_of(faces, ["manipulations"])
    assert [experiment.excluded for experiment in experiments] == ["Blend", "Warp"]
    for experiment, method, other in zip(
        experiments, ("Blend", "Warp"), ("Warp", "Blend"), strict=True
    ):
        trained = {*experiment.train.rows["method"], *experiment.val.rows["method"]}
        assert method not in trained and other in trained
        test = experiment.runs[0].tests[method]
        assert set(test.rows["method"]) == {"", method} and set(test.rows["dataset"]) == {"b"}
        assert set(test.rows["method"][test.rows["label"] == 1]) == {method}
        assert not keys(test) & keys(experiment.train)


def test_identity_disjoint_splits_share_no_group_and_count_who_was_on_both_sides(faces):
    for experiment in experiments_of(faces, ["identity-disjoint"]):
        (test,) = experiment.runs[0].tests.values()
        trained = {*experiment.train.rows["group"], *experiment.val.rows["group"]}
        assert not trained & set(test.rows["group"])
        assert "joined into" in experiment.remarks[0]


def test_on_both_sides_counts_real_test_faces_of_people_who_train(faces):
    given = faces.select(faces.rows["dataset"] == "a")
    apart = given.select(np.arange(len(given)))
    test = np.flatnonzero((given.rows["split"] == "test") & (given.rows["label"] == 0))
    train = np.flatnonzero(given.rows["split"] == "train")
    groups = given.rows["group"].astype(object)
    groups[test[:6]] = groups[train[0]]
    apart.rows["group"] = groups
    assert on_both_sides(given, apart) == pytest.approx(6 / len(test))


def test_fakes_that_resemble_training_fakes_are_counted(faces):
    given = faces.select(faces.rows["dataset"] == "a")
    name = next(name for name in given.arrays if name.endswith(".identity"))
    fake = given.rows["label"] == 1
    before = resembling(given)
    test, train = (
        np.flatnonzero(fake & (given.rows["split"] == split)) for split in ("test", "train")
    )
    given.arrays[name] = given.arrays[name].copy()
    given.arrays[name][test] = given.arrays[name][train[: len(test)]]
    assert resembling(given) == 1 > before


def test_few_shot_is_left_out_where_groups_are_too_large(faces):
    experiment = experiments_of(faces, ["given"])[0]
    groups = np.array([f"g{row % 2}" for row in range(len(experiment.train))], dtype=object)
    experiment.train.rows["group"] = groups
    assert few_shot(experiment, 20, 0) is None


def test_few_shot_sets_are_nested_whole_groups_of_about_the_size(faces):
    experiment = experiments_of(faces, ["given"])[0]
    small, large = few_shot(experiment, 40, 0), few_shot(experiment, 100, 0)
    assert keys(small.train) < keys(large.train) < keys(experiment.train)
    assert 40 <= len(small.train) < 44 and 100 <= len(large.train) < 104
    assert set(np.unique(small.train.rows["group"], return_counts=True)[1]) == {4}
    assert keys(few_shot(experiment, 40, 1).train) != keys(small.train)
    assert few_shot(experiment, 10_000, 0) is None
    assert [run.protocol for run in small.runs] == ["few-shot"] and small.runs[0].tests.keys() == {
        "a"
    }
    assert (small.size, small.seed) == (40, 0)


def test_permuting_changes_labels_of_train_and_val_only(faces):
    experiment = experiments_of(faces, ["given"])[0]
    before = experiment.train.rows["label"].copy()
    checked = permuted_labels(experiment, 3)
    assert [run.id for run in checked.runs] == ["permuted-in-a-3"] and checked.seed == 3
    assert checked.runs[0].tests == experiment.runs[0].tests
    assert (experiment.train.rows["label"] == before).all()
    labels = checked.train.rows["label"]
    assert (labels != before).mean() > 0.3 and labels.sum() == before.sum()
    shares = [labels[before == label].mean() for label in (0, 1)]
    assert shares[0] == shares[1]  # independent of the true ones, not even correlated by chance
    assert checked.train.rows["path"].tolist() == experiment.train.rows["path"].tolist()
    assert len(checked.val) == len(experiment.val)
    assert permute(np.zeros(5, int), np.random.default_rng(0)).sum() == 0


def test_a_picture_on_both_sides_is_reported(faces):
    assert duplicates(faces) == []
    changed = faces.select(np.arange(len(faces)))
    test, train = (np.flatnonzero(faces.rows["split"] == split)[0] for split in ("test", "train"))
    changed.rows["phash"][test] = changed.rows["phash"][train]
    (remark,) = duplicates(changed)
    assert remark.startswith("1 test pictures look like one in train (1 with the same")
    assert changed.rows["path"][test] in remark and changed.rows["path"][train] in remark
    almost = int(changed.rows["phash"][train], 16) ^ 0b101  # two bits of 64
    changed.rows["phash"][test] = f"{almost:016x}"
    assert "(0 with the same" in duplicates(changed)[0]


def test_a_label_that_the_file_gives_away_is_reported(faces):
    train = faces.split("train")
    assert leaks(train, "a") == []
    rng = np.random.default_rng(0)
    train.rows["file_bytes"] = (
        1000 + 500 * (1 - train.rows["label"]) + rng.integers(0, 50, len(train))
    )
    (remark,) = leaks(train, "a")
    assert "file_bytes alone separates real from fake training faces with AUC 1.000" in remark


def test_stratified_auc_is_what_goes_beyond_the_leak():
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 2
    size = 100 + 20 * y + rng.normal(0, 10, 4000)  # fakes are shown larger
    found, pairs = stratified_auc(y, size + rng.normal(0, 1, 4000), size)
    assert auc(y, size) > 0.9 and abs(found - 0.5) < 0.1 and 0 < pairs < 2000 * 2000 / 10
    seen = y + rng.normal(0, 1, 4000)  # something else that tells them apart, as well as everywhere
    assert stratified_auc(y, seen, size)[0] == pytest.approx(auc(y, seen), abs=0.05)
    alone, none = stratified_auc(y, seen, np.where(y, 1000.0, 1.0))
    assert none == 0 and np.isnan(alone)


def test_the_interval_of_several_permutations_is_students():
    found = chance([0.48, 0.52, 0.50])
    assert found["value"] == pytest.approx(0.5)
    assert found["high"] - found["value"] == pytest.approx(
        9.9248 * 0.02 / np.sqrt(3), rel=1e-4
    )  # t(.995, 2)


def test_slugs_are_file_names():
    assert (
        slug("MASC, real faces only") == "masc-real-faces-only"
        and slug("lite.identity, whole face") != ""
    )
    assert slug("../../etc") == "etc" and slug("///") == "unnamed" and slug("얼굴 A") == "얼굴-a"


def test_provenance_names_the_commit_and_versions():
    found = measure.provenance()
    assert set(found) == {"git", "versions"} and found["versions"]["numpy"] == np.__version__
    assert found["git"]["commit"] is None or len(found["git"]["commit"]) == 40
