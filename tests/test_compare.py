"""Two reports side by side: what is better in the second, on which faces, and what else differs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from data.files import write_csv
from evaluation.compare import compare
from evaluation.metrics import auc
from evaluation.page import md, number
from evaluation.predictions import by_video, of_test
from evaluation.saved import read_scores
from tests.example_report import CLIPS, ODD, SKILL, SMALL, write_example, written
from tests.test_report import Parsed

pytestmark = pytest.mark.filterwarnings("error")


def test_a_report_is_like_itself(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    data = write_example(folder, only=("in-clips", "from-clips"))
    out = compare(folder, folder, tmp_path / "out")
    text = written(out, "compare.md")
    assert "Code, versions, settings and counts are the same." in text and "Only in" not in text
    for run in data["runs"]:
        for system in run["systems"][:-1]:
            for test in system["tests"]:
                found = number(test["figures"]["auc"]["value"])
                pattern = rf"\| {re.escape(md(system['name']))} \| {found} \(.*?\) \| {found} \(.*?\) \| \+0.000 "
                assert re.search(pattern + r"\| the same 120 \| \+0.000 \(0.000–0.000\)", text)
    page = Parsed(written(out, "compare.html"))
    assert not page.all("script") and not page.all("img") and ODD in page.text
    differences = [
        text for text in re.findall(r"[+-]\d\.\d{3}", page.text) if text not in ("+0.000", "-0.000")
    ]
    assert differences == []


def test_what_is_better_and_on_which_faces(tmp_path: Path) -> None:
    a = write_example(tmp_path / "a", only=("in-clips", "from-wild"))
    b = write_example(tmp_path / "b", seed=1, skill=1.0, only=("from-wild",))
    system = b["runs"][0]["systems"].pop(1)["name"]
    b["versions"]["numpy"] = "9.9"
    b["runs"][0]["train"]["real"] = 7
    (tmp_path / "b" / "results.json").write_text(json.dumps(b))
    path = tmp_path / "b" / b["runs"][0]["systems"][0]["predictions"]
    rows = list(csv.reader(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
    rows[1][rows[0].index("label")] = "1"
    write_csv(path, rows[0], rows[1:-6])
    text = written(compare(tmp_path / "a", tmp_path / "b"), "compare.md")
    assert (tmp_path / "compare-a-b" / "compare.html").is_file()
    assert (
        "| versions.numpy | 2.4.6 | 9.9 |" in text and "| from-wild.train.real | 1200 | 7 |" in text
    )
    only = text.partition("## Only in A")[2].partition("## ")[0]
    assert (
        "- run in-clips (trained on clips, tested on clips)" in only
        and f"- run from-wild: {system}" in only
    )
    assert (
        "run in-clips: MASC" not in only
        and "- robustness: clips, jpeg, MASC" in only
        and "Only in B" not in text
    )
    first, second = (data["runs"][0 if data is b else 1]["systems"][0]["tests"] for data in (a, b))
    lines = [line for line in text.splitlines() if line.startswith("| clips | MASC | ")]
    for line, one, two in zip(lines[::2], first, second, strict=True):
        cells = line.split(" | ")
        values = [each["figures"]["auc"]["value"] for each in (one, two)]
        assert [cells[2][:5], cells[3][:5]] == [number(value) for value in values]
        assert cells[4] == number(values[1] - values[0], sign=True)
        assert cells[5] == "113 of 120 and 114; 1 with another label in B are left out"
    # By hand, on frames: the faces that both have, with the label that both have.
    old, new = (
        of_test(read_scores(tmp_path / folder / "predictions" / "from-wild" / "0.csv"), CLIPS)
        for folder in "ab"
    )
    kept = slice(1, 114)
    less = auc(old["label"][kept], new["p_fake"][kept]) - auc(
        old["label"][kept], old["p_fake"][kept]
    )
    assert lines[0].split(" | ")[6].startswith(f"{number(less, sign=True)} (")
    old, new = (
        by_video({name: values[1:114] for name, values in each.items()}) for each in (old, new)
    )
    less = auc(old["label"], new["p_fake"]) - auc(old["label"], old["p_fake"])
    assert lines[2].split(" | ")[6].startswith(f"{number(less, sign=True)} (")
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| clips | ")][
        :4
    ] == [md(name) for name in SKILL if name != system]


def test_without_predictions_only_the_reports_are_compared(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    write_example(a, only=SMALL)
    write_example(b, seed=1, only=SMALL)
    shutil.rmtree(b / "predictions")
    line = next(
        x
        for x in written(compare(a, b), "compare.md").splitlines()
        if x.startswith("| clips | MASC | ")
    )
    assert line.split(" | ")[5:7] == ["n/a", "n/a"]
    (a / "predictions" / "from-wild" / "0.csv").write_text("x")
    with pytest.raises(ValueError, match=r"0\.csv: expected the columns"):
        compare(a, b)


def test_a_face_of_no_score_is_not_compared(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    for folder in (a, b):
        write_example(folder, only=SMALL)
    path = b / "predictions" / "from-wild" / "0.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].rpartition(b",")[0] + b",\n" + b"".join(lines[2:]))
    line = next(
        x
        for x in written(compare(a, b), "compare.md").splitlines()
        if x.startswith("| clips | MASC | ")
    )
    assert line.split(" | ")[5:7] == ["119 of 120 and 119", "+0.000 (0.000–0.000)"]
