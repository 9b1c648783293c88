"""train.py from dumps to checkpoints, on made-up outputs."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from command_line import BAD_INPUT, run
from data import splits
from data.dump import read_dump
from data.feature_dataset import join_dumps
from features.regions import REGIONS
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from models.classifiers import MODELS
from tests.synthetic import predictions, recurring_people, write_dump
from train import Config, main


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level("INFO", "masc")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(dump, checkpoint folder) of one ordinary training."""
    root = tmp_path_factory.mktemp("trained")
    dump = write_dump(root / "made" / "toy")
    return dump, main(Config(features=(dump,), out=root / "checkpoint"))


def test_without_arguments_the_newest_dump_is_used_and_named_first(here, caplog):
    old = write_dump(here / "outputs" / "features" / "old" / "toy")
    write_dump(here / "outputs" / "features" / "new" / "toy")
    os.utime(old / "meta.json", (1, 1))
    assert main(Config()) == Path("checkpoints/new-logreg")
    assert caplog.messages[0] == "features    outputs/features/new/toy (the newest dump)"
    assert "train       {'real': 72, 'fake': 72, 'groups': 36}" in caplog.text
    assert "test        48 faces, not read" in caplog.text


def test_no_dump_at_all_says_what_to_do(here):
    with pytest.raises(FileNotFoundError, match=r"preprocessing_pipeline\.py --data_root"):
        main(Config())


def test_the_checkpoint_describes_itself(trained):
    checkpoint = Checkpoint.load(trained[1])
    info, width = checkpoint.info, len(checkpoint.info["features"])
    assert (
        info["profile"] == "toy" and info["regions"] == list(REGIONS) and info["head"] == "logreg"
    )
    assert info["weights"] == {"toy": "0" * 64} and set(info["calibration"]) >= {"a", "b"}
    assert info["threshold"]["fpr"] == 0.05 and 0 < info["threshold"]["p_fake"] < 1
    assert info["trained_on"] == [
        {
            "dataset": "made",
            "counts": {
                "train": {"real": 72, "fake": 72, "groups": 36},
                "val": {"real": 24, "fake": 24, "groups": 12},
            },
        }
    ]
    assert checkpoint.arrays["reference"].shape == (7, width)
    assert (np.diff(checkpoint.arrays["reference"], axis=0) >= 0).all()
    assert {"raw", "expected"} <= {
        "expected" if ">" in name else "raw" for name in info["features"]
    }
    assert str(trained[0].parent) not in (trained[1] / "checkpoint.json").read_text()


def test_it_detects_fakes_of_unseen_people(trained):
    dump = read_dump(trained[0])
    test = dump.rows["split"] == "test"
    features, p_fake = Scorer(Checkpoint.load(trained[1])).score(
        {name: value[test] for name, value in dump.arrays.items()}
    )
    label = dump.rows["label"][test]
    assert features.shape[0] == 48
    assert (p_fake[label == 1][:, None] > p_fake[label == 0][None]).mean() > 0.8


def test_metrics_hold_every_figure_with_its_interval(trained):
    metrics = json.loads((trained[1] / "metrics.json").read_text())
    row = metrics["figures"]["made val"]
    assert row["n"] == 48 and row["n_groups"] == 12
    assert row["auc"]["low"] <= row["auc"]["value"] <= row["auc"]["high"]
    assert row["fpr"]["value"] <= 0.05
    assert metrics["config"]["fpr"] == 0.05 and metrics["choice"]["chosen"]
    assert any("only 24 real validation faces" in note for note in metrics["warnings"])


