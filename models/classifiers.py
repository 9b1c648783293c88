"""The classifiers over standardised columns, which models/heads.py frames, selects and calibrates.

A new head is one class and one row of `MODELS`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

SMALL = 1_000_000  # values; with fewer, threads wait for each other longer than they work
HIDDEN = 32  # units of the MLP
BALANCED = 2  # times as many of one label as of the other: up to here, all faces weigh the same
Watched = tuple[np.ndarray, np.ndarray]  # (M, F) columns and (M,) labels, for early stopping


class Model:
    """A fitted model. Its fields, but for `rounds`, are the arrays of a checkpoint."""

    rounds: int  # epochs or trees it was trained for; 0 where that has no meaning
    choices: ClassVar[list[dict]]  # the hyper-parameters to choose from, as arguments of `fit`
    real_only: ClassVar[bool] = False  # trained on real faces only
    shapes: ClassVar[dict[str, str]]  # of its arrays, a letter for each axis; F: the columns

    @classmethod
    def fit(cls, z: np.ndarray, y: np.ndarray, seed: int, stop: Watched | int, **choice) -> Model:
        """z: (N, F); y: (N,); stop: faces for early stopping, or the number of rounds."""
        raise NotImplementedError

    def score(self, z: np.ndarray) -> np.ndarray:
        """(N, F) -> (N,), higher is more fake."""
        raise NotImplementedError

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """(N, F): what each column adds to the score, compared with `base` (F,)."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        return {x.name: getattr(self, x.name) for x in fields(self) if x.name != "rounds"}


def weights(y: np.ndarray) -> np.ndarray:
    """(N,) float32: the rarer label weighs as much as the other, where it is much rarer.

    Else a tree has too little of it for a leaf, and early stopping sees the share of fakes only.
    """
    counts = np.bincount(y.astype(int), minlength=2)
    if counts.max() <= BALANCED * counts.min() or not counts.min():
        return np.ones(len(y), np.float32)
    return (counts.max() / counts)[y.astype(int)].astype(np.float32)


@dataclass
class Linear(Model):
    """Logistic regression with an L2 penalty. coef: (F,); bias: ()."""

    coef: np.ndarray
    bias: np.ndarray
    rounds: int = 0
    shapes: ClassVar = {"coef": "F", "bias": ""}
    choices: ClassVar = [
        {"c": c} for c in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
    ]

    @classmethod
    def fit(cls, z: np.ndarray, y: np.ndarray, seed: int, stop: Watched | int, c: float) -> Linear:
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=c, max_iter=2000).fit(z, y)
        return cls(fitted.coef_[0], fitted.intercept_[0])

    def score(self, z: np.ndarray) -> np.ndarray:
        return z @ self.coef + self.bias

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Exact: they sum to score(z) - score(base)."""
        return self.coef * (z - base)


@dataclass
class Mlp(Model):
    """One hidden layer of ReLU units. w0: (F, H), b0: (H,), w1: (H,), b1: ()."""

    w0: np.ndarray
    b0: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    rounds: int = 0
    shapes: ClassVar = {"w0": "FH", "b0": "H", "w1": "H", "b1": ""}
    choices: ClassVar = [{"decay": decay} for decay in (0.03, 0.3, 3.0)]

    @classmethod
    def fit(cls, z: np.ndarray, y: np.ndarray, seed: int, stop: Watched | int, decay: float) -> Mlp:
        """AdamW; early stopping with a patience of ten epochs, and the weights of the best."""
        import torch
        from torch import nn
        from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

        x, target, weight = (torch.from_numpy(part).float() for part in (z, y, weights(y)))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Dropout(0.2), nn.Linear(z.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
            )
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=decay)
            best, best_loss, best_round = net.state_dict(), np.inf, 0
            fixed = isinstance(stop, int)
            if not fixed:
                parts = (*stop, weights(stop[1]))
                x_stop, y_stop, w_stop = (torch.from_numpy(part).float() for part in parts)
            for epoch in range(1, (stop if fixed else 200) + 1):
                net.train()
                for rows in torch.randperm(len(x)).split(64):
                    optimizer.zero_grad()
                    loss_of(net(x[rows])[:, 0], target[rows], weight[rows]).backward()
                    optimizer.step()
                if fixed:
                    best, best_round = net.state_dict(), epoch
                    continue
                net.eval()
                with torch.no_grad():
                    loss = loss_of(net(x_stop)[:, 0], y_stop, w_stop).item()
                if loss < best_loss:
                    best_loss, best_round = loss, epoch
                    best = {name: value.clone() for name, value in net.state_dict().items()}
                elif epoch - best_round >= 10:
                    break
        torch.set_num_threads(threads)
        w0, b0, w1, b1 = (value.numpy() for value in best.values())
        return cls(w0.T, b0, w1[0], b1[0], best_round)

    def score(self, z: np.ndarray) -> np.ndarray:
        return np.maximum(z @ self.w0 + self.b0, 0) @ self.w1 + self.b1

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Integrated gradients (Sundararajan et al., ICML 2017), summing to score(z) - score(base).

        In closed form: each ReLU is active on one side of its zero crossing on the straight line.
        """
        ends, start = z @ self.w0 + self.b0, base @ self.w0 + self.b0
        rise = ends - start
        crossing = np.clip(np.divide(-start, rise, out=np.ones_like(rise), where=rise != 0), 0, 1)
        active = np.where(rise > 0, 1 - crossing, crossing)  # share of the line
        active = np.where(rise == 0, start > 0, active)
        return (z - base) * ((active * self.w1) @ self.w0.T)


