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

from data.gathered import Faces
from features.baselines import plain_features, trivial_features
from features.regions import REGIONS
from features.vector import FAMILIES, FeatureTable, groups_of
from models.checkpoint import Checkpoint
from models.heads import fit_head
from models.metrics import threshold_at_fpr
from train import Config, fit, score

MASC, TRIVIAL = "MASC", "trivial"
REALS_ONLY = f"{MASC}, real faces only"
NO_FAKE = "no fake seen"  # how the names of an expert's own evidence end


def without_fakes(system: str) -> bool:
    """Whether a system of that name learns from real faces alone."""
    return system == REALS_ONLY or system.endswith(NO_FAKE)


@dataclass
class Fitted:
    """A system after training. p_fake: faces -> (N,) float64, NaN for a face that it cannot score. notes: what to know."""

    p_fake: Callable[[Faces], np.ndarray]
    threshold: float
    notes: list[str] = field(default_factory=list)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class System:
    """kind: masc, ablation or baseline. fit(train, val) raises ValueError where it cannot learn from these faces."""

    name: str
    kind: str
    fit: Callable[[Faces, Faces], Fitted]


def of_checkpoint(checkpoint: Checkpoint, notes: list[str] | None = None) -> Fitted:
    """A detector as it is."""
    threshold = checkpoint.info["threshold"]["p_fake"]
    return Fitted(lambda faces: score(checkpoint, faces.arrays)[1], threshold, notes or [], checkpoint)


def consistency(name: str, kind: str, outputs: Mapping, config: Config) -> System:
    """What train.py fits with these settings."""

    def learn(train: Faces, val: Faces) -> Fitted:
        notes: list[str] = []
        with redirect_stdout(None), threadpool_limits(1, "blas"):  # matrices are small: more threads only wait
            checkpoint, _ = fit(train, val, outputs, config, notes)
        return of_checkpoint(checkpoint, notes)

    return System(name, kind, learn)


def tabular(name: str, head: str, features: Callable[[Faces], FeatureTable], config: Config) -> System:
    """A head on columns that are no consistency features."""

    def learn(train: Faces, val: Faces) -> Fitted:
        x, x_val = features(train).values, features(val).values
        labels = val.rows["label"]
        with threadpool_limits(1, "blas"):
            fitted = fit_head(head, x, train.rows["label"], train.rows["group"], x_val, labels, config.seed)

        def p_fake(faces: Faces) -> np.ndarray:
            values = features(faces).values
            return np.where(np.isnan(values).all(1), np.nan, fitted.p_fake(values))

        return Fitted(p_fake, threshold_at_fpr(p_fake(val)[labels == 0], config.fpr))

    return System(name, "baseline", learn)


def whole_face(output: str) -> Callable[[Faces], FeatureTable]:
    """One embedding of the whole face, at unit length; NaN where there is no answer."""

    def features(faces: Faces) -> FeatureTable:
        values = faces.arrays[output][:, REGIONS.index("full")].astype(np.float32)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units = np.divide(values, lengths, out=np.full_like(values, np.nan), where=lengths > 0)
        return FeatureTable([f"{output}/{i}" for i in range(values.shape[1])], units)

    return features


def permuted(system: System, seed: int) -> System:
    """The same, given the labels of training and validation faces dealt out anew (`dealt`): there is nothing to learn."""

    def learn(train: Faces, val: Faces) -> Fitted:
        rng = np.random.default_rng(seed)
        mixed = [Faces(f.arrays, {**f.rows, "label": dealt(f.rows["label"], rng)}) for f in (train, val)]
        return system.fit(*mixed)

    return System(f"{system.name}, permutation {seed}", "sanity", learn)


def dealt(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random labels that say nothing of the true ones: the same share of each class is called fake.

    A plain permutation of a few thousand labels correlates with the truth by about .02 by chance, and a strong column makes
    .44 or .56 of that. labels: (N,) 0 or 1. Returns: the same.
    """
    found, share = np.zeros_like(labels), labels.mean()
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        found[rows[: round(share * len(rows))]] = 1
    return found


def baselines(outputs: Mapping[str, Mapping], config: Config) -> list[System]:
    """What needs no pictures: the first design's columns, each embedding by itself, and what is no face at all."""
    systems = [tabular("first 16 columns", config.head, lambda faces: plain_features(faces.arrays), config)]
    for name, output in outputs.items():
        if output["kind"] == "embedding":
            systems.append(tabular(f"{name}, whole face", "logreg", whole_face(name), config))
    return [*systems, tabular(TRIVIAL, "xgboost", lambda faces: trivial_features(faces.rows), config)]


def ablations(outputs: Mapping[str, Mapping], config: Config) -> list[System]:
    """MASC with less: real faces alone, only what labels teach, raw or expected columns alone, an expert's own evidence alone,
    without and with only each family of experts."""
    there = [name for name in FAMILIES if any(name in groups_of(f"{output}/") for output in outputs)]
    changes = {
        REALS_ONLY: replace(config, one_class=True),
        f"{MASC}, raw columns only": replace(config, only=("raw",)),
        f"{MASC}, expected columns only": replace(config, only=("expected",)),
    }
    evidence = [name for name, output in outputs.items() if output["kind"] == "evidence"]
    if evidence and config.evidence and not config.one_class:
        changes[f"{MASC}, only what labels teach"] = replace(config, evidence=0.0)
    for name in evidence:
        changes[f"{name}, whole face, {NO_FAKE}"] = replace(
            config, one_class=True, drop=(), only=(f"{name}/level/full",)
        )
    for family in there if len(there) > 1 else ():
        changes[f"{MASC}, without {family}"] = replace(config, drop=(*config.drop, family))
        changes[f"{MASC}, only {family}"] = replace(config, only=(family,))
    return [consistency(name, "ablation", outputs, changed) for name, changed in changes.items()]
