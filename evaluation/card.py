"""The figures of a report as Markdown, for a model card or a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from evaluation.page import markdown
from evaluation.sections import sections
from evaluation.subgroups import GAP
from evaluation.systems import ABLATION

LEFT_OUT = ("reading", "datasets", "ablations", "how")  # the tables of the runs hold the ablations


def for_card(report: Mapping, table: pd.DataFrame) -> str:
    """All runs, with ablations where they are in-dataset, what goes beyond runs, and remarks."""
    rows = table[table["metric"] != "threshold"]
    rows = rows[(rows["kind"] != ABLATION) | (rows["protocol"] == "in-dataset")]
    of_groups = rows["metric"].isin(("auc", "fpr")) & (rows["attribute"] != "")
    made = sections(report, rows[~of_groups | (rows["group"] == GAP)])
    kept = [replace(x, level=x.level + 1) for x in made if x.key not in LEFT_OUT]
    return markdown("", [], kept).rstrip()
