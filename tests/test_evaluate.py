"""The command that makes reports, from dumps to pages."""

import json
from dataclasses import replace

import pytest

from data.dump import read_dump
from evaluate import cli, training_of
from evaluation.results import content
from models.checkpoint import Checkpoint
from tests.miniatures import pictures
from tests.synthetic import write_dump
from train import Config, main

QUICK = ["--replicates", "20", "--permutations", "2", "--no-few-shot"]


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    root = tmp_path_factory.mktemp("dumps")
    return [str(write_dump(root / name / "toy", 80, seed=i)) for i, name in enumerate("ab")]


@pytest.fixture(scope="module")
def report(dumps, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "both"
    assert cli(["--features", *dumps, "--no-checkpoint", "--out", str(out), *QUICK]) == 0
    return out


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_report_holds_every_protocol_and_says_how_it_was_made(report, dumps):
    data = results(report)
    protocols = [run["protocol"] for run in data["runs"]]
    assert protocols.count("in-dataset") == 3 and {
        "cross-dataset",
        "cross-auc",
        "identity-disjoint",
    } <= set(protocols)
    assert data["config"]["training"]["head"] == "logreg" and len(data["config"]["dumps"]) == 2
    assert data["datasets"]["a"]["splits"]["train"] == {"real": 96, "fake": 96, "groups": 48}
    assert any(
        "look like one in train" in remark for remark in data["remarks"]
    )  # all made-up hashes are the same
    assert sum("permuted labels" in remark for remark in data["remarks"]) == 2
    assert {entry["dataset"] for entry in data["inconsistency"]} == {"a", "b"}
    for name in ("index.html", "report.md", "predictions/in-a/masc.csv"):
        assert (report / name).stat().st_size > 1000


def test_the_same_command_has_nothing_left_to_fit(report, dumps, capsys):
    before = (report / "progress.json").read_bytes()
    old = results(report)
    assert cli(["--features", *dumps, "--no-checkpoint", "--out", str(report), *QUICK]) == 0
    assert (report / "progress.json").read_bytes() == before
    new = results(report)
    assert {**old, "created": 0, "minutes": 0} == {**new, "created": 0, "minutes": 0}
    assert (
        cli(["--features", *dumps, "--no-checkpoint", "--out", str(report), *QUICK, "--seed", "1"])
        == 2
    )
    assert "other settings (training)" in capsys.readouterr().err


def test_a_checkpoint_is_measured_as_it_is_beside_refits_with_its_settings(dumps, tmp_path):
    config = Config(head="mlp", drop=("toy.age",), fpr=0.1, forgery_weight=0.25, seed=3)
    checkpoint = main(replace(config, features=(dumps[0],), out=tmp_path / "mine"))
    assert training_of(Checkpoint.load(checkpoint)) == config
    card = tmp_path / "card.md"
    options = [
        "--no-ablations",
        "--protocols",
        "given",
        *QUICK,
        "--permutations",
        "0",
        "--card",
        str(card),
    ]
    assert (
        cli(
            [
                "--features",
                dumps[0],
                "--checkpoint",
                str(checkpoint),
                "--out",
                str(tmp_path / "r"),
                *options,
            ]
        )
        == 0
    )
    (run,) = results(tmp_path / "r")["runs"]
    systems = {
        system["name"]: system["tests"][0]["figures"]["auc"]["value"] for system in run["systems"]
    }
    assert systems["MASC as it is (mine)"] == systems["MASC"]  # the same faces, settings and seed
    text = card.read_text(encoding="utf-8")
    assert f"{systems['MASC']:.3f}" in text and "metadata" in text


def test_two_reports_side_by_side_and_pages_again(report, tmp_path, capsys):
    assert cli(["compare", str(report), str(report), "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "compare.html").is_file() and "MASC" in capsys.readouterr().out
    page = (report / "index.html").read_bytes()
    (report / "index.html").unlink()
    assert cli(["redraw", str(report)]) == 0
    assert (report / "index.html").read_bytes() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "nowhere"], "no dump there"),
        (["--features", "DUMP", "--networks", "alexnet"], "the networks are mesoinception4"),
        (["--features", "DUMP", "--robustness", "fog"], "the families are jpeg"),
        (["--features", "DUMP", "--drop", "nonsense"], "no feature belongs to nonsense"),
        (
            ["--features", "DUMP", "--data-root", "elsewhere=x"],
            "--data-root names elsewhere; the dumps are of a",
        ),
        (["--features", "DUMP", "--card", "README.md"], "expected the marks"),
        (["compare", "nowhere", "nowhere"], "nowhere"),
        (["redraw", "nowhere"], "nowhere"),
        (["inventory", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_without_a_traceback(dumps, tmp_path, arguments, message, capsys):
    arguments = [dumps[0] if word == "DUMP" else word for word in arguments]
    if arguments[0] == "--features":
        arguments += ["--no-checkpoint", "--out", str(tmp_path / "r")]
    assert cli(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_dataset_that_only_tests_or_has_only_fakes_is_reported_with_a_remark(dumps, tmp_path):
    tests = str(write_dump(tmp_path / "t" / "toy", 80, seed=5, splits=(0.0, 0.0)))
    fakes = str(write_dump(tmp_path / "f" / "toy", 80, seed=6, label=1))
    options = [
        "--no-checkpoint",
        "--protocols",
        "given",
        "--no-ablations",
        *QUICK,
        "--permutations",
        "0",
    ]
    assert cli(["--features", dumps[0], tests, fakes, "--out", str(tmp_path / "r"), *options]) == 0
    data = results(tmp_path / "r")
    runs = {
        run["id"]: {test["test"] for system in run["systems"] for test in system["tests"]}
        for run in data["runs"]
    }
    assert runs["from-a"] == {"t"}
    assert runs["cross-auc-a"] == {
        "reals of a, fakes of f",
        "reals of a, fakes of t",
        "reals of t, fakes of a",
    }
    for said in (
        "t: nothing is trained on it alone (0 real and 0 fake",
        "f: not tested by itself (0 real and ",
    ):
        assert any(remark.startswith(said) for remark in data["remarks"]), said
    with_reals = str(write_dump(tmp_path / "n" / "toy", 80, seed=7, label=0))
    arguments = ["--features", with_reals, fakes, "--out", str(tmp_path / "none"), *options]
    assert cli([*arguments, "--protocols", "given", "together"]) == 2


def test_a_folder_that_cannot_be_used_is_a_mistake(tmp_path, capsys):
    assert cli(["inventory", str(tmp_path)]) == 2
    assert "cannot be used as it is" in capsys.readouterr().out
    (tmp_path / "index.csv").write_text("path,label\n")
    assert cli(["inventory", str(tmp_path)]) == 2
    (tmp_path / "index.csv").unlink()
    for label in ("real", "fake"):
        pictures(tmp_path / label)
    assert cli(["inventory", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "wrong", [["--fpr", "2"], ["--seed", "-1"], ["--data-root", "x"], ["--data-root", "=x"]]
)
def test_options_that_mean_nothing_are_refused(dumps, wrong):
    with pytest.raises(SystemExit) as stopped:
        cli(["--features", dumps[0], *wrong])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x/a", "y/a"), "both of a dataset called a"),
        (("FF++", "ff"), "two parts of the report would be called"),
        (("together", "a"), "two parts of the report would be called"),
    ],
)
def test_datasets_whose_results_would_be_one_are_refused(names, message, tmp_path, capsys):
    dumps = [
        str(write_dump(tmp_path / name / "toy", 80, seed=seed)) for seed, name in enumerate(names)
    ]
    assert cli(["--features", *dumps, "--no-checkpoint", "--out", str(tmp_path / "r"), *QUICK]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_a_report_of_a_detector_trained_anew_is_not_gone_on_with(dumps, tmp_path, capsys):
    options = [
        "--features",
        dumps[0],
        "--checkpoint",
        str(tmp_path / "mine"),
        "--out",
        str(tmp_path / "r"),
        *QUICK,
    ]
    options += ["--no-ablations", "--protocols", "given", "--permutations", "0"]
    for seed in (0, 1):
        main(Config((dumps[seed],), out=tmp_path / "mine"))
        assert cli(options) == (0 if seed == 0 else 2)
    assert "other settings (checkpoint_sha256)" in capsys.readouterr().err


def test_a_dump_made_anew_is_another_one(tmp_path):
    dump = read_dump(write_dump(tmp_path / "large" / "a" / "toy", 20, seed=0))
    (dump.path / "large.npy").write_bytes(bytes(3 << 20))
    before = content(dump)
    for place in (0, (3 << 20) - 1):  # of a large array, both ends are looked at
        changed = bytearray(3 << 20)
        changed[place] = 1
        (dump.path / "large.npy").write_bytes(changed)
        assert content(dump) != before
    told = [
        content(read_dump(write_dump(tmp_path / str(seed) / "a" / "toy", 20, seed=seed)))
        for seed in (0, 1)
    ]
    same = content(read_dump(write_dump(tmp_path / "again" / "a" / "toy", 20, seed=0)))
    assert told[0] == same != told[1]


def test_a_dump_without_test_faces_is_told(dumps, tmp_path, capsys):
    dump = write_dump(tmp_path / "c" / "toy", 40, splits=(0.8, 1.0))
    assert set(read_dump(dump).rows["split"]) == {"train", "val"}
    assert (
        cli(["--features", str(dump), "--no-checkpoint", "--out", str(tmp_path / "r"), *QUICK]) == 2
    )
    assert "a test needs 20 faces of each class" in capsys.readouterr().err
