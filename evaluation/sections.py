"""The sections of a report, and the remarks that follow from its figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from evaluation.metrics_table import UNITS
from evaluation.page import Names, Section, Table
from evaluation.robustness import CLEAN
from evaluation.sanity import chance_remark, metadata_remark
from evaluation.systems import MASC, METADATA
from evaluation.tables import (
    INTERVALS,
    PROTOCOLS,
    ablation_rows,
    conditions_of,
    counted,
    cross_dataset,
    datasets_table,
    few_shot_rows,
    frames_of,
    main_rows,
    measured,
    overview,
    run_tables,
    unique,
    view,
)

READING = (
    "AUC, AP, TPR@1%FPR and accuracy are better when higher; EER, FPR, ECE and Brier when lower. An AUC of 0.5 is chance.",
    "Accuracy and FPR are at the threshold that was set on validation faces; nothing is chosen on test faces.",
    "Frames are single pictures. The score of a video is the mean of its frames. The two are never in one table.",
    "Behind a figure stands its 95% bootstrap interval, drawing whole groups (a source video, a person).",
    "That of ECE may lie above its value: drawing adds noise to every bin.",
    "n/a: undefined for these faces, or not measured.",
)
LOST = (
    "Degradations are applied to the picture before the face is looked for; where lost faces count, a picture whose face "
    "is lost raises no alarm (p_fake 0)"
)


def robustness(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """For each dataset: AUC on found faces, with lost faces, and how many are lost."""
    titles = {"auc": "AUC on faces still found", "auc_with_lost": "AUC where lost faces count"}
    titles |= {"lost": "faces lost"}
    for test, rows in table[table["condition"] != ""].groupby("test", sort=False):
        families = conditions_of(rows)
        levels = [*map(str, range(1, max(each[-1].level for each in families.values()) + 1))]
        for metric, title in titles.items():
            parts = []
            for family, conditions in families.items():
                places = {CLEAN: CLEAN, family: "slope"} | {
                    str(x): f"{x.level}" for x in conditions
                }
                used = rows[rows["metric"].isin((metric, "slope")) & rows["condition"].isin(places)]
                parts.append(used.assign(family=family, place=used["condition"].map(places)))
            found, head, notes = pd.concat(parts), levels, [LOST]
            if metric == "auc":
                head = [CLEAN, *levels, "slope"]
                notes.append("Slope: AUC per level, by least squares")
            caption = (
                f"Robustness, {test}: {title} at every level, {frames_of(rows)} frames; {INTERVALS}"
            )
            name, headings = names("robustness", test, metric), {x: x for x in head}
            yield view(
                name, caption, found, ("family", "system"), "place", headings, notes, "family"
            )


def few_shot(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """AUC by the number of training faces, of every draw and on average."""
    for test, rows in few_shot_rows(table).groupby("test", sort=False):
        means = rows.groupby(["system", "size"], sort=False, as_index=False)["value"].mean()
        means = means.assign(draw="mean", low=None, high=None, metric="auc")
        both = [rows.assign(draw=rows["seed"].map("{:.0f}".format)), means]
        systems = unique(rows, "system")
        parts = [part[part["system"] == x].astype(object) for x in systems for part in both]
        sizes = {size: f"{size:.0f} faces" for size in sorted(set(rows["size"]))}
        title = f"Few-shot: AUC on {counted(rows)} of {test} by the number of training faces"
        notes = ["Intervals are about the test faces; the draws show the effect of training faces"]
        name, index, caption = names("few-shot", test), ("system", "draw"), f"{title}; {INTERVALS}"
        yield view(name, caption, pd.concat(parts), index, "size", sizes, notes, mark=False)


def derived_remarks(report: Mapping, table: pd.DataFrame) -> list[str]:
    """Sanity checks of the figures: permuted labels at chance, the metadata baseline."""
    rows = main_rows(table, "auc", level="frame")
    permuted = rows[(rows["protocol"] == "permuted-labels") & rows["value"].notna()]
    permuted = permuted.groupby("test", sort=False)
    remarks = [chance_remark(test, part["value"].tolist()) for test, part in permuted]
    rows = rows[rows["protocol"].isin(PROTOCOLS)]
    for (run, test), part in rows.groupby(["run", "test"], sort=False):
        aucs = part.set_index("system")["value"]
        if {MASC, METADATA} <= set(aucs.index) and aucs[METADATA] >= aucs[MASC]:
            where = f"{report['runs'][run]['title']}, test {test}"
            remarks.append(metadata_remark(where, aucs[MASC], aucs[METADATA]))
    return remarks


def flat(data: object, where: str = "") -> dict[str, str]:
    """dotted.key -> value as text. Lists of plain values are values."""
    if isinstance(data, list) and any(isinstance(value, dict) for value in data):
        data = dict(enumerate(data))
    if isinstance(data, dict) and data:
        parts = [
            flat(value, f"{where}.{key}" if where else str(key)) for key, value in data.items()
        ]
        return {key: value for part in parts for key, value in part.items()}
    return {where: data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}


def sections(report: Mapping, table: pd.DataFrame, names: Names) -> list[Section]:
    """Everything but the plots, in reading order; plots belong to the sections with their key."""
    made: list[Section] = []

    def add(title: str, blocks: Iterable, key: str = "", level: int = 2) -> None:
        made.append(Section(title, [*blocks], level, key))

    def by_run(
        title: str, rows: pd.DataFrame, *spec: object, key: str = "", **more: object
    ) -> None:
        """A table for every run and test. spec, more: of `view`."""
        blocks = []
        for (run, test), part in rows.groupby(["run", "test"], sort=False):
            caption = f"{title}, {measured(report, table, run, test)}; {INTERVALS}"
            blocks.append(view(names(title, run, test), caption, part, *spec, **more))
        add(title, blocks, key)

    glance = [each for level in UNITS for each in overview(names, table, level)]
    remarks = (*report["remarks"], *derived_remarks(report, table))
    add("At a glance", [*glance, remarks], "glance")
    add("How to read this", [READING], "reading")
    add("Datasets", [datasets_table(names, report["datasets"])], "datasets")
    for protocol, title in PROTOCOLS.items():
        found = {id: run for id, run in report["runs"].items() if run["protocol"] == protocol}
        across = UNITS if protocol == "cross-dataset" and found else ()
        if found:
            blocks = (each for level in across for each in cross_dataset(names, table, level))
            add(title, blocks, "protocol")
        for id, run in found.items():
            parts = (
                f"{' + '.join(n['datasets'])}: {n['real']} real and {n['fake']} fake frames in {n['groups']} groups"
                for n in (run["train"], run["val"])
            )
            about = "Trained on {}. Validated on {}.".format(*parts)
            blocks = run_tables(names, run, table[table["run"] == id])
            add(run["title"], [about, tuple(run["remarks"]), *blocks], id, 3)
    add("Few-shot: few training faces", few_shot(names, table), "few-shot")
    add("Robustness", robustness(names, table), "robustness")
    rows = table[table["metric"].isin(("auc", "fpr")) & (table["attribute"] != "")]
    index, headings = ("attribute", "system", "group"), {"auc": "AUC", "fpr": "FPR"}
    notes = ["Groups as an expert estimates them. FPR is at the threshold of the run"]
    by_run("Subgroups", rows, index, "metric", headings, notes, mark=False)
    rows = table[table["metric"] == "stratified_auc"]
    headings = {name: f"stratified by {name}" for name in unique(rows, "attribute")}
    notes = ["Over pairs of a real face and a fake in the same twentieth of all test faces"]
    by_run("Stratified AUC", rows, ("system",), "attribute", headings, notes)
    rows = ablation_rows(table)
    columns = table[(table["metric"] == "columns") & table["system"].isin(set(rows["system"]))]
    tests = rows[["run", "test"]].drop_duplicates()
    rows = pd.concat([rows, columns.drop(columns="test").merge(tests, on="run")])
    headings = {"columns": "columns", "auc": "AUC"}
    by_run("Ablations", rows, ("system",), "metric", headings, key="ablations")
    rows = table[table["metric"] == "permutation_importance"]
    headings = {"permutation_importance": "loss of AUC"}
    notes = ["Loss of AUC when the columns of one output are permuted among the test faces"]
    index = ("attribute",)
    by_run("Permutation importance", rows, index, "metric", headings, notes, key="importance")
    add("Inconsistency of regions", [], "inconsistency")
    known = {"code": report["git"], "version": report["versions"], "setting": report["config"]}
    cells = pd.DataFrame(list(flat(known).items()), columns=["what", "value"])
    how = Table(names("made"), "Code, versions and settings", cells, texts=2)
    add("How it was made", [how], "how")
    return made
