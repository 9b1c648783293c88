"""The classifiers themselves, over standardised columns: what models/heads.py frames, chooses among and calibrates.

Each knows how to fit, score (higher is more fake), and turn into named arrays and back (the constructor takes what `state`
gives). Only fitting needs the heavy libraries, except for boosted trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

SMALL = 1_000_000  # values; on fewer, threads wait for each other longer than they work


class Model(Protocol):
    """A fitted model over standardised columns. rounds: passes or trees it was trained for."""

    rounds: int

    def score(self, z: np.ndarray) -> np.ndarray: ...

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """What each column adds to the score. z: (N, F); base: (F,), where columns add nothing. Returns: (N, F)."""
        ...

    def state(self) -> dict[str, np.ndarray]: ...


Watched = tuple[np.ndarray, np.ndarray]  # columns (M, F) and labels (M,) that tell when to stop


@dataclass
class Linear:
    """Logistic regression. coef: (F,); bias: ()."""

    coef: np.ndarray
    bias: np.ndarray
    rounds: int = 0

    @classmethod
    def fit(
        cls, z: np.ndarray, y: np.ndarray, seed: int, watched: Watched | int, c: float
    ) -> Linear:
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=c, max_iter=2000).fit(z, y)
        return cls(fitted.coef_[0], fitted.intercept_[0])

    def score(self, z: np.ndarray) -> np.ndarray:
        return z @ self.coef + self.bias

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Exact: they sum to score(z) - score(base)."""
        return self.coef * (z - base)

    def state(self) -> dict[str, np.ndarray]:
        return {"coef": self.coef, "bias": self.bias}


@dataclass
class Mlp:
    """One hidden layer of rectified units. w0: (F, H), b0: (H,), w1: (H,), b1: ()."""

    w0: np.ndarray
    b0: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    rounds: int = 0

    @classmethod
    def fit(
        cls,
        z: np.ndarray,
        y: np.ndarray,
        seed: int,
        watched: Watched | int,
        decay: float,
        hidden: int = 32,
    ) -> Mlp:
        """AdamW; stops ten passes after the loss on `watched` was lowest and returns to there, or after so many passes."""
        import torch
        from torch import nn
        from torch.nn import functional as F

        x, target = torch.from_numpy(z).float(), torch.from_numpy(y).float()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Dropout(0.2), nn.Linear(z.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=decay)
            best, best_loss, best_round = net.state_dict(), np.inf, 0
            last = watched if isinstance(watched, int) else 200
            for done in range(1, last + 1):
                net.train()
                for rows in torch.randperm(len(x)).split(64):
                    optimizer.zero_grad()
                    F.binary_cross_entropy_with_logits(net(x[rows])[:, 0], target[rows]).backward()
                    optimizer.step()
                if isinstance(watched, int):
                    best, best_round = net.state_dict(), done
                    continue
                net.eval()
                with torch.no_grad():
                    said = net(torch.from_numpy(watched[0]).float())[:, 0]
                    loss = F.binary_cross_entropy_with_logits(
                        said, torch.from_numpy(watched[1]).float()
                    ).item()
                if loss < best_loss:
                    best_loss, best_round = loss, done
                    best = {name: value.clone() for name, value in net.state_dict().items()}
                elif done - best_round >= 10:
                    break
        torch.set_num_threads(threads)
        w0, b0, w1, b1 = (
            best[name].numpy() for name in ("1.weight", "1.bias", "3.weight", "3.bias")
        )
        return cls(w0.T, b0, w1[0], b1[0], best_round)

    def score(self, z: np.ndarray) -> np.ndarray:
        return np.maximum(z @ self.w0 + self.b0, 0) @ self.w1 + self.b1

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Integrated gradients from `base` to z (Sundararajan et al., ICML 2017); they sum to score(z) - score(base).

        In closed form: along the straight line, a rectified unit is on for a share of the way that its two ends tell. How a
        column's share is told apart from another's where they act together is a convention, not a fact.
        """
        ends, start = z @ self.w0 + self.b0, base @ self.w0 + self.b0
        rise = ends - start
        crossing = np.clip(np.divide(-start, rise, out=np.ones_like(rise), where=rise != 0), 0, 1)
        on = np.where(rise > 0, 1 - crossing, crossing)
        on = np.where(rise == 0, start > 0, on)
        return (z - base) * ((on * self.w1) @ self.w0.T)

    def state(self) -> dict[str, np.ndarray]:
        return {"w0": self.w0, "b0": self.b0, "w1": self.w1, "b1": self.b1}


@dataclass
class Trees:
    """Gradient-boosted trees. booster: XGBoost's JSON as (bytes,) uint8."""

    booster: np.ndarray
    rounds: int = 0

    def __post_init__(self) -> None:
        import xgboost

        self._booster = xgboost.Booster({"nthread": 1})
        self._booster.load_model(bytearray(self.booster.tobytes()))

    @classmethod
    def fit(
        cls, z: np.ndarray, y: np.ndarray, seed: int, watched: Watched | int, depth: int
    ) -> Trees:
        """Stops 30 trees after the loss on `watched` was lowest and returns to there, or after so many trees."""
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
        data = xgboost.DMatrix(z, y)
        if isinstance(watched, int):
            fitted, rounds = xgboost.train(settings, data, watched), watched
        else:
            held_out = [(xgboost.DMatrix(*watched), "held_out")]
            fitted = xgboost.train(
                settings, data, 800, evals=held_out, early_stopping_rounds=30, verbose_eval=False
            )
            rounds = fitted.best_iteration + 1
            fitted = fitted[:rounds]
        return cls(np.frombuffer(bytes(fitted.save_raw("json")), dtype=np.uint8), rounds)

    def score(self, z: np.ndarray) -> np.ndarray:
        import xgboost

        return self._booster.predict(xgboost.DMatrix(z), output_margin=True)

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        """TreeSHAP (Lundberg et al., 2020) as XGBoost computes it; they sum to score(z) less the mean over training faces."""
        import xgboost

        return self._booster.predict(xgboost.DMatrix(z), pred_contribs=True)[:, :-1]

    def state(self) -> dict[str, np.ndarray]:
        return {"booster": self.booster}


@dataclass
class Drift(Linear):
    """The mean of all columns, each turned so that more of it is less consistent: nothing is fitted, no fake is needed."""

    @classmethod
    def fit(
        cls, z: np.ndarray, y: np.ndarray, seed: int, watched: Watched | int, direction: np.ndarray
    ) -> Drift:
        """direction: (F,) +1 or -1."""
        return cls(direction / len(direction), np.zeros(()))


MODELS: dict[str, type] = {"logreg": Linear, "mlp": Mlp, "xgboost": Trees, "oneclass": Drift}
KINDS = tuple(MODELS)
CHOICES: dict[str, list[dict]] = {
    "logreg": [{"c": c} for c in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)],
    "mlp": [{"decay": decay} for decay in (0.03, 0.3, 3.0)],
    "xgboost": [{"depth": depth} for depth in (1, 2, 3, 4)],
}
