"""What one genuine photograph tells, by region, clean and degraded: a table out of the study's figures.

    python -m benchmarks.reference                       # of docs/reference.csv
    python -m benchmarks.reference --data ../shared/data # measured anew (an hour on two cores)

AUC of wrong claims against genuine ones, people whom no network has learned from.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from command_line import run
from evaluation.metrics_table import pick, read_metrics
from evaluation.reference import CLAIMS, MASC, PROTOCOL, REGION, SINGLE, SUSPECT, VERIFICATION
from scripts import study

CLEAN = "clean"


@dataclass(frozen=True)
class Config:
    data: Path | None = None
    """The folder of the sets: measure anew."""
    metrics: Path = study.REFERENCE
    """Figures of a report with the protocol `reference`."""
    photographs: int = 1
    """Genuine photographs of each person."""


def table_of(metrics: pd.DataFrame, photographs: int) -> pd.DataFrame:
    """A row for each claim and system, a column for each condition of the picture that is judged."""
    rows = pick(metrics, protocol=PROTOCOL, metric="auc", size=float(photographs))
    rows = rows[rows["group"].isin(("", SUSPECT)) & rows["test"].isin(CLAIMS.values())]
    shown = rows["system"].str.startswith((f"{REGION}inner", f"{REGION}outer", VERIFICATION))
    rows = rows[shown | rows["system"].isin((MASC, SINGLE))]
    condition = rows["condition"].replace("", CLEAN)
    values = rows["value"].map("{:.3f}".format)
    found = rows.assign(condition=condition, value=values).pivot(
        index=["test", "system"], columns="condition", values="value"
    )
    return found[[CLEAN, *(x for x in found.columns if x != CLEAN)]].fillna("")


def main(config: Config) -> int:
    if config.data and (code := study.with_photographs(config.data)):
        return code
    if not config.metrics.is_file():
        raise FileNotFoundError(f"{config.metrics}: not there; measure anew with --data")
    print(table_of(read_metrics(config.metrics), config.photographs).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="benchmarks.reference"))
