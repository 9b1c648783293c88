"""How far two outputs differ: divergences for distributions, cosine for embeddings.

All functions work over the last axis and broadcast over the others; NaN gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]  # raw outputs: "expert.output" -> (N, R, D), NaN where missing
Outputs = Mapping[str, Mapping]  # "expert.output" -> {"kind", "size", "names"}, of a meta.json
# The least probability: a saturated softmax gives exact zeros, for which KL is infinite.
FLOOR = 1e-6


def _normalised(p: np.ndarray) -> np.ndarray:
    """At least FLOOR, and summing to 1."""
    p = np.maximum(np.asarray(p, dtype=np.float64), FLOOR)
    return p / p.sum(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p||q) in nats (Kullback & Leibler 1951)."""
    p, q = _normalised(p), _normalised(q)
    return np.maximum((p * (np.log(p) - np.log(q))).sum(-1), 0.0)


def js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats (Lin, IEEE Trans. Inf. Theory 1991), at most ln 2."""
    p, q = _normalised(p), _normalised(q)
    middle = np.log((p + q) / 2)
    terms = p * (np.log(p) - middle) + q * (np.log(q) - middle)
    return np.maximum(terms.sum(-1) / 2, 0.0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity, NaN where a vector has length 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(-1)
    missing = np.full_like(product, np.nan)
    return np.clip(np.divide(product, lengths, out=missing, where=lengths > 0), -1.0, 1.0)
