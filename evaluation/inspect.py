"""Permutation importance of a detector, and the inconsistency of regions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from data.feature_dataset import FeatureDataset
from evaluation.metrics import auc
from evaluation.metrics_table import counts_of
from features.measures import cosine, js
from features.pipeline import FeaturePipeline
from features.regions import REGIONS
from models.checkpoint import Checkpoint
from models.heads import Head

SHUFFLES = 100
# Kind of an output -> the metric that compares two regions.
DISTANCES = {
    "embedding": ("cosine_distance", lambda a, b: 1 - cosine(a, b)),
    "distribution": ("js_divergence", js),
}


def importance(checkpoint: Checkpoint, test: FeatureDataset, seed: int = 0) -> list[dict]:
    """Permutation importance (Breiman, Machine Learning 2001), most important output first.

    All columns of one output are permuted together among the test faces: they are so similar that
    one of them alone is hardly missed. Each of SHUFFLES shuffles is measured on another bootstrap
    sample of the groups, so the 95% interval covers both.
    """
    table = FeaturePipeline.from_state(checkpoint.info, checkpoint.arrays).transform(test.arrays)
    head = Head.from_state(checkpoint.info, checkpoint.arrays)
    known = ~np.isnan(table.values).all(1)
    x, y = table.values[known], test.rows["label"][known]
    groups = test.rows["group"][known]
    codes = np.unique(groups.astype(str), return_inverse=True)[1]
    count = int(codes.max()) + 1
    owner = np.array([name.partition("/")[0] for name in table.names])
    whole = head.logit(x)
    rows = []
    for output in dict.fromkeys(owner.tolist()):
        rng = np.random.default_rng(seed)
        losses = []
        for _ in range(SHUFFLES):
            shuffled = x.copy()
            shuffled[:, owner == output] = x[rng.permutation(len(x))][:, owner == output]
            drawn = np.bincount(rng.integers(0, count, count), minlength=count)
            at = np.repeat(np.arange(len(y)), drawn[codes])
            losses.append(auc(y[at], whole[at]) - auc(y[at], head.logit(shuffled)[at]))
        low, high = np.nanpercentile(losses, [2.5, 97.5]).tolist()
        about = {"metric": "permutation_importance", "level": "frame", "attribute": output}
        about |= counts_of(y, groups)
        rows.append({**about, "value": float(np.nanmean(losses)), "low": low, "high": high})
    return sorted(rows, key=lambda row: -row["value"])


def inconsistency(faces: FeatureDataset, outputs: Mapping[str, Mapping]) -> list[dict]:
    """Mean distance between the outputs of every two regions, over real and over fake faces.

    In metrics.csv, attribute is the output, group the pair of regions, system "real" or "fake".
    """
    rows = []
    for name, output in outputs.items():
        if output["kind"] not in DISTANCES:
            continue
        metric, distance = DISTANCES[output["kind"]]
        values = faces.arrays[name].astype(np.float32)
        for label, word in enumerate(("real", "fake")):
            part = values[faces.rows["label"] == label]
            about = {"system": word, "level": "frame", "metric": metric, "attribute": name}
            about |= {"n": len(part), "n_fake": label * len(part)}
            for i, j in combinations(range(len(REGIONS)), 2):
                found = distance(part[:, i], part[:, j])
                found = found[np.isfinite(found)]
                value = float(found.mean()) if len(found) else None
                rows.append({**about, "group": f"{REGIONS[i]}~{REGIONS[j]}", "value": value})
    return rows
