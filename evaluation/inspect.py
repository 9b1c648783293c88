"""What a fitted detector leans on, and where real and fake faces disagree with themselves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from data.feature_dataset import FeatureDataset
from evaluation.metrics import auc
from features.measures import cosine, js
from features.pipeline import FeaturePipeline
from features.regions import REGIONS
from models.checkpoint import Checkpoint
from models.heads import Head

SHUFFLES = 100


def importance(checkpoint: Checkpoint, test: FeatureDataset, seed: int = 0) -> list[dict]:
    """By how much the AUC falls when all columns of one output are dealt out anew among the test faces.

    Permutation importance (Breiman, Machine Learning 2001) of outputs, not columns: those of one output say nearly the same,
    and one of them alone is hardly missed. Each of SHUFFLES shuffles is measured on another bootstrap sample of the groups, so
    the 95% interval is about both. Returns: {"group", "fall": {value, low, high}}, largest fall first.
    """
    table = FeaturePipeline.from_state(checkpoint.info, checkpoint.arrays).transform(test.arrays)
    head = Head.from_state(checkpoint.info, checkpoint.arrays)
    known = ~np.isnan(table.values).all(1)
    x, y = table.values[known], test.rows["label"][known]
    codes = np.unique(test.rows["group"][known].astype(str), return_inverse=True)[1]
    owner = np.array([name.partition("/")[0] for name in table.names])
    whole = head.logit(x)
    found = []
    for group in dict.fromkeys(owner.tolist()):
        rng = np.random.default_rng(seed)
        falls = []
        for _ in range(SHUFFLES):
            shuffled = x.copy()
            shuffled[:, owner == group] = x[rng.permutation(len(x))][:, owner == group]
            drawn = np.bincount(
                rng.integers(0, codes.max() + 1, codes.max() + 1), minlength=codes.max() + 1
            )
            rows = np.repeat(np.arange(len(y)), drawn[codes])
            falls.append(auc(y[rows], whole[rows]) - auc(y[rows], head.logit(shuffled)[rows]))
        low, high = np.nanpercentile(falls, [2.5, 97.5])
        found.append(
            {
                "group": group,
                "fall": {"value": float(np.nanmean(falls)), "low": float(low), "high": float(high)},
            }
        )
    return sorted(found, key=lambda entry: -entry["fall"]["value"])


def inconsistency(faces: FeatureDataset, outputs: Mapping[str, Mapping]) -> list[dict]:
    """How much the answers about every two regions differ, on average over real and over fake faces.

    Embeddings by 1 - cosine, distributions by the Jensen-Shannon divergence. Returns: one entry per output, with 8 x 8
    matrices, None on the diagonal.
    """
    found = []
    for name, output in outputs.items():
        if output["kind"] not in ("embedding", "distribution"):
            continue
        predictions = faces.arrays[name].astype(np.float32)
        embedding = output["kind"] == "embedding"
        entry: dict = {
            "output": name,
            "regions": list(REGIONS),
            "unit": "1 - cosine" if embedding else "Jensen-Shannon divergence, nats",
        }
        for label, word in enumerate(("real", "fake")):
            part = predictions[faces.rows["label"] == label]
            matrix: list[list[float | None]] = [[None] * len(REGIONS) for _ in REGIONS]
            for i, j in combinations(range(len(REGIONS)), 2):
                values = (
                    1 - cosine(part[:, i], part[:, j]) if embedding else js(part[:, i], part[:, j])
                )
                values = values[np.isfinite(values)]
                matrix[i][j] = matrix[j][i] = float(values.mean()) if len(values) else None
            entry |= {word: matrix, f"n_{word}": len(part)}
        found.append(entry)
    return found