def test_limits_are_those_of_99_of_100_training_faces(tmp_path):
    rng = np.random.default_rng(0)
    view = {
        "face_px": rng.uniform(50, 250, 240),
        "sharpness": rng.uniform(5, 90, 240),
        "score": rng.uniform(0.9, 1, 240),
    }
    view |= {"yaw": rng.uniform(-40, 60, 240)}
    dump = write_dump(tmp_path / "made" / "toy", change=view)
    checkpoint = Checkpoint.load(main(Config(features=(dump,), out=tmp_path / "out")))
    limits, train = checkpoint.info["limits"], read_dump(dump).rows["split"] == "train"
    for name in ("face_px", "sharpness", "score"):
        assert (view[name][train] < limits[name]).mean() == pytest.approx(0.01, abs=0.01)
    assert (np.abs(view["yaw"][train]) > limits["yaw"]).mean() == pytest.approx(0.01, abs=0.01)
    assert 0.8 < limits["distance"] < 5
    reals = checkpoint.arrays["real_scores"]
    assert len(reals) == 24 and (np.diff(reals) >= 0).all()
    assert (reals >= checkpoint.info["threshold"]["p_fake"]).mean() <= 0.05
    assert (np.diff(checkpoint.arrays["disagreement"], axis=0) >= 0).all()


def test_the_test_split_changes_nothing(trained, tmp_path):
    dump = read_dump(trained[0])
    test = dump.rows["split"] == "test"
    garbage = {name: np.array(value) for name, value in dump.arrays.items()}
    for value in garbage.values():
        value[test] = value[test][::-1] * 0.5 + 0.1
    changed = write_dump(tmp_path / "made" / "toy", change=garbage)
    out = main(Config(features=(changed,), out=tmp_path / "checkpoint"))
    for file in ("checkpoint.json", *(file.name for file in trained[1].glob("arrays-*"))):
        assert (out / file).read_bytes() == (trained[1] / file).read_bytes()


@pytest.mark.parametrize("head", ["mlp", "xgboost"])
def test_other_heads(trained, tmp_path, head, monkeypatch):
    monkeypatch.setattr(MODELS[head], "choices", MODELS[head].choices[1:2])
    out = main(Config(features=(trained[0],), head=head, only=("toy.identity",), out=tmp_path))
    checkpoint = Checkpoint.load(out)
    assert checkpoint.info["head"] == head
    assert all(name.startswith("toy.identity/") for name in checkpoint.info["features"])


def test_the_threshold_is_set_on_real_validation_faces_alone(trained):
    checkpoint, dump = Checkpoint.load(trained[1]), read_dump(trained[0])
    val = (dump.rows["split"] == "val") & (dump.rows["label"] == 0)
    p_fake = Scorer(checkpoint).score({name: value[val] for name, value in dump.arrays.items()})[1]
    assert (p_fake >= checkpoint.info["threshold"]["p_fake"]).sum() == 1  # of 24, at 5%
    assert checkpoint.info["reference"]["faces"] == 24
    features, _ = Scorer(checkpoint).score(
        {name: value[val] for name, value in dump.arrays.items()}
    )
    assert np.allclose(checkpoint.arrays["reference"][3], np.median(features, axis=0), rtol=1e-5)


def test_dropped_groups_are_gone_and_expectations_with_them(trained, tmp_path):
    out = main(Config(features=(trained[0],), drop=("expected", "kl"), out=tmp_path))
    checkpoint = Checkpoint.load(out)
    assert checkpoint.info["groups_dropped"] == ["expected", "kl"]
    assert not any(">" in name or "/kl/" in name for name in checkpoint.info["features"])
    assert not any(name.startswith("expectations.") for name in checkpoint.arrays)


def test_real_faces_only_need_one_class(here):
    dump = write_dump(here / "reals" / "toy", label=0)
    with pytest.raises(ValueError, match=r"72 real faces and no fake.*--one-class"):
        main(Config(features=(dump,)))
    out = main(Config(features=(dump,), one_class=True))
    assert out == Path("checkpoints/reals-oneclass")
    people, label = np.arange(200), np.arange(200) % 2
    p_fake = Scorer(Checkpoint.load(out)).score(predictions(people, label, seed=5))[1]
    assert np.median(p_fake[label == 1]) > np.median(p_fake[label == 0])


def test_fakes_only_are_refused(tmp_path):
    dump = write_dump(tmp_path / "fakes" / "toy", label=1)
    for one_class in (False, True):
        with pytest.raises(ValueError, match="no real faces"):
            main(Config(features=(dump,), one_class=one_class, out=tmp_path / "out"))


