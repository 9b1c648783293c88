"""Tables of a report: views of metrics.csv. Frames and videos are never in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from data.degrade import Condition
from evaluation.metrics import FIGURES
from evaluation.metrics_table import UNITS
from evaluation.page import Names, Table, figure
from evaluation.systems import ABLATION, BASELINE, ENSEMBLE, MASC, ZERO_SHOT

LOWER_IS_BETTER = ("eer", "fpr", "ece", "brier")
MARKED = (*FIGURES, "auc_with_lost", "stratified_auc")  # metrics of which the best is marked
SIGNED = ("delta_auc", "permutation_importance", "slope")
COUNTS = ("columns", "lost")
LESS = (ABLATION, ZERO_SHOT)
HEADS = {"train": "trained on"}
INTERVALS = "95% intervals by group"
PROTOCOLS = {
    "in-dataset": "In-dataset",
    "identity-disjoint": "Identity-disjoint",
    "cross-dataset": "Cross-dataset",
    "leave-one-manipulation-out": "Leave-one-manipulation-out",
    "cross-auc": "Cross-AUC: reals of one dataset, fakes of another",
}
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
    index: Sequence[str],
    column: str,
    headings: Mapping[object, str],
    notes: Sequence[str] = (),
    within: str | None = None,
    mark: bool = True,
) -> Table:
    """Rows of metrics.csv as a table of text.

    Args:
        index: columns whose values stand on the left.
        column: whose values are spread over the table's columns, with these `headings`.
        within: a column of `index` within whose values the best is marked.
    """
    found: dict[tuple, dict] = {}
    keys = unique(rows.assign(_=""), *index, "_")
    for row in rows.to_dict("records"):
        found[*(row[key] for key in index), "", row[column]] = row
    lines, parts = [], {}
    for i, key in enumerate(keys):
        cells = [found.get((*key, value)) for value in headings]
        lines.append([*key[:-1], *(text_of(cell) if cell else "n/a" for cell in cells)])
        parts.setdefault(key[index.index(within)] if within else None, []).append((i, cells))
    best = set()
    for part in parts.values() if mark else ():
        for j in range(len(headings)):
            cells = [cells[j] for _, cells in part]
            metric = next((cell["metric"] for cell in cells if cell), "")
            if metric in MARKED:
                values = [cell and cell["value"] for cell in cells]
                chosen = best_of(values, metric in LOWER_IS_BETTER)
                best |= {(part[k][0], len(index) + j) for k in chosen}
    columns = [*(HEADS.get(name, name) for name in index), *headings.values()]
    cells = pd.DataFrame(lines, columns=columns, dtype=object)
    return Table(name, caption, cells, frozenset(best), notes, len(index))


def run_tables(names: Names, run: Mapping, rows: pd.DataFrame) -> Iterator[Table]:
    """The systems, and every metric of every system on every test. rows: of the run."""
    id, title = rows["run"].iloc[0], run["title"]
    fits = rows[rows["metric"].isin(("threshold", "seconds"))]
    notes = ["A face with p_fake from the threshold on is called fake; set on validation faces"]
    spec = (("system", "kind", "note"), "metric", {x: x for x in ("threshold", "seconds")}, notes)
    if len(fits):
        yield view(names(id, "systems"), f"{title}: the systems", fits, *spec)
    found = main_rows(rows)
    for level, test in unique(found.sort_values("level", kind="stable"), "level", "test"):
        part = found[(found["level"] == level) & (found["test"] == test)]
        aucs = part[part["metric"] == "auc"]
        compared = (part["metric"] == "delong_p").any()
        headings = FIGURES | ({"delta_auc": "ΔAUC", "delong_p": "p"} if compared else {})
        lacking = fits[~fits["system"].isin(part["system"]) & (fits["metric"] == "threshold")]
        notes = [
            f"{x}: {why or 'no figures on this test'}"
            for x, why in unique(lacking, "system", "note")
        ]
        notes += [DELONG] if compared else []
        caption = f"{title}: {counted(aucs, level)} of {test}; {INTERVALS}"
        both = pd.concat([part, lacking.assign(metric="")])
        table = view(names(id, test, level), caption, both, ("system",), "metric", headings, notes)
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
    if len(rows):
        name, index = names("cross-dataset", level), ("train", "system")
        yield view(name, caption, rows, index, "test", tests, notes, "train")


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


def measured(report: Mapping, table: pd.DataFrame, run: str, test: str) -> str:
    """Title of a run, and what MASC was measured on."""
    rows = main_rows(table, "auc", level="frame")
    found = reference(rows[(rows["run"] == run) & (rows["test"] == test)])
    counts = "frames" if found is None else counted(pd.DataFrame([found]))
    return f"{report['runs'][run]['title']}: {counts} of {test}"


def conditions_of(rows: pd.DataFrame) -> dict[str, list[Condition]]:
    """family -> its conditions that were measured, mildest first."""
    known = [Condition.of(x) for x in unique(rows, "condition") if ":" in x]
    families = dict.fromkeys(condition.family for condition in known)
    ordered = sorted(known, key=lambda condition: condition.level)
    return {family: [x for x in ordered if x.family == family] for family in families}


def frames_of(rows: pd.DataFrame) -> str:
    """How many frames were degraded; a range where systems scored more or fewer."""
    sizes = sorted({int(n) for n in rows[rows["metric"] == "lost"]["n"]})
    return "–".join(map(str, sizes[:: len(sizes) - 1 or 1]))


def few_shot_rows(table: pd.DataFrame) -> pd.DataFrame:
    rows = main_rows(table, "auc", level="frame")
    return rows[rows["protocol"] == "few-shot"]


def ablation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """AUC on frames of MASC and its ablations, in runs that have any."""
    rows = main_rows(table, "auc", level="frame")
    rows = rows[rows["protocol"].isin(("in-dataset", "identity-disjoint"))]
    runs = set(rows[rows["kind"] == ABLATION]["run"])
    return rows[rows["run"].isin(runs) & (rows["kind"].isin(LESS) | (rows["system"] == MASC))]
