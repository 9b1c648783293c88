"""The sections of a report, and the remarks that follow from its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

import pandas as pd

from evaluation import kinds, reference_tables
from evaluation.metrics_table import UNITS, pick, unique
from evaluation.page import Names, Picture, Section, Table
from evaluation.robustness import CLEAN
from evaluation.sanity import chance_remark
from evaluation.systems import MASC, METADATA
from evaluation.tables import (
    INTERVALS,
    PROTOCOLS,
    ablation_rows,
    conditions_of,
    counted,
    cross_dataset,
    datasets_table,
    false_alarms,
    few_shot_rows,
    frames_of,
    main_rows,
    measured,
    overview,
    run_tables,
    view,
)

READING = (
    "AUC, AP, TPR@1%FPR and accuracy are better when higher; EER, FPR, ECE and Brier when lower. "
    "An AUC of 0.5 is chance.",
    "Accuracy and FPR are at the threshold that was set on validation faces; nothing is chosen on test faces.",
    "Frames are single pictures. The score of a video is the mean of its frames. The two are never in one table.",
    "Behind a figure stands its 95% bootstrap interval, drawing whole groups (a source video, a person).",
    "That of ECE may lie above its value: drawing adds noise to every bin.",
    "n/a: undefined for these faces, or not measured.",
)
LOST = (
    "Degradations are applied to the picture before the face is looked for; where lost faces "
    "count, a picture whose face "
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
                places = {CLEAN: CLEAN, family: "slope"}
                places |= {str(each): str(each.level) for each in conditions}
                used = pick(rows, metric=(metric, "slope"), condition=tuple(places))
                parts.append(used.assign(family=family, place=used["condition"].map(places)))
            head, notes = {x: x for x in levels}, [LOST]
            if metric == "auc":
                head = {CLEAN: CLEAN, **head, "slope": "slope"}
                notes.append("Slope: AUC per level, by least squares")
            caption = f"Robustness, {test}: {title} at every level, {frames_of(rows)} frames"
            name, index = names("robustness", test, metric), ("family", "system")
            spec = (pd.concat(parts), index, "place", head, notes, "family")
            yield view(name, f"{caption}; {INTERVALS}", *spec)


def few_shot(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """AUC by the number of training faces, of every draw and on average."""
    for test, rows in few_shot_rows(table).groupby("test", sort=False):
        means = rows.groupby(["system", "size"], sort=False, as_index=False)["value"].mean()
        means = means.assign(draw="mean", low=None, high=None, metric="auc").astype(object)
        draws = rows.assign(draw=rows["seed"].map("{:.0f}".format)).astype(object)
        both = pd.concat([draws, means])
        systems = unique(rows, "system")
        both = both.sort_values("system", key=lambda x: x.map(systems.index), kind="stable")
        sizes = {size: f"{size:.0f} faces" for size in sorted(set(rows["size"]))}
        title = f"Few-shot: AUC on {counted(rows)} of {test} by the number of training faces"
        notes = ["Intervals are about the test faces; the draws show the effect of training faces"]
        name, index, caption = names("few-shot", test), ("system", "draw"), f"{title}; {INTERVALS}"
        yield view(name, caption, both, index, "size", sizes, notes, mark=False)


def derived_remarks(report: Mapping, table: pd.DataFrame) -> list[str]:
    """Sanity checks of the figures: permuted labels at chance, the metadata baseline."""
    rows = main_rows(table, metric="auc", level="frame").dropna(subset="value")
    permuted = pick(rows, protocol="permuted-labels").groupby("test", sort=False)
    remarks = [chance_remark(test, part["value"].tolist()) for test, part in permuted]
    rows = pick(rows, protocol=tuple(PROTOCOLS))
    for (run, test), part in rows.groupby(["run", "test"], sort=False):
        aucs = part.set_index("system")["value"]
        if {MASC, METADATA} <= set(aucs.index) and aucs[METADATA] >= aucs[MASC]:
            remarks.append(
                f"{report['runs'][run]['title']}, test {test}: the metadata baseline (file and picture size, colour, "
                f"sharpness, size and pose of the face) reaches {aucs[METADATA]:.3f} and MASC "
                f"{aucs[MASC]:.3f}: this test "
                "does not show that faces were used"
            )
    return remarks


def flat(data: object, where: str = "") -> dict[str, str]:
    """dotted.key -> value as text. Lists of plain values are values."""
    if isinstance(data, list) and any(isinstance(value, dict) for value in data):
        data = dict(enumerate(data))
    if not isinstance(data, dict) or not data:
        return {where: data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}
    found = {}
    for key, value in data.items():
        found |= flat(value, f"{where}.{key}" if where else str(key))
    return found


def sections(
    report: Mapping,
    table: pd.DataFrame,
    pictures: Callable[[str], Iterable[Picture]] = lambda key: (),
) -> list[Section]:
    """A report in reading order, without empty sections. pictures: the plots of a section's key."""
    made, names = [], Names()

    def add(title: str, blocks: Iterable, key: str = "", level: int = 2) -> None:
        blocks = [block for block in (*blocks, [*pictures(key)]) if block]
        if blocks or key == "protocol":
            made.append(Section(title, blocks, level, key))

    def by_run(title: str, rows: pd.DataFrame, *spec: object, key: str = "") -> None:
        """A table for every run and test. spec: of `view`."""
        blocks = []
        for (run, test), part in rows.groupby(["run", "test"], sort=False):
            caption = f"{title}, {measured(report, table, run, test)}; {INTERVALS}"
            blocks.append(view(names(title, run, test), caption, part, *spec))
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
            blocks = run_tables(names, run, pick(table, run=id))
            add(run["title"], [about, tuple(run["remarks"]), *blocks], id, 3)
    add(
        "With genuine photographs of the person",
        reference_tables.tables_of(names, table),
        "reference",
    )
    table = table[table["protocol"] != reference_tables.PROTOCOL]
    add("By kind of fake: left out of training", kinds.tables_of(names, table), "kinds")
    alarms = [each for level in UNITS for each in false_alarms(names, table, level)]
    add("False alarms at the carried-over threshold", alarms, "false-alarms")
    add("Few-shot: few training faces", few_shot(names, table), "few-shot")
    add("Robustness", robustness(names, table), "robustness")
    rows = pick(table[table["attribute"] != ""], metric=("auc", "fpr"))
    index, headings = ("attribute", "system", "group"), {"auc": "AUC", "fpr": "FPR"}
    notes = ["Groups as an expert estimates them. FPR is at the threshold of the run"]
    by_run("Subgroups", rows, index, "metric", headings, notes, None, False)
    rows = pick(table, metric="stratified_auc")
    headings = {name: f"stratified by {name}" for name in unique(rows, "attribute")}
    notes = ["Over pairs of a real face and a fake in the same twentieth of all test faces"]
    by_run("Stratified AUC", rows, ("system",), "attribute", headings, notes)
    rows = ablation_rows(table)
    columns = pick(table, metric="columns", system=tuple(rows["system"])).drop(columns="test")
    tests = rows[["run", "test"]].drop_duplicates()
    rows = pd.concat([rows, columns.merge(tests, on="run")])
    headings = {"columns": "columns", "auc": "AUC"}
    by_run("Ablations", rows, ("system",), "metric", headings, key="ablations")
    rows = pick(table, metric="permutation_importance")
    headings = {"permutation_importance": "loss of AUC"}
    notes = ["Loss of AUC when the columns of one output are permuted among the test faces"]
    spec = (rows, ("attribute",), "metric", headings, notes)
    by_run("Permutation importance", *spec, key="importance")
    add("Inconsistency of regions", [], "inconsistency")
    known = {"code": report["git"], "version": report["versions"], "setting": report["config"]}
    cells = pd.DataFrame(flat(known).items(), columns=["what", "value"])
    how = Table(names("made"), "Code, versions and settings", cells, texts=2)
    add("How it was made", [how], "how")
    return made
