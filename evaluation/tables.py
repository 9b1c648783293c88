"""Tables of a report: views of metrics.csv. Frames and videos are never in one table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from data.degrade import Condition
from evaluation.metrics import FIGURES
from evaluation.metrics_table import UNITS, pick, unique
from evaluation.page import Names, Table, figure
from evaluation.systems import ABLATION, BASELINE, ENSEMBLE, MASC, ZERO_SHOT

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
DELONG = (
    "ΔAUC: AUC of MASC less that of the system, on the faces that both have scored, with the 95% interval and the p of "
    "DeLong's test, which takes faces for independent"
)


def main_rows(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Figures of whole tests: no subgroup, no degradation. wanted: as of `pick`."""
    return pick(table, **{"condition": "", "attribute": "", "level": (*UNITS,), **wanted})


def counted(rows: pd.DataFrame, level: str = "frame") -> str:
    """Numbers of faces, or the fewest to the most where systems scored different ones."""
    found = []
    for row in rows.sort_values("n", kind="stable").to_dict("records"):
        real, fake, groups = row["n"] - row["n_fake"], row["n_fake"], row["groups"]
        found.append(f"{real:.0f} real and {fake:.0f} fake {UNITS[level]} in {groups:.0f} groups")
    return " to ".join(dict.fromkeys([*found[:1], *found[-1:]])) or "none"


def numbers(row: Mapping) -> str:
    return f"{row['n'] - row['n_fake']:.0f} + {row['n_fake']:.0f}\n{row['groups']:.0f} groups"


def text_of(row: Mapping | None) -> str:
    """A figure as it is shown."""
    if row is None:
        return "n/a"
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
    found = {(*(row[x] for x in index), row[column]): row for row in rows.to_dict("records")}
    keys = [*dict.fromkeys(key[:-1] for key in found)]
    lines = [[found.get((*key, value)) for value in headings] for key in keys]
    parts, best = defaultdict(list), set()
    for i, key in enumerate(keys if mark else ()):
        parts[key[index.index(within)] if within else ""].append(i)
    for part in parts.values():
        for j in range(len(headings)):
            cells = [lines[i][j] or {"metric": "", "value": None} for i in part]
            metric = max(cell["metric"] for cell in cells)
            if metric in MARKED:
                chosen = best_of([cell["value"] for cell in cells], metric in LOWER_IS_BETTER)
                best |= {(part[k], len(index) + j) for k in chosen}
    texts = [[*key, *map(text_of, line)] for key, line in zip(keys, lines, strict=True)]
    columns = ["trained on" if x == "train" else x for x in index] + [*headings.values()]
    cells = pd.DataFrame(texts, columns=columns, dtype=object)
    return Table(name, caption, cells, frozenset(best), notes, len(index))


def run_tables(names: Names, run: Mapping, rows: pd.DataFrame) -> Iterator[Table]:
    """The systems, and every metric of every system on every test. rows: of the run."""
    id, title = rows["run"].iloc[0], run["title"]
    fits = pick(rows, metric="threshold")
    notes = ["A face with p_fake from the threshold on is called fake; set on validation faces"]
    headings = {"threshold": "threshold"}
    index, name = ("system", "kind", "note"), names(id, "systems")
    if len(fits):
        yield view(name, f"{title}: the systems", fits, index, "metric", headings, notes)
    found = main_rows(rows).sort_values("level", kind="stable")
    for (level, test), part in found.groupby(["level", "test"], sort=False):
        aucs = pick(part, metric="auc")
        compared = (part["metric"] == "delong_p").any()
        headings = FIGURES | ({"delta_auc": "ΔAUC", "delong_p": "p"} if compared else {})
        lacking = pick(fits[~fits["system"].isin(part["system"])], metric="threshold")
        missing = unique(lacking, "system", "note")
        notes = [f"{x}: {why or 'no figures on this test'}" for x, why in missing]
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
    ours = pick(aucs, kind=ENSEMBLE).to_dict("records")
    return min(ours, key=lambda row: row["system"] != MASC, default=None)


def best_baseline(aucs: pd.DataFrame) -> Mapping | None:
    known = pick(aucs, kind=BASELINE).dropna(subset="value").to_dict("records")
    return max(known, key=lambda row: row["value"], default=None)


