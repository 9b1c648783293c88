"""How good P(fake) is: figures of one table row, each with a bootstrap interval by group.

Everywhere y: (N,) 0 real, 1 fake; p: (N,) P(fake) or any score that grows with it. A figure that is undefined for the given
faces (one class only) is NaN, and None in `summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

REPLICATES = 1000
BINS = 15  # of equal width, for ECE


def _roc(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and fake faces at or above each distinct score, from 0 to all. Returns: two (K + 1,) arrays of counts."""
    order = np.argsort(-p, kind="stable")
    y, p = y[order], p[order]
    last = np.append(
        np.flatnonzero(np.diff(p)), len(p) - 1
    )  # the last row of each run of equal scores
    fakes = np.concatenate([[0], np.cumsum(y)[last]])
    return np.concatenate([[0], last + 1]) - fakes, fakes


def _rates(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at each distinct score; NaN without reals or fakes."""
    reals, fakes = _roc(y, p)
    return reals / (reals[-1] or np.nan), fakes / (fakes[-1] or np.nan)


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a fake scores above a real face, ties counting half."""
    return float(np.trapezoid(*_rates(y, p)[::-1]))


def ap(y: np.ndarray, p: np.ndarray) -> float:
    """Average precision: precision at each score, weighted by the recall gained there (no interpolation)."""
    reals, fakes = _roc(y, p)
    if not fakes[-1] or not reals[-1]:
        return float("nan")
    precision = fakes[1:] / (fakes[1:] + reals[1:])
    return float((np.diff(fakes) / fakes[-1] * precision).sum())


def eer(y: np.ndarray, p: np.ndarray) -> float:
    """Equal error rate: where false positive and false negative rate are nearest, the mean of the two."""
    fpr, tpr = _rates(y, p)
    gap = np.abs(1 - tpr - fpr)
    nearest = gap.argmin()
    return float("nan") if np.isnan(gap).any() else float((fpr[nearest] + 1 - tpr[nearest]) / 2)


def tpr_at_fpr(y: np.ndarray, p: np.ndarray, fpr: float = 0.01) -> float:
    """The largest true positive rate at a false positive rate of at most `fpr`."""
    rates, tpr = _rates(y, p)
    return float("nan") if np.isnan(rates).any() else float(tpr[rates <= fpr].max())


def accuracy(y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """Share of faces judged rightly when `p >= threshold` means fake."""
    return float(((p >= threshold) == y).mean())


def fpr_at(y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """Share of real faces taken for fakes when `p >= threshold` means fake."""
    return float((p[y == 0] >= threshold).mean()) if (y == 0).any() else float("nan")


def ece(y: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error of P(fake): |mean p - share of fakes| over equal bins (Guo et al., ICML 2017)."""
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    return float(np.abs(np.bincount(bins, weights=p - y, minlength=BINS)).sum() / len(y))


def brier(y: np.ndarray, p: np.ndarray) -> float:
    """Mean squared difference of P(fake) and the truth."""
    return float(((p - y) ** 2).mean())


def _figures(threshold: float) -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    return {
        "auc": auc,
        "ap": ap,
        "eer": eer,
        "tpr_at_1pct_fpr": tpr_at_fpr,
        "accuracy": lambda y, p: accuracy(y, p, threshold),
        "fpr": lambda y, p: fpr_at(y, p, threshold),
        "ece": ece,
        "brier": brier,
    }


def threshold_at_fpr(p_real: np.ndarray, fpr: float) -> float:
    """The lowest threshold that at most a share `fpr` of the real faces' scores reaches. Faces without a score do not count.

    Raises: ValueError without real faces that have a score, or for a rate outside (0, 1).
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, not at {fpr}")
    p_real = np.asarray(p_real, dtype=np.float64)
    p_real = p_real[~np.isnan(p_real)]
    if not len(p_real):
        raise ValueError("no real faces to set a threshold on")
    ordered = np.sort(p_real)[::-1]
    # Just above the highest score that must not reach it; the others, int(fpr * n) of them without ties, do.
    return float(np.nextafter(ordered[int(fpr * len(ordered))], np.inf))


def bootstrap(
    figures: dict[str, Callable[[np.ndarray, np.ndarray], float]],
    y: np.ndarray,
    p: np.ndarray,
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals; whole groups are drawn with replacement, since faces of one are alike (Efron 1979).

    Returns: name -> (low, high), NaN where fewer than half of the replicates define the figure.
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
    intervals = {}
    for name, drawn in values.items():
        defined = drawn[~np.isnan(drawn)]
        enough = count > 1 and len(defined) * 2 >= replicates
        low, high = np.percentile(defined, [2.5, 97.5]) if enough else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals


def summary(
    y: np.ndarray,
    p: np.ndarray,
    groups: Sequence[str],
    threshold: float,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict:
    """One table row: auc, ap, eer, tpr_at_1pct_fpr, accuracy, fpr (both at `threshold`), ece, brier.

    Returns: figure -> {"value", "low", "high"} (95%, by group; None where undefined), and the counts n, n_real, n_fake, n_groups.
    Raises: ValueError without faces or where a score is not finite.
    """
    y, p = np.asarray(y), np.asarray(p, dtype=np.float64)
    if not len(y) or not np.isfinite(p).all():
        raise ValueError(
            f"{len(y)} faces, {int((~np.isfinite(p)).sum())} of them without a score: nothing to measure"
        )
    figures = _figures(threshold)
    intervals = bootstrap(figures, y, p, groups, replicates, seed)
    row: dict = {
        "n": len(y),
        "n_real": int((y == 0).sum()),
        "n_fake": int((y == 1).sum()),
        "n_groups": len(set(groups)),
    }
    for name, figure in figures.items():
        low, high = intervals[name]
        values = {"value": figure(y, p), "low": low, "high": high}
        row[name] = {key: None if np.isnan(value) else value for key, value in values.items()}
    return row


HEADINGS = {
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "tpr_at_1pct_fpr": "TPR@1%FPR",
    "accuracy": "accuracy",
    "fpr": "FPR",
    "ece": "ECE",
    "brier": "Brier",
}


def table(rows: dict[str, dict]) -> str:
    """Rows of `summary` as text, one line each: the value of every figure, and the 95% interval below it."""
    lines = [["", "faces", "groups", *HEADINGS.values()]]
    for name, row in rows.items():
        cells = [row[key] for key in HEADINGS]
        lines.append([name, row["n"], row["n_groups"], *(short(cell["value"]) for cell in cells)])
        intervals = (f"{short(cell['low'])}-{short(cell['high'])}" for cell in cells)
        lines.append(["", f"{row['n_fake']} fake", "95%", *intervals])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[object]]) -> str:
    """Cells as text in columns: the first to the left, the others to the right."""
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            str(cell).rjust(width) if i else str(cell).ljust(width)
            for i, (cell, width) in enumerate(pairs)
        ).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def short(value: float | None) -> str:
    """A figure with three digits, as in tables: .125, 1.000, n/a."""
    return "n/a" if value is None else f"{value:.3f}".replace("0.", ".", 1)
