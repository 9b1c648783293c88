"""The systems that are compared: ways of learning P(fake), all with one interface.

A `System` fits on `train`, chooses, calibrates and sets its threshold on `val`. No test split is
seen here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from data.feature_dataset import FeatureDataset
from evaluation.metrics import threshold_at_fpr
from features.baselines import metadata_features, plain_features
from features.columns import FAMILIES, FeatureTable, groups_of, raw_features, select
from features.expectations import expected_names
from features.regions import REGIONS
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from models.heads import fit_head
from training.detector import WEIGHTS, Settings, fit

MASC, METADATA = "MASC", "metadata"
HEAD_ALONE = dict.fromkeys(WEIGHTS, 0.0)
# Kinds of systems. Zero-shot ones are fitted to real faces only.
ENSEMBLE, ZERO_SHOT, ABLATION, BASELINE = "masc", "zero-shot", "ablation", "baseline"


@dataclass
class Fitted:
    """A system after training.

    Attributes:
        p_fake: faces -> (N,) float64, NaN for a face that it cannot score.
        threshold: p_fake from which a face is called fake.
        checkpoint: of MASC and its ablations.
    """

    p_fake: Callable[[FeatureDataset], np.ndarray]
    threshold: float
    notes: list[str] = field(default_factory=list)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class System:
    """kind: masc, zero-shot, ablation or baseline. fit(train, val) may raise ValueError.

    degraded: whether it is measured on degraded pictures, too.
    """

    name: str
    kind: str
    fit: Callable[[FeatureDataset, FeatureDataset], Fitted]
    degraded: bool = True


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress of single fits: there are hundreds of them below one bar."""
    log = logging.getLogger("masc")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def of_checkpoint(checkpoint: Checkpoint, notes: Sequence[str] = ()) -> Fitted:
    scorer = Scorer(checkpoint)

    def p_fake(faces: FeatureDataset) -> np.ndarray:
        return scorer.score(faces.arrays)[1]

    return Fitted(p_fake, scorer.threshold, [*notes], checkpoint)


def detector(name: str, kind: str, outputs: Mapping, settings: Settings) -> System:
    """The detector that train.py fits with these settings."""

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        notes: list[str] = []
        with quiet(), threadpool_limits(1, "blas"):  # small matrices: more threads only wait
            checkpoint, _ = fit(train, val, outputs, settings, notes)
        return of_checkpoint(checkpoint, notes)

    return System(name, kind, learn)


def classifier(
    name: str, head: str, features: Callable[[FeatureDataset], FeatureTable], settings: Settings
) -> System:
    """A head on columns that are no consistency features."""

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        x, x_val = features(train).values, features(val).values
        y, groups, y_val = train.rows["label"], train.rows["group"], val.rows["label"]
        with threadpool_limits(1, "blas"):
            fitted = fit_head(head, x, y, groups, x_val, y_val, settings.seed)

        def p_fake(faces: FeatureDataset) -> np.ndarray:
            values = features(faces).values
            return np.where(np.isnan(values).all(1), np.nan, fitted.p_fake(values))

        return Fitted(p_fake, threshold_at_fpr(p_fake(val)[y_val == 0], settings.fpr))

    return System(name, BASELINE, learn)


def whole_face(output: str) -> Callable[[FeatureDataset], FeatureTable]:
    """One embedding of the whole face at unit length; NaN where it is missing."""

    def features(faces: FeatureDataset) -> FeatureTable:
        values = faces.arrays[output][:, REGIONS.index("full")].astype(np.float32)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units = np.divide(values, lengths, out=np.full_like(values, np.nan), where=lengths > 0)
        return FeatureTable([f"{output}/{i}" for i in range(values.shape[1])], units)

    return features


def baselines(outputs: Mapping[str, Mapping], settings: Settings) -> list[System]:
    """Baselines without pictures: the first 16 columns, embeddings of the face, metadata."""
    kinds = {"first 16 columns": (settings.head, lambda faces: plain_features(faces.arrays))}
    for name, output in outputs.items():
        if output["kind"] == "embedding":
            kinds[f"{name}, whole face"] = ("logreg", whole_face(name))
    kinds[METADATA] = ("xgboost", lambda faces: metadata_features(faces.rows))
    return [classifier(name, *kind, settings) for name, kind in kinds.items()]


