"""Groups of the same person, which keep every identity on one side of a split.

Links between close embeddings chain, so they must be nearly certain. On 1,704 DFDC faces the person
of 94% of the test faces of a random split is in the training split; 33% after joining groups, 18%
after leaving out the near-identity matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# Cosine above which faces are joined. 2 in 10,000 pairs of different DFDC actors are closer (LFW:
# 1), and 60% of the pairs of the same actor.
JOIN = 0.4
GUARD = 0.3  # cosine above which a face may be the same person
TYPICAL = 20.0  # faces; the mean and variance of fewer say little about faces in general
BLOCK = 512  # rows compared with all others at a time: memory stays at BLOCK x N


def adapted(embeddings: np.ndarray, is_real: np.ndarray) -> np.ndarray:
    """Unit vectors (N, D) float32 with less of what all faces of a dataset share: light, a camera.

    Centred and partly whitened by the real faces (each variance plus the mean variance; after
    Hariharan et al., ECCV 2012). Rows that are not finite or 0 become NaN.
    """
    lengths = np.linalg.norm(np.asarray(embeddings, dtype=np.float32), axis=1, keepdims=True)
    units = np.full(embeddings.shape, np.nan, np.float32)
    np.divide(embeddings, lengths, out=units, where=lengths > 0)
    usable = units[np.asarray(is_real, dtype=bool) & np.isfinite(units).all(1)]
    if not len(usable):
        return units
    trust = len(usable) / (len(usable) + TYPICAL)
    mean = trust * usable.mean(0)
    centred = (usable - mean).astype(np.float64)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    mixed = trust * np.maximum(variances, 0) + (2 - trust) * variances.mean()
    turned = (units - mean) @ (vectors / np.sqrt(np.maximum(mixed, 1e-12))).astype(np.float32)
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


def _pairs(
    a: np.ndarray, b: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of `a` (N, D) and `b` (M, D) with a cosine above `threshold`, block by block."""
    for start in range(0, len(a), BLOCK):
        first, second = np.nonzero(a[start : start + BLOCK] @ b.T > threshold)
        yield first + start, second


def identity_groups(
    embeddings: np.ndarray, groups: Sequence[str], is_real: np.ndarray, threshold: float = JOIN
) -> list[str]:
    """Larger groups: those of two real faces with a cosine above `threshold` are joined.

    Args:
        embeddings: (N, D), of the full face, of one dataset.
        groups: N names; "" is a group of one.

    Returns:
        N names, each the first of the groups joined in it.
    """
    named = [name or f"row {row}" for row, name in enumerate(groups)]
    unique, labels = np.unique(named, return_inverse=True)
    units = adapted(embeddings, is_real)
    usable = np.flatnonzero(np.asarray(is_real, dtype=bool) & np.isfinite(units).all(1))
    components = np.arange(len(unique))
    for a, b in _pairs(units[usable], units[usable], threshold):
        a, b = components[labels[usable[a]]], components[labels[usable[b]]]
        size = int(components.max()) + 1
        links = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(size, size))
        components = connected_components(links, directed=False)[1][components]
    first = np.full(components.max() + 1, len(unique))
    np.minimum.at(first, components, np.arange(len(unique)))
    return [str(unique[first[components[label]]]) for label in labels]


def near_identity_matches(
    embeddings: np.ndarray,
    is_real: np.ndarray,
    among: np.ndarray,
    of: np.ndarray,
    threshold: float = GUARD,
    what: np.ndarray | None = None,
) -> np.ndarray:
    """(N,) bool: the real faces of `among` that are closer than `threshold` to a real face of `of`.

    what: (N,) bool, the faces to compare instead of the real ones.
    """
    units = adapted(embeddings, is_real)
    usable = np.asarray(is_real if what is None else what, dtype=bool) & np.isfinite(units).all(1)
    rows, others = np.flatnonzero(usable & among), np.flatnonzero(usable & of)
    near = np.zeros(len(units), dtype=bool)
    for a, _ in _pairs(units[rows], units[others], threshold):
        near[rows[a]] = True
    return near


def largest_share(groups: Sequence[str]) -> float:
    """The share of rows in the largest group; near 1, chains have joined everybody."""
    return float(np.unique(np.asarray(groups), return_counts=True)[1].max() / len(groups))
