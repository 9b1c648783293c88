"""The sections and tables of a report: views of metrics.csv. Frames and videos are never in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from data.degrade import FAMILIES, Condition
from evaluation.metrics import FIGURES
from evaluation.metrics_table import UNITS
from evaluation.page import Names, Section, Table, figure
from evaluation.robustness import CLEAN
from evaluation.sanity import chance_remark, metadata_remark
from evaluation.systems import ABLATION, BASELINE, ENSEMBLE, MASC, METADATA, ZERO_SHOT

LOWER_IS_BETTER = ("eer", "fpr", "ece", "brier")
MARKED = (*FIGURES, "auc_with_lost", "stratified_auc")  # metrics of which the best is marked
SIGNED = ("delta_auc", "permutation_importance", "slope")
COUNTS = ("columns", "lost")
LESS = (ABLATION, ZERO_SHOT)
INTERVALS = "95% intervals by group"
PROTOCOLS = {
    "in-dataset": "In-dataset",
    "identity-disjoint": "Identity-disjoint",
    "cross-dataset": "Cross-dataset",
    "leave-one-manipulation-out": "Leave-one-manipulation-out",
    "cross-auc": "Cross-AUC: reals of one dataset, fakes of another",
}
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
DELONG = (
    "ΔAUC: AUC of MASC less that of the system, on the faces that both have scored, with the 95% interval and the p of "
    "DeLong's test, which takes faces for independent"
)


def main_rows(table: pd.DataFrame, *metrics: str, level: str | None = None) -> pd.DataFrame:
    """Figures of whole tests: no subgroup, no degradation."""
    rows = table[(table["condition"] == "") & (table["attribute"] == "") & (table["level"] != "")]
    rows = rows[rows["metric"].isin(metrics)] if metrics else rows
    return rows[rows["level"] == level] if level else rows


def unique(rows: pd.DataFrame, *columns: str) -> list:
    """Distinct values, or tuples of them, in the order of the rows."""
    values = [rows[name] for name in columns]
    return list(dict.fromkeys(values[0] if len(columns) == 1 else zip(*values, strict=True)))


def counted(rows: pd.DataFrame, level: str = "frame") -> str:
    """Numbers of faces, or the fewest to the most where systems scored different ones."""
    found = []
    for row in rows.sort_values("n", kind="stable").to_dict("records"):
        real, fake, groups = row["n"] - row["n_fake"], row["n_fake"], row["groups"]
        found.append(f"{real:.0f} real and {fake:.0f} fake {UNITS[level]} in {groups:.0f} groups")
    return " to ".join(dict.fromkeys([*found[:1], *found[-1:]])) or "none"


def numbers(row: Mapping) -> str:
    return f"{row['n'] - row['n_fake']:.0f} + {row['n_fake']:.0f}\n{row['groups']:.0f} groups"


def text_of(row: Mapping) -> str:
    """A figure as it is shown."""
    if row["metric"] == "delong_p" and row["value"] < 1e-3:
        return "< 0.001"
    if row["metric"] in COUNTS and not pd.isna(row["value"]):
        return f"{row['value']:.0f}"
    return figure(row["value"], row["low"], row["high"], row["metric"] in SIGNED)


def best_of(values: Sequence[float | None], lower: bool = False) -> list[int]:
    """Places of the best values, ties as they are shown; none where all are the same."""
    shown = [None if value is None or pd.isna(value) else round(value, 3) for value in values]
    known = {value for value in shown if value is not None}
    winner = (min if lower else max)(known, default=None)
    return [i for i, value in enumerate(shown) if len(known) > 1 and value == winner]


def view(
    name: str,
    caption: str,
    rows: pd.DataFrame,
    index: Mapping[str, str],
    column: str,
    headings: Mapping[object, str],
    notes: Sequence[str] = (),
    within: str | None = None,
    mark: bool = True,
    missing: str = "n/a",
) -> Table:
    """Rows of metrics.csv as a table of text.

    Args:
        index: columns whose values stand on the left -> their headings.
        column: whose values are spread over the table's columns.
        headings: these values -> their headings.
        within: a column of `index` within whose values the best is marked.
    """
    found: dict[tuple, dict] = {}
    keys = unique(rows.assign(_=""), *index, "_")
    for row in rows.to_dict("records"):
        found[*(row[key] for key in index), "", row[column]] = row
    lines, parts = [], {}
    for i, key in enumerate(keys):
        cells = [found.get((*key, value)) for value in headings]
        lines.append([*key[:-1], *(text_of(cell) if cell else missing for cell in cells)])
        parts.setdefault(key[list(index).index(within)] if within else None, []).append((i, cells))
    best = set()
    for part in parts.values() if mark else ():
        for j in range(len(headings)):
            cells = [cells[j] for _, cells in part]
            metric = next((cell["metric"] for cell in cells if cell), "")
            if metric in MARKED:
                values = [cell and cell["value"] for cell in cells]
                chosen = best_of(values, metric in LOWER_IS_BETTER)
                best |= {(part[k][0], len(index) + j) for k in chosen}
    columns = [*index.values(), *headings.values()]
    cells = pd.DataFrame(lines, columns=columns, dtype=object)
    return Table(name, caption, cells, frozenset(best), notes, len(index))


def run_tables(names: Names, run: Mapping, rows: pd.DataFrame) -> Iterator[Table]:
    """The systems, and every metric of every system on every test. rows: of the run."""
    id = rows["run"].iloc[0]
    fits = rows[rows["metric"].isin(("threshold", "seconds"))]
    notes = ["A face with p_fake from the threshold on is called fake; set on validation faces"]
    index = {name: name for name in ("system", "kind", "note")}
    headings = {name: name for name in ("threshold", "seconds")}
    title = f"{run['title']}: the systems"
    if len(fits):
        yield view(names(id, "systems"), title, fits, index, "metric", headings, notes)
    found = main_rows(rows)
    for level in UNITS:
        for test in unique(found[found["level"] == level], "test"):
            part = found[(found["level"] == level) & (found["test"] == test)]
            compared = (part["metric"] == "delong_p").any()
            headings = FIGURES | ({"delta_auc": "ΔAUC", "delong_p": "p"} if compared else {})
            lacking = fits[~fits["system"].isin(part["system"]) & (fits["metric"] == "threshold")]
            reasons = [
                row["note"] or "no figures on this test" for row in lacking.to_dict("records")
            ]
            notes = [f"{name}: {why}" for name, why in zip(lacking["system"], reasons, strict=True)]
            notes += [DELONG] if compared else []
            aucs = part[part["metric"] == "auc"]
            title = f"{run['title']}: {counted(aucs, level)} of {test}; {INTERVALS}"
            both = pd.concat([part, lacking.assign(metric="")])
            table = view(
                names(id, test, level), title, both, {"system": "system"}, "metric", headings, notes
            )
            if aucs["n"].nunique() > 1:
                scored = {row["system"]: numbers(row) for row in aucs.to_dict("records")}
                table.cells["real + fake"] = table.cells["system"].map(scored).fillna("n/a")
            yield table


def reference(aucs: pd.DataFrame) -> Mapping | None:
    """MASC as fitted for the run, or else a checkpoint of it."""
    ours = aucs[aucs["kind"] == ENSEMBLE].to_dict("records")
    return min(ours, key=lambda row: row["system"] != MASC, default=None)


def best_baseline(aucs: pd.DataFrame) -> Mapping | None:
    known = aucs[(aucs["kind"] == BASELINE) & aucs["value"].notna()].to_dict("records")
    return max(known, key=lambda row: row["value"], default=None)


def overview(names: Names, table: pd.DataFrame, level: str) -> Iterator[Table]:
    """A line per run and test: MASC, and the best baseline."""
    found = main_rows(table, "auc", "delta_auc", "delong_p", level=level)
    found = found[found["protocol"].isin(PROTOCOLS)]
    lines = []
    for (protocol, _, train, test), part in found.groupby(
        ["protocol", "run", "train", "test"], sort=False
    ):
        aucs = part[part["metric"] == "auc"]
        both = reference(aucs), best_baseline(aucs)
        tested, theirs = both[0] or both[1], both[1] or {"system": "none"}
        other = part[part["system"] == theirs["system"]].to_dict("records")
        texts = {row["metric"]: text_of(row) for row in other}
        lines.append(
            [protocol, train, test, theirs["system"], numbers(tested) if tested else "n/a"]
            + [text_of(each) if each else "n/a" for each in both]
            + [texts.get("delta_auc", ""), texts.get("delong_p", "")]
        )
    head = ["protocol", "trained on", "tested on", "best baseline", "real + fake"]
    head += ["AUC of MASC", "AUC of the baseline", "ΔAUC", "p"]
    notes = ["The best baseline is chosen by its AUC on the same test, in its favour", DELONG]
    caption = f"MASC and the best baseline of every run, {UNITS[level]}, {INTERVALS}"
    if lines:
        cells = pd.DataFrame(lines, columns=head)
        yield Table(names("overview", level), caption, cells, notes=notes, texts=4)


def cross_dataset(names: Names, table: pd.DataFrame, level: str) -> Iterator[Table]:
    """AUC of every system: trained on the line's datasets, tested on the column's."""
    rows = main_rows(table, "auc", level=level)
    rows = rows[rows["protocol"].isin(("in-dataset", "cross-dataset")) & ~rows["kind"].isin(LESS)]
    order = {train: i for i, train in enumerate(unique(rows, "train"))}
    rows = rows.sort_values("train", key=lambda each: each.map(order), kind="stable")
    tests = {name: name for name in sorted(set(rows["test"]))}
    notes = [f"{test}: {counted(rows[rows['test'] == test], level)}" for test in tests]
    notes.append(
        "Where a test is also in `trained on`, the figure is in-dataset. Best: of one training set"
    )
    caption = f"AUC across datasets, {UNITS[level]}, {INTERVALS}"
    index = {"train": "trained on", "system": "system"}
    if len(rows):
        yield view(
            names("cross-dataset", level), caption, rows, index, "test", tests, notes, "train"
        )


def datasets_table(names: Names, datasets: Mapping[str, Mapping]) -> Table:
    lines = []
    for name, found in datasets.items():
        splits = {
            split: f"{n['real']} + {n['fake']}\n{n['groups']} groups"
            for split, n in found["splits"].items()
        }
        lost = {"no face": found["no_face"], "unreadable": found["unreadable"]}
        lines.append({"dataset": name, "dump": found["dump"], **splits, **lost})
    caption = "The datasets: real + fake frames of each split"
    return Table(names("datasets"), caption, pd.DataFrame(lines).fillna("–"), texts=2)


# What goes beyond runs: all on single frames.


def measured(report: Mapping, table: pd.DataFrame, run: str, test: str) -> str:
    """Title of a run, and what MASC was measured on."""
    rows = main_rows(table, "auc", level="frame")
    found = reference(rows[(rows["run"] == run) & (rows["test"] == test)])
    counts = "frames" if found is None else counted(pd.DataFrame([found]))
    return f"{report['runs'][run]['title']}: {counts} of {test}"


def conditions_of(rows: pd.DataFrame) -> dict[str, list[Condition]]:
    """family -> its conditions that were measured, mildest first."""
    known = set(rows["condition"])
    levels = {name: range(1, len(family.levels) + 1) for name, family in FAMILIES.items()}
    found = {name: [Condition(name, i) for i in levels[name]] for name in FAMILIES}
    found = {name: [x for x in each if str(x) in known] for name, each in found.items()}
    return {name: each for name, each in found.items() if each}


def frames_of(rows: pd.DataFrame) -> str:
    """How many frames were degraded; a range where systems scored more or fewer."""
    sizes = sorted({int(n) for n in rows[rows["metric"] == "lost"]["n"]})
    return "–".join(map(str, sizes[:: len(sizes) - 1 or 1]))


def robustness(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """For each dataset: AUC on found faces, AUC with lost ones, and how many are lost, at every level of every family."""
    titles = {"auc": "AUC on faces still found", "auc_with_lost": "AUC where lost faces count"}
    titles |= {"lost": "faces lost"}
    for test, rows in table[table["condition"] != ""].groupby("test", sort=False):
        families = conditions_of(rows)
        levels = max(each[-1].level for each in families.values())
        for metric, title in titles.items():
            parts = []
            for family, conditions in families.items():
                places = {str(x): f"{x.level}" for x in conditions}
                places |= {CLEAN: CLEAN, family: "slope"} if metric == "auc" else {}
                used = rows[rows["metric"].isin((metric, "slope"))]
                used = used[used["condition"].isin(places)]
                parts.append(used.assign(family=family, place=used["condition"].map(places)))
            both = pd.concat(parts)
            head = [CLEAN, *map(str, range(1, levels + 1)), "slope"]
            head = head if metric == "auc" else head[1:-1]
            caption = (
                f"Robustness, {test}: {title} at every level, {frames_of(rows)} frames; {INTERVALS}"
            )
            notes = [LOST] + (["Slope: AUC per level, by least squares"] if metric == "auc" else [])
            index, name = (
                {"family": "family", "system": "system"},
                names("robustness", test, metric),
            )
            yield view(name, caption, both, index, "place", {x: x for x in head}, notes, "family")


def few_shot_rows(table: pd.DataFrame) -> pd.DataFrame:
    rows = main_rows(table, "auc", level="frame")
    return rows[rows["protocol"] == "few-shot"]


def few_shot(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """AUC by the number of training faces, of every draw and on average."""
    for test, rows in few_shot_rows(table).groupby("test", sort=False):
        draws = rows.assign(draw=rows["seed"].map("{:.0f}".format))
        means = rows.groupby(["system", "size"], sort=False, as_index=False)["value"].mean()
        means = means.assign(draw="mean", low=None, high=None, metric="auc")
        parts = (
            part[part["system"] == x] for x in unique(rows, "system") for part in (draws, means)
        )
        sizes = {size: f"{size:.0f} faces" for size in sorted(set(rows["size"]))}
        caption = f"Few-shot: AUC on {counted(rows)} of {test} by the number of training faces; {INTERVALS}"
        notes = [
            "Intervals are about the test faces; the draws show the effect of the training faces"
        ]
        index = {"system": "system", "draw": "draw"}
        both = pd.concat([part.astype(object) for part in parts])
        yield view(names("few-shot", test), caption, both, index, "size", sizes, notes, mark=False)


def ablation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """AUC on frames of MASC and its ablations, in in-dataset and identity-disjoint runs that have any."""
    rows = main_rows(table, "auc", level="frame")
    rows = rows[rows["protocol"].isin(("in-dataset", "identity-disjoint"))]
    runs = set(rows[rows["kind"] == ABLATION]["run"])
    return rows[rows["run"].isin(runs) & (rows["kind"].isin(LESS) | (rows["system"] == MASC))]


def by_run(
    names: Names,
    table: pd.DataFrame,
    report: Mapping,
    title: str,
    rows: pd.DataFrame,
    *spec,
    **more,
) -> list[Table]:
    """A table for every run and test. spec, more: see `view`."""
    return [
        view(
            names(title, run, test),
            f"{title}, {measured(report, table, run, test)}; {INTERVALS}",
            part,
            *spec,
            **more,
        )
        for (run, test), part in rows.groupby(["run", "test"], sort=False)
    ]


def derived_remarks(report: Mapping, table: pd.DataFrame) -> list[str]:
    """Sanity checks that follow from the figures: permuted labels at chance, and the metadata baseline."""
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
    glance = [each for level in UNITS for each in overview(names, table, level)]
    remarks = (*report["remarks"], *derived_remarks(report, table))
    made = [Section("At a glance", [*glance, remarks], key="glance")]
    made.append(Section("How to read this", [READING], key="reading"))
    datasets = datasets_table(names, report["datasets"])
    made.append(Section("Datasets", [datasets], key="datasets"))
    for protocol, title in PROTOCOLS.items():
        found = {id: run for id, run in report["runs"].items() if run["protocol"] == protocol}
        across = UNITS if protocol == "cross-dataset" and found else ()
        blocks = [each for level in across for each in cross_dataset(names, table, level)]
        made += [Section(title, blocks, key="protocol")] if found else []
        for id, run in found.items():
            trained, validated = (
                f"{' + '.join(n['datasets'])}: {n['real']} real and {n['fake']} fake frames in {n['groups']} groups"
                for n in (run["train"], run["val"])
            )
            blocks = [f"Trained on {trained}. Validated on {validated}.", tuple(run["remarks"])]
            blocks += run_tables(names, run, table[table["run"] == id])
            made.append(Section(run["title"], blocks, 3, key=id))
    made.append(Section("Few-shot: few training faces", [*few_shot(names, table)], key="few-shot"))
    made.append(Section("Robustness", [*robustness(names, table)], key="robustness"))
    about = (names, table, report)
    system = {"system": "system"}
    of_people = table[table["metric"].isin(("auc", "fpr")) & (table["attribute"] != "")]
    index = {"attribute": "attribute", **system, "group": "group"}
    notes = [
        "Groups as an expert estimates them. n/a: too few faces. FPR is at the threshold of the run"
    ]
    spec = (index, "metric", {"auc": "AUC", "fpr": "FPR"}, notes)
    made.append(Section("Subgroups", by_run(*about, "Subgroups", of_people, *spec, mark=False)))
    rows = table[table["metric"] == "stratified_auc"]
    headings = {name: f"stratified by {name}" for name in unique(rows, "attribute")}
    notes = ["Over pairs of a real face and a fake in the same twentieth of all test faces"]
    spec = (system, "attribute", headings, notes)
    made.append(Section("Stratified AUC", by_run(*about, "Stratified AUC", rows, *spec)))
    rows = ablation_rows(table)
    columns = table[(table["metric"] == "columns") & table["system"].isin(set(rows["system"]))]
    tests = rows[["run", "test"]].drop_duplicates()
    rows = pd.concat([rows, columns.drop(columns="test").merge(tests, on="run")])
    spec = (system, "metric", {"columns": "columns", "auc": "AUC"})
    made.append(Section("Ablations", by_run(*about, "Ablations", rows, *spec), key="ablations"))
    rows = table[table["metric"] == "permutation_importance"]
    notes = ["Loss of AUC when the columns of one output are permuted among the test faces"]
    spec = ({"attribute": "columns of"}, "metric", {"permutation_importance": "loss of AUC"}, notes)
    made.append(
        Section(
            "Permutation importance",
            by_run(*about, "Permutation importance", rows, *spec),
            key="importance",
        )
    )
    made.append(Section("Inconsistency of regions", [], key="inconsistency"))
    known = {"code": report["git"], "version": report["versions"], "setting": report["config"]}
    cells = pd.DataFrame(list(flat(known).items()), columns=["what", "value"])
    how = Table(names("made"), "Code, versions and settings", cells, texts=2)
    return [*made, Section("How it was made", [how], key="how")]
