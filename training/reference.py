"""Fit what the likeness of a face to photographs of a person means: checkpoints/reference.json.

    python -m training.swaps PEOPLE --out outputs/swaps --teachers DIR
    python preprocessing_pipeline.py --data-root outputs/swaps --experts lite traces person head
    python -m training.reference --out mine.json

The bundled files, without `lite`, which has learned from some of the people of `val`:
    python -m training.reference --features outputs/features/people/reference \\
        --outputs person.identity head.likeness --out checkpoints/reference.json
    python -m training.reference --features outputs/features/people/reference \\
        --outputs person.identity --out checkpoints/reference_lite.json

The dump has genuine pictures of people, and swaps between them (docs/reference.md). Everything is fitted
on its people of the split `val`, whom no network has learned from: weights, threshold and the limits of
ranks by cross-validation over people. `test` is never read. `evaluate.py --protocols reference` measures.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from command_line import run
from data.claims import GENUINE, OTHER, Claims, claims_of
from data.dump import newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from evaluation.metrics import threshold_at_fpr
from features.reference import PATTERNS, identities, names_of
from inference.comparison import QUANTILES, REFERENCE, Comparison, Fit, similarities_of

log = logging.getLogger("masc")
COUNTS = (1, 2, 3, 4, 6, 8)  # photographs, each with a fit where there are enough claims
MIN_CLAIMS = 50  # of each kind
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # C of the regression
FOLDS = 5
FPR = 0.05
# Genuine portraits of 250 to 1,350 px reach a sharpness of 4,700; strong noise begins at 6,400.
LIMITS = {"face_px": 32.0, "sharpness": 5.0, "noise": 6000.0, "yaw": 45.0, "seen": 0.5}
DRAWS, SURE = 500, 0.8  # of people, in which so often the threshold keeps what it promises
CLEARED = 0.1  # of the conflicts are called consistent at most, unless the threshold is lower
# Shares of the kinds of claims that probabilities are for: genuine, and each way not to be.
PRIOR = np.array([0.5, 1 / 6, 1 / 6, 1 / 6])


@dataclass(frozen=True)
class Config:
    features: tuple[Path, ...] = ()
    """Dumps of genuine pictures and swaps (default: the newest)."""
    outputs: tuple[str, ...] = ()
    """What is compared (default: all that tells people apart)."""
    fpr: float = FPR
    """Share of genuine pictures that may be called a conflict."""
    out: Path = REFERENCE
    """The file to write."""


def weights_of(kind: np.ndarray) -> np.ndarray:
    """(M,) weights that give every kind its share of `PRIOR`, on average 1."""
    count = np.bincount(kind, minlength=len(PRIOR))
    return (PRIOR / np.maximum(count, 1))[kind] * len(kind)


def fit(
    similarities: np.ndarray, claims: Claims, groups: np.ndarray, fpr: float
) -> tuple[Fit, dict]:
    """One `Fit`, and figures of it by cross-validation over people.

    similarities: (M, F); groups: (M,) the person whose picture it is.
    """
    kind, folds = claims.kind, GroupKFold(FOLDS)
    weight = weights_of(kind)

    def held_out(penalty: float) -> np.ndarray:
        steps = StandardScaler(), LogisticRegression(C=penalty, max_iter=5000)
        weighted = {"logisticregression__sample_weight": weight}
        return cross_val_predict(
            make_pipeline(*steps),
            similarities,
            kind,
            groups=groups,
            cv=folds,
            method="predict_proba",
            params=weighted,
        )

    tried = {penalty: held_out(penalty) for penalty in PENALTIES}
    losses = {penalty: log_loss(kind, p, sample_weight=weight) for penalty, p in tried.items()}
    best = min(losses, key=losses.get)
    conflict, genuine = 1 - tried[best][:, GENUINE], kind == GENUINE
    threshold = safe_threshold(conflict[genuine], groups[genuine], fpr)
    share = weight[~genuine] / weight[~genuine].sum()
    order = np.argsort(conflict[~genuine])
    place = np.searchsorted(np.cumsum(share[order]), CLEARED)
    clear = min(float(conflict[~genuine][order[place]]), threshold)
    scaler = StandardScaler().fit(similarities)
    model = LogisticRegression(C=best, max_iter=5000)
    model.fit(scaler.transform(similarities), kind, sample_weight=weight)
    tables = [
        np.quantile(similarities[kind == each], QUANTILES, axis=0).round(4)
        for each in (GENUINE, OTHER)
    ]
    found = Fit(
        scaler.mean_, scaler.scale_, model.coef_, model.intercept_, float(threshold), clear, *tables
    )
    named = np.array([found.pattern(each) for each in tried[best]])
    right = {
        name: float((named[kind == place] == name).mean()) for place, name in enumerate(PATTERNS)
    }
    counts = np.bincount(kind, minlength=len(PATTERNS)).tolist()
    return found, {
        "claims": dict(zip(PATTERNS, counts, strict=True)),
        "people": len(set(groups)),
        "penalty": best,
        "log_loss": round(losses[best], 4),
        "named_rightly": {name: round(value, 3) for name, value in right.items()},
    }


def safe_threshold(conflict: np.ndarray, people: np.ndarray, fpr: float) -> float:
    """A threshold that so few genuine pictures reach in four of five draws of other people, with
    replacement; that of these people alone is too low as often as too high. conflict, people: (N,).
    """
    rng, names = np.random.default_rng(0), np.unique(people, return_inverse=True)[1]
    of = [np.flatnonzero(names == number) for number in range(names.max() + 1)]
    found = []
    for _ in range(DRAWS):
        drawn = np.concatenate([of[number] for number in rng.integers(len(of), size=len(of))])
        found.append(min(1.0, threshold_at_fpr(conflict[drawn], fpr)))
    return float(np.quantile(found, SURE))


def fits_of(
    faces: FeatureDataset, outputs: Sequence[str], fpr: float
) -> tuple[list[str], dict[int, Fit], dict[str, dict]]:
    """The columns, and a fit for each number of photographs that enough claims have.

    faces: of the split `val`; outputs: that may count. Columns of regions that an expert does not look
    at are left out.
    """
    claims, fits, about, columns = claims_of(faces.rows), {}, {}, names_of(outputs)
    for count in COUNTS:
        chosen = claims.with_photographs(count)
        of_kind = np.bincount(chosen.kind, minlength=len(PATTERNS))
        if of_kind.min() < MIN_CLAIMS:
            if count == 1:
                told = ", ".join(f"{n} {name}" for n, name in zip(of_kind, PATTERNS, strict=True))
                raise ValueError(
                    f"the split val has too few claims ({told}; {MIN_CLAIMS} of each are needed); "
                    "make a dataset of swaps with `python -m training.swaps`"
                )
            break
        values = similarities_of(chosen, outputs, faces.arrays)
        if count == 1:
            seen = np.isfinite(values).any(0)
            columns = [name for name, one in zip(columns, seen, strict=True) if one]
        values = values[:, seen]
        known = np.isfinite(values).all(1)
        chosen, values = chosen.select(known), values[known]
        fits[count], about[str(count)] = fit(values, chosen, faces.rows["group"][chosen.row], fpr)
        log.info("%d photographs: %s", count, about[str(count)])
    return columns, fits, about


def main(config: Config) -> Path:
    if not 0 < config.fpr < 1:
        raise ValueError(f"--fpr lies between 0 and 1 (given: {config.fpr})")
    dumps = [read_dump(path) for path in config.features or (newest_dump(),)]
    faces, meta = join_dumps(dumps).split("val"), dumps[0].meta
    known = identities(meta["outputs"])
    if unknown := sorted(set(config.outputs) - set(known)):
        raise ValueError(f"{', '.join(unknown)}: no identity embedding of it; it has {known}")
    outputs = config.outputs or tuple(known)
    if not outputs:
        raise ValueError("the dump has no output that tells people apart; add --experts person")
    columns, fits, about = fits_of(faces, outputs, config.fpr)
    experts = {name.partition(".")[0] for name in outputs}
    weights = {name: sha256 for name, sha256 in meta["weights"].items() if name in experts}
    datasets = sorted({dump.meta["dataset"] for dump in dumps})
    precision = meta["config"].get("precision", "float32")
    about |= {"datasets": datasets, "fpr": config.fpr, "precision": precision}
    Comparison(tuple(columns), weights, fits, LIMITS, about).save(config.out)
    print(f"written: {config.out}")
    return config.out


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.reference"))
