"""The figures of a report as Markdown for a model card or a page of the documentation, without pictures."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from data.degrade import Condition
from evaluation import tables
from evaluation.metrics_table import UNITS
from evaluation.page import Names, Section, Table, markdown, number
from evaluation.report import TITLES, derived_remarks
from evaluation.robustness import CLEAN
from evaluation.systems import ABLATION, BASELINE


def for_card(report: Mapping, table: pd.DataFrame) -> str:
    """All runs, robustness, few-shot means, permutation importance, gaps between subgroups, and the remarks."""
    names = Names()
    sections = []
    for protocol, title in TITLES.items():
        rows = table[table["protocol"] == protocol]
        if protocol != "in-dataset":
            rows = rows[rows["kind"] != ABLATION]
        blocks: list = []
        for run, of_run in rows.groupby("run", sort=False):
            found = tables.main_rows(of_run)
            blocks += [
                tables.run_table(names, report["runs"][run], of_run, level, test)
                for level in UNITS
                for test in tables.unique(found[found["level"] == level], "test")
            ]
        sections.append(Section(title, blocks, 3))
    sections.append(Section("Robustness", robustness(table), 3))
    sections.append(Section("Few-shot", few_shot(table), 3))
    importance = tables.importance(names, table, report)
    sections.append(Section("Permutation importance", importance, 3))
    sections.append(Section("Subgroups", gaps(table), 3))
    of_runs = [remark for run in report["runs"].values() for remark in run["remarks"]]
    notes = table[(table["kind"] == BASELINE) & (table["protocol"] == "in-dataset")]
    notes = notes[(notes["metric"] == "threshold") & (notes["note"] != "")]
    remarks = [*report["remarks"], *derived_remarks(report, table), *dict.fromkeys(of_runs)]
    remarks += [
        f"{row['system']} ({report['runs'][row['run']]['title']}): {row['note']}"
        for row in notes.to_dict("records")
    ]
    sections.append(Section("Remarks", [tuple(remarks)] if remarks else [], 3))
    return markdown("", [], [section for section in sections if section.blocks]).rstrip()


def robustness(table: pd.DataFrame) -> list[Table]:
    """AUC on faces found of every system at every level, one table per dataset."""
    made = []
    rows = table[table["condition"] != ""]
    for test, part in rows.groupby("test", sort=False):
        lines = []
        for system, of_system in part.groupby("system", sort=False):
            values = of_system.set_index(["metric", "condition"])["value"].to_dict()
            lost = of_system[of_system["metric"] == "lost"]
            families = of_system[of_system["metric"] == "slope"]["condition"]
            for family in families:
                at = [values.get(("auc", str(Condition(family, i)))) for i in range(1, 6)]
                aucs = [values["auc", CLEAN], *at]
                of_family = lost[lost["condition"].str.startswith(f"{family}:")]
                slope = number(values["slope", family], sign=True)
                ends = [slope, f"{of_family['value'].max():.0f}"]
                lines.append([system, family, *map(number, aucs), *ends])
        head = ["system", "family", CLEAN, *"12345", "slope", "faces lost at most"]
        caption = f"AUC at every level of degradation, {tables.frames_of(part)} frames of {test}"
        cells = pd.DataFrame(lines, columns=head)
        made.append(Table("", caption, cells, notes=[tables.LOST], texts=2))
    return made


def few_shot(table: pd.DataFrame) -> list[Table]:
    rows = tables.few_shot_rows(table)
    if not len(rows):
        return []
    means = rows.groupby(["test", "system", "size"], sort=False, as_index=False)["value"].mean()
    means = means.assign(low=None, high=None, metric="auc")
    sizes = {size: f"{size:.0f} faces" for size in sorted(set(rows["size"]))}
    cells, _ = tables.cross_table(means, ["test", "system"], "size", sizes)
    return [Table("", "Mean AUC on frames over the draws of training faces", cells, texts=2)]


def gaps(table: pd.DataFrame) -> list[Table]:
    """Largest gap between two groups, of every system and attribute."""
    rows = table[table["metric"].isin(("auc", "fpr")) & (table["attribute"] != "")]
    lines = []
    for (run, test, attribute, system), part in rows.groupby(
        ["run", "test", "attribute", "system"], sort=False
    ):
        known = part[(part["metric"] == "auc") & part["value"].notna()]["group"]
        figures = [number(tables.gap(part, metric)) for metric in ("auc", "fpr")]
        lines.append([run, test, attribute, system, *figures, ", ".join(known)])
    head = ["run", "test", "attribute", "system", "AUC", "FPR", "groups"]
    caption = "Largest gap between two groups of people"
    return [Table("", caption, pd.DataFrame(lines, columns=head), texts=4)] if lines else []
