"""The small classifiers that turn a row of consistency features into P(fake).

`logreg` is linear, with a strong L2 penalty; `mlp` has one hidden layer; `xgboost` is boosted trees; `oneclass` sees real
faces only and says how much less consistent than they a face is on the whole. All share one frame, `Head`: missing values
become the median of the real training faces, columns are standardised and clipped, and the score is calibrated (Platt 1999)
on faces that the head was not fitted on. Hyper-parameters are chosen on those same faces: the validation split, or held-out
groups of the training split. Beside what labels teach, columns that are evidence by themselves may count with a fixed weight
(`forgery_logit`): labels of one dataset also teach what does not hold on the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from models.classifiers import CHOICES, KINDS, MODELS, Model

PREFIX = "head."  # of the array names in a checkpoint
FRAME = ("median", "mean", "scale", "forgery_weight")  # of the arrays, what is not the model's
CLIP = 5.0  # standard deviations: no single column can decide alone
FOLDS = 5
MIN_HELD_OUT = 25  # faces of each class; a smaller validation split decides nothing, held-out training groups do


@dataclass
class Head:
    """A fitted classifier with its frame.

    median, mean, scale: (F,) float32, of the training faces (median: of the real ones). evidence: (F,) float32, what a standard
    deviation of a column adds to the model's score. a, b: calibration, logit = a x score + b. report: how hyper-parameters and
    calibration were found, JSON-ready.
    """

    kind: str
    median: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    forgery_weight: np.ndarray
    model: Model
    a: float
    b: float
    report: dict = field(default_factory=dict)

    def logit(self, x: np.ndarray) -> np.ndarray:
        """The score before calibration. x: (N, F), NaN where missing. Returns: (N,) float64, higher is more fake.

        Raises: ValueError for another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.median):
            raise ValueError(
                f"features of shape {x.shape}; this head takes (N, {len(self.median)})"
            )
        z = _standardise(x, self.median, self.mean, self.scale)
        return self.model.score(z).astype(np.float64) + z @ self.forgery_weight

    def p_fake(self, x: np.ndarray) -> np.ndarray:
        """Calibrated P(fake), (N,) float64; of `oneclass` the share of real faces that are less unusual: it saw no fake."""
        return expit(self.a * self.logit(x) + self.b)

    def distance(self, x: np.ndarray) -> np.ndarray:
        """How far faces lie from those of training: root mean square of the standardised columns, each at most CLIP.

        x: (N, F). Returns: (N,) float64, about 1 for training faces.
        """
        return np.sqrt(
            np.square(_standardise(x, self.median, self.mean, self.scale), dtype=np.float64).mean(1)
        )

    def contributions(self, x: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each column adds to the calibrated logit, beside that of a face that is usual in all of them.

        Exact for `logreg` and `oneclass`; integrated gradients for `mlp`, TreeSHAP for `xgboost` (models/classifiers.py).
        x: (N, F); baseline: (F,), say the median of real faces. Returns: (N, F), positive towards fake, 0 where missing; and
        (N,), what is left: all of it sums to the logit of `p_fake`.
        """
        z, base = (
            _standardise(rows, self.median, self.mean, self.scale) for rows in (x, baseline[None])
        )
        parts = self.model.parts(z, base[0]) + self.forgery_weight * (z - base)
        parts = np.where(np.isnan(x), 0.0, self.a * parts)
        return parts, self.a * self.logit(x) + self.b - parts.sum(1)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint, names beginning with `head.`; `kind`, `a` and `b` are for its description."""
        frame = {name: getattr(self, name) for name in FRAME}
        model = {f"model.{name}": np.asarray(value) for name, value in self.model.state().items()}
        return {PREFIX + name: value for name, value in (frame | model).items()}

    @classmethod
    def from_state(cls, info: Mapping, arrays: Mapping[str, np.ndarray]) -> Head:
        """From a checkpoint: info holds `head` (the kind) and `calibration` {"a", "b"}, arrays what `state` gave.

        Raises: ValueError for an unknown kind or arrays of another one.
        """
        kind, calibration = info["head"], info["calibration"]
        if kind not in MODELS:
            raise ValueError(f"unknown head {kind!r}; the heads are {', '.join(KINDS)}")
        state = {
            name.removeprefix(PREFIX): value
            for name, value in arrays.items()
            if name.startswith(PREFIX)
        }
        try:
            frame = [state.pop(name) for name in FRAME]
            model = MODELS[kind](
                **{name.removeprefix("model."): value for name, value in state.items()}
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"these arrays are not those of a {kind} head ({error}); train again"
            ) from error
        return cls(kind, *frame, model, calibration["a"], calibration["b"])


def _standardise(
    x: np.ndarray, median: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    x = np.where(np.isnan(x), median, x)
    return np.clip((x - mean) / scale, -CLIP, CLIP)


def calibrate(score: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Platt scaling with his smoothed targets; the slope stays positive. score, y: (N,), both classes. Returns: a, b."""
    fakes = (y == 1).sum()
    target = np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (len(y) - fakes + 2))
    centre, spread = score.mean(), score.std() or 1.0
    z = (score - centre) / spread

    def loss(ab: np.ndarray) -> tuple[float, np.ndarray]:
        logit = ab[0] * z + ab[1]
        slope = expit(logit) - target
        return (np.logaddexp(0, logit) - target * logit).mean(), np.array(
            [(slope * z).mean(), slope.mean()]
        )

    a, b = minimize(
        loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)]
    ).x
    return float(a / spread), float(b - a * centre / spread)


def _rank(score: np.ndarray) -> tuple[float, float]:
    """a, b such that expit(a x score + b) is about the share of these real faces that score lower (logistic quartiles)."""
    low, middle, high = np.percentile(score, [25, 50, 75])
    a = 2 * np.log(3) / max(high - low, 1e-9)
    return float(a), float(-a * middle)


def _splits(
    y: np.ndarray, groups: Sequence[str], one_class: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to FOLDS (fitting rows, held-out rows), no group on both sides and every class on the fitting side.

    Raises: ValueError where the groups are too few for that.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(
        len(set(np.asarray(groups)[y == label])) for label in ((0,) if one_class else (0, 1))
    )
    if fewest < 2:
        raise ValueError(
            "the training split needs at least 2 groups of each class; add source videos or pictures"
        )
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=0).split(
        y, y, groups
    )
    splits = [(a, b) for a, b in folds if len(b) and len(set(y[a])) == len(set(y))]
    if not splits:
        raise ValueError(
            "the groups of the training split cannot be divided so that both classes are on both sides"
        )
    return splits


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
    """Fit a head, choose its hyper-parameters by the log loss of faces it was not fitted on, and calibrate it on them.

    Those are the validation faces; where they are fewer than MIN_HELD_OUT of a class, the training faces, each scored by a
    fit without its group's fold. `oneclass` leaves fakes out of everything.

    x: (N, F) float, NaN where missing; y: (N,) 0 real, 1 fake; groups: N names; x_val, y_val: the validation split, which
    may be empty; direction: (F,) +1 where more of a column is less consistent, else -1 (`oneclass` alone asks; None: all +1);
    evidence: (F,) how much each column counts by itself: so many standard deviations of the model's score per standard
    deviation of the column, both among real faces that it was not fitted on (None: not at all; `oneclass` does not ask).

    Raises: ValueError for an unknown kind, a missing class, a column without any value, too few groups.
    """
    if kind not in MODELS:
        raise ValueError(f"unknown head {kind!r}; the heads are {', '.join(KINDS)}")
    one_class = kind == "oneclass"
    if one_class:
        kept = y == 0
        x, y, groups = x[kept], y[kept], np.asarray(groups)[kept]
        x_val, y_val = x_val[y_val == 0], y_val[y_val == 0]
    for label, word in ((0, "real"),) if one_class else ((0, "real"), (1, "fake")):
        if not (y == label).any():
            raise ValueError(f"no {word} face to train the head {kind} on")
    if np.isnan(x[y == 0]).all(0).any():
        raise ValueError(
            f"{int(np.isnan(x[y == 0]).all(0).sum())} columns have no value on any real training face"
        )
    median = np.nanmedian(x[y == 0], axis=0).astype(np.float32)
    filled = np.where(np.isnan(x), median, x)
    mean, scale = filled.mean(0).astype(np.float32), filled.std(0).astype(np.float32)
    frame = [median, mean, np.where(scale > 1e-9, scale, np.float32(1))]
    on_val = all((y_val == label).sum() >= MIN_HELD_OUT for label in set(y))
    if on_val:
        splits = [(np.arange(len(y)), np.arange(len(y), len(y) + len(y_val)))]
        x, y = np.concatenate([x, x_val]), np.concatenate([y, y_val])
    else:
        splits = _splits(y, groups, one_class)
    z = _standardise(x, *frame)
    held_out = np.concatenate([rows for _, rows in splits])
    tried = []
    ones = np.ones(x.shape[1]) if direction is None else direction
    for choice in [{"direction": ones}] if one_class else CHOICES[kind]:
        fits = [MODELS[kind].fit(z[a], y[a], seed, (z[b], y[b]), **choice) for a, b in splits]
        score = np.concatenate(
            [fit.score(z[b]) for fit, (_, b) in zip(fits, splits, strict=True)]
        ).astype(np.float64)
        a, b = _rank(score) if one_class else calibrate(score, y[held_out])
        logit = a * score + b
        loss = float((np.logaddexp(0, logit) - y[held_out] * logit).mean())
        tried.append((loss, choice, a, b, fits, score))
    loss, choice, a, b, fits, score = min(tried, key=lambda entry: entry[0])
    by_itself = np.zeros(x.shape[1], np.float32)
    if forgery_weight is not None and forgery_weight.any() and not one_class:
        reals = y[held_out] == 0
        by_itself = (
            forgery_weight * score[reals].std() / np.maximum(z[held_out][reals].std(0), 1e-6)
        ).astype(np.float32)
        a, b = calibrate(score + z[held_out] @ by_itself, y[held_out])
    model = fits[0]
    if not on_val:
        model = MODELS[kind].fit(z, y, seed, int(np.median([fit.rounds for fit in fits])), **choice)
    report = {
        "chosen": {} if one_class else choice,
        "rounds": model.rounds,
        "log_loss": None if one_class else {str(entry[1]): round(entry[0], 5) for entry in tried},
        "held_out": "validation split" if on_val else f"{len(splits)} folds of training groups",
        "held_out_faces": len(held_out),
        "calibration": "rank among real faces" if one_class else "Platt",
    }
    return Head(kind, *frame, by_itself, model, a, b, report)
