"""Is the detector as good, and as fair, for everybody? Figures per group of people, as the experts see them.

Gender, age band and race are what an expert says of the whole face: with its errors and its narrow categories, and on fakes it
speaks of the fake. So these figures find gaps; they do not prove that there are none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data.feature_dataset import FeatureDataset
from evaluation.metrics import REPLICATES, auc, bootstrap, fpr_at
from features.regions import REGIONS

MIN_FACES = 20  # of a class in a group; a figure of fewer says nothing
ATTRIBUTES = ("gender", "age", "race")
# Age bands by the years at which an expert's classes begin.
BANDS = ((0, "0-19"), (20, "20-39"), (40, "40-59"), (60, "60+"))


def attributes(faces: FeatureDataset, outputs: Mapping[str, Mapping]) -> dict[str, np.ndarray]:
    """attribute -> (N,) names, "" where there is no answer. Of several experts with one output, the first speaks."""
    found: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        attribute = name.rpartition(".")[2]
        if attribute not in ATTRIBUTES or output["kind"] != "distribution":
            continue
        predictions = faces.arrays[name][:, REGIONS.index("full")].astype(np.float32)
        names = (
            [_band(label) for label in output["names"]] if attribute == "age" else output["names"]
        )
        known = np.isfinite(predictions).all(1)
        said = np.where(
            known, np.array(names, dtype=object)[np.where(known, predictions.argmax(1), 0)], ""
        )
        found.setdefault("age band" if attribute == "age" else attribute, said)
    return found


def _band(label: str) -> str:
    """The age band in which a class such as `20-29`, `70+` or `more than 70` begins."""
    start = int("".join(c for c in label.split("-")[0] if c.isdigit()) or 0)
    return next(name for first, name in reversed(BANDS) if start >= first)


def by_group(
    said: np.ndarray, y: np.ndarray, p: np.ndarray, groups: np.ndarray, threshold: float
) -> dict:
    """AUC and FPR of each group of people, and the largest gap between two of them.

    said: (N,) names, "" unknown; y: labels; p: p_fake, finite; groups: for the bootstrap. A figure with fewer than
    MIN_FACES of a class that it needs is None.
    """
    rows = []
    for name in sorted(set(said.tolist()) - {""}):
        part = said == name
        reals, fakes = int((y[part] == 0).sum()), int((y[part] == 1).sum())
        figures = {"fpr": lambda y, p: fpr_at(y, p, threshold)} if reals >= MIN_FACES else {}
        figures |= {"auc": auc} if min(reals, fakes) >= MIN_FACES else {}
        intervals = (
            bootstrap(figures, y[part], p[part], groups[part], REPLICATES) if figures else {}
        )
        row: dict = {"name": name, "n_real": reals, "n_fake": fakes, "auc": None, "fpr": None}
        for key, figure in figures.items():
            bounds = [None if np.isnan(bound) else bound for bound in intervals[key]]
            row[key] = {
                "value": float(figure(y[part], p[part])),
                "low": bounds[0],
                "high": bounds[1],
            }
        rows.append(row)
    gaps = {}
    for key in ("auc", "fpr"):
        values = [row[key]["value"] for row in rows if row[key]]
        gaps[key] = max(values) - min(values) if len(values) > 1 else None
    return {"groups": rows, "largest_gap": gaps}
