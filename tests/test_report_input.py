"""What a report may lack, and what is said of one that is damaged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.compare import compare
from evaluation.page import number
from evaluation.report import write_report
from evaluation.saved import read_results
from tests.example_report import SMALL, changed, write_example, written
from tests.test_report import rows_of

pytestmark = pytest.mark.filterwarnings("error")


def test_undefined_figures(tmp_path: Path) -> None:
    def undefine(data: dict) -> None:
        for system in data["runs"][0]["systems"]:
            for test in system["tests"]:
                test["figures"]["auc"] = {"value": None, "low": None, "high": None}
                test["figures"]["ece"] = None
                test["delong"] = None
            system["threshold"] = None
        for entry in data["few_shot"]:
            entry["figures"]["auc"] = None
        for curve in data["robustness"]:
            curve["clean"] = curve["slope"] = None
            curve["points"] = curve["points"][:2]
            curve["points"][0]["auc"] = curve["points"][0]["auc_with_lost"] = None
        for part in ("importance", "ablation"):
            for entry in data[part]:
                entry["fall" if part == "importance" else "auc"] = None
        data["ablation"][0]["columns"] = None
        data["inconsistency"][0]["fake"] = [[None] * 8] * 8
        data["inconsistency"] = data["inconsistency"][:1]

    folder = write_report(changed(tmp_path, undefine, only=("in-clips",)))
    assert rows_of(folder, "in-clips-clips-frame")["MASC"][0] == "n/a"
    assert "p" not in rows_of(folder, "in-clips-clips-frame")["system"]
    assert "nan" not in re.findall(r"\w+", written(folder, "report.md"))
    assert "do not belong together" not in written(folder, "report.md")


@pytest.mark.parametrize("runs", [True, False])
def test_missing_lists(tmp_path: Path, runs: bool) -> None:
    def thin(data: dict) -> None:
        data["runs"] = data["runs"][:1] if runs else []
        for system in data["runs"][0]["systems"] if runs else ():
            system["predictions"] = None
        del data["remarks"]

    folder = write_report(changed(tmp_path, thin))
    assert not list(folder.glob("plots/*")) and written(folder, "report.md").count("## ") > 2
    assert (folder / "tables" / "from-wild-clips-frame.md").exists() == runs


def test_one_class_has_no_roc(tmp_path: Path) -> None:
    data = write_example(tmp_path, only=SMALL)
    for system in data["runs"][0]["systems"]:
        if system["predictions"]:
            path = tmp_path / system["predictions"]
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(
                b"".join(line for line in lines if b",fake/" not in line and b'"fake/' not in line)
            )
    folder = write_report(tmp_path)
    names = {path.name for path in folder.glob("plots/*")}
    assert names == {
        f"from-wild-clips-{level}-{what}.png"
        for level in ("frame", "video")
        for what in ("scores", "reliability-masc")
    }
    assert "60 real and 60 fake in results.json, 60 and 0 in the predictions" in written(
        folder, "report.md"
    )


def test_predictions_of_other_scores_are_told(tmp_path: Path) -> None:
    data = write_example(tmp_path, only=SMALL)
    systems = data["runs"][0]["systems"]
    shutil.copy(tmp_path / systems[4]["predictions"], tmp_path / systems[0]["predictions"])
    text = written(write_report(tmp_path), "report.md")
    value = number(systems[0]["tests"][0]["figures"]["auc"]["value"])
    assert re.search(
        rf"MASC, frames of clips: an AUC of {value} in results.json, 0.\d+ from the predictions",
        text,
    )
    assert text.count("do not belong together") == 2, "frames and videos of one system"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; give the folder of a report"),
        ("{", "damaged or not a report"),
        ("[]", "no report of evaluate.py"),
        ('{"format": 7}', "a report of format 7, this version reads 2"),
        ('{"format": 2}', "it has no name, created"),
    ],
)
def test_no_report(tmp_path: Path, text: str | None, message: str) -> None:
    if text:
        (tmp_path / "results.json").write_text(text)
    for work in (write_report, lambda folder: compare(folder, folder)):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            work(tmp_path)
        assert str(tmp_path / "results.json") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(runs=5), "it.runs is 5, not list"),
        (
            lambda data: data["runs"][0]["systems"][1].pop("kind"),
            r"runs\[0\].systems\[1\] has no kind",
        ),
        (
            lambda data: data["runs"][0]["systems"][0]["tests"][0].update(level="clip"),
            "level clip, not on frame or video",
        ),
        (
            lambda data: data["runs"][0]["systems"][0]["tests"][0]["figures"]["auc"].update(
                value="high"
            ),
            "auc.value is 'high'",
        ),
        (
            lambda data: data["inconsistency"][0]["real"].pop(),
            "8 regions and matrices of another size",
        ),
        (lambda data: data["datasets"].update(x={"dump": ""}), "datasets.x has no splits"),
    ],
)
def test_damaged_results(tmp_path: Path, change: Callable[[dict], object], message: str) -> None:
    folder = changed(tmp_path, change, only=("in-clips",))
    with pytest.raises(ValueError, match=message) as caught:
        read_results(folder)
    assert str(folder / "results.json") in str(caught.value)


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
    data = write_example(tmp_path / "a", only=SMALL)
    path = tmp_path / "a" / data["runs"][0]["systems"][0]["predictions"]
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        write_report(tmp_path / "a")
    assert str(path) in str(caught.value)
