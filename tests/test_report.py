"""Reports say what is in results.json and its predictions, whatever the names are; two reports are told apart."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from data.store import write_csv
from evaluation import plots
from evaluation.compare import compare
from evaluation.page import Cell, Names, Table, latex_table, markdown_table, md, number, tex
from evaluation.predictions import by_video, of_test
from evaluation.report import write_report
from evaluation.saved import read_results, read_scores
from evaluation.tables import LOST, steps, with_best
from models.metrics import HEADINGS, auc
from tests.example_report import CLIPS, FAILED, ODD, SKILL, write_example

pytestmark = pytest.mark.filterwarnings("error")
SMALL = ("from-wild",)  # one run, which is drawn in about a second


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


def written(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def rows_of(folder: Path, name: str) -> dict[str, list[str]]:
    """Rows of a Markdown table: the first cell -> the others."""
    lines = [line for line in written(folder, f"tables/{name}.md").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {first: others for first, *others in cells}


def changed(folder: Path, change: Callable[[dict], object], only: tuple[str, ...] = SMALL) -> Path:
    data = write_example(folder, only=only)
    change(data)
    (folder / "results.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


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
    units = {path: {u for u in ("frames", "videos") if u in path.read_text()} for path in folder.glob("tables/*.md")}
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
        values = {s["name"]: s["tests"][0]["figures"][key]["value"] for s in data["runs"][0]["systems"][:-1]}
        best = (min if key in ("eer", "fpr", "ece", "brier") else max)(values, key=values.__getitem__)
        marked = [name for name, cells in rows.items() if cells[column].startswith("*")]
        assert md(best) in marked and all(number(values[n.replace("\\", "")]) == number(values[best]) for n in marked)
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
        line.split(" | ") for line in written(folder, "tables/robustness-clips-jpeg.md").splitlines() if "MASC" in line
    ]
    curve = data["robustness"][0]
    for line, key in zip(lines, ("auc", "auc_with_lost"), strict=False):
        values = [cell.strip("* ").split("*")[0].split(" ")[0] for cell in line[3:8]]
        assert values == [number(point[key]["value"]) for point in curve["points"]]
    assert [cell.strip(" |") for cell in lines[2][3:8]] == [f"{p['n']}, {p['lost']}" for p in curve["points"]]
    assert lines[0][2].split(" ")[0].strip("*") == number(curve["clean"]["value"])
    assert lines[0][8].strip(" |") == number(curve["slope"], sign=True)


def test_few_shot_columns_are_sizes_and_rows_are_draws(report: tuple[Path, dict]) -> None:
    folder, data = report
    lines = written(folder, "tables/few-shot-clips.md").splitlines()
    assert "| system | seed | 100–102 faces | 300–302 faces | 1000–1002 faces |" in lines
    found = [e["figures"]["auc"]["value"] for e in data["few_shot"] if e["system"] == "MASC" and e["faces"] < 200]
    mean = next(line for line in lines if line.startswith("| MASC | mean |"))
    assert mean.split(" | ")[2] == number(np.mean(found))
    entries = [{"seed": s, "faces": f} for s, f in ((0, 100), (0, 300), (1, 305), (1, 104))]
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
    targets = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
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
    assert f"MASC has an AUC of {number(found['value'])} ({number(found['low'])}–{number(found['high'])})" in text
    assert "60 real and 60 fake frames in 20 groups" in text and "20 real and 20 fake videos in 20 groups" in text
    rows = of_test(read_scores(folder / data["runs"][0]["systems"][0]["predictions"]), CLIPS)
    fakes = rows["p_fake"][rows["label"] == 1]
    assert f"{(fakes >= 0.6).mean():.1%} of the fakes fake" in text
    real, fake = (np.array(data["inconsistency"][0][name], dtype=float) for name in ("real", "fake"))
    more = int((np.triu(fake - real, 1) > 0).sum())
    assert f"Fakes disagree more than reals in {more} of 28 pairs" in text


def test_same_bytes_again_and_nothing_stale(tmp_path: Path) -> None:
    write_example(tmp_path, only=("from-clips",))
    write_report(tmp_path)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    (tmp_path / "plots" / "old.png").write_bytes(b"")
    (tmp_path / "tables" / "old.tex").write_bytes(b"")
    write_report(tmp_path)
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}


# What may be missing.


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
            path.write_bytes(b"".join(line for line in lines if b",fake/" not in line and b'"fake/' not in line))
    folder = write_report(tmp_path)
    names = {path.name for path in folder.glob("plots/*")}
    assert names == {
        f"from-wild-clips-{level}-{what}.png" for level in ("frame", "video") for what in ("scores", "reliability-masc")
    }
    assert "60 real and 60 fake in results.json, 60 and 0 in the predictions" in written(folder, "report.md")


def test_predictions_of_other_scores_are_told(tmp_path: Path) -> None:
    data = write_example(tmp_path, only=SMALL)
    systems = data["runs"][0]["systems"]
    shutil.copy(tmp_path / systems[4]["predictions"], tmp_path / systems[0]["predictions"])
    text = written(write_report(tmp_path), "report.md")
    value = number(systems[0]["tests"][0]["figures"]["auc"]["value"])
    assert re.search(rf"MASC, frames of clips: an AUC of {value} in results.json, 0.\d+ from the predictions", text)
    assert text.count("do not belong together") == 2, "frames and videos of one system"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; give the folder of a report"),
        ("{", "damaged or not a report"),
        ("[]", "no report of evaluate.py"),
        ('{"format": 7}', "a report of format 7, this version reads 1"),
        ('{"format": 1}', "it has no name, created"),
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
        (lambda data: data["runs"][0]["systems"][1].pop("kind"), r"runs\[0\].systems\[1\] has no kind"),
        (
            lambda data: data["runs"][0]["systems"][0]["tests"][0].update(level="clip"),
            "level clip, not on frame or video",
        ),
        (
            lambda data: data["runs"][0]["systems"][0]["tests"][0]["figures"]["auc"].update(value="high"),
            "auc.value is 'high'",
        ),
        (lambda data: data["inconsistency"][0]["real"].pop(), "8 regions and matrices of another size"),
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
        (lambda path: path.write_bytes(path.read_bytes().replace(b",0,0.", b",2,0.", 1)), "labels other than 0 and 1"),
        (lambda path: path.write_bytes(path.read_bytes() + b'"' + b"x" * 200_000), "damaged"),
    ],
)
def test_damaged_predictions(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    data = write_example(tmp_path / "a", only=SMALL)
    path = tmp_path / "a" / data["runs"][0]["systems"][0]["predictions"]
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        write_report(tmp_path / "a")
    assert str(path) in str(caught.value)


# Names may be anything.


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


def test_escapes() -> None:
    assert tex("a_b & 50% #1 {x} ~^<>|") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert tex("é Č 顔 \udce9 -0.5 a-1 [x]*") == r"\'{e} \v{C} U+9854 U+DCE9 $-$0.5 a-1 {[}x{]}{*}"
    assert md("a|b_c*<d>\n&`$") == r"a\|b\_c\*\<d\> \&\`\$"
    table = Table("x", "c|d", ["name", "v"], [[Cell("a|b"), Cell("0.5", "0.4–0.6", True)]], ["n|m"])
    assert "| a\\|b | *0.5* (0.4–0.6) |" in markdown_table(table) and "n\\|m." in markdown_table(table)
    assert r"\underline{0.5} \\" in latex_table(table) and r"{\scriptsize 0.4--0.6} \\" in latex_table(table)


def test_file_names() -> None:
    names = Names()
    assert [names("A b", "c"), names("a", "B C"), names("..", "/"), names("顔" * 100)] == [
        "a-b-c",
        "a-b-c-2",
        "unnamed-unnamed",
        "顔" * 60,
    ]
    assert len(names("é" * 300).encode()) <= 180


def test_names_in_pictures() -> None:
    assert plots.drawable("a顔b", 40) == r"a\u9854b" and plots.drawable("é$^", 40) == "é$^"
    assert plots.drawable("word " * 100, 20).count("\n") == 3
    looks = [str({**plots.style(place), "color": ""}) for place in range(35)]
    assert len(set(looks)) == len(looks), "told apart without colours"
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.9])
    found = {"value": 0.75, "low": 0.5, "high": 1.0}
    figure, caption = plots.roc(r"$\frac$ {%", [(0, r"$\x_$", y, p, found), (1, "b", y, p, None)])
    figure.savefig(Path("/dev/null"), format="png")  # raises where a name is taken for a formula
    assert caption.endswith(r"$\x_$ has an AUC of 0.750 (0.500–1.000), b, one of n/a")


# Two reports.


def test_a_report_is_like_itself(report: tuple[Path, dict], tmp_path: Path) -> None:
    folder, data = report
    out = compare(folder, folder, tmp_path / "out")
    text = written(out, "compare.md")
    assert "Code, versions, settings and counts are the same." in text and "Only in" not in text
    for run in data["runs"]:
        for system in run["systems"][:-1]:
            for test in system["tests"]:
                found = number(test["figures"]["auc"]["value"])
                n = 120
                pattern = rf"\| {re.escape(md(system['name']))} \| {found} \(.*?\) \| {found} \(.*?\) \| \+0.000 "
                assert re.search(pattern + rf"\| the same {n} \| \+0.000 \(0.000–0.000\)", text)
    page = Parsed(written(out, "compare.html"))
    assert not page.all("script") and not page.all("img") and ODD in page.text
    differences = [text for text in re.findall(r"[+-]\d\.\d{3}", page.text) if text not in ("+0.000", "-0.000")]
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
    assert "| versions.numpy | 2.4.6 | 9.9 |" in text and "| from-wild.train.real | 1200 | 7 |" in text
    only = text.partition("## Only in A")[2].partition("## ")[0]
    assert "- run in-clips (trained on clips, tested on clips)" in only and f"- run from-wild: {system}" in only
    assert "run in-clips: MASC" not in only and "- robustness: clips, jpeg, MASC" in only and "Only in B" not in text
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
        of_test(read_scores(tmp_path / folder / "predictions" / "from-wild" / "0.csv"), CLIPS) for folder in "ab"
    )
    kept = slice(1, 114)
    less = auc(old["label"][kept], new["p_fake"][kept]) - auc(old["label"][kept], old["p_fake"][kept])
    assert lines[0].split(" | ")[6].startswith(f"{number(less, sign=True)} (")
    old, new = (by_video({name: values[1:114] for name, values in each.items()}) for each in (old, new))
    less = auc(old["label"], new["p_fake"]) - auc(old["label"], old["p_fake"])
    assert lines[2].split(" | ")[6].startswith(f"{number(less, sign=True)} (")
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| clips | ")][:4] == [
        md(name) for name in SKILL if name != system
    ]


def test_without_predictions_only_the_reports_are_compared(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    write_example(a, only=SMALL)
    write_example(b, seed=1, only=SMALL)
    shutil.rmtree(b / "predictions")
    line = next(x for x in written(compare(a, b), "compare.md").splitlines() if x.startswith("| clips | MASC | "))
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
    line = next(x for x in written(compare(a, b), "compare.md").splitlines() if x.startswith("| clips | MASC | "))
    assert line.split(" | ")[5:7] == ["119 of 120 and 119", "+0.000 (0.000–0.000)"]
