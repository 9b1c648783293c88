"""The small classifiers that turn a row of consistency features into P(fake).

`logreg`, `mlp` and `xgboost` (models/classifiers.py); `oneclass` is trained on real faces only.
Missing values become the median of the real training faces, columns are standardised and clipped,
and the score is calibrated (Platt 1999) on faces that the head was not fitted on, for as many fakes
as real faces. Pretrained forgery logits can be added with a fixed weight: labels of one dataset also
teach what fails on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from models.classifiers import KINDS, MODELS, Model

PREFIX = "head."  # of the array names in a checkpoint
FRAME = ("median", "mean", "scale", "forgery_weight")  # the arrays that are not the model's
CLIP = 5.0  # standard deviations: no single column can decide alone
FOLDS = 5
MIN_HELD_OUT = 25  # validation faces of each class; with fewer, training groups are held out


@dataclass
class Head:
    """A fitted classifier with its standardisation and calibration."""

    kind: str
    median: np.ndarray  # (F,) float32, of the real training faces
    mean: np.ndarray
    scale: np.ndarray
    forgery_weight: np.ndarray  # what one standard deviation of a column adds to the score
    model: Model
    a: float  # calibration: logit = a * score + b
    b: float
    report: dict = field(default_factory=dict)  # how hyper-parameters and calibration were found

    def logit(self, x: np.ndarray) -> np.ndarray:
        """The score before calibration, (N,) float64. x: (N, F), NaN where missing."""
        if x.ndim != 2 or x.shape[1] != len(self.median):
            raise ValueError(
                f"features of shape {x.shape}; this head takes (N, {len(self.median)})"
            )
        z = self._standardised(x)
        return self.model.score(z).astype(np.float64) + z @ self.forgery_weight

    def p_fake(self, x: np.ndarray) -> np.ndarray:
        """Calibrated P(fake), (N,) float64; for `oneclass` the rank among real faces."""
        return expit(self.a * self.logit(x) + self.b)

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Root mean square of the standardised columns, (N,): about 1 for training faces."""
        return np.sqrt(np.square(self._standardised(x), dtype=np.float64).mean(1))

    def contributions(self, x: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each column adds to the calibrated logit, compared with a baseline face (F,).

        Returns: (N, F), positive towards fake, 0 where missing; and (N,) the rest: all of it sums
        to the logit of `p_fake`.
        """
        z, base = self._standardised(x), self._standardised(baseline[None])
        parts = self.model.parts(z, base[0]) + self.forgery_weight * (z - base)
        parts = np.where(np.isnan(x), 0.0, self.a * parts)
        return parts, self.a * self.logit(x) + self.b - parts.sum(1)

    def _standardised(self, x: np.ndarray) -> np.ndarray:
        return standardise(x, self.median, self.mean, self.scale)

    def state(self) -> dict[str, np.ndarray]:
        frame = {name: getattr(self, name) for name in FRAME}
        model = {f"model.{name}": np.asarray(value) for name, value in self.model.state().items()}
        return {PREFIX + name: value for name, value in (frame | model).items()}

    @classmethod
    def from_state(cls, info: Mapping, arrays: Mapping[str, np.ndarray]) -> Head:
        kind, begin = info["head"], f"{PREFIX}model."
        model, a, b = model_class(kind), info["calibration"]["a"], info["calibration"]["b"]
        fitted = {k.removeprefix(begin): v for k, v in arrays.items() if k.startswith(begin)}
        try:
            return cls(kind, *(arrays[PREFIX + name] for name in FRAME), model(**fitted), a, b)
        except (KeyError, TypeError) as error:
            raise ValueError(f"arrays not those of a {kind} head ({error})") from error


def model_class(kind: str) -> type[Model]:
    """Raises: ValueError that lists the valid kinds."""
    if kind not in MODELS:
        raise ValueError(f"unknown head {kind!r}; the heads are {', '.join(KINDS)}")
    return MODELS[kind]


def standardise(
    x: np.ndarray, median: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    x = np.where(np.isnan(x), median, x)
    return np.clip((x - mean) / scale, -CLIP, CLIP)


def balanced(y: np.ndarray) -> np.ndarray:
    """(N,) weights: each of the labels that are there weighs the same in all, 1 on average."""
    counts = np.bincount(y.astype(int), minlength=2)
    return (len(y) / np.count_nonzero(counts) / np.maximum(counts, 1))[y.astype(int)]


def calibrate(
    score: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, float]:
    """Platt scaling with his smoothed targets and a positive slope. Returns: a, b.

    weight: (N,), by default `balanced`: the probability is for as many fakes as real faces.
    """
    weight = balanced(y) if weight is None else weight
    weight = weight / weight.sum()
    fakes = (y == 1).sum()
    target = np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (len(y) - fakes + 2))
    centre, spread = score.mean(), score.std() or 1.0
    z = (score - centre) / spread

    def loss(ab: np.ndarray) -> tuple[float, np.ndarray]:
        logit = ab[0] * z + ab[1]
        error = expit(logit) - target
        value = weight @ (np.logaddexp(0, logit) - target * logit)
        return value, np.array([weight @ (error * z), weight @ error])

    bounds = [(1e-3, None), (None, None)]
    a, b = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(a / spread), float(b - a * centre / spread)


def calibrate_on_reals(score: np.ndarray) -> tuple[float, float]:
    """a, b such that expit(a * score + b) is about the rank among these real faces (quartiles)."""
    low, middle, high = np.percentile(score, [25, 50, 75])
    a = 2 * np.log(3) / max(high - low, 1e-9)
    return float(a), float(-a * middle)


def group_folds(y: np.ndarray, groups: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to FOLDS pairs of fitting and held-out rows, with whole groups and both classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(set(np.asarray(groups)[y == label])) for label in set(y))
    if fewest < 2:
        raise ValueError(
            "training needs at least 2 groups of each class; add videos or pictures, or validation "
            f"faces ({MIN_HELD_OUT} of each class), or correct the column `group` of index.csv"
        )
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
    found = [(a, b) for a, b in folds.split(y, y, groups) if len(b) and set(y[a]) == set(y)]
    if not found:
        raise ValueError("the training groups cannot be divided with both classes on both sides")
    return found


def fit_head(
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str],
    x_val: np.ndarray,
    y_val: np.ndarray,
    seed: int = 0,
    direction: np.ndarray | None = None,
    forgery_weight: np.ndarray | None = None,
) -> Head:
    """Fit a head; choose its hyper-parameters by log loss, and calibrate, on held-out faces.

    Held out are the validation faces (possibly none); with fewer than MIN_HELD_OUT of a class, folds
    of the training groups.

    Args:
        x: (N, F) float, NaN where missing; y: (N,) 0 real, 1 fake; groups: N names.
        direction: (F,) +1 where higher means less consistent, else -1; for `oneclass` only
            (default: all +1).
        forgery_weight: (F,) standard deviations of the model's score per standard deviation of the
            column, both among held-out real faces; not for `oneclass` (default: 0).

    Raises: ValueError: an unknown kind, a missing class, an empty column, too few groups.
    """
    model = model_class(kind)
    if model.real_only:
        real = y == 0
        x, y, groups = x[real], y[real], np.asarray(groups)[real]
        x_val, y_val = x_val[y_val == 0], y_val[y_val == 0]
    for label, word in enumerate(("real",) if model.real_only else ("real", "fake")):
        if label not in y:
            raise ValueError(f"no {word} face to train the head {kind} on")
    if empty := int(np.isnan(x[y == 0]).all(0).sum()):
        raise ValueError(f"{empty} columns have no value on any real training face")
    median = np.nanmedian(x[y == 0], axis=0).astype(np.float32)
    filled = np.where(np.isnan(x), median, x)
    mean, scale = filled.mean(0).astype(np.float32), filled.std(0).astype(np.float32)
    frame = [median, mean, np.where(scale > 1e-9, scale, np.float32(1))]
    on_val = all((y_val == label).sum() >= MIN_HELD_OUT for label in set(y))
    if on_val:
        splits = [(np.arange(len(y)), np.arange(len(y), len(y) + len(y_val)))]
        x, y = np.concatenate([x, x_val]), np.concatenate([y, y_val])
    else:
        splits = group_folds(y, groups)
    z = standardise(x, *frame)
    held_out = np.concatenate([rows for _, rows in splits])
    signs = np.ones(x.shape[1]) if direction is None else direction
    fit, tried = partial(model.fit, direction=signs) if model.real_only else model.fit, []
    for choice in model.choices:
        fits = [fit(z[a], y[a], seed, (z[b], y[b]), **choice) for a, b in splits]
        scores = [fitted.score(z[b]) for fitted, (_, b) in zip(fits, splits, strict=True)]
        score = np.concatenate(scores).astype(np.float64)
        a, b = calibrate_on_reals(score) if model.real_only else calibrate(score, y[held_out])
        logit = a * score + b
        losses = np.logaddexp(0, logit) - y[held_out] * logit
        loss = float((balanced(y[held_out]) * losses).mean())
        tried.append((loss, choice, a, b, fits, score))
    _, choice, a, b, fits, score = min(tried, key=lambda entry: entry[0])
    added = np.zeros(x.shape[1], np.float32)
    if forgery_weight is not None and forgery_weight.any() and not model.real_only:
        reals = y[held_out] == 0
        deviations = np.maximum(z[held_out][reals].std(0), 1e-6)
        added = (forgery_weight * score[reals].std() / deviations).astype(np.float32)
        a, b = calibrate(score + z[held_out] @ added, y[held_out])
    rounds = int(np.median([fitted.rounds for fitted in fits]))
    fitted = fits[0] if on_val else fit(z, y, seed, rounds, **choice)
    losses = {str(entry[1]): round(entry[0], 5) for entry in tried}
    report = {
        "chosen": choice,
        "rounds": fitted.rounds,
        "log_loss": None if model.real_only else losses,
        "held_out": "validation split" if on_val else f"{len(splits)} folds of training groups",
        "held_out_faces": len(held_out),
        "calibration": "rank among real faces" if model.real_only else "Platt",
    }
    return Head(kind, *frame, added, fitted, a, b, report)
