"""Sanity checks: the same picture on both sides of a split, labels that can be read off the file,
AUC at chance.

The first ones return remarks for the report; an empty list means that the check found nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from data.feature_dataset import FeatureDataset
from data.splits import group_near_duplicates
from evaluation.metrics import auc
from features.baselines import metadata_features

SUSPICIOUS = 0.8  # AUC of a single number about the file: labels leak
STRATA = 20
EXAMPLES = 3
FEWEST = 3  # permutations that a mean needs


def duplicates(faces: FeatureDataset) -> list[str]:
    """Test pictures whose perceptual hash is (nearly) that of a training or validation picture."""
    paths = np.array(
        [f"{d}/{p}" for d, p in zip(faces.rows["dataset"], faces.rows["path"], strict=True)]
    )
    _, first = np.unique(paths, return_index=True)  # a picture counts once, however many faces
    splits, hashes = faces.rows["split"][first], faces.rows["phash"][first]
    similar = np.array(group_near_duplicates(hashes.tolist()))
    remarks = []
    for split in ("train", "val"):
        place = {group: row for row, group in enumerate(similar) if splits[row] == split}
        found = [row for row in np.flatnonzero(splits == "test") if similar[row] in place]
        if found:
            pairs = [
                f"{paths[first[row]]} = {paths[first[place[similar[row]]]]}"
                for row in found[:EXAMPLES]
            ]
            exact = sum(hashes[row] == hashes[place[similar[row]]] for row in found)
            remarks.append(
                f"{len(found)} test pictures look like one in {split} ({exact} with the same perceptual hash), such as "
                f"{'; '.join(pairs)}: figures on them are too high"
            )
    return remarks


def leaking_columns(train: FeatureDataset) -> dict[str, float]:
    """Numbers about the file that separate the training labels by themselves: column -> AUC."""
    if not all(train.counts()[label] for label in ("real", "fake")):
        return {}
    table, y = metadata_features(train.rows), train.rows["label"]
    found = {name: auc(y, table.values[:, i]) for i, name in enumerate(table.names)}
    found = {name.partition("/")[2]: max(value, 1 - value) for name, value in found.items()}
    return {name: value for name, value in found.items() if value >= SUSPICIOUS}


def leaks(train: FeatureDataset, name: str) -> list[str]:
    return [
        f"{name}: {column} alone separates real from fake training faces with AUC {value:.3f}; a detector may learn "
        "that instead of faces"
        for column, value in leaking_columns(train).items()
    ]


def stratified_auc(y: np.ndarray, p: np.ndarray, column: np.ndarray) -> tuple[float, int]:
    """AUC over pairs of a real face and a fake that are similar in `column`, and the number of such
    pairs.

    Similar are those in the same twentieth of all faces by that column: AUC stratified by a
    covariate (Janes & Pepe, Biometrika 2009), pooled over pairs. y, p, column: (N,). NaN without
    pairs.
    """
    edges = np.quantile(column, np.linspace(0, 1, STRATA + 1)[1:-1])
    stratum = np.searchsorted(edges, column, side="right")
    won, pairs = 0.0, 0
    for place in np.unique(stratum):
        inside = stratum == place
        count = int((y[inside] == 0).sum() * (y[inside] == 1).sum())
        if count:
            won, pairs = won + count * auc(y[inside], p[inside]), pairs + count
    return (won / pairs if pairs else float("nan")), pairs


def chance(values: Sequence[float]) -> dict[str, float]:
    """Mean AUC of several label permutations, and the 99% interval of that mean (Student's t).

    The interval of one fit does not do: a random direction in feature space may happen to separate
    the classes.
    """
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    mean, reach = values.mean(), t.ppf(0.995, len(values) - 1) * error
    return {"value": float(mean), "low": float(mean - reach), "high": float(mean + reach)}


def chance_remark(test: str, values: Sequence[float]) -> str:
    """Whether training on permuted labels is at chance on one test."""
    mean = chance(values)
    text = (
        f"{test}: trained on permuted labels ({len(values)} permutations), without the forgery logit, the mean AUC is "
        f"{mean['value']:.3f}"
    )
    if len(values) < FEWEST:
        return f"{text}; too few permutations to test for chance"
    text += f"; its 99% interval, {mean['low']:.3f} to {mean['high']:.3f}, "
    if mean["low"] <= 0.5 <= mean["high"]:
        return f"{text}contains .50: at chance, as it must be"
    return f"{text}does not contain .50 (probability 1% by chance): look for a leak of the labels"


def metadata_remark(where: str, masc: float, metadata: float) -> str:
    return (
        f"{where}: the metadata baseline (file and picture size, colour, sharpness, size and pose of the face) reaches "
        f"{metadata:.3f} and MASC {masc:.3f}: this test does not show that faces were used"
    )
