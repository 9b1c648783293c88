"""Tables of a report: views of metrics.csv. Frames and videos are never in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pandas as pd

from data.degrade import FAMILIES, Condition
from evaluation.metrics import FIGURES
from evaluation.metrics_table import UNITS
from evaluation.page import Names, Table, figure, number
from evaluation.robustness import CLEAN
from evaluation.systems import ABLATION, BASELINE, ENSEMBLE, MASC, ZERO_SHOT

LOWER_IS_BETTER = ("eer", "fpr", "ece", "brier")
LESS = (ABLATION, ZERO_SHOT)
INTERVALS = "95% intervals by group"
LOST = (
    "Degradations are applied to the picture before the face is looked for; a picture whose face is lost raises no "
    "alarm (p_fake 0) in the second figure"
)
DELONG = (
    "ΔAUC: AUC of MASC less that of the system, on the faces that both have scored, with the 95% interval and the p of "
    "DeLong's test, which takes faces for independent"
)


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Figures of whole tests: no subgroup, no degradation."""
    return table[(table["condition"] == "") & (table["attribute"] == "") & (table["level"] != "")]


def counted(rows: pd.DataFrame, level: str) -> str:
    """Numbers of faces, or the fewest to the most where systems scored different ones."""
    ordered = rows.sort_values("n", kind="stable")
    found = []
    for _, row in ordered.iloc[[0, -1]].iterrows() if len(ordered) else ():
        real, fake, groups = row["n"] - row["n_fake"], row["n_fake"], row["groups"]
        found.append(f"{real:.0f} real and {fake:.0f} fake {UNITS[level]} in {groups:.0f} groups")
    return " to ".join(dict.fromkeys(found)) or "none"


def text_of(row: Mapping) -> str:
    sign = row["metric"] in ("delta_auc", "permutation_importance")
    if row["metric"] == "delong_p" and row["value"] < 1e-3:
        return "< 0.001"
    if row["metric"] in ("columns", "lost"):
        return "n/a" if pd.isna(row["value"]) else f"{row['value']:.0f}"
    if row["metric"] == "slope":
        return number(row["value"], sign=True)
    return figure(row["value"], row["low"], row["high"], sign)


def wide(rows: pd.DataFrame, index: Sequence[str], column: str) -> tuple[dict, dict]:
    """Text and value of every figure by (index values, value of `column`), in the order of the rows."""
    keys = zip(*(rows[name] for name in index), strict=True)
    texts, values = {}, {}
    for key, name, row in zip(keys, rows[column], rows.to_dict("records"), strict=True):
        texts[key, name], values[key, name] = text_of(row), row["value"]
    return texts, values


def unique(rows: pd.DataFrame, *columns: str) -> list:
    """Distinct values, or tuples of them, in the order of the rows."""
    if len(columns) == 1:
        return list(dict.fromkeys(rows[columns[0]]))
    return list(dict.fromkeys(zip(*(rows[name] for name in columns), strict=True)))


def best_of(values: Sequence[float | None], lower: bool = False) -> list[int]:
    """Places of the best values, ties as they are shown; none where all are the same."""
    shown = [None if pd.isna(value) else round(float(value), 3) for value in values]
    known = {value for value in shown if value is not None}
    winner = (min if lower else max)(known, default=None)
    return [i for i, value in enumerate(shown) if len(known) > 1 and value == winner]


def cross_table(
    rows: pd.DataFrame,
    index: Sequence[str],
    column: str,
    headings: Mapping[str, str],
    blocks: str | None = None,
    missing: str = "n/a",
) -> tuple[pd.DataFrame, frozenset]:
    """One line per value of `index`, one column per key of `headings`; the best of each column.

    blocks: a column of `index` within whose values the best is looked for.
    """
    texts, values = wide(rows, index, column)
    keys = unique(rows.assign(_=""), *index, "_") if index else []
    keys = [key[:-1] for key in keys]
    lines = [[*key, *(texts.get((key, name), missing) for name in headings)] for key in keys]
    best = set()
    parts: dict = {}
    for i, key in enumerate(keys):
        parts.setdefault(key[index.index(blocks)] if blocks else None, []).append(i)
    for part, (j, name) in product(parts.values(), enumerate(headings)):
        found = [values.get((keys[i], name)) for i in part]
        lower = name in LOWER_IS_BETTER
        if name not in ("delta_auc", "delong_p", "columns"):
            best |= {(part[i], len(index) + j) for i in best_of(found, lower)}
    return pd.DataFrame(lines, columns=[*index, *headings.values()], dtype=object), frozenset(best)