def for_left_out(outputs: Mapping[str, Mapping], settings: Settings) -> list[System]:
    """What MASC is compared with where kinds of fakes and datasets are left out of training.

    Metadata; consistency without what single regions look like and without the network for traces;
    CLIP's embedding of the face, and the head on CLIP's blocks, where the dumps have them.
    """
    probes = {METADATA, *(f"{name}, whole face" for name in outputs if name == "clip.embedding")}
    found = [system for system in baselines(outputs, settings) if system.name in probes]
    looks = tuple(x for x in ("appearance", "traces") if x in families_of(outputs))
    less = replace(settings, drop=(*settings.drop, *looks), only=(), **HEAD_ALONE)
    found.append(detector("consistency alone", ABLATION, outputs, less))
    for name in (name for name in outputs if name.rpartition(".")[2] in FAMILIES["appearance"]):
        alone = replace(settings, drop=(), only=(f"{name}/level/full",), head="logreg")
        found.append(detector(f"{name} alone", BASELINE, outputs, alone))
    return found


def permuted_baseline(outputs: Mapping[str, Mapping], settings: Settings) -> System:
    """MASC for permuted labels: the forgery logit needs no labels and would beat chance."""
    settings = replace(settings, **HEAD_ALONE)
    return detector(f"{MASC}, without the forgery logit", ENSEMBLE, outputs, settings)


def ablations(
    outputs: Mapping[str, Mapping],
    settings: Settings,
    which: str = "families",
    families: tuple[str, ...] | None = None,
) -> list[System]:
    """MASC with less: fewer columns, no fakes to train on, or without the forgery logit.

    Args:
        which: "families" (without each, only each, ...), "subsets" (every subset of the families)
            or "none".
        families: of experts; None is all that the outputs belong to.
    """
    families = families_of(outputs) if families is None else families
    found: list[tuple[str, str, Settings]] = []

    def add(name: str, kind: str = ABLATION, **changed: object) -> None:
        found.append((name, kind, replace(settings, **changed)))

    if which == "subsets":
        for size in range(len(families)):
            for subset in combinations(families, size + 1):
                add(f"{MASC}, only {' + '.join(subset)}", only=subset)
    if which == "families":
        add(f"{MASC}, real faces only (zero-shot)", ZERO_SHOT, one_class=True)
        add(f"{MASC}, raw columns only", only=("raw",))
        add(f"{MASC}, expected columns only", only=("expected",))
        logits = [name for name, output in outputs.items() if output["kind"] == "forgery_logit"]
        looks = [families_of([name]) == ("appearance",) for name in logits]
        weighed = any((settings.forgery_weight, settings.appearance_weight)[x] for x in looks)
        if weighed and not settings.one_class:
            add(f"{MASC}, without the forgery logit", **HEAD_ALONE)
        for name in logits:
            alone = {"one_class": True, "drop": (), "only": (f"{name}/level/full",)}
            seen = "pretrained" if families_of([name]) == ("appearance",) else "zero-shot"
            add(f"{name}, whole face ({seen})", ZERO_SHOT, **alone)
        for family in families if len(families) > 1 else ():
            add(f"{MASC}, without {family}", drop=(*settings.drop, family))
            add(f"{MASC}, only {family}", only=(family,))
    return [detector(name, kind, outputs, changed) for name, kind, changed in found]


def families_of(outputs: Iterable[str]) -> tuple[str, ...]:
    """Families of experts (features/columns.py) that the outputs belong to."""
    found = {group for name in outputs for group in groups_of(f"{name}/")}
    return tuple(family for family in FAMILIES if family in found)


def columns_of(faces: FeatureDataset, outputs: Iterable[str]) -> list[str]:
    raw = raw_features({name: value[:1] for name, value in faces.arrays.items()}, outputs).names
    return [*raw, *expected_names(outputs)]


def usable_outputs(
    faces: FeatureDataset, outputs: Iterable[str], drop: tuple[str, ...]
) -> list[str]:
    """Outputs with a column that `drop` leaves and a value on a real face."""
    real = faces.rows["label"] == 0
    kept = {name.partition("/")[0] for name in select(columns_of(faces, outputs), drop)}
    known = [x for x in outputs if x in kept and np.isfinite(faces.arrays[x][real]).any()]
    if not families_of(known):
        raise ValueError(
            f"no column of {', '.join(FAMILIES)} is left; the dumps have {', '.join(outputs)}"
        )
    return known
