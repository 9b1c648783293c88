"""DeLong's test for two correlated ROC curves: is one detector better on the same faces?

DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), with the midranks of Sun and Xu, IEEE
Signal Processing Letters 21 (2014). It takes faces for independent; frames of one video are not, so
its p-values are too small where groups are large. `evaluate.py compare` has the interval by group.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata


def _placements(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of reals below each fake, and of fakes above each real face; ties count half."""
    fakes, reals = p[y == 1], p[y == 0]
    ranks = rankdata(np.concatenate([fakes, reals]))
    of_fakes = (ranks[: len(fakes)] - rankdata(fakes)) / len(reals)
    of_reals = 1 - (ranks[len(fakes) :] - rankdata(reals)) / len(fakes)
    return of_fakes, of_reals


def delong(y: np.ndarray, p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """The difference of two AUCs, of p less that of q.

    Args:
        y: (N,) 0 real, 1 fake.
        p, q: (N,) finite scores of two systems for the same faces.

    Returns:
        difference, its standard error, 95% interval (low, high), z and the two-sided p. Where the
        error is 0, p is 1 for equal AUCs and NaN for others (perfect against constant).
    """
    y, p, q = np.asarray(y), np.asarray(p, np.float64), np.asarray(q, np.float64)
    if not len(y) == len(p) == len(q):
        raise ValueError(f"{len(y)} labels for {len(p)} and {len(q)} scores")
    if min((y == 0).sum(), (y == 1).sum()) < 2:
        raise ValueError("DeLong's test needs at least two faces of each class")
    parts = [_placements(y, scores) for scores in (p, q)]
    difference = float(parts[0][0].mean() - parts[1][0].mean())
    variance = sum(np.var(a - b, ddof=1) / len(a) for a, b in zip(*parts, strict=True))
    error = float(np.sqrt(variance))
    z = difference / error if error > 1e-12 else 0.0 if abs(difference) < 1e-12 else float("nan")
    reach = float(norm.ppf(0.975)) * error
    interval = {"low": difference - reach, "high": difference + reach}
    p_value = float(2 * norm.sf(abs(z)))
    return {"difference": difference, "error": error, **interval, "z": z, "p": p_value}
