"""Two reports side by side: which figures differ, on which faces, and what else differs."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data.files import write_csv, write_json
from evaluation.compare import compare
from evaluation.metrics import auc
from evaluation.metrics_table import write_metrics
from evaluation.page import md, number
from evaluation.predictions import by_video, of_test, read_predictions
from tests.example_report import CLIPS, ODD, REALS_ONLY, SKILL, SMALL, value, write_example, written
from tests.test_report import Parsed

pytestmark = pytest.mark.filterwarnings("error")


def cells_of(text: str, system: str = "MASC") -> list[list[str]]:
    """Rows of a system on the clips: frames, then videos."""
    start = f"| clips | {md(system)} | "
    return [line.split(" | ") for line in text.splitlines() if line.startswith(start)]


def test_a_report_equals_itself(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    _, table = write_example(folder, only=SMALL)
    out = compare(folder, folder, tmp_path / "out")
    text = written(out, "compare.md")
    assert "Code, versions, settings and counts are the same." in text and "Only in" not in text
    for system in SKILL:
        found = number(value(table, system=system, level="frame"))
        cells = cells_of(text, system)[0]
        assert re.match(rf"{found} \(.*\) → {found} \(.*\) \(\+0.000\)", cells[2])
        assert cells[3:5] == ["the same 120", "+0.000 (0.000–0.000)"]
    page = Parsed(written(out, "compare.html"))
    assert not page.all("script") and not page.all("img") and ODD in page.text
    assert set(re.findall(r"[+-]\d\.\d{3}", page.text)) <= {"+0.000", "-0.000"}
    merged = pd.read_csv(out / "compare.csv")
    assert len(merged) == len(table) and {"value_a", "value_b"} <= set(merged)


def test_what_is_better_and_on_which_faces(tmp_path: Path) -> None:
    a = write_example(tmp_path / "a", only=("in-clips", "from-wild"))
    report, table = write_example(tmp_path / "b", seed=1, skill=1.0, only=SMALL)
    report["versions"]["numpy"] = "9.9"
    report["runs"]["from-wild"]["train"]["real"] = 7
    write_json(tmp_path / "b" / "report.json", report)
    write_metrics(tmp_path / "b" / "metrics.csv", table[table["system"] != REALS_ONLY])
    path = tmp_path / "b" / "predictions" / "from-wild" / "masc.csv"
    rows = list(csv.reader(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
    rows[1][rows[0].index("label")] = "1"
    write_csv(path, rows[0], rows[1:-6])
    text = written(compare(tmp_path / "a", tmp_path / "b", tmp_path / "c"), "compare.md")
    assert (
        "| versions.numpy | 2.4.6 | 9.9 |" in text and "| from-wild.train.real | 60 | 7 |" in text
    )
    only = text.partition("## Only in A")[2].partition("## ")[0]
    assert "- run in-clips\n" in only and f"- run from-wild: {REALS_ONLY}\n" in only
    assert "run in-clips: " not in only and "Only in B" not in text
    for cells, level in zip(cells_of(text), ("frame", "video"), strict=True):
        where = {"run": "from-wild", "system": "MASC", "level": level}
        one, two = value(a[1], **where), value(table, **where)
        assert cells[2].startswith(f"{number(one)} (") and f" → {number(two)} (" in cells[2]
        assert cells[2].endswith(f"({number(two - one, sign=True)})")
        assert cells[3] == "113 of 120 and 114"
    # By hand: the faces that both have, with the label that both have.
    old, new = (
        of_test(read_predictions(tmp_path / x / "predictions/from-wild/masc.csv"), CLIPS)
        for x in "ab"
    )
    kept = old.iloc[1:114], new.iloc[1:114]
    for cells, (old, new) in zip(cells_of(text), (kept, map(by_video, kept)), strict=True):
        y = old["label"].to_numpy()
        less = auc(y, new["p_fake"].to_numpy()) - auc(y, old["p_fake"].to_numpy())
        assert cells[4].startswith(f"{number(less, sign=True)} (")


def test_without_predictions_only_the_figures_are_compared(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    write_example(a, only=SMALL)
    write_example(b, seed=1, only=SMALL)
    shutil.rmtree(b / "predictions")
    (cells, _) = cells_of(written(compare(a, b, tmp_path / "c"), "compare.md"))
    assert cells[3:5] == ["n/a", "n/a"]
    shutil.copytree(a / "predictions", b / "predictions")
    (a / "predictions" / "from-wild" / "masc.csv").write_text("x")
    with pytest.raises(ValueError, match=r"masc\.csv: expected the columns"):
        compare(a, b, tmp_path / "c")


def test_a_face_without_a_score_is_not_compared(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    for folder in (a, b):
        write_example(folder, only=SMALL)
    path = b / "predictions" / "from-wild" / "masc.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].rpartition(b",")[0] + b",\n" + b"".join(lines[2:]))
    (cells, _) = cells_of(written(compare(a, b, tmp_path / "c"), "compare.md"))
    assert cells[3:5] == ["119 of 120 and 119", "+0.000 (0.000–0.000)"]
