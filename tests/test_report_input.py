"""What a report may lack, and the errors for one that is damaged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.files import write_json
from evaluation.compare import compare
from evaluation.metrics_table import read_report
from evaluation.page import number
from evaluation.report import write_report
from tests.example_report import SMALL, changed, value, write_example, written
from tests.test_report import rows_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Plots are empty files here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.plots.save", lambda drawn, path: path.write_bytes(b"PNG"))
        yield


def test_undefined_figures(tmp_path: Path) -> None:
    def undefine(report: dict, table) -> None:
        table[["value", "low", "high"]] = float("nan")

    folder = write_report(changed(tmp_path, undefine, only=("in-clips",)))
    assert rows_of(folder, "in-clips-clips-frame")["MASC"][0] == "n/a"
    assert "nan" not in re.findall(r"\w+", written(folder, "report.md"))
    assert "do not belong together" not in written(folder, "report.md")


def test_a_report_without_predictions_or_runs(tmp_path: Path) -> None:
    write_example(tmp_path / "a", only=SMALL)
    shutil.rmtree(tmp_path / "a" / "predictions")
    folder = write_report(tmp_path / "a")
    assert (
        not list(folder.glob("plots/*")) and (folder / "tables/from-wild-clips-frame.md").exists()
    )

    def empty(report: dict, table) -> None:
        report["runs"] = {}
        table["run"] = ""
        table["level"] = ""

    text = written(write_report(changed(tmp_path / "b", empty)), "report.md")
    assert text.count("## ") > 2


def test_one_class_has_no_roc(tmp_path: Path) -> None:
    write_example(tmp_path, only=SMALL)
    for path in tmp_path.glob("predictions/*/*.csv"):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if b",swap" not in line))
    folder = write_report(tmp_path)
    assert {path.name for path in folder.glob("plots/*")} == {
        f"from-wild-clips-{level}-{what}.png"
        for level in ("frame", "video")
        for what in ("scores", "reliability-masc")
    }
    assert "60 fake in metrics.csv, 60 real and 0 fake in the predictions" in written(
        folder, "report.md"
    )


def test_predictions_of_other_scores_are_reported(tmp_path: Path) -> None:
    _, table = write_example(tmp_path, only=SMALL)
    folder = tmp_path / "predictions" / "from-wild"
    shutil.copy(folder / "metadata.csv", folder / "masc.csv")
    text = written(write_report(tmp_path), "report.md")
    auc = number(value(table, system="MASC", level="frame"))
    pattern = rf"MASC, frames of clips: AUC {auc} in metrics.csv, AUC 0.\d+ in the predictions"
    assert re.search(pattern, text) and text.count("do not belong together") == 2, (
        "frames and videos"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; give the folder of a report"),
        ("{", "damaged or not a report"),
        ("[]", "damaged or not a report"),
        ('{"format": 7}', "a report of format 7, this version reads 3"),
        ('{"format": 3}', "it lacks config, created,"),
    ],
)
def test_no_report(tmp_path: Path, text: str | None, message: str) -> None:
    if text:
        (tmp_path / "report.json").write_text(text)
    for work in (write_report, lambda folder: compare(folder, folder, tmp_path / "out")):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            work(tmp_path)
        assert str(tmp_path / "report.json") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report.update(runs=5), "damaged or not a report"),
        (lambda report: report["runs"]["from-wild"].pop("title"), "it lacks runs.from-wild.title"),
        (
            lambda report: report["datasets"].update(x={"dump": ""}),
            "it lacks datasets.x.no_face, datasets.x.splits",
        ),
        (lambda report: report["runs"].pop("from-wild"), "lacks the run from-wild of metrics.csv"),
    ],
)
def test_damaged_report(tmp_path: Path, change: Callable[[dict], object], message: str) -> None:
    report, _ = write_example(tmp_path, only=SMALL)
    change(report)
    write_json(tmp_path / "report.json", report)
    with pytest.raises(ValueError, match=message) as caught:
        read_report(tmp_path)
    assert str(tmp_path / "report.json") in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("a,b\n1,2\n"), "expected the columns"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b",frame,", b",clip,")),
            "level clip",
        ),
        (lambda path: path.write_bytes(path.read_bytes().replace(b",0.", b",high", 1)), "damaged"),
    ],
)
def test_damaged_metrics(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_example(tmp_path, only=SMALL)
    path = tmp_path / "metrics.csv"
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_report(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("a,b\n1,2\n"), "expected the columns"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "damaged"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b",0,0.", b",2,0.", 1)),
            "labels other than 0 and 1",
        ),
        (lambda path: path.write_bytes(path.read_bytes() + b'"' + b"x" * 200_000), "damaged"),
    ],
)
def test_damaged_predictions(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    write_example(tmp_path, only=SMALL)
    path = tmp_path / "predictions" / "from-wild" / "masc.csv"
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        write_report(tmp_path)
    assert str(path) in str(caught.value)
