"""Reports show what is in metrics.csv and the predictions, in every format that they are written
in.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from evaluation.card import for_card
from evaluation.metrics import FIGURES
from evaluation.page import md, number
from evaluation.report import write_report
from evaluation.sections import LOST
from evaluation.tables import best_of
from tests.example_report import (
    FAILED,
    ODD,
    REALS_ONLY,
    SKILL,
    value,
    write_example,
    written,
)

pytestmark = pytest.mark.filterwarnings("error")


class Parsed(HTMLParser):
    """Tags, attributes and text of a page. Raises: AssertionError where tags do not close in the
    order of opening.
    """

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self._open = "", []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        self._open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("reports") / "example"
    found = write_example(folder, only=("in-clips", "from-clips"))
    assert write_report(folder) == folder
    return folder, *found


def rows_of(folder: Path, name: str, keys: int = 1) -> dict:
    """Rows of a Markdown table: the first cells -> the others."""
    lines = [x for x in written(folder, f"tables/{name}.md").splitlines() if x.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0] if keys == 1 else tuple(row[:keys]): row[keys:] for row in cells}


@pytest.mark.parametrize("level", ["frame", "video"])
def test_numbers_are_those_of_metrics_csv(report, level: str) -> None:
    folder, _, table = report
    rows = rows_of(folder, f"in-clips-clips-{level}")
    assert rows["system"] == [*FIGURES.values(), "ΔAUC", "p"]
    for system in SKILL:
        shown = [cell.replace("*", "") for cell in rows[md(system)]]
        where = {"run": "in-clips", "level": level, "system": system}
        found = table[(table[list(where)] == list(where.values())).all(axis=1)]
        found = found[(found["attribute"] == "") & (found["condition"] == "")].set_index("metric")
        for cell, metric in zip(shown, FIGURES, strict=False):
            values = (f"{found.loc[metric, name]:.3f}" for name in ("value", "low", "high"))
            assert cell == "{} ({}–{})".format(*values)
        if system != "MASC":
            assert shown[-2].startswith(f"{found.loc['delta_auc', 'value']:+.3f} (")
    assert rows[md(FAILED)][: len(FIGURES)] == ["n/a"] * len(FIGURES)
    assert "failed: no weights" in written(folder, f"tables/in-clips-clips-{level}.md")


def test_frames_and_videos_are_never_in_one_table(report) -> None:
    folder, _, table = report
    units = {
        path.name: {u for u in ("frames", "videos") if u in path.read_text()}
        for path in folder.glob("tables/*.md")
    }
    assert all(len(found) < 2 for found in units.values())
    assert {name for name, found in units.items() if found == {"videos"}} == {
        "in-clips-clips-video.md",
        "overview-video.md",
        "cross-dataset-video.md",
        "false-alarms-video.md",
    }
    frames, videos = (
        number(value(table, run="in-clips", system="MASC", level=level))
        for level in ("frame", "video")
    )
    assert frames != videos and videos not in written(folder, "tables/in-clips-clips-frame.md")


def test_the_best_is_marked_once_and_the_right_way(report) -> None:
    folder, _, table = report
    rows = rows_of(folder, "in-clips-clips-frame")
    rows.pop("system")
    for column, metric in enumerate(FIGURES):
        where = {"run": "in-clips", "level": "frame", "metric": metric}
        systems = [*SKILL, "MASC, raw columns only"]
        values = {md(name): number(value(table, system=name, **where)) for name in systems}
        best = (min if metric in ("eer", "fpr", "ece", "brier") else max)(values.values())
        marked = {name for name, cells in rows.items() if cells[column].startswith("**")}
        assert marked == {name for name, shown in values.items() if shown == best}
    assert best_of([0.5, None, 0.5, 0.4]) == [0, 2] and best_of([0.5, 0.4], lower=True) == [1]
    assert best_of([0.5, 0.5]) == []


def test_cross_dataset_figures_stand_beside_in_dataset_ones(report) -> None:
    folder, _, table = report
    cells = rows_of(folder, "cross-dataset-frame", keys=2)["clips", "MASC"]
    for cell, run in zip(cells, ("in-clips", "from-clips"), strict=True):
        assert cell.startswith(f"**{number(value(table, run=run, system='MASC', level='frame'))}**")
    assert "real faces only" not in written(folder, "tables/cross-dataset-frame.md")


def test_robustness_tables_say_how_lost_faces_count(report) -> None:
    folder, _, table = report
    assert LOST in written(folder, "report.md").replace("\\", "")
    rows = table[(table["system"] == REALS_ONLY) & (table["condition"] != "")]
    found = rows.set_index(["metric", "condition"])["value"]
    shown = {
        x: rows_of(folder, f"robustness-clips-{x}", 2) for x in ("auc", "auc-with-lost", "lost")
    }
    cells = shown["auc"]["jpeg", REALS_ONLY]
    assert [cell.partition(" ")[0] for cell in cells] == [
        number(found["auc", "clean"]),
        number(found["auc", "jpeg:1"]),
        "n/a",
        number(found["auc", "jpeg:3"]),
        number(found["slope", "jpeg"], sign=True),
    ]
    assert shown["auc-with-lost"]["blur", REALS_ONLY][1].startswith(
        number(found["auc_with_lost", "blur:2"])
    )
    assert shown["lost"]["jpeg", REALS_ONLY] == ["7", "n/a", "7"]


def test_few_shot_columns_are_sizes_and_rows_are_draws(report) -> None:
    folder, _, table = report
    rows = rows_of(folder, "few-shot-clips", keys=2)
    assert rows["system", "draw"] == ["100 faces", "300 faces"]
    aucs = [value(table, size=100, seed=seed, level="frame") for seed in (0, 1)]
    assert [rows["MASC", f"{seed}"][0].partition(" ")[0] for seed in (0, 1)] == list(
        map(number, aucs)
    )
    assert rows["MASC", "mean"][0] == number(sum(aucs) / 2)


def test_subgroups_show_gaps(report) -> None:
    folder, _, table = report
    rows = rows_of(folder, "subgroups-in-clips-clips", keys=3)
    female, male = (
        float(rows["gender", "MASC", name][0].partition(" ")[0]) for name in ("female", "male")
    )
    assert float(rows["gender", "MASC", "largest gap"][0]) == pytest.approx(
        abs(female - male), abs=0.0011
    )


def test_page_is_whole_and_needs_nothing_else(report) -> None:
    folder, *_ = report
    page = Parsed(written(folder, "index.html"))
    assert not page.all("script") and not page.all("link")
    targets = [
        v for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href")
    ]
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    assert "http" not in page.text and "url(" not in page.text
    embedded = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    assert sorted(embedded) == sorted(path.read_bytes() for path in folder.glob("plots/*.png"))
    names = {path.name for path in folder.glob("plots/*.png")}
    for name in ("in-clips-clips-video-roc", "in-clips-clips-frame-scores", "few-shot-clips"):
        assert f"{name}.png" in names
    for name in (
        "robustness-clips-jpeg",
        "ablations-in-clips-clips",
        "inconsistency-clips-lite-identity",
    ):
        assert f"{name}.png" in names
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} == anchors and len(anchors) > 10
    assert ODD in page.text and FAILED in page.text and "\\udce9" in page.text
    assert len(page.all("table")) == len(list(folder.glob("tables/*.md")))


def test_markdown_has_every_table_and_picture(report) -> None:
    folder, _, table = report
    text = written(folder, "report.md")
    assert all(path.read_text(encoding="utf-8") in text for path in folder.glob("tables/*.md"))
    pictures = {f"plots/{path.name}" for path in folder.glob("plots/*.png")}
    assert pictures == set(re.findall(r"\]\(<(plots/.*?)>\)", text))
    assert "60 real and 60 fake frames in 20 groups" in text
    assert "20 real and 20 fake videos in 20 groups" in text
    assert "do not belong together" not in text


def test_a_card_has_the_figures_and_remarks(report) -> None:
    _, about, table = report
    text = for_card(about, table)
    auc = number(value(table, run="in-clips", system="MASC", level="video"))
    assert f"**{auc}**" in text and "only 90 real validation faces" in text
    assert "| gender | MASC | largest gap |" in text and "| female |" not in text
    assert "permuted labels (2 permutations)" in text and "plots/" not in text


def test_same_bytes_again_and_nothing_stale(tmp_path: Path) -> None:
    write_example(tmp_path, only=("from-clips",))
    write_report(tmp_path)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    (tmp_path / "plots" / "old.png").write_bytes(b"")
    (tmp_path / "tables" / "old.tex").write_bytes(b"")
    write_report(tmp_path)
    after = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert before == after


KNOWN = (  # what the tables use of LaTeX
    r"^% .*$",
    r"\\resizebox\{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi\}\{!\}(?=\{)|(?<=\{)%$",
    r"\\(begin|end)\{\w+\}(\{[lr]+\})?|\\label\{tab:[a-z0-9-]+\}|\\shortstack\[r\]",
    r"\\[&%$#_{}]|\\\\|\\`\{\}|\$-\$|\$\\to\$|\$\\Delta\$|\{[][*]\}",
    r"\\text\w+\{\}|\\(caption|underline)(?=\{)",
    r"\\(centering|footnotesize|scriptsize|toprule|midrule|bottomrule|par|smallskip)\b",
)


def test_latex_of_every_table(report, tmp_path: Path) -> None:
    folder, *_ = report
    files = sorted(folder.glob("tables/*.tex"))
    assert len(files) == len(list(folder.glob("tables/*.md"))) > 15
    for path in files:
        text = plain = path.read_text(encoding="utf-8")
        for pattern in KNOWN:
            plain = re.sub(pattern, "", plain, flags=re.MULTILINE)
        assert plain.count("{") == plain.count("}") and max(map(ord, plain)) < 0x180
        assert not set(re.sub(r"[{}&]", "", plain)) & set('\\%$#_^~<>|"`*[]'), path
        body = text.partition("\\midrule")[2].partition("\\bottomrule")[0].strip()
        columns = re.search(r"tabular\}\{([lr]+)\}", text)[1]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in body.splitlines()} == {
            len(columns) - 1
        }
    if shutil.which("pdflatex") is None:
        return
    inputs = "\n".join(rf"\input{{{place}.tex}}\clearpage" for place in range(len(files)))
    for place, path in enumerate(files):
        shutil.copy(path, tmp_path / f"{place}.tex")
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
