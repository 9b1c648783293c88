"""How far two answers to the same question disagree: divergences for distributions, cosine for embeddings.

All functions work over the last axis and broadcast over the others. A missing answer (NaN) gives NaN.
"""

from __future__ import annotations

import numpy as np

# Probabilities are clipped from below here and renormalised: float16 storage and saturated softmax yield exact zeros, for
# which KL is infinite.
FLOOR = 1e-6


def _proper(p: np.ndarray) -> np.ndarray:
    """Clipped to at least FLOOR and summing to 1. Two steps, because answers in float16 sum to 1 only roughly."""
    p = np.maximum(np.asarray(p, dtype=np.float64), FLOOR)
    return p / p.sum(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence KL(p||q) in nats. p, q: (..., D) probabilities. Returns: (...) float64, at least 0."""
    p, q = _proper(p), _proper(q)
    return np.maximum((p * (np.log(p) - np.log(q))).sum(-1), 0.0)


def js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats (Lin, IEEE Trans. Inf. Theory 1991). Returns: (...) float64 in [0, ln 2]."""
    p, q = _proper(p), _proper(q)
    middle = (p + q) / 2
    entropy_gap = p * (np.log(p) - np.log(middle)) + q * (np.log(q) - np.log(middle))
    return np.maximum(entropy_gap.sum(-1) / 2, 0.0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity. a, b: (..., D). Returns: (...) float64 in [-1, 1]; NaN where a vector has length 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(-1)
    return np.clip(
        np.divide(product, lengths, out=np.full_like(product, np.nan), where=lengths > 0), -1.0, 1.0
    )
