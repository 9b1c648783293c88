"""AUC and FPR per group of people: gender, age band and race, as the experts estimate them from the
whole face.

The estimates have errors and narrow categories, and on fakes they describe the fake. So these
figures find gaps; they do not prove that there are none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data.feature_dataset import FeatureDataset
from evaluation.metrics import REPLICATES, auc, fpr_at, interval
from evaluation.predictions import FACE
from features.regions import REGIONS

MIN_FACES = 20  # of a class in a group; fewer say nothing
GAP = "largest gap"  # `group` of the largest difference between two groups
ATTRIBUTES = {"gender": "gender", "age": "age band", "race": "race"}  # output -> attribute
# Age bands by the years at which an expert's classes begin.
BANDS = ((0, "0-19"), (20, "20-39"), (40, "40-59"), (60, "60+"))


def attributes(faces: FeatureDataset, outputs: Mapping[str, Mapping]) -> pd.DataFrame:
    """The group of every face by every attribute, "" where unknown; of several experts, the first
    counts.

    Returns:
        (N, columns of `FACE` and attributes).
    """
    found: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        attribute = ATTRIBUTES.get(name.rpartition(".")[2])
        if attribute is None or attribute in found or output["kind"] != "distribution":
            continue
        p = faces.arrays[name][:, REGIONS.index("full")].astype(np.float32)  # (N, classes)
        names = output["names"]
        if attribute == "age band":
            names = [_band(label) for label in names]
        known = np.isfinite(p).all(1)
        best = np.where(known, p.argmax(1), 0)
        found[attribute] = np.where(known, np.array(names, dtype=object)[best], "")
    return face_table(faces, found)


def face_table(faces: FeatureDataset, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`columns` of every face, to be merged with predictions."""
    keys = {name: faces.rows[name] for name in FACE}
    return pd.DataFrame(keys | columns, dtype=object).astype({"face": int})


def _band(label: str) -> str:
    """The age band in which a class such as `20-29`, `70+` or `more than 70` begins."""
    start = int("".join(c for c in label.split("-")[0] if c.isdigit()) or 0)
    return next(name for first, name in reversed(BANDS) if start >= first)


def by_group(
    found: pd.DataFrame, attribute: str, threshold: float, replicates: int = REPLICATES
) -> list[dict]:
    """Rows of metrics.csv: AUC and FPR of every group, and the largest gap between two.

    Undefined with fewer than MIN_FACES of a class that counts.

    found: predictions with the column `attribute`.
    """
    rows = []
    figures = {"auc": auc, "fpr": lambda y, p: fpr_at(y, p, threshold)}
    for name, part in found[found[attribute] != ""].groupby(attribute, sort=True):
        y, p, groups = (part[key].to_numpy() for key in ("label", "p_fake", "group"))
        fakes = int(y.sum())
        reals = len(y) - fakes
        enough = {"auc": min(reals, fakes) >= MIN_FACES, "fpr": reals >= MIN_FACES}
        counts = {"n": len(y), "n_fake": fakes, "groups": len(set(groups))}
        for metric, figure in figures.items():
            values = interval(figure, y, p, groups, replicates) if enough[metric] else {}
            rows.append({"group": str(name), "metric": metric, **counts, **values})
    for metric in figures if rows else ():
        values = [row["value"] for row in rows if row["metric"] == metric and "value" in row]
        value = max(values) - min(values) if len(values) > 1 else None
        rows.append({"group": GAP, "metric": metric, "value": value})
    return [{"level": "frame", "attribute": attribute, **row} for row in rows]
