"""What is compared: ways of learning P(fake) from training faces, all with the same interface.

A `System` fits on `train`, chooses, calibrates and sets its threshold on `val`, and then scores any faces. Nothing in here
sees a test split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace

import numpy as np
from threadpoolctl import threadpool_limits

from data.feature_dataset import FeatureDataset
from evaluation.metrics import threshold_at_fpr
from features.baselines import metadata_features, plain_features
from features.columns import FAMILIES, FeatureTable, groups_of
from features.regions import REGIONS
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from models.heads import fit_head
from training.detector import Settings, fit

MASC, METADATA = "MASC", "metadata"
REALS_ONLY = f"{MASC}, real faces only"
ZERO_SHOT = "no fake seen"  # how the names of an expert's own evidence end


def without_fakes(system: str) -> bool:
    """Whether a system of that name learns from real faces alone."""
    return system == REALS_ONLY or system.endswith(ZERO_SHOT)


@dataclass
class Fitted:
    """A system after training. p_fake: faces -> (N,) float64, NaN for a face that it cannot score. notes: what to know."""

    p_fake: Callable[[FeatureDataset], np.ndarray]
    threshold: float
    notes: list[str] = field(default_factory=list)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class System:
    """kind: masc, ablation or baseline. fit(train, val) raises ValueError where it cannot learn from these faces."""

    name: str
    kind: str
    fit: Callable[[FeatureDataset, FeatureDataset], Fitted]


def of_checkpoint(checkpoint: Checkpoint, notes: list[str] | None = None) -> Fitted:
    """A detector as it is."""
    scorer = Scorer(checkpoint)
    return Fitted(
        lambda faces: scorer.score(faces.arrays)[1], scorer.threshold, notes or [], checkpoint
    )


def consistency(name: str, kind: str, outputs: Mapping, config: Settings) -> System:
    """What train.py fits with these settings."""

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        notes: list[str] = []
        with (
            redirect_stdout(None),
            threadpool_limits(1, "blas"),
        ):  # matrices are small: more threads only wait
            checkpoint, _ = fit(train, val, outputs, config, notes)
        return of_checkpoint(checkpoint, notes)

    return System(name, kind, learn)


def tabular(
    name: str, head: str, features: Callable[[FeatureDataset], FeatureTable], config: Settings
) -> System:
    """A head on columns that are no consistency features."""

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        x, x_val = features(train).values, features(val).values
        labels = val.rows["label"]
        with threadpool_limits(1, "blas"):
            fitted = fit_head(
                head, x, train.rows["label"], train.rows["group"], x_val, labels, config.seed
            )

        def p_fake(faces: FeatureDataset) -> np.ndarray:
            values = features(faces).values
            return np.where(np.isnan(values).all(1), np.nan, fitted.p_fake(values))

        return Fitted(p_fake, threshold_at_fpr(p_fake(val)[labels == 0], config.fpr))

    return System(name, "baseline", learn)


def whole_face(output: str) -> Callable[[FeatureDataset], FeatureTable]:
    """One embedding of the whole face, at unit length; NaN where there is no answer."""

    def features(faces: FeatureDataset) -> FeatureTable:
        values = faces.arrays[output][:, REGIONS.index("full")].astype(np.float32)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units = np.divide(values, lengths, out=np.full_like(values, np.nan), where=lengths > 0)
        return FeatureTable([f"{output}/{i}" for i in range(values.shape[1])], units)

    return features


def permuted(system: System, seed: int) -> System:
    """The same, given the labels of training and validation faces dealt out anew (`dealt`): there is nothing to learn."""

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        rng = np.random.default_rng(seed)
        mixed = [
            FeatureDataset(f.arrays, {**f.rows, "label": permute_labels(f.rows["label"], rng)})
            for f in (train, val)
        ]
        return system.fit(*mixed)

    return System(f"{system.name}, permutation {seed}", "sanity", learn)


def permute_labels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random labels that say nothing of the true ones: the same share of each class is called fake.

    A plain permutation of a few thousand labels correlates with the truth by about .02 by chance, and a strong column makes
    .44 or .56 of that. labels: (N,) 0 or 1. Returns: the same.
    """
    found, share = np.zeros_like(labels), labels.mean()
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        found[rows[: round(share * len(rows))]] = 1
    return found


def baselines(outputs: Mapping[str, Mapping], config: Settings) -> list[System]:
    """What needs no pictures: the first design's columns, each embedding by itself, and what is no face at all."""
    systems = [
        tabular("first 16 columns", config.head, lambda faces: plain_features(faces.arrays), config)
    ]
    for name, output in outputs.items():
        if output["kind"] == "embedding":
            systems.append(tabular(f"{name}, whole face", "logreg", whole_face(name), config))
    return [
        *systems,
        tabular(METADATA, "xgboost", lambda faces: metadata_features(faces.rows), config),
    ]


def ablations(outputs: Mapping[str, Mapping], config: Settings) -> list[System]:
    """MASC with less: real faces alone, only what labels teach, raw or expected columns alone, an expert's own evidence alone,
    without and with only each family of experts."""
    there = [
        name for name in FAMILIES if any(name in groups_of(f"{output}/") for output in outputs)
    ]
    changes = {
        REALS_ONLY: replace(config, one_class=True),
        f"{MASC}, raw columns only": replace(config, only=("raw",)),
        f"{MASC}, expected columns only": replace(config, only=("expected",)),
    }
    forgery_weight = [name for name, output in outputs.items() if output["kind"] == "forgery_logit"]
    if forgery_weight and config.forgery_weight and not config.one_class:
        changes[f"{MASC}, only what labels teach"] = replace(config, forgery_weight=0.0)
    for name in forgery_weight:
        changes[f"{name}, whole face, {ZERO_SHOT}"] = replace(
            config, one_class=True, drop=(), only=(f"{name}/level/full",)
        )
    for family in there if len(there) > 1 else ():
        changes[f"{MASC}, without {family}"] = replace(config, drop=(*config.drop, family))
        changes[f"{MASC}, only {family}"] = replace(config, only=(family,))
    return [consistency(name, "ablation", outputs, changed) for name, changed in changes.items()]