def test_a_dump_of_other_weights_is_refused(trained, tmp_path):
    other = write_dump(tmp_path / "made" / "big")
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps({**meta, "weights": {"toy": "1" * 64}}))
    with pytest.raises(ValueError, match=r"differ in weights \(toy; None and toy; None\)"):
        main(Config(features=(trained[0], other), out=tmp_path / "out"))


def test_precisions_are_not_mixed(trained, tmp_path):
    other = write_dump(tmp_path / "made" / "toy2")
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps({**meta, "config": {"precision": "bfloat16"}}))
    with pytest.raises(ValueError, match="differ in precision .*bfloat16 and .*None"):
        main(Config(features=(trained[0], other), out=tmp_path / "out"))
    main(Config(features=(other,), out=tmp_path / "out"))
    assert Checkpoint.load(tmp_path / "out").info["precision"] == "bfloat16"


def test_an_expert_without_outputs_is_left_out(tmp_path):
    """Neither its columns nor its weights are asked for; what is left is trained as ever."""
    silent = {"mute.age": np.full((240, 8, 4), np.nan, np.float16)}
    dump = write_dump(tmp_path / "made" / "toy", change=silent)
    meta = json.loads((dump / "meta.json").read_text())
    meta["outputs"] = {**meta["outputs"], "mute.age": meta["outputs"]["toy.age"]}
    meta["weights"]["mute"] = "1" * 64
    (dump / "meta.json").write_text(json.dumps(meta))
    np.save(dump / "mute.age.npy", silent["mute.age"])
    info = Checkpoint.load(main(Config(features=(dump,), out=tmp_path / "out"))).info
    assert set(info["weights"]) == {"toy"} and "mute.age" not in info["outputs"]
    assert (
        not any(name.startswith("mute") for name in info["features"]) and len(info["features"]) > 50
    )


def test_other_outputs_at_scoring_are_refused(trained):
    arrays = predictions(np.arange(3), np.zeros(3, int))
    arrays["toy.age"] = arrays["toy.age"][:, :, :3]
    with pytest.raises(ValueError, match=r"toy\.age has shape"):
        Scorer(Checkpoint.load(trained[1])).score(arrays)


def test_no_training_faces_is_an_error_that_counts(tmp_path):
    dump = write_dump(tmp_path / "made" / "toy", splits=(0.0, 0.5))
    with pytest.raises(ValueError, match=r"no faces in the train split.*'val': 120, 'test': 120"):
        main(Config(features=(dump,), out=tmp_path / "out"))


def test_without_validation_faces_training_groups_validate(tmp_path, caplog):
    dump = write_dump(tmp_path / "made" / "toy", splits=(0.8, 0.8))
    main(Config(features=(dump,), out=tmp_path / "out"))
    assert "the val split has no real faces: 7 of the training groups validate" in caplog.text
    assert "train       {'real': 82, 'fake': 82, 'groups': 41}" in caplog.text


def test_missing_outputs_are_counted_and_faces_without_any_left_out(tmp_path, caplog):
    arrays = predictions(np.repeat(np.arange(60), 4), np.tile([0, 0, 1, 1], 60))
    for value in arrays.values():
        value[0] = np.nan
    arrays["toy.age"][8:12, REGIONS.index("lower")] = np.nan
    dump = write_dump(tmp_path / "made" / "toy", change=arrays)
    out = main(Config(features=(dump,), out=tmp_path / "out"))
    assert (
        "1 training faces have not a single feature" in caplog.text
        and "values are missing" in caplog.text
    )
    p_fake = Scorer(Checkpoint.load(out)).score(
        {name: value[:9] for name, value in arrays.items()}
    )[1]
    assert np.isnan(p_fake[0]) and np.isfinite(p_fake[1:]).all()