def run_table(names: Names, run: Mapping, rows: pd.DataFrame, level: str, test: str) -> Table:
    """Every metric of every system on one test, at one level. rows: of the run."""
    fits = rows[rows["metric"] == "threshold"]
    found = main_rows(rows)
    found = found[(found["level"] == level) & (found["test"] == test)]
    aucs = found[found["metric"] == "auc"]
    headings = FIGURES | ({"delta_auc": "ΔAUC", "delong_p": "p"} if compared(found) else {})
    cells, best = cross_table(found, ["system"], "metric", headings, missing="")
    lacking = [name for name in fits["system"] if name not in set(found["system"])]
    empty = ["n/a"] * len(FIGURES) + [""] * (len(headings) - len(FIGURES))
    for name in lacking:
        cells.loc[len(cells)] = [name, *empty]
    if aucs["n"].nunique() > 1:
        counts = {row["system"]: _numbers(row) for row in aucs.to_dict("records")}
        cells.insert(1, "real + fake", [counts.get(name, "n/a") for name in cells["system"]])
        best = frozenset((i, j + 1) for i, j in best)
    notes = [
        f"{row['system']}: {row['note'] or 'no figures on this test'}"
        for row in fits.to_dict("records")
        if row["system"] in lacking
    ]
    notes += [DELONG] if compared(found) else []
    caption = f"{run['title']}: {counted(aucs, level)} of {test}; {INTERVALS}"
    return Table(names(rows["run"].iloc[0], test, level), caption, cells, best, notes)


def compared(rows: pd.DataFrame) -> bool:
    return bool((rows["metric"] == "delong_p").any())


def _numbers(row: Mapping) -> str:
    return f"{row['n'] - row['n_fake']:.0f} + {row['n_fake']:.0f}\n{row['groups']:.0f} groups"


def systems_table(names: Names, run: Mapping, rows: pd.DataFrame) -> Table:
    seconds = rows[rows["metric"] == "seconds"].set_index("system")["value"]
    lines = [
        [
            r["system"],
            r["kind"],
            r["note"] or "–",
            number(r["value"]),
            f"{seconds[r['system']]:.1f}",
        ]
        for r in rows[rows["metric"] == "threshold"].to_dict("records")
    ]
    cells = pd.DataFrame(lines, columns=["system", "kind", "note", "threshold", "seconds"])
    notes = ["A face with p_fake from the threshold on is called fake; set on validation faces"]
    name = names(rows["run"].iloc[0], "systems")
    return Table(name, f"{run['title']}: the systems", cells, notes=notes, texts=3)


def overview(names: Names, table: pd.DataFrame, level: str) -> list[Table]:
    """A line per run and test: MASC, and the best baseline."""
    found = main_rows(table)
    found = found[(found["level"] == level) & found["size"].isna() & found["seed"].isna()]
    lines = []
    for (protocol, _, train, test), part in found.groupby(
        ["protocol", "run", "train", "test"], sort=False
    ):
        aucs = part[part["metric"] == "auc"]
        ours = reference(aucs)
        theirs = best_baseline(aucs)
        tested = ours if ours is not None else theirs
        other = part[part["system"] == theirs["system"]] if theirs is not None else part.iloc[:0]
        texts = {row["metric"]: text_of(row) for row in other.to_dict("records")}
        lines.append(
            [protocol, train, test, theirs["system"] if theirs is not None else "none"]
            + ["n/a" if tested is None else _numbers(tested)]
            + ["n/a" if each is None else text_of(each) for each in (ours, theirs)]
            + [texts.get("delta_auc", ""), texts.get("delong_p", "")]
        )
    head = ["protocol", "trained on", "tested on", "best baseline", "real + fake"]
    head += ["AUC of MASC", "AUC of the baseline", "ΔAUC", "p"]
    notes = ["The best baseline is chosen by its AUC on the same test, in its favour", DELONG]
    caption = f"MASC and the best baseline of every run, {UNITS[level]}, {INTERVALS}"
    cells = pd.DataFrame(lines, columns=head)
    name = names("overview", level) if lines else ""
    return [Table(name, caption, cells, notes=notes, texts=4)] if lines else []


def reference(aucs: pd.DataFrame) -> Mapping | None:
    """MASC as fitted for the run, or else a checkpoint of it."""
    ours = aucs[aucs["kind"] == ENSEMBLE].to_dict("records")
    return min(ours, key=lambda row: row["system"] != MASC, default=None)


def best_baseline(aucs: pd.DataFrame) -> Mapping | None:
    known = aucs[(aucs["kind"] == BASELINE) & aucs["value"].notna()].to_dict("records")
    return max(known, key=lambda row: row["value"], default=None)