def overview(names: Names, table: pd.DataFrame, level: str) -> Iterator[Table]:
    """A line per run and test: MASC, and the best baseline."""
    metrics, protocols = ("auc", "delta_auc", "delong_p"), tuple(PROTOCOLS)
    found = main_rows(table, metric=metrics, level=level, protocol=protocols)
    lines = []
    keys = ["protocol", "run", "train", "test"]
    for (protocol, _, train, test), part in found.groupby(keys, sort=False):
        aucs = pick(part, metric="auc")
        ours, best = reference(aucs), best_baseline(aucs)
        other = pick(part, system=best["system"] if best else "").to_dict("records")
        texts = {row["metric"]: text_of(row) for row in other}
        lines.append(
            {
                "protocol": protocol,
                "trained on": train,
                "tested on": test,
                "best baseline": best["system"] if best else "none",
                "real + fake": numbers(ours or best) if ours or best else "n/a",
                "AUC of MASC": text_of(ours),
                "AUC of the baseline": text_of(best),
                "ΔAUC": texts.get("delta_auc", ""),
                "p": texts.get("delong_p", ""),
            }
        )
    notes = ["The best baseline is chosen by its AUC on the same test, in its favour", DELONG]
    caption = f"MASC and the best baseline of every run, {UNITS[level]}, {INTERVALS}"
    if lines:
        name = names("overview", level)
        yield Table(name, caption, pd.DataFrame(lines), notes=notes, texts=4)


def cross_dataset(names: Names, table: pd.DataFrame, level: str) -> Iterator[Table]:
    """AUC of every system: trained on the line's datasets, tested on the column's."""
    rows = main_rows(table, metric="auc", level=level, protocol=("in-dataset", "cross-dataset"))
    rows = rows[~rows["kind"].isin(LESS)]
    order = unique(rows, "train")
    rows = rows.sort_values("train", key=lambda each: each.map(order.index), kind="stable")
    tests = {name: name for name in sorted(set(rows["test"]))}
    notes = [f"{test}: {counted(pick(rows, test=test), level)}" for test in tests]
    notes.append(
        "Where a test is also in `trained on`, the figure is in-dataset. Best: of one training set"
    )
    caption = f"AUC across datasets, {UNITS[level]}, {INTERVALS}"
    if len(rows):
        name, index = names("cross-dataset", level), ("train", "system")
        yield view(name, caption, rows, index, "test", tests, notes, "train")


def false_alarms(names: Names, table: pd.DataFrame, level: str) -> Iterator[Table]:
    """Of every system on every set, with the number of faces."""
    rows = main_rows(table, metric="false_alarms", level=level, protocol=tuple(PROTOCOLS))
    rows = rows[~rows["kind"].isin(LESS) & (rows["protocol"] != "cross-auc")]
    caption = f"Real {UNITS[level]} called fake at the threshold that the validation faces set"
    if len(rows):
        name, index = names("false-alarms", level), ("train", "protocol", "test", "system", "note")
        notes = ["95% intervals of Clopper & Pearson, which take faces for independent"]
        yield view(name, caption, rows, index, "metric", {"false_alarms": "share"}, notes)


def datasets_table(names: Names, datasets: Mapping[str, Mapping]) -> Table:
    lines = []
    for name, found in datasets.items():
        line = {"dataset": name, "dump": found["dump"]}
        for split, n in found["splits"].items():
            line[split] = f"{n['real']} + {n['fake']}\n{n['groups']} groups"
        lines.append(line | {"no face": found["no_face"], "unreadable": found["unreadable"]})
    caption = "The datasets: real + fake frames of each split"
    return Table(names("datasets"), caption, pd.DataFrame(lines).fillna("–"), texts=2)


def measured(report: Mapping, table: pd.DataFrame, run: str, test: str) -> str:
    """Title of a run, and what MASC was measured on."""
    found = reference(main_rows(table, metric="auc", level="frame", run=run, test=test))
    counts = "frames" if found is None else counted(pd.DataFrame([found]))
    return f"{report['runs'][run]['title']}: {counts} of {test}"


def conditions_of(rows: pd.DataFrame) -> dict[str, list[Condition]]:
    """family -> its conditions that were measured, mildest first."""
    families: dict[str, list[Condition]] = defaultdict(list)
    for condition in (Condition.of(x) for x in unique(rows, "condition") if ":" in x):
        families[condition.family].append(condition)
    return {family: sorted(x, key=lambda each: each.level) for family, x in families.items()}


def frames_of(rows: pd.DataFrame) -> str:
    """How many frames were degraded; a range where systems scored more or fewer."""
    n = pick(rows, metric="lost")["n"]
    return f"{n.min():.0f}" if n.nunique() < 2 else f"{n.min():.0f}–{n.max():.0f}"


def few_shot_rows(table: pd.DataFrame) -> pd.DataFrame:
    return main_rows(table, metric="auc", level="frame", protocol="few-shot")


def ablation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """AUC on frames of MASC and its ablations, in runs that have any."""
    protocols = ("in-dataset", "identity-disjoint")
    rows = main_rows(table, metric="auc", level="frame", protocol=protocols)
    rows = rows[rows["kind"].isin(LESS) | (rows["system"] == MASC)]
    return pick(rows, run=tuple(pick(rows, kind=ABLATION)["run"]))
