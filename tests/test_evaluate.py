"""The command that makes reports, from dumps to pages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from data.dump import read_dump
from evaluate import main, settings_of
from evaluation.measure import content
from evaluation.metrics_table import read_report
from models.checkpoint import Checkpoint
from tests.example_report import value
from tests.miniatures import pictures
from tests.synthetic import write_dump
from train import Config
from train import main as train

FAST = ["--replicates", "20", "--permutations", "0", "--no-few-shot", "--ablate", "none"]
GIVEN = [*FAST, "--protocols", "given"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Plots are empty files here: tests/test_report.py draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.plots.save", lambda drawn, path: path.write_bytes(b"PNG"))
        patch.setattr("evaluation.compare.REPLICATES", 10)
        yield


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    root = tmp_path_factory.mktemp("dumps")
    return [str(write_dump(root / name / "toy", 80, seed=i)) for i, name in enumerate("ab")]


@pytest.fixture(scope="module")
def command(dumps, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("reports") / "both")
    options = ["--replicates", "20", "--permutations", "2", "--no-few-shot", "--ablate", "subsets"]
    command = [
        "--features",
        *dumps,
        "--no-checkpoint",
        "--drop",
        "expected",
        "--out",
        out,
        *options,
    ]
    assert main(command) == 0
    return command


@pytest.fixture(scope="module")
def folder(command, tmp_path_factory):
    return next(tmp_path_factory.getbasetemp().glob("reports*")) / "both"


def test_a_report_holds_every_protocol_and_how_it_was_made(folder):
    report, table = read_report(folder)
    protocols = [run["protocol"] for run in report["runs"].values()]
    assert protocols.count("in-dataset") == 3 and protocols.count("permuted-labels") == 4
    assert {"cross-dataset", "cross-auc", "identity-disjoint"} <= set(protocols)
    assert report["config"]["head"] == "logreg" and len(report["config"]["dumps"]) == 2
    assert report["datasets"]["a"]["splits"]["train"] == {"real": 96, "fake": 96, "groups": 48}
    # All made-up perceptual hashes are the same.
    assert any("look like one in train" in remark for remark in report["remarks"])
    assert "in no family, so in no subset: toy.moves" in report["remarks"]
    assert {"toy.identity", "toy.age"} == set(
        table[table["metric"].isin(("cosine_distance", "js_divergence"))]["attribute"]
    )
    assert (folder / "index.html").stat().st_size > 1000
    assert (folder / "predictions" / "in-a" / "masc.csv").is_file()


def test_a_detector_for_every_subset_has_a_row_with_its_columns_and_a_picture(folder):
    _, table = read_report(folder)
    names = [f"MASC, only {x}" for x in ("attributes", "identities", "attributes + identities")]
    for run in ("in-a", "identity-disjoint-a"):
        rows = table[(table["run"] == run) & (table["kind"] == "ablation")]
        assert list(rows["system"].unique()) == names
        assert (folder / "plots" / f"ablations-{run}-a.png").is_file()
    columns = [value(table, "columns", run="in-a", system=name) for name in names]
    assert columns[0] + columns[1] == columns[2]
    assert (
        f"| {names[2]} | {columns[2]:.0f} |" in (folder / "tables/ablations-in-a-a.md").read_text()
    )


def test_the_same_command_has_nothing_left_to_fit(command, folder, capsys):
    before = (folder / "progress.json").read_bytes()
    old = json.loads((folder / "report.json").read_text()), (folder / "metrics.csv").read_bytes()
    assert main(command) == 0
    assert (folder / "progress.json").read_bytes() == before
    new = json.loads((folder / "report.json").read_text()), (folder / "metrics.csv").read_bytes()
    assert old[1] == new[1] and {**old[0], "created": 0} == {**new[0], "created": 0}
    assert main([*command, "--seed", "1"]) == 2
    assert "other settings (seed)" in capsys.readouterr().err


def test_two_reports_side_by_side_and_pages_again(folder, tmp_path, capsys):
    assert main(["compare", str(folder), str(folder), "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "compare.html").is_file() and "MASC" in capsys.readouterr().out
    page = (folder / "index.html").read_bytes()
    (folder / "index.html").unlink()
    assert main(["redraw", str(folder)]) == 0
    assert (folder / "index.html").read_bytes() == page


def test_a_checkpoint_is_measured_as_it_is_beside_refits_with_its_settings(dumps, tmp_path, capsys):
    settings = {"head": "mlp", "drop": ("toy.age",), "fpr": 0.1, "forgery_weight": 0.25, "seed": 3}
    checkpoint = train(Config(**settings, features=(dumps[0],), out=tmp_path / "mine"))
    assert settings.items() <= settings_of(Checkpoint.load(checkpoint)).items()
    card = tmp_path / "card.md"
    out = ["--out", str(tmp_path / "r"), "--card", str(card)]
    command = ["--features", dumps[0], "--checkpoint", str(checkpoint), *out, *GIVEN]
    assert main(command) == 0
    _, table = read_report(tmp_path / "r")
    aucs = [value(table, system=name) for name in ("MASC", "MASC, checkpoint mine")]
    assert aucs[0] == aucs[1]  # the same faces, settings and seed
    text = card.read_text(encoding="utf-8")
    assert f"{aucs[0]:.3f}" in text and "metadata" in text
    train(Config(features=(dumps[1],), out=tmp_path / "mine", overwrite=True))
    assert main(command) == 2
    assert "other settings (checkpoint_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "nowhere"], "no dump there"),
        (["--features", "DUMP", "--networks", "alexnet"], "the networks are mesoinception4"),
        (["--features", "DUMP", "--robustness", "fog"], "the families are jpeg"),
        (["--features", "DUMP", "--drop", "nonsense"], "no feature belongs to nonsense"),
        (["--features", "DUMP", "--data-root", "c=x"], "--data-root names c; the dumps are of a"),
        (["--features", "DUMP", "--data-root", "x"], "--data-root takes DATASET=DIR, not x"),
        (["--features", "DUMP", "--fpr", "2"], "--fpr lies between 0 and 1"),
        (["--features", "DUMP", "--seed", "-1"], "--seed is at least 0"),
        (["--features", "DUMP", "--replicates", "1"], "--replicates is at least 2"),
        (["--features", "DUMP", "--checkpoint", "x"], "exclude each other"),
        (["--features", "DUMP", "--card", "README.md"], "expected the marks"),
        (["compare", "nowhere", "nowhere"], "nowhere"),
        (["redraw", "nowhere"], "nowhere"),
        (["inventory", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(dumps, tmp_path, arguments, message, capsys):
    arguments = [dumps[0] if word == "DUMP" else word for word in arguments]
    if arguments[0] == "--features":
        arguments += ["--no-checkpoint", "--out", str(tmp_path / "r")]
    try:
        code = main(arguments)
    except SystemExit as stopped:  # refused while the options are read
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_dataset_that_only_tests_or_has_only_fakes_is_reported_with_a_remark(dumps, tmp_path):
    tests = str(write_dump(tmp_path / "t" / "toy", 80, seed=5, splits=(0.0, 0.0)))
    fakes = str(write_dump(tmp_path / "f" / "toy", 80, seed=6, label=1))
    options = ["--no-checkpoint", *GIVEN]
    assert main(["--features", dumps[0], tests, fakes, "--out", str(tmp_path / "r"), *options]) == 0
    report, table = read_report(tmp_path / "r")
    aucs = table[(table["metric"] == "auc") & (table["attribute"] == "")]
    assert set(aucs[aucs["run"] == "from-a"]["test"]) == {"t"}
    assert set(aucs[aucs["run"] == "cross-auc-a"]["test"]) == {
        "reals of a, fakes of f",
        "reals of a, fakes of t",
        "reals of t, fakes of a",
    }
    for start in (
        "t: nothing is trained on it alone (0 real and 0 fake",
        "f: not tested by itself (0 real and ",
    ):
        assert any(remark.startswith(start) for remark in report["remarks"]), start
    with_reals = str(write_dump(tmp_path / "n" / "toy", 80, seed=7, label=0))
    assert main(["--features", with_reals, fakes, "--out", str(tmp_path / "none"), *options]) == 2


def test_a_folder_that_cannot_be_used_is_a_mistake(tmp_path, capsys):
    assert main(["inventory", str(tmp_path)]) == 2
    assert "cannot be used as it is" in capsys.readouterr().out
    (tmp_path / "index.csv").write_text("path,label\n")
    assert main(["inventory", str(tmp_path)]) == 2
    (tmp_path / "index.csv").unlink()
    for label in ("real", "fake"):
        pictures(tmp_path / label)
    assert main(["inventory", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x/a", "y/a"), "both of a dataset called a"),
        (("FF++", "ff"), "two parts of the report would be called"),
        (("together", "a"), "two parts of the report would be called"),
    ],
)
def test_datasets_whose_results_would_be_one_are_refused(names, message, tmp_path, capsys):
    dumps = [str(write_dump(tmp_path / x / "toy", 80, seed=i)) for i, x in enumerate(names)]
    assert main(["--features", *dumps, "--no-checkpoint", "--out", str(tmp_path / "r"), *FAST]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_a_dump_made_anew_is_another_one(tmp_path):
    dump = read_dump(write_dump(tmp_path / "large" / "a" / "toy", 20, seed=0))
    (dump.path / "large.npy").write_bytes(bytes(3 << 20))
    before = content(dump)
    for place in (0, (3 << 20) - 1):  # of a large array, both ends are compared
        changed = bytearray(3 << 20)
        changed[place] = 1
        (dump.path / "large.npy").write_bytes(changed)
        assert content(dump) != before
    first, other, again = (
        content(read_dump(write_dump(tmp_path / name / "a" / "toy", 20, seed=seed)))
        for name, seed in (("first", 0), ("other", 1), ("again", 0))
    )
    assert first == again != other


def test_a_dump_without_test_faces_is_reported(tmp_path, capsys):
    dump = str(write_dump(tmp_path / "c" / "toy", 40, splits=(0.8, 1.0)))
    assert main(["--features", dump, "--no-checkpoint", "--out", str(tmp_path / "r"), *FAST]) == 2
    assert "a test needs 20 faces of each class" in capsys.readouterr().err


def test_a_stopped_evaluation_says_how_to_go_on(dumps, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluate.work", stop)
    command = ["--features", dumps[0], "--no-checkpoint", "--out", str(tmp_path / "r"), *GIVEN]
    assert main(command) == 130
    assert "run the same command again" in capsys.readouterr().err
