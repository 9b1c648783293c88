"""AUC and FPR by gender, age band and race, as the experts estimate them from the whole face.

The estimates have errors and narrow categories, and on fakes they describe the fake. So these
figures find gaps; they do not prove that there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from data.feature_dataset import FeatureDataset
from evaluation.metrics import REPLICATES, auc, fpr_at, interval
from evaluation.metrics_table import counts_of
from evaluation.predictions import face_table
from features.regions import REGIONS

MIN_FACES = 20  # of a class in a group; fewer say nothing
GAP = "largest gap"  # `group` of the largest difference between two groups
ATTRIBUTES = {"gender": "gender", "age": "age band", "race": "race"}  # output -> attribute
# Age bands by the years at which an expert's classes begin.
BANDS = ((60, "60+"), (40, "40-59"), (20, "20-39"), (0, "0-19"))


def attributes(faces: FeatureDataset, outputs: Mapping[str, Mapping]) -> pd.DataFrame:
    """`FACE` and attributes of every face, "" where unknown. Of several experts, the first counts."""
    found: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        attribute = ATTRIBUTES.get(name.rpartition(".")[2])
        if attribute is None or attribute in found or output["kind"] != "distribution":
            continue
        p = faces.arrays[name][:, REGIONS.index("full")].astype(np.float32)  # (N, classes)
        names = map(_band, output["names"]) if attribute == "age band" else output["names"]
        known = np.isfinite(p).all(1)
        best = np.where(known, p.argmax(1), 0)
        found[attribute] = np.where(known, np.array([*names], dtype=object)[best], "")
    return face_table(faces, found)


def _band(label: str) -> str:
    """The age band in which a class such as `20-29`, `70+` or `more than 70` begins."""
    start = int("".join(c for c in label.split("-")[0] if c.isdigit()) or 0)
    return next(name for first, name in BANDS if start >= first)


def by_group(
    found: pd.DataFrame, attribute: str, threshold: float, replicates: int = REPLICATES
) -> list[dict]:
    """AUC and FPR of every group with MIN_FACES of each class that counts, and the largest gap.

    found: predictions with the column `attribute`.
    """
    rows = []
    figures = {"auc": auc, "fpr": partial(fpr_at, threshold=threshold)}
    for name, part in found[found[attribute] != ""].groupby(attribute, sort=True):
        y, p, groups = (part[key].to_numpy() for key in ("label", "p_fake", "group"))
        real, fake = (y == 0).sum(), (y == 1).sum()
        least = {"auc": min(real, fake), "fpr": real}
        for metric, figure in figures.items():
            enough = least[metric] >= MIN_FACES
            values = interval(figure, y, p, groups, replicates) if enough else {}
            row = {"group": str(name), "metric": metric, **counts_of(y, groups), **values}
            rows.append(row)
    for metric in figures if rows else ():
        values = [row["value"] for row in rows if row["metric"] == metric and "value" in row]
        value = max(values) - min(values) if len(values) > 1 else None
        rows.append({"group": GAP, "metric": metric, "value": value})
    return [{"level": "frame", "attribute": attribute, **row} for row in rows]
