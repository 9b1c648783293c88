"""Who is the same person: groups that keep every identity on one side of a split.

Data sets of deepfakes name the video, seldom the actor, and actors recur. Expectations and classifiers then learn people.
Real faces whose identity embeddings are close are joined here with everything of their groups; a fake stays with the real
face of its group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

THRESHOLD = 0.5
BLOCK = 512  # rows compared with all others at a time: memory stays at BLOCK x N


def _merge(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join the components `a[i]` and `b[i]`. labels: (N,) int component of each node. Returns: new labels."""
    size = int(labels.max()) + 1
    links = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(size, size))
    return connected_components(links, directed=False)[1][labels]


def identity_groups(
    embeddings: np.ndarray, groups: Sequence[str], is_real: np.ndarray, threshold: float = THRESHOLD
) -> list[str]:
    """Names of groups such that two real faces with a cosine above `threshold` share one, and so do all faces of a group.

    embeddings: (N, D), of the full face, any length; rows that are not finite or of length 0 join nobody. groups: N names,
    "" is a group of one. is_real: (N,) bool. Returns: N names, each that of the first group (alphabetically) joined in it;
    links chain (A to B, B to C), so look at `largest_share` before trusting them.
    """
    is_real = np.asarray(is_real, dtype=bool)
    names = [name or f"row {row}" for row, name in enumerate(groups)]
    unique, labels = np.unique(names, return_inverse=True)
    components = np.arange(len(unique))
    lengths = np.linalg.norm(np.asarray(embeddings, dtype=np.float32), axis=1)
    usable = np.flatnonzero(is_real & np.isfinite(lengths) & (lengths > 0))
    units = np.asarray(embeddings[usable], dtype=np.float32) / lengths[usable, None]
    for start in range(0, len(usable), BLOCK):
        near = units[start : start + BLOCK] @ units[start:].T > threshold
        a, b = np.nonzero(near)
        a, b = components[labels[usable[start + a]]], components[labels[usable[start + b]]]
        components = _merge(components, a[a != b], b[a != b])
    first = np.full(components.max() + 1, len(unique))
    np.minimum.at(first, components, np.arange(len(unique)))
    return [str(unique[first[components[label]]]) for label in labels]


def largest_share(groups: Sequence[str]) -> float:
    """The share of rows in the largest group: near 1, links have chained everybody together and no split is left."""
    return float(np.unique(np.asarray(groups), return_counts=True)[1].max() / len(groups))
