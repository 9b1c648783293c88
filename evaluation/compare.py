"""Two reports side by side: which figures differ, on which faces, and what else differs between the reports.

Where both have predictions, the difference of two AUCs is measured on the faces that both have scored, with a paired
bootstrap by group: both systems are measured on the same draws, so that what makes faces hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import page
from evaluation.metrics import FIGURES, auc, interval
from evaluation.metrics_table import KEYS, UNITS, read_report
from evaluation.page import Section, Table, figure, number
from evaluation.predictions import by_video, of_test, read_predictions, scored_by_both
from evaluation.protocols import slug
from evaluation.report import about, flat
from evaluation.tables import counted, main_rows, unique

NOTES = (
    "B - A is the difference of the two figures in the reports",
    "Paired: the difference on the faces that both have scored, with the 95% interval of a bootstrap by A's groups in which "
    "both are measured on the same draws",
)
FIT = ("threshold", "seconds", "columns")  # metrics of a fit, not of test faces


def paired(a: pd.DataFrame, b: pd.DataFrame, level: str) -> tuple[str, str]:
    """How many faces two systems have both scored, and the AUC of b less that of a on those, with its interval."""
    both = scored_by_both(a, b)
    same = len(both) == len(a) == len(b)
    faces = f"the same {len(both)}" if same else f"{len(both)} of {len(a)} and {len(b)}"
    scores = [both, both.assign(p_fake=both["p_other"])]
    if level == "video":
        scores = [by_video(each) for each in scores]
    y, groups = scores[0]["label"].to_numpy(), scores[0]["group"].tolist()
    if not 0 < y.sum() < len(y):
        return faces, "n/a"
    pairs = np.column_stack([each["p_fake"] for each in scores])
    return faces, figure(**interval(_delta_auc, y, pairs, groups), sign=True)


def _delta_auc(y: np.ndarray, scores: np.ndarray) -> float:
    return auc(y, scores[:, 1]) - auc(y, scores[:, 0])


def run_section(
    folders: tuple[Path, Path], title: str, rows: pd.DataFrame, tables: list[pd.DataFrame]
) -> Section:
    """What both reports hold about one run. rows: merged figures; tables: those of A and of B."""
    run, blocks = rows["run"].iloc[0], []
    thresholds = [
        table[(table["metric"] == "threshold") & (table["run"] == run)].set_index("system")["value"]
        for table in tables
    ]
    for level in UNITS:
        at = rows[rows["level"] == level]
        lines, others, notes = [], [], []
        for test, system in unique(at, "test", "system"):
            part = at[(at["test"] == test) & (at["system"] == system)].set_index("metric")
            if "auc" not in part.index:
                continue
            paths = [folder / "predictions" / run / f"{slug(system)}.csv" for folder in folders]
            faces, difference = "n/a", "n/a"
            if all(path.is_file() for path in paths):
                found = [of_test(read_predictions(path), test) for path in paths]
                faces, difference = paired(*found, level)
            row = part.loc["auc"]
            aucs = [figure(row[f"value{x}"], row[f"low{x}"], row[f"high{x}"]) for x in ("_a", "_b")]
            less = number(row["value_b"] - row["value_a"], sign=True)
            threshold = " → ".join(number(each[system]) for each in thresholds)
            lines.append([test, system, *aucs, less, faces, difference, threshold])
            rest = [part.loc[name] if name in part.index else None for name in FIGURES]
            others.append([test, system, *map(change, rest[1:])])
        if not lines:
            continue
        for test in unique(at, "test"):
            sizes = [
                counted(table[(table["test"] == test) & (table["metric"] == "auc")], level)
                for table in (
                    main_rows(t[(t["run"] == run) & (t["level"] == level)]) for t in tables
                )
            ]
            notes.append(f"{test}: {' or '.join(dict.fromkeys(sizes))}")
        heading = f"{title}, {UNITS[level]}"
        head = ["test", "system", "AUC in A", "AUC in B", "B - A", "faces", "paired", "threshold"]
        cells = pd.DataFrame(lines, columns=head)
        caption = f"{heading}: AUC, 95% intervals by group"
        blocks.append(Table("", caption, cells, notes=[*notes, *NOTES], texts=2))
        cells = pd.DataFrame(others, columns=["test", "system", *list(FIGURES.values())[1:]])
        notes = ["A → B and B - A; the 95% intervals are in the reports"]
        blocks.append(Table("", f"{heading}: the other figures", cells, notes=notes, texts=2))
    return Section(title, blocks, 3)


def change(row: pd.Series | None) -> str:
    if row is None:
        return "n/a"
    a, b = row["value_a"], row["value_b"]
    less = "" if pd.isna(a) or pd.isna(b) else f"\n{number(b - a, sign=True)}"
    return f"{number(a)} → {number(b)}{less}"


def differing(a: Mapping, b: Mapping) -> Table:
    """Code, versions, settings and counts that are not the same."""
    a, b = (
        flat({name: report[name] for name in ("git", "versions", "config", "datasets", "runs")})
        for report in (a, b)
    )
    shared = {key.split(".")[1] for key in a if key.startswith("runs.")}
    shared &= {key.split(".")[1] for key in b if key.startswith("runs.")}
    rows = [
        [key, a.get(key, "–"), b.get(key, "–")]
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
        and (not key.startswith("runs.") or key.split(".")[1] in shared and ".remarks" not in key)
    ]
    cells = pd.DataFrame(rows, columns=["what", "A", "B"])
    return Table("", "Code, versions, settings and counts that differ", cells, texts=3)


def only_in(rows: pd.DataFrame, other: pd.DataFrame) -> tuple[str, ...]:
    """Runs, systems and other figures that the other report lacks. rows: only in this report; other: of the other one."""
    lines = []
    runs, systems = set(other["run"]), set(zip(other["run"], other["system"], strict=True))
    for run, system in unique(rows, "run", "system"):
        part = rows[(rows["run"] == run) & (rows["system"] == system)]
        if run not in runs:
            lines.append(f"run {run}")
        elif run and (run, system) not in systems:
            lines.append(f"run {run}: {system}")
        else:
            names = ", ".join(unique(part, "metric"))
            about = unique(part, "test", "level", "condition", "attribute")[0]
            where = ", ".join(filter(None, (run, system, *about)))
            lines.append(f"{len(part)} figures ({names}), such as of {where}")
    return tuple(dict.fromkeys(lines))


def compare(a: Path, b: Path, out: Path) -> Path:
    """compare.md, compare.html and compare.csv (both reports' figures, merged) of two reports of evaluate.py.

    Returns:
        `out`.

    Raises:
        FileNotFoundError, ValueError: where something is missing or damaged, with the name of the file.
    """
    folders = Path(a), Path(b)
    reports, tables = zip(*(read_report(folder) for folder in folders), strict=True)
    merged = tables[0].merge(tables[1], on=KEYS, how="outer", suffixes=("_a", "_b"), indicator=True)
    order = {run: i for i, run in enumerate([*reports[0]["runs"], *reports[1]["runs"]])}
    shared = tables[0].reset_index().merge(tables[1], on=KEYS, suffixes=("_a", "_b"))
    shared = main_rows(shared.sort_values("index"))
    shared = shared[~shared["metric"].isin(FIT)]
    runs = [
        run_section(folders, reports[0]["runs"][run]["title"], part, list(tables))
        for run, part in sorted(
            shared[shared["run"] != ""].groupby("run"), key=lambda pair: order[pair[0]]
        )
    ]
    runs = [section for section in runs if section.blocks]
    table = differing(*reports)
    lead = [f"{x}: {each['name']}. {about(each)}" for x, each in zip("AB", reports, strict=True)]
    same = "Code, versions, settings and counts are the same."
    sections = [Section("What differs", [table if len(table.cells) else same])]
    for letter, side, other in (("A", "left_only", tables[1]), ("B", "right_only", tables[0])):
        missing = only_in(merged[merged["_merge"] == side], other)
        sections += [Section(f"Only in {letter}", [missing])] if missing else []
    nothing = [] if runs else ["No run, test and system is in both."]
    sections += [Section("What is in both", nothing), *runs]
    title = f"{reports[0]['name']} (A) and {reports[1]['name']} (B)"
    out.mkdir(parents=True, exist_ok=True)
    text = merged.drop(columns="_merge").to_csv(index=False, lineterminator="\n")
    page.write(out / "compare.csv", text)
    page.write(out / "compare.md", page.markdown(title, lead, sections))
    page.write(out / "compare.html", page.html(title, lead, sections, out))
    return out
