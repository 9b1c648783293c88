"""Sanity checks: pictures on both sides of a split, labels that the file gives away, chance."""

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
    """Remarks on test pictures with (nearly) the perceptual hash of a training or validation one."""
    paths = faces.rows["dataset"].astype(object) + "/" + faces.rows["path"]
    _, first = np.unique(paths, return_index=True)  # a picture counts once, however many faces
    paths, splits, hashes = (x[first] for x in (paths, faces.rows["split"], faces.rows["phash"]))
    similar = np.array(group_near_duplicates(hashes.tolist()))
    remarks = []
    for split in ("train", "val"):
        place = {group: row for row, group in enumerate(similar) if splits[row] == split}
        tests = np.flatnonzero(splits == "test")
        pairs = [(row, place[similar[row]]) for row in tests if similar[row] in place]
        if pairs:
            exact = sum(hashes[a] == hashes[b] for a, b in pairs)
            examples = "; ".join(f"{paths[a]} = {paths[b]}" for a, b in pairs[:EXAMPLES])
            remarks.append(
                f"{len(pairs)} test pictures look like one in {split} ({exact} with the same perceptual hash), such as "
                f"{examples}: figures on them are too high"
            )
    return remarks


def leaking_columns(train: FeatureDataset) -> dict[str, float]:
    """Numbers about the file that separate the training labels by themselves: column -> AUC."""
    table, y = metadata_features(train.rows), train.rows["label"]
    found = {}
    for i, name in enumerate(table.names if len(train) else ()):
        value = auc(y, table.values[:, i])
        if max(value, 1 - value) >= SUSPICIOUS:
            found[name.partition("/")[2]] = max(value, 1 - value)
    return found


def leaks(train: FeatureDataset, name: str) -> list[str]:
    return [
        f"{name}: {column} alone separates real from fake training faces with AUC {value:.3f}; a detector may learn "
        "that instead of faces"
        for column, value in leaking_columns(train).items()
    ]


def stratified_auc(y: np.ndarray, p: np.ndarray, column: np.ndarray) -> tuple[float, int]:
    """AUC over pairs of a real face and a fake in the same twentieth by `column`, and their number.

    AUC stratified by a covariate (Janes & Pepe, Biometrika 2009), pooled over pairs; NaN without.
    """
    edges = np.quantile(column, np.linspace(0, 1, STRATA + 1)[1:-1])
    stratum = np.searchsorted(edges, column, side="right")
    won, pairs = 0.0, 0
    for inside in (stratum == place for place in np.unique(stratum)):
        if count := int((y[inside] == 0).sum() * (y[inside] == 1).sum()):
            won, pairs = won + count * auc(y[inside], p[inside]), pairs + count
    return (won / pairs if pairs else float("nan")), pairs


def chance(values: Sequence[float]) -> dict[str, float]:
    """Mean AUC of several label permutations, and the 99% interval of that mean (Student's t).

    One fit does not do: a random direction in feature space may happen to separate the classes.
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
