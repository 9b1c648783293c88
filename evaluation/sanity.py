"""Checks that a reviewer would make: the same picture on both sides of a split, labels that can be read off something else.

Each returns remarks for the report; an empty list means that the check found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from data.feature_dataset import FeatureDataset
from data.splits import group_near_duplicates
from evaluation.metrics import auc
from features.baselines import metadata_features

SUSPICIOUS = (
    0.8  # AUC of a single number that has nothing to do with faces: labels leak into the files
)
STRATA = 20  # of faces alike in such a number
EXAMPLES = 3


def duplicates(faces: FeatureDataset) -> list[str]:
    """Test pictures whose perceptual hash is (nearly) that of a picture that trains or validates."""
    paths = np.array(
        [f"{d}/{p}" for d, p in zip(faces.rows["dataset"], faces.rows["path"], strict=True)]
    )
    _, first = np.unique(
        paths, return_index=True
    )  # a picture counts once, however many faces it has
    splits, hashes = faces.rows["split"][first], faces.rows["phash"][first]
    alike = np.array(group_near_duplicates(hashes.tolist()))
    remarks = []
    for split in ("train", "val"):
        there = {group: row for row, group in enumerate(alike) if splits[row] == split}
        found = [row for row in np.flatnonzero(splits == "test") if alike[row] in there]
        if found:
            pairs = [
                f"{paths[first[row]]} = {paths[first[there[alike[row]]]]}"
                for row in found[:EXAMPLES]
            ]
            exact = sum(hashes[row] == hashes[there[alike[row]]] for row in found)
            remarks.append(
                f"{len(found)} test pictures look like one in {split} ({exact} with the same perceptual hash), such as "
                f"{'; '.join(pairs)}: figures on them flatter"
            )
    return remarks


def telling(train: FeatureDataset) -> dict[str, float]:
    """Numbers that have nothing to do with forging and yet tell the training labels by themselves: column -> AUC."""
    if not all(train.counts()[label] for label in ("real", "fake")):
        return {}
    table, y = metadata_features(train.rows), train.rows["label"]
    found = {column: auc(y, table.values[:, i]) for i, column in enumerate(table.names)}
    told = {column.partition("/")[2]: max(value, 1 - value) for column, value in found.items()}
    return {column: value for column, value in told.items() if value >= SUSPICIOUS}


def leaks(train: FeatureDataset, name: str) -> list[str]:
    """What `telling` found, in words."""
    return [
        f"{name}: {column} alone tells real from fake with AUC {value:.3f} on the training faces; a detector may learn that "
        "instead of faces"
        for column, value in telling(train).items()
    ]


def stratified_auc(y: np.ndarray, p: np.ndarray, column: np.ndarray) -> tuple[float, int]:
    """The probability that a fake scores above a real face that is like it in `column`, and how many such pairs there are.

    Alike are a real face and a fake in the same twentieth of all faces by that column: AUC stratified by a covariate (Janes
    & Pepe, Biometrika 2009), pooled over pairs. y, p, column: (N,). NaN where no real face is like any fake.
    """
    edges = np.quantile(column, np.linspace(0, 1, STRATA + 1)[1:-1])
    stratum, won, pairs = np.searchsorted(edges, column, side="right"), 0.0, 0
    for place in np.unique(stratum):
        here = stratum == place
        count = int((y[here] == 0).sum() * (y[here] == 1).sum())
        if count:
            won, pairs = won + count * auc(y[here], p[here]), pairs + count
    return (won / pairs if pairs else float("nan")), pairs


def beaten(aucs: Mapping[str, float], masc: str, metadata: str, where: str) -> list[str]:
    """Whether the baseline that never looks at a face does as well. aucs: system -> AUC on one test."""
    if masc in aucs and metadata in aucs and aucs[metadata] >= aucs[masc]:
        return [
            f"{where}: the trivial baseline (file and picture size, colour, sharpness, size and pose of the face) reaches "
            f"{aucs[metadata]:.3f} and {masc} {aucs[masc]:.3f}: this test does not show that faces were looked at"
        ]
    return []


def chance(values: Sequence[float]) -> dict[str, float]:
    """Mean of the AUCs of several permutations of the labels, and the 99% interval of that mean (Student's t).

    The interval of one fit does not do: a random direction in feature space may by luck be one that separates the classes.
    """
    values = np.asarray(values, dtype=np.float64)
    reach = (
        t.ppf(0.995, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        if len(values) > 1
        else np.nan
    )
    return {
        "value": float(values.mean()),
        "low": float(values.mean() - reach),
        "high": float(values.mean() + reach),
    }
