"""Is one detector better than another on the same faces? DeLong's test for two correlated ROC curves.

DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), with the midranks of Sun and Xu, IEEE Signal Processing Letters 21
(2014). It takes faces for independent; frames of one video are not, so its p-values are too small where groups are large. The
interval of the difference by group, from resampling, is in `evaluate.py compare`.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata


def _placements(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each fake the share of reals that score lower, for each real the share of fakes that score higher; ties half."""
    fakes, reals = p[y == 1], p[y == 0]
    ranks = rankdata(np.concatenate([fakes, reals]))
    of_fakes = (ranks[: len(fakes)] - rankdata(fakes)) / len(reals)
    of_reals = 1 - (ranks[len(fakes) :] - rankdata(reals)) / len(fakes)
    return of_fakes, of_reals


def delong(y: np.ndarray, p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """The difference of two AUCs, p's less q's.

    y: (N,) 0 real, 1 fake; p, q: (N,) finite scores of two systems for the same faces.
    Returns: difference, its standard error, 95% interval (low, high), z and the two-sided p. Where both systems rank all faces
    alike, the error is 0 and p is 1; where the error is 0 and they differ (perfect against constant), z and p are NaN.
    Raises: ValueError with fewer than two faces of a class, or other lengths.
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
    return {
        "difference": difference,
        "error": error,
        "low": difference - reach,
        "high": difference + reach,
        "z": z,
        "p": float(2 * norm.sf(abs(z))),
    }
