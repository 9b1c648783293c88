"""Tables of the protocol `reference`: views of metrics.csv."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from evaluation.metrics_table import pick, unique
from evaluation.page import Names, Table
from evaluation.reference import EVENTS, EVERY, PROTOCOL
from evaluation.tables import INTERVALS, view

HEADINGS = {"auc": "AUC", "eer": "EER", "tpr_at_1pct_fpr": "TPR@1%FPR", "delta_auc": "ΔAUC"}
HEADINGS |= {"delong_p": "p", "named": "named rightly"}


def tables_of(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """By claim, photographs and system; under degradations; the rest."""
    rows = pick(table, protocol=PROTOCOL)
    rows = rows.assign(photographs=rows["size"].map("{:.0f}".format))
    for run, part in rows.groupby("run", sort=False):
        dataset = run.removeprefix(f"{PROTOCOL}-")
        for group in ("", EVENTS):
            found = pick(part, condition="", group=group, metric=tuple(HEADINGS))
            found = found[~found["test"].str.startswith("coverage") & (found["test"] != EVERY)]
            for count in unique(found, "photographs") if len(found) else ():
                own = pick(found, photographs=count)
                title = f"{dataset}, {count} genuine photograph{'s' * (count != '1')}"
                title += ", other pictures than of the same event" * bool(group)
                notes = [
                    "Positive: the claim is wrong. ΔAUC: of MASC with photographs less this system (DeLong)",
                    "Named rightly: the pattern, of all claims of this kind; `cannot tell` counts as wrong",
                ]
                spec = (own, ("test", "system"), "metric", HEADINGS, notes, "test")
                name = names("reference", dataset, count, group)
                yield view(name, f"{title}; {INTERVALS}", *spec)
        alarms = pick(part, metric="false_alarms", condition="")
        headings = {"false_alarms": "genuine pictures called a conflict"}
        if len(alarms):
            alarms = alarms.assign(pairs=alarms["group"].replace("", "all"))
            spec = (alarms, ("photographs", "pairs", "note"), "metric", headings)
            name = names("reference", dataset, "alarms")
            yield view(
                name, f"{dataset}: false alarms at the stored threshold", *spec, (), None, False
            )
        worse = part[part["condition"] != ""]
        if len(worse):
            found = pick(worse, metric="auc")
            headings = {x: x for x in unique(found, "condition")}
            spec = (found, ("group", "test", "system"), "condition", headings, (), "test")
            name = names("reference", dataset, "degraded")
            yield view(name, f"{dataset}, one photograph: AUC, degraded; {INTERVALS}", *spec)
        covered = part[part["test"].str.startswith("coverage")]
        if len(covered):
            spec = (covered, ("test",), "metric", {"named": "named rightly"})
            name = names("reference", dataset, "coverage")
            caption = f"{dataset}, one photograph: the surest answers alone"
            yield view(name, caption, *spec, (), None, False)
