"""Metrics of P(fake), each with a bootstrap interval by group.

Everywhere y: (N,) 0 real, 1 fake; p: (N,) P(fake) or any score that grows with it. A metric that is
undefined for the given faces (one class only) is NaN, and None in `summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

REPLICATES = 1000
BINS = 15  # of equal width, for ECE
# Metrics of a summary and their headings.
FIGURES = {
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "tpr_at_1pct_fpr": "TPR@1%FPR",
    "accuracy": "accuracy",
    "fpr": "FPR",
    "ece": "ECE",
    "brier": "Brier",
}


def _roc(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of real and of fake faces at or above each distinct score, both (K + 1,)."""
    order = np.argsort(-p, kind="stable")
    y, p = y[order], p[order]
    last = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)  # last row of each run of equal scores
    fakes = np.concatenate([[0], np.cumsum(y)[last]])
    return np.concatenate([[0], last + 1]) - fakes, fakes


def _rates(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at each distinct score; NaN without reals or fakes."""
    reals, fakes = _roc(y, p)
    return reals / (reals[-1] or np.nan), fakes / (fakes[-1] or np.nan)


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve: P(a fake scores above a real face), ties counting half."""
    return float(np.trapezoid(*_rates(y, p)[::-1]))


def ap(y: np.ndarray, p: np.ndarray) -> float:
    """Average precision: precision at each score, weighted by the recall gained there."""
    reals, fakes = _roc(y, p)
    if not fakes[-1] or not reals[-1]:
        return float("nan")
    precision = fakes[1:] / (fakes[1:] + reals[1:])
    return float((np.diff(fakes) / fakes[-1] * precision).sum())


def eer(y: np.ndarray, p: np.ndarray) -> float:
    """Equal error rate: mean of FPR and FNR at argmin |FNR - FPR|."""
    fpr, tpr = _rates(y, p)
    gap = np.abs(1 - tpr - fpr)
    nearest = gap.argmin()
    return float("nan") if np.isnan(gap).any() else float((fpr[nearest] + 1 - tpr[nearest]) / 2)


def tpr_at_fpr(y: np.ndarray, p: np.ndarray, fpr: float = 0.01) -> float:
    """The largest true positive rate at a false positive rate of at most `fpr`."""
    rates, tpr = _rates(y, p)
    return float("nan") if np.isnan(rates).any() else float(tpr[rates <= fpr].max())


def accuracy(y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """Share of faces classified correctly when `p >= threshold` means fake."""
    return float(((p >= threshold) == y).mean())


def fpr_at(y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """Share of real faces called fake when `p >= threshold` means fake."""
    return float((p[y == 0] >= threshold).mean()) if (y == 0).any() else float("nan")


def ece(y: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error over `BINS` equal bins of P(fake) (Guo et al., ICML 2017)."""
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    return float(np.abs(np.bincount(bins, weights=p - y, minlength=BINS)).sum() / len(y))


def brier(y: np.ndarray, p: np.ndarray) -> float:
    """Mean squared difference of P(fake) and the label."""
    return float(((p - y) ** 2).mean())


def threshold_at_fpr(p_real: np.ndarray, fpr: float) -> float:
    """The lowest threshold that at most a share `fpr` of the real faces' scores reaches.

    NaN scores do not count. Raises: ValueError without scores, or for a rate outside (0, 1).
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, not at {fpr}")
    p_real = np.asarray(p_real, dtype=np.float64)
    ordered = np.sort(p_real[~np.isnan(p_real)])[::-1]
    if not len(ordered):
        raise ValueError("no real faces to set a threshold on")
    # Just above the highest score that must not reach it.
    return float(np.nextafter(ordered[int(fpr * len(ordered))], np.inf))


def bootstrap(
    figures: dict[str, Callable[[np.ndarray, np.ndarray], float]],
    y: np.ndarray,
    p: np.ndarray,
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """name -> 95% percentile interval (Efron 1979), drawing whole groups of dependent faces.

    NaN where fewer than half of the replicates define the metric.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(codes.max()) + 1
    values = {name: np.full(replicates, np.nan) for name in figures}
    for replicate in range(replicates):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        rows = np.repeat(np.arange(len(y)), times[codes])
        for name, figure in figures.items():
            values[name][replicate] = figure(y[rows], p[rows])
    for name, drawn in values.items():
        defined = drawn[~np.isnan(drawn)]
        enough = count > 1 and len(defined) * 2 >= replicates
        low, high = np.percentile(defined, [2.5, 97.5]) if enough else (np.nan, np.nan)
        values[name] = (float(low), float(high))
    return values


def interval(
    figure: Callable[[np.ndarray, np.ndarray], float],
    y: np.ndarray,
    p: np.ndarray,
    groups: Sequence[str],
    replicates: int = REPLICATES,
) -> dict[str, float | None]:
    """One metric as {"value", "low", "high"} (95%, by group), None where undefined."""
    if not len(y):
        return _cell(np.nan, np.nan, np.nan)
    return _cell(figure(y, p), *bootstrap({"it": figure}, y, p, groups, replicates)["it"])


def _cell(*values: float) -> dict[str, float | None]:
    pairs = zip(("value", "low", "high"), values, strict=True)
    return {name: None if np.isnan(value) else float(value) for name, value in pairs}


def summary(
    y: np.ndarray,
    p: np.ndarray,
    groups: Sequence[str],
    threshold: float,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict:
    """All `FIGURES`; accuracy and fpr at `threshold`.

    Returns:
        metric -> {"value", "low", "high"} (95%, by group; None where undefined), and the counts n,
        n_real, n_fake, n_groups.

    Raises:
        ValueError: without faces or where a score is not finite.
    """
    y, p = np.asarray(y), np.asarray(p, dtype=np.float64)
    if not len(y) or not np.isfinite(p).all():
        missing = int((~np.isfinite(p)).sum())
        raise ValueError(f"{len(y)} faces, {missing} of them without a score: nothing to measure")
    figures = {"auc": auc, "ap": ap, "eer": eer, "tpr_at_1pct_fpr": tpr_at_fpr}
    figures["accuracy"] = partial(accuracy, threshold=threshold)
    figures["fpr"] = partial(fpr_at, threshold=threshold)
    figures |= {"ece": ece, "brier": brier}
    intervals = bootstrap(figures, y, p, groups, replicates, seed)
    fake = int((y == 1).sum())
    counts = {"n": len(y), "n_real": len(y) - fake, "n_fake": fake, "n_groups": len(set(groups))}
    return counts | {name: _cell(figures[name](y, p), *intervals[name]) for name in figures}


def table(rows: dict[str, dict]) -> str:
    """Rows of `summary` as aligned text: values, and their 95% intervals below them."""
    lines = [["", "faces", "groups", *FIGURES.values()]]
    for name, row in rows.items():
        cells = [row[key] for key in FIGURES]
        lines.append([name, row["n"], row["n_groups"], *(short(cell["value"]) for cell in cells)])
        intervals = (f"{short(cell['low'])}-{short(cell['high'])}" for cell in cells)
        lines.append(["", f"{row['n_fake']} fake", "95%", *intervals])
    texts = [[str(cell) for cell in line] for line in lines]
    first, *widths = (max(map(len, column)) for column in zip(*texts, strict=True))
    return "\n".join(
        "  ".join([line[0].ljust(first), *map(str.rjust, line[1:], widths)]) for line in texts
    )


def short(value: float | None) -> str:
    """Three digits, as in tables: .125, 1.000, n/a."""
    return "n/a" if value is None else f"{value:.3f}".replace("0.", ".", 1)
