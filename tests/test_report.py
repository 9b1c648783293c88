"""Reports say what is in results.json and its predictions, in every format that they are written in."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import HEADINGS
from evaluation.page import Cell, md, number
from evaluation.predictions import of_test
from evaluation.report import write_report
from evaluation.saved import read_scores
from evaluation.tables import LOST, steps, with_best
from tests.example_report import CLIPS, FAILED, ODD, write_example, written

pytestmark = pytest.mark.filterwarnings("error")


class Parsed(HTMLParser):
    """Tags, attributes and text of a page. Raises: AssertionError where tags do not close in the order of opening."""

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
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("reports") / "example"
    data = write_example(folder, only=("in-clips", "from-clips"))
    assert write_report(folder) == folder
    return folder, data


def rows_of(folder: Path, name: str) -> dict[str, list[str]]:
    """Rows of a Markdown table: the first cell -> the others."""
    lines = [
        line for line in written(folder, f"tables/{name}.md").splitlines() if line.startswith("|")
    ]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {first: others for first, *others in cells}


# What is said is what is in results.json.


@pytest.mark.parametrize("level", ["frame", "video"])
def test_numbers_are_those_of_results(report: tuple[Path, dict], level: str) -> None:
    folder, data = report
    rows = rows_of(folder, f"in-clips-clips-{level}")
    assert rows["system"][: len(HEADINGS)] == list(HEADINGS.values())
    for system in data["runs"][0]["systems"][:-1]:
        figures = next(t["figures"] for t in system["tests"] if t["level"] == level)
        shown = [cell.replace("*", "") for cell in rows[md(system["name"])]]
        for cell, key in zip(shown, HEADINGS, strict=False):
            value, low, high = (f"{figures[key][name]:.3f}" for name in ("value", "low", "high"))
            assert cell == f"{value} ({low}–{high})"
    assert rows[md(FAILED)][: len(HEADINGS)] == ["n/a"] * len(HEADINGS)
    delong = data["runs"][0]["systems"][2]["tests"][level == "video"]["delong"]
    assert rows["clip\\_image, whole face"][-2].startswith(f"{delong['difference']:+.3f} (")
    assert "failed: no weights" in written(folder, f"tables/in-clips-clips-{level}.md")


def test_frames_and_videos_are_never_in_one_table(report: tuple[Path, dict]) -> None:
    folder, data = report
    units = {
        path: {u for u in ("frames", "videos") if u in path.read_text()}
        for path in folder.glob("tables/*.md")
    }
    assert all(len(found) < 2 for found in units.values())
    assert {path.name for path, found in units.items() if found == {"videos"}} == {
        "in-clips-clips-video.md",
        "overview-video.md",
        "matrix-video.md",
    }
    aucs = [test["figures"]["auc"]["value"] for test in data["runs"][0]["systems"][0]["tests"]]
    assert number(aucs[0]) != number(aucs[1])
    assert number(aucs[1]) not in written(folder, "tables/in-clips-clips-frame.md")


def test_the_best_is_marked_once_and_the_right_way(report: tuple[Path, dict]) -> None:
    folder, data = report
    rows = rows_of(folder, "in-clips-clips-frame")
    for column, key in enumerate(HEADINGS):
        values = {
            s["name"]: s["tests"][0]["figures"][key]["value"]
            for s in data["runs"][0]["systems"][:-1]
        }
        best = (min if key in ("eer", "fpr", "ece", "brier") else max)(
            values, key=values.__getitem__
        )
        marked = [name for name, cells in rows.items() if cells[column].startswith("*")]
        assert md(best) in marked and all(
            number(values[n.replace("\\", "")]) == number(values[best]) for n in marked
        )
    rows = [[Cell("0.500")], [Cell("n/a")], [Cell("0.500")], [Cell("0.400")]]
    with_best(rows, 0)
    assert [row[0].best for row in rows] == [True, False, True, False]
    same = [[Cell("0.500")], [Cell("0.500")]]
    with_best(same, 0)
    assert not any(row[0].best for row in same)


def test_across_data_sets(report: tuple[Path, dict]) -> None:
    folder, data = report
    text = written(folder, "tables/matrix-frame.md")
    here, there = (run["systems"][0]["tests"][0]["figures"]["auc"]["value"] for run in data["runs"])
    line = next(line for line in text.splitlines() if line.startswith("| clips | MASC |"))
    assert re.findall(r"\*(0\.\d+)\*", line) == [number(here), number(there)]
    assert "real faces only" not in text, "ablations are told with their runs"


def test_robustness_says_how_lost_faces_count(report: tuple[Path, dict]) -> None:
    folder, data = report
    assert LOST in written(folder, "report.md").replace("\\", "")
    lines = [
        line.split(" | ")
        for line in written(folder, "tables/robustness-clips-jpeg.md").splitlines()
        if "MASC" in line
    ]
    curve = data["robustness"][0]
    for line, key in zip(lines, ("auc", "auc_with_lost"), strict=False):
        values = [cell.strip("* ").split("*")[0].split(" ")[0] for cell in line[3:8]]
        assert values == [number(point[key]["value"]) for point in curve["points"]]
    assert [cell.strip(" |") for cell in lines[2][3:8]] == [
        f"{p['n']}, {p['lost']}" for p in curve["points"]
    ]
    assert lines[0][2].split(" ")[0].strip("*") == number(curve["clean"]["value"])
    assert lines[0][8].strip(" |") == number(curve["slope"], sign=True)


def test_few_shot_columns_are_sizes_and_rows_are_draws(report: tuple[Path, dict]) -> None:
    folder, data = report
    lines = written(folder, "tables/few-shot-clips.md").splitlines()
    assert "| system | seed | 100–102 faces | 300–302 faces | 1000–1002 faces |" in lines
    found = [
        e["figures"]["auc"]["value"]
        for e in data["few_shot"]
        if e["system"] == "MASC" and e["faces"] < 200
    ]
    mean = next(line for line in lines if line.startswith("| MASC | mean |"))
    assert mean.split(" | ")[2] == number(np.mean(found))
    drawn = (
        (0, 100, 100),
        (0, 300, 300),
        (1, 300, 305),
        (2, 100, 104),
    )  # of seed 1 the groups were too large for 100
    entries = [{"seed": seed, "asked": asked, "faces": faces} for seed, asked, faces in drawn]
    assert [[e["faces"] for e in step] for step in steps(entries)] == [[100, 104], [300, 305]]


def test_subgroups_show_gaps_and_what_is_too_small(report: tuple[Path, dict]) -> None:
    folder, data = report
    text = written(folder, "tables/subgroups-in-clips-clips-age-band.md")
    gap = data["subgroups"][1]["largest_gap"]
    assert f"| MASC | largest gap |  |  | {number(gap['auc'])} | {number(gap['fpr'])} |" in text
    assert "| MASC | other | 3 | 0 | n/a | n/a |" in text


# Pages.


def test_page_is_whole_and_needs_nothing_else(report: tuple[Path, dict]) -> None:
    folder, _ = report
    page = Parsed(written(folder, "index.html"))
    assert not page.all("script") and not page.all("link")
    targets = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href")
    ]
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    assert "http" not in page.text and "url(" not in page.text
    embedded = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    assert sorted(embedded) == sorted(path.read_bytes() for path in folder.glob("plots/*.png"))
    assert len(embedded) == 16 and all(image["alt"] for image in page.all("img"))
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} == anchors and len(anchors) > 10
    assert ODD in page.text and FAILED in page.text and "\\udce9" in page.text
    assert len(page.all("table")) == len(list(folder.glob("tables/*.md")))


def test_markdown_has_every_table_and_picture(report: tuple[Path, dict]) -> None:
    folder, _ = report
    text = written(folder, "report.md")
    assert all(path.read_text(encoding="utf-8") in text for path in folder.glob("tables/*.md"))
    assert {f"plots/{path.name}" for path in folder.glob("plots/*.png")} == set(
        re.findall(r"\]\(<(plots/.*?)>\)", text)
    )


def test_captions_state_what_is_seen(report: tuple[Path, dict]) -> None:
    folder, data = report
    text = written(folder, "report.md").replace("\\", "")
    found = data["runs"][0]["systems"][0]["tests"][0]["figures"]["auc"]
    assert (
        f"MASC has an AUC of {number(found['value'])} ({number(found['low'])}–{number(found['high'])})"
        in text
    )
    assert (
        "60 real and 60 fake frames in 20 groups" in text
        and "20 real and 20 fake videos in 20 groups" in text
    )
    rows = of_test(read_scores(folder / data["runs"][0]["systems"][0]["predictions"]), CLIPS)
    fakes = rows["p_fake"][rows["label"] == 1]
    assert f"{(fakes >= 0.6).mean():.1%} of the fakes fake" in text
    real, fake = (
        np.array(data["inconsistency"][0][name], dtype=float) for name in ("real", "fake")
    )
    more = int((np.triu(fake - real, 1) > 0).sum())
    assert f"Fakes disagree more than reals in {more} of 28 pairs" in text


def test_same_bytes_again_and_nothing_stale(tmp_path: Path) -> None:
    write_example(tmp_path, only=("from-clips",))
    write_report(tmp_path)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    (tmp_path / "plots" / "old.png").write_bytes(b"")
    (tmp_path / "tables" / "old.tex").write_bytes(b"")
    write_report(tmp_path)
    assert before == {
        path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()
    }


KNOWN = (  # what the tables use of LaTeX
    r"^% .*$",
    r"\\resizebox\{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi\}\{!\}(?=\{)|(?<=\{)%$",
    r"\\(begin|end)\{\w+\}(\{[lr]+\})?|\\label\{tab:[a-z0-9-]+\}|\\setlength\{\\tabcolsep\}\{3pt\}",
    r"\\[&%$#_{}]|\\\\|\\`\{\}|\\[`'^~=u.\"rHvc]\{\w\}|\$-\$|\$\\to\$|\$\\times\$|\{[][*]\}",
    r"\\(text\w+|char34|ss|ae|o)\{\}|\\(caption|underline)(?=\{)",
    r"\\(centering|footnotesize|scriptsize|toprule|midrule|bottomrule|addlinespace|par|smallskip)\b",
)


def plain(text: str) -> str:
    """LaTeX without the commands that are known; braces must pair."""
    for pattern in KNOWN:
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    assert text.isascii() and text.count("{") == text.count("}")
    return text


def test_latex_of_every_table(report: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = report
    files = sorted(folder.glob("tables/*.tex"))
    assert len(files) == len(list(folder.glob("tables/*.md"))) > 15
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not set(re.sub(r"[{}&]", "", plain(text))) & set('\\%$#_^~<>|"`*[]'), path
        body = text.partition("\\midrule")[2].partition("\\bottomrule")[0].strip()
        columns = re.search(r"tabular\}\{([lr]+)\}", text)[1]
        rows = [row for row in body.splitlines() if row != r"\addlinespace"]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}, path
    if shutil.which("pdflatex") is None:
        return
    inputs = "\n".join(rf"\input{{{place}.tex}}\clearpage" for place in range(len(files)))
    for place, path in enumerate(files):
        shutil.copy(path, tmp_path / f"{place}.tex")
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
