"""Two reports side by side: a merge of their metrics.csv, and what else differs between them.

Where both have predictions, the difference of two AUCs is measured on the faces that both have
scored, with a paired bootstrap by group: both systems are measured on the same draws, so that what
makes faces hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import page
from evaluation.metrics import FIGURES, auc, interval
from evaluation.metrics_table import KEYS, UNITS, pick, read_report, unique, write_table
from evaluation.page import Section, Table, figure, inline, number
from evaluation.predictions import by_video, of_test, read_predictions, scored_by_both
from evaluation.protocols import slug
from evaluation.report import about
from evaluation.sections import flat
from evaluation.tables import INTERVALS, main_rows

REPLICATES = 1000
NOTES = (
    "A → B, and B - A",
    "Paired: the difference of the AUCs on the faces that both have scored, with the 95% "
    "interval of a bootstrap by A's "
    "groups in which both are measured on the same draws",
)


def paired(paths: list[Path], test: str, level: str) -> list[str]:
    """Faces that two systems have both scored, and the difference of their AUCs on those."""
    if not all(path.is_file() for path in paths):
        return ["n/a", "n/a"]
    a, b = (of_test(read_predictions(path), test) for path in paths)
    both = scored_by_both(a, b)
    same = len(both) == len(a) == len(b)
    faces = f"the same {len(both)}" if same else f"{len(both)} of {len(a)} and {len(b)}"
    scores = [both, both.assign(p_fake=both["p_other"])]
    if level == "video":
        scores = [by_video(each) for each in scores]
    y, groups = scores[0]["label"].to_numpy(), scores[0]["group"].tolist()
    if len(set(y)) < 2:
        return [faces, "n/a"]
    pairs = np.column_stack([each["p_fake"] for each in scores])
    return [faces, figure(**interval(_delta_auc, y, pairs, groups, REPLICATES), sign=True)]


def _delta_auc(y: np.ndarray, scores: np.ndarray) -> float:
    return auc(y, scores[:, 1]) - auc(y, scores[:, 0])


def change(row: Mapping | None, intervals: bool = False) -> str:
    """A figure of A and of B, and the difference."""
    if row is None:
        return "n/a"
    sides = [{name: row[f"{name}_{x}"] for name in ("value", "low", "high")} for x in "ab"]
    texts = [inline(side) if intervals else number(side["value"]) for side in sides]
    difference = sides[1]["value"] - sides[0]["value"]
    return " → ".join(texts) + ("" if pd.isna(difference) else f"\n{number(difference, sign=True)}")


def run_tables(folders: list[Path], title: str, rows: pd.DataFrame) -> Iterator[Table]:
    """Figures of one run that are in both reports. rows: merged."""
    run = rows["run"].iloc[0]
    thresholds = pick(rows, metric="threshold").set_index("system").to_dict("index")
    for level, at in main_rows(rows).groupby("level"):
        lines = []
        for (test, system), part in at.groupby(["test", "system"], sort=False):
            found = part.set_index("metric").to_dict("index")
            paths = [folder / "predictions" / run / f"{slug(system)}.csv" for folder in folders]
            line = {"test": test, "system": system, "AUC": change(found.pop("auc", None), True)}
            line |= zip(("faces", "paired"), paired(paths, test, level), strict=True)
            line |= {FIGURES[x]: change(found.get(x)) for x in FIGURES if x != "auc"}
            lines.append(line | {"threshold": change(thresholds.get(system))})
        caption = f"{title}, {UNITS[level]}, {INTERVALS}"
        yield Table("", caption, pd.DataFrame(lines), notes=NOTES, texts=2)


def differing(reports: list[Mapping]) -> Table:
    """Code, versions, settings and counts that are not the same."""
    shared = sorted(set.intersection(*(set(report["runs"]) for report in reports)))
    known = []
    for report in reports:
        parts = {name: report[name] for name in ("git", "versions", "config", "datasets")}
        parts |= {run: {x: report["runs"][run][x] for x in ("train", "val")} for run in shared}
        known.append(flat(parts))
    cells = pd.DataFrame(known, index=["A", "B"], dtype=object).T.fillna("–")
    cells = cells[cells["A"] != cells["B"]].rename_axis("what").reset_index()
    return Table("", "Code, versions, settings and counts that differ", cells, texts=3)


def only_in(rows: pd.DataFrame, other: pd.DataFrame) -> tuple[str, ...]:
    """What the other report lacks: runs, systems, figures. rows: those of one report alone."""
    runs, systems = set(other["run"]), set(unique(other, "run", "system"))
    lines = []
    for run, system, metric, test in unique(rows, "run", "system", "metric", "test"):
        if run not in runs:
            lines.append(f"run {run}")
        elif (run, system) not in systems:
            lines.append(f"run {run}: {system}")
        else:
            lines.append(", ".join(filter(None, (run, system, f"{metric} of {test}"))))
    return tuple(dict.fromkeys(lines))


def compare(a: Path, b: Path, out: Path) -> Path:
    """compare.csv (all figures of both reports, merged), compare.md and compare.html."""
    folders = [Path(a), Path(b)]
    reports, tables = zip(*map(read_report, folders), strict=True)
    order = pd.concat(tables)[KEYS].drop_duplicates()  # as in A, then in B
    merged = order.merge(tables[0], on=KEYS, how="left")
    merged = merged.merge(tables[1], on=KEYS, how="left", suffixes=("_a", "_b"))
    in_a, in_b = (merged[f"kind_{x}"].notna() for x in "ab")
    runs = []
    for run, part in merged[in_a & in_b & (merged["run"] != "")].groupby("run", sort=False):
        title = reports[0]["runs"][run]["title"]
        if blocks := [*run_tables(folders, title, part)]:
            runs.append(Section(title, blocks, 3))
    table = differing(reports)
    same = "Code, versions, settings and counts are the same."
    sections = [Section("What differs", [table if len(table.cells) else same])]
    for letter, alone, other in (("A", in_a & ~in_b, tables[1]), ("B", in_b & ~in_a, tables[0])):
        missing = only_in(merged[alone], other)
        sections += [Section(f"Only in {letter}", [missing])] if missing else []
    nothing = [] if runs else ["No run, test and system is in both."]
    sections += [Section("What is in both", nothing), *runs]
    lead = [f"{x}: {each['name']}. {about(each)}" for x, each in zip("AB", reports, strict=True)]
    title = "{} (A) and {} (B)".format(*(report["name"] for report in reports))
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "compare.csv", merged)
    page.write(out / "compare.md", page.markdown(title, lead, sections))
    page.write(out / "compare.html", page.html(title, lead, sections, out))
    return out