def cross_dataset(names: Names, table: pd.DataFrame, level: str) -> list[Table]:
    """AUC of every system: trained on the line's datasets, tested on the column's."""
    found = main_rows(table)
    protocols = ("in-dataset", "cross-dataset")
    found = found[(found["metric"] == "auc") & (found["level"] == level)]
    found = found[found["protocol"].isin(protocols) & ~found["kind"].isin(LESS)]
    if not len(found):
        return []
    order = {train: i for i, train in enumerate(unique(found, "train"))}
    found = found.sort_values("train", key=lambda each: each.map(order), kind="stable")
    tests = {name: name for name in sorted(set(found["test"]))}
    cells, best = cross_table(found, ["train", "system"], "test", tests, "train")
    cells = cells.rename(columns={"train": "trained on"})
    notes = [f"{test}: {counted(found[found['test'] == test], level)}" for test in tests]
    notes.append(
        "Where a test is also in `trained on`, the figure is in-dataset. Best: of one training set"
    )
    caption = f"AUC across datasets, {UNITS[level]}, {INTERVALS}"
    return [Table(names("cross-dataset", level), caption, cells, best, notes, texts=2)]


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
    rows = main_rows(table)
    rows = rows[(rows["run"] == run) & (rows["test"] == test) & (rows["metric"] == "auc")]
    found = reference(rows[rows["level"] == "frame"])
    counts = "frames" if found is None else counted(pd.DataFrame([found]), "frame")
    return f"{report['runs'][run]['title']}: {counts} of {test}"


def degraded(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, dict[str, str]]]:
    """Test, family, its rows, and condition -> heading, for every family that was measured."""
    rows = table[table["condition"] != ""]
    for test, part in rows.groupby("test", sort=False):
        for family in FAMILIES:
            known = [x for x in unique(part, "condition") if x.startswith(f"{family}:")]
            conditions = sorted(map(Condition.of, known), key=lambda each: each.level)
            unit = FAMILIES[family].unit
            headings = {str(x): f"{x.level}: {x.value:g} {unit}" for x in conditions}
            if headings:
                used = part["condition"].isin([CLEAN, family, *headings])
                yield test, family, part[used], {CLEAN: CLEAN} | headings


def robustness(names: Names, table: pd.DataFrame) -> list[Table]:
    """One for each dataset and family: AUC on found faces, with lost ones, and how many are lost."""
    tables = []
    for test, family, rows, headings in degraded(table):
        figures = {"auc": "AUC, faces found", "auc_with_lost": "AUC, with lost faces"}
        figures |= {"lost": "faces lost", "slope": "slope"}
        rows = rows.assign(figure=rows["metric"].map(figures))
        order = {text: i for i, text in enumerate(figures.values())}
        systems = {name: i for i, name in enumerate(unique(rows, "system"))}
        place = rows["system"].map(systems) * 10 + rows["figure"].map(order)
        rows = rows.iloc[place.argsort(kind="stable")]
        slopes = {
            r["system"]: text_of(r) for r in rows[rows["metric"] == "slope"].to_dict("records")
        }
        rows = rows[rows["metric"] != "slope"]
        cells, best = cross_table(rows, ["system", "figure"], "condition", headings, "figure", "–")
        shown = cells["figure"] == figures["auc"]
        cells["slope"] = cells["system"].map(slopes).where(shown, "–")
        best = frozenset((i, j) for i, j in best if cells["figure"][i] != figures["lost"])
        notes = [
            LOST,
            "Slope: AUC per level, by least squares over the clean picture and all levels",
        ]
        caption = f"Robustness: {family}, {frames_of(rows)} frames of {test}; {INTERVALS}"
        name = names("robustness", test, family)
        tables.append(Table(name, caption, cells, best, notes, texts=2))
    return tables


def frames_of(rows: pd.DataFrame) -> str:
    """How many frames were degraded; a range where systems scored more or fewer."""
    sizes = sorted({int(n) for n in rows[rows["metric"] == "lost"]["n"]})
    return "–".join(map(str, sizes[:: len(sizes) - 1 or 1]))


def few_shot(names: Names, table: pd.DataFrame) -> list[Table]:
    """AUC by the number of training faces, of every draw and on average."""
    tables = []
    for test, rows in few_shot_rows(table).groupby("test", sort=False):
        means = rows.groupby(["system", "size"], sort=False, as_index=False)["value"].mean()
        means = means.assign(draw="mean", low=None, high=None, metric="auc")
        draws = rows.assign(draw=rows["seed"].map("{:.0f}".format))
        both = pd.concat([draws, means]) if rows["seed"].nunique() > 1 else draws
        order = {name: i for i, name in enumerate(unique(rows, "system"))}
        both = both.sort_values("system", key=lambda each: each.map(order), kind="stable")
        sizes = {size: f"{size:.0f} faces" for size in sorted(set(rows["size"]))}
        cells, _ = cross_table(both, ["system", "draw"], "size", sizes)
        caption = f"AUC on frames of {test} ({counted(rows, 'frame')}) by the number of training faces; {INTERVALS}"
        notes = [
            "Intervals are about the test faces; the draws show the effect of the training faces"
        ]
        tables.append(Table(names("few-shot", test), caption, cells, notes=notes, texts=2))
    return tables


