"""scripts/ablate.py on made-up answers: its rows, what is kept of a run that was stopped, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data.dump import read_dump
from data.feature_dataset import join_dumps
from data.splits import train_and_val
from evaluation.metrics import summary
from inference.scorer import Scorer
from scripts import ablate
from tests.synthetic import predictions, recurring_people, write_dump
from train import Config
from training.detector import fit

ROWS = [
    "attributes",
    "identities",
    "attributes + identities",
]  # of toy.age, toy.age_years, toy.identity


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    return write_dump(tmp_path_factory.mktemp("dumps") / "made" / "toy")


@pytest.fixture(scope="module")
def finished(dump, tmp_path_factory) -> Path:
    return ablate.main(
        Config(features=(dump,), drop=("expected",), out=tmp_path_factory.mktemp("ablation"))
    )


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def run(monkeypatch, *arguments: object) -> int:
    """The command line's exit code."""
    monkeypatch.setattr(sys, "argv", ["ablate.py", *map(str, arguments)])
    return ablate.cli()


def renamed(root: Path, name: str, outputs: dict[str, str], **change: np.ndarray) -> Path:
    """A made-up dump whose outputs have other names."""
    folder = write_dump(root / name / "toy", change=change)
    meta = json.loads((folder / "meta.json").read_text())
    meta["outputs"] = {
        outputs.get(output, output): about for output, about in meta["outputs"].items()
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    for old, new in outputs.items():
        (folder / f"{old}.npy").rename(folder / f"{new}.npy")
    return folder


def test_a_row_per_subset_and_what_is_in_none_is_said(finished):
    found = results(finished)
    assert list(found["rows"]) == ROWS
    assert [row["families"] for row in found["rows"].values()] == [
        name.split(" + ") for name in ROWS
    ]
    columns = [row["columns"] for row in found["rows"].values()]
    assert columns[0] + columns[1] == columns[2]
    assert (
        "no column of vision_language, expressions, traces: 3 rows instead of 31"
        in found["remarks"]
    )
    assert "in no family, so in no row: toy.moves" in found["remarks"]
    assert found["counts"]["test"] == {"made": {"real": 24, "fake": 24, "groups": 12}}
    assert {"python", "numpy", "scikit-learn"} <= found["versions"].keys()
    assert found["config"]["head"] == "logreg" and found["config"]["weights"] == {"toy": "0" * 64}


def test_numbers_are_those_of_train_fit_and_score(finished, dump):
    read = read_dump(dump)
    faces = join_dumps([read])
    fitting, val = train_and_val(faces, [])
    test = faces.split("test")
    checkpoint, report = fit(
        fitting, val, read.meta["outputs"], Config(drop=("expected",), only=("attributes",)), []
    )
    p_fake = Scorer(checkpoint).score(test.arrays)[1]
    threshold = checkpoint.info["threshold"]["p_fake"]
    row = results(finished)["rows"]["attributes"]
    assert row["figures"] == {
        "made": summary(test.rows["label"], p_fake, test.rows["group"], threshold)
    }
    assert row["columns"] == len(checkpoint.info["features"])
    assert row["choice"] == report and row["threshold"]["p_fake"] == threshold


def test_table_and_picture(finished):
    lines = (finished / "table.md").read_text().splitlines()
    auc = results(finished)["rows"]["identities"]["figures"]["made"]["auc"]
    assert lines[0].split("|")[1:4] == [f" {'families':<23} ", " columns ", " made, AUC (95%)     "]
    assert "{value:.3f} ({low:.3f}-{high:.3f})".format(**auc) in next(
        x for x in lines if x.startswith("| identities")
    )
    text = "\n".join(lines)
    assert "24 real and 24 fake frames in 12 groups" in text and "on single frames" in text
    assert (finished / "ablation.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(finished, dump, tmp_path, monkeypatch):
    asked, honest = [], ablate.fit

    def counted(*args):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(args[3].only)
        return honest(*args)

    monkeypatch.setattr(ablate, "fit", counted)
    config = Config(features=(dump,), drop=("expected",), out=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        ablate.main(config)
    assert list(results(tmp_path / "out")["rows"]) == ROWS[:2]
    asked[:] = [()]
    ablate.main(config)
    assert asked == [(), ("attributes", "identities")]
    ablate.main(config)  # a third fit would interrupt it
    for name in ("results.json", "table.md", "ablation.png"):
        assert (tmp_path / "out" / name).read_bytes() == (finished / name).read_bytes()


def test_rows_of_other_settings_are_refused_unless_they_may_be_replaced(
    dump, tmp_path, monkeypatch, capsys
):
    options = ("--features", dump, "--out", tmp_path, "--drop", "expected")
    assert run(monkeypatch, *options) == 0
    before = (tmp_path / "results.json").read_bytes()
    capsys.readouterr()
    assert run(monkeypatch, *options, "--seed", 3) == 2
    error = capsys.readouterr().err
    assert error.startswith("scripts.ablate: ") and error.count("\n") == 1
    assert "other settings: seed 0 there, 3 now. --overwrite it, or choose another --out" in error
    assert (tmp_path / "results.json").read_bytes() == before
    assert run(monkeypatch, *options, "--seed", 3, "--overwrite") == 0
    found = results(tmp_path)
    assert found["config"]["seed"] == 3 and found["config"]["drop"] == ["expected"]
    assert found["rows"]["identities"]["columns"] == 12  # cosines


def test_a_dump_that_was_made_anew_is_another(tmp_path):
    dump = write_dump(tmp_path / "made" / "toy")
    config = Config(features=(dump,), drop=("expected",), out=tmp_path / "out")
    ablate.main(config)
    meta = json.loads((dump / "meta.json").read_text())
    (dump / "meta.json").write_text(json.dumps(meta | {"config": {"images": 1}}))
    with pytest.raises(ValueError, match="other settings: dumps"):
        ablate.main(config)


def test_all_families_and_several_dumps(tmp_path):
    names = {"toy.age_years": "toy.blendshapes", "toy.moves": "toy.embedding"}
    dumps = tuple(renamed(tmp_path, name, names) for name in ("first", "second"))
    rows = results(ablate.main(Config(features=dumps, drop=("expected",), out=tmp_path / "out")))[
        "rows"
    ]
    assert (
        len(rows) == 15
        and list(rows)[-1] == "attributes + identities + vision_language + expressions"
    )
    assert [len(row["families"]) for row in rows.values()] == [1] * 4 + [2] * 6 + [3] * 4 + [4]
    assert all(list(row["figures"]) == ["first", "second", "all"] for row in rows.values())
    assert rows["attributes"]["figures"]["all"]["n_groups"] == 24


def test_a_family_without_answers_or_columns_has_no_row(dump, tmp_path):
    silent = (
        predictions(np.repeat(np.arange(60), 4), np.tile([0, 0, 1, 1], 60))["toy.identity"] * np.nan
    )
    mute = write_dump(tmp_path / "mute" / "toy", change={"toy.identity": silent})
    for number, (path, drop) in enumerate(
        [(mute, ("expected",)), (dump, ("expected", "identities"))]
    ):
        found = results(
            ablate.main(Config(features=(path,), drop=drop, out=tmp_path / str(number)))
        )
        assert list(found["rows"]) == ["attributes"]
        assert any(remark.startswith("no column of identities, ") for remark in found["remarks"])


def test_a_row_that_fails_says_so_in_the_table(dump, tmp_path, monkeypatch):
    honest = ablate.fit

    def failing(*args):
        if args[3].only == ("identities",):
            raise ValueError("not enough of them")
        return honest(*args)

    monkeypatch.setattr(ablate, "fit", failing)
    out = ablate.main(Config(features=(dump,), drop=("expected",), out=tmp_path))
    text = (out / "table.md").read_text()
    assert "- identities: failed, not enough of them\n" in text and text.count("n/a") == 1
    monkeypatch.setattr(ablate, "fit", lambda *_: (_ for _ in ()).throw(ValueError("none of them")))
    with pytest.raises(
        ValueError, match="no detector could be fitted and scored: failed, none of them$"
    ):
        ablate.main(Config(features=(dump,), out=tmp_path), overwrite=True)


def test_people_can_be_kept_apart(tmp_path):
    dump = write_dump(tmp_path / "made" / "toy", groups=100, change=recurring_people()[1])
    found = results(
        ablate.main(
            Config(features=(dump,), drop=("expected",), identity_disjoint=True, out=tmp_path)
        )
    )
    train, val = (
        found["counts"][part]["groups"] for part in ("train", "val")
    )  # some may resemble somebody in test
    assert 15 <= train <= 20 and 15 <= val <= 20
    assert f"people apart, {400 - 4 * (20 + train + val)} frames left out" in found["remarks"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--drop", "clip"), "no feature belongs to clip"),
        (
            ("--drop", "attributes", "identities"),
            "no column of attributes, identities, vision_language, expressions",
        ),
        (("--seed", "-1"), "--seed is at least 0"),
        (("--features", "nowhere"), "nowhere: no dump there"),
    ],
)
def test_mistakes_are_one_line(dump, tmp_path, monkeypatch, capsys, options, message):
    assert run(monkeypatch, "--features", dump, "--out", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"scripts.ablate: {message}") and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_results_file_of_somebody_else_is_left_alone(dump, tmp_path):
    for text in ("[]", "{}", "no JSON", '{"config": [], "versions": 1}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="not written by this script"):
            ablate.main(Config(features=(dump,), out=tmp_path))
        assert (tmp_path / "results.json").read_text() == text


def test_without_a_test_split_there_is_nothing_to_score(tmp_path):
    dump = write_dump(tmp_path / "made" / "toy", splits=(0.6, 1.0))
    with pytest.raises(ValueError, match="none of these dumps has a test split"):
        ablate.main(Config(features=(dump,), out=tmp_path / "out"))


def test_help_opens_with_commands_and_says_why_there_is_no_only(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "python -m scripts.ablate --features" in printed and "no --only here" in printed
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--only", "raw")
    assert stopped.value.code == 2