@dataclass
class Trees(Model):
    """Boosted trees. booster: XGBoost's JSON as (bytes,) uint8."""

    booster: np.ndarray
    rounds: int = 0
    shapes: ClassVar = {"booster": "B"}
    choices: ClassVar = [{"depth": depth} for depth in (1, 2, 3, 4)]

    def __post_init__(self) -> None:
        import xgboost

        if "learner" not in json.loads(self.booster.tobytes()):  # others end the process
            raise ValueError("head.model.booster: not XGBoost's JSON")
        self._booster = xgboost.Booster({"nthread": 1})
        self._booster.load_model(bytearray(self.booster.tobytes()))  # XGBoostError: a ValueError

    @classmethod
    def fit(cls, z: np.ndarray, y: np.ndarray, seed: int, stop: Watched | int, depth: int) -> Trees:
        """Early stopping with a patience of 30 trees; the best number of trees is kept."""
        import xgboost

        settings = {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "max_depth": depth,
            "eta": 0.05,
            "subsample": 0.7,
            "colsample_bynode": 0.3,
            "lambda": 10.0,
            "min_child_weight": 3.0,
            "seed": seed,
            "nthread": 1 if z.size < SMALL else 0,  # 0: all
        }
        data, rounds, options = xgboost.DMatrix(z, y, weight=weights(y)), stop, {}
        if not isinstance(stop, int):
            held_out = xgboost.DMatrix(*stop, weight=weights(stop[1]))
            watched, rounds = [(held_out, "held_out")], 800
            options = {"evals": watched, "early_stopping_rounds": 30, "verbose_eval": False}
        fitted = xgboost.train(settings, data, rounds, **options)
        if options:
            rounds = fitted.best_iteration + 1
            fitted = fitted[:rounds]
        return cls(np.frombuffer(bytes(fitted.save_raw("json")), dtype=np.uint8), rounds)

    def score(self, z: np.ndarray) -> np.ndarray:
        import xgboost

        return self._booster.predict(xgboost.DMatrix(z), output_margin=True)

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """TreeSHAP (Lundberg et al., 2020); they sum to score(z) minus the training faces' mean."""
        import xgboost

        return self._booster.predict(xgboost.DMatrix(z), pred_contribs=True)[:, :-1]


@dataclass
class MeanInconsistency(Linear):
    """The mean of all columns, signed so that higher means less consistent. Nothing is fitted."""

    choices: ClassVar = [{}]
    real_only: ClassVar = True

    @classmethod
    def fit(
        cls, z: np.ndarray, y: np.ndarray, seed: int, stop: Watched | int, direction: np.ndarray
    ) -> MeanInconsistency:
        return cls(direction / len(direction), np.zeros(()))


MODELS: dict[str, type[Model]] = {
    "logreg": Linear,
    "mlp": Mlp,
    "xgboost": Trees,
    "oneclass": MeanInconsistency,
}
KINDS = tuple(MODELS)