def few_shot_rows(table: pd.DataFrame) -> pd.DataFrame:
    found = main_rows(table)
    found = found[(found["protocol"] == "few-shot") & (found["metric"] == "auc")]
    return found[found["level"] == "frame"]


def subgroups(names: Names, table: pd.DataFrame, report: Mapping) -> list[Table]:
    tables = []
    rows = table[table["metric"].isin(("auc", "fpr")) & (table["attribute"] != "")]
    for (run, test, attribute), part in rows.groupby(["run", "test", "attribute"], sort=False):
        lines = []
        for system, of_system in part.groupby("system", sort=False):
            texts, _ = wide(of_system, ["group"], "metric")
            for group, of_group in of_system.groupby("group", sort=False):
                n, fake = (int(of_group[name].iloc[0]) for name in ("n", "n_fake"))
                figures = [texts[(group,), metric] for metric in ("auc", "fpr")]
                lines.append([system, group, n - fake, fake, *figures])
            gaps = [number(gap(of_system, metric)) for metric in ("auc", "fpr")]
            lines.append([system, "largest gap", "", "", *gaps])
        cells = pd.DataFrame(lines, columns=["system", attribute, "real", "fake", "AUC", "FPR"])
        caption = f"By {attribute}, as estimated by an expert, {measured(report, table, run, test)}; {INTERVALS}"
        notes = ["n/a: too few faces. FPR is at the threshold of the run"]
        name = names("subgroups", run, test, attribute)
        tables.append(Table(name, caption, cells, notes=notes, texts=2))
    return tables


def gap(rows: pd.DataFrame, metric: str) -> float | None:
    """Largest difference of a metric between two groups."""
    values = rows[rows["metric"] == metric]["value"].dropna()
    return values.max() - values.min() if len(values) > 1 else None


def ablation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """AUC on frames of MASC and its ablations, in runs that have any."""
    rows = main_rows(table)
    rows = rows[(rows["metric"] == "auc") & (rows["level"] == "frame")]
    runs = set(rows[rows["kind"].isin(LESS)]["run"])
    used = rows["kind"].isin(LESS) | (rows["system"] == MASC)
    return rows[rows["run"].isin(runs) & used]


def ablation(names: Names, table: pd.DataFrame, report: Mapping) -> list[Table]:
    tables = []
    columns = table[table["metric"] == "columns"].assign(test="")
    for (run, test), rows in ablation_rows(table).groupby(["run", "test"], sort=False):
        both = pd.concat([rows, columns[(columns["run"] == run)]])
        both = both[both["system"].isin(set(rows["system"]))]
        cells, best = cross_table(both, ["system"], "metric", {"columns": "columns", "auc": "AUC"})
        caption = f"Ablations of MASC, {measured(report, table, run, test)}; {INTERVALS}"
        tables.append(Table(names("ablation", run, test), caption, cells, best))
    return tables


def importance(names: Names, table: pd.DataFrame, report: Mapping) -> list[Table]:
    tables = []
    rows = table[table["metric"] == "permutation_importance"]
    for (run, test), part in rows.groupby(["run", "test"], sort=False):
        lines = [[row["attribute"], text_of(row)] for row in part.to_dict("records")]
        caption = f"Permutation importance, {measured(report, table, run, test)}; {INTERVALS}"
        notes = ["Loss of AUC when the columns of one output are permuted among the test faces"]
        cells = pd.DataFrame(lines, columns=["columns of", "loss of AUC"])
        tables.append(Table(names("importance", run, test), caption, cells, notes=notes))
    return tables


def stratified(names: Names, table: pd.DataFrame, report: Mapping) -> list[Table]:
    """AUC among faces that are similar in a number that separates the labels."""
    tables = []
    rows = table[table["metric"] == "stratified_auc"]
    for (run, test), part in rows.groupby(["run", "test"], sort=False):
        headings = {name: f"stratified by {name}" for name in unique(part, "attribute")}
        cells, best = cross_table(part, ["system"], "attribute", headings)
        caption = f"Stratified AUC, {measured(report, table, run, test)}"
        notes = ["Over pairs of a real face and a fake in the same twentieth of all test faces"]
        tables.append(Table(names("stratified", run, test), caption, cells, best, notes))
    return tables