def test_an_output_that_is_always_missing_is_left_out(tmp_path):
    arrays = predictions(np.repeat(np.arange(60), 4), np.tile([0, 0, 1, 1], 60))
    arrays["toy.moves"][:] = np.nan
    dump = write_dump(tmp_path / "made" / "toy", change=arrays)
    out = main(Config(features=(dump,), only=("raw",), out=tmp_path / "out"))
    names = Checkpoint.load(out).info["features"]
    assert names and not any("moves" in name for name in names)


def test_several_dumps_are_one_table_with_a_row_each(trained, tmp_path):
    other = write_dump(tmp_path / "second" / "toy", seed=9)
    out = main(Config(features=(trained[0], other, other), out=tmp_path / "out"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["figures"]) == ["made val", "second val", "all val"]
    assert (
        metrics["figures"]["all val"]["n_groups"] == 24
    )  # g036 of one dataset is not g036 of the other


def test_groups_of_one_dataset_are_the_same_in_two_dumps_of_it(trained, tmp_path):
    degraded = write_dump(tmp_path / "made" / "toy", seed=9)
    faces = join_dumps([read_dump(trained[0]), read_dump(degraded)])
    assert len(faces) == 480 and faces.counts()["groups"] == 60


def test_identity_disjoint_splits(tmp_path, caplog):
    """Whoever validates or tests has training faces too, by the given split; joined by identity, nobody has."""
    people, arrays = recurring_people()
    dump = write_dump(tmp_path / "made" / "toy", groups=100, change=arrays)
    out = main(Config(features=(dump,), identity_disjoint=True, out=tmp_path / "out"))
    assert "100 groups joined into 60 people; " in caplog.text
    with (out / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400
    sides = {}
    for row, person in zip(rows, people, strict=True):
        sides.setdefault(int(person), set()).add(row["split"])
    assert all(len(side - {""}) <= 1 for side in sides.values())
    assert {"train", "test"} < set().union(*sides.values())
    assert Checkpoint.load(out).info["identity_disjoint"] is True


def test_doubtful_faces_are_in_no_split_with_all_of_their_group(tmp_path):
    """Faces too noisy to be joined for certain, yet near a test face: neither they nor their fakes may train."""
    people = np.repeat(np.arange(120) % 60, 4)
    label = np.tile([0, 0, 1, 1], 120)
    arrays = predictions(people, label, noise=1.2)
    given = join_dumps(
        [read_dump(write_dump(tmp_path / "made" / "toy", groups=120, change=arrays))]
    )
    apart = splits.identity_disjoint(given)
    group, split = given.rows["group"], apart.rows["split"]
    left_out = set(group[split == ""])
    assert left_out and not any(name in left_out for name in group[split != ""])
    tested = set(people[split == "test"])
    recurring = np.mean(
        [person in tested for person in people[(split == "train") | (split == "val")]]
    )
    by_group = np.mean([person in tested for person in people[split == ""]])
    assert recurring < 0.5 * by_group


def test_people_need_an_identity_embedding(trained, monkeypatch):
    faces = join_dumps([read_dump(trained[0])])
    del faces.arrays["toy.identity"]
    with pytest.raises(ValueError, match="needs an identity embedding; the dump has toy.age"):
        splits.identity_disjoint(faces)


def test_command_line(here, capsys):
    write_dump(here / "outputs" / "features" / "made" / "toy")
    arguments = ["--only", "raw", "--name", "mine", "--fpr", "0.1", "--forgery-weight", "0"]
    assert run(main, Config, "", arguments, "train.py") == 0
    assert "written: checkpoints/mine" in capsys.readouterr().out
    info = Checkpoint.load(here / "checkpoints/mine").info
    assert info["threshold"]["fpr"] == 0.1 and info["forgery_weight"] == 0
    assert run(main, Config, "", ["--drop", "clip"], "train.py") == BAD_INPUT
    assert "train.py: no feature belongs to clip; groups are " in capsys.readouterr().err
    assert run(main, Config, "", ["--fpr", "1"], "train.py") == BAD_INPUT
    assert "--fpr lies between" in capsys.readouterr().err
