"""What MASC must beat: how far one gets without looking at consistency at all, and with the plainest consistency.

Both make feature tables of the same kind as features/vector.py, so the same heads are fitted to them on the same splits.
"""

from __future__ import annotations

import numpy as np

from features.consistency import cosine, js
from features.regions import REGIONS
from features.vector import FeatureTable

TRIVIAL = ("file_bytes", "width", "height", "mean_r", "mean_g", "mean_b", "sharpness")
PLAIN_REGIONS = ("upper", "middle", "lower", "left", "right")


def trivial_features(rows: dict[str, np.ndarray]) -> FeatureTable:
    """File size, picture size, mean colour and sharpness: what a detector could learn instead of faces.

    rows: the columns of a dump's index. Returns: (N, 7).
    """
    values = np.stack([np.asarray(rows[name], np.float32) for name in TRIVIAL], axis=1)
    return FeatureTable([f"trivial/{name}" for name in TRIVIAL], values)


def plain_features(arrays: dict[str, np.ndarray]) -> FeatureTable:
    """The project's first design: the whole face against five regions, 16 columns.

    Cosine of identity and of appearance (the vision-language embedding in the `full` profile), the mean Jensen-Shannon
    divergence of all attribute distributions, each for five regions; and the mean of the latter. arrays: raw outputs
    (N, R, D). Returns: (N, 16).
    """
    sums = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    attributes, kinds = ("age", "gender", "race", "expression", "emotion"), ("identity", "appearance", "embedding")
    distributions = [value for name, value in sums.items() if name.rpartition(".")[2] in attributes]
    embeddings = {name: value for name, value in sums.items() if name.rpartition(".")[2] in kinds}
    names, columns = [], []
    for name, value in embeddings.items():
        for region in PLAIN_REGIONS:
            names.append(f"plain/{name}/cos/full~{region}")
            columns.append(cosine(value[:, 0], value[:, REGIONS.index(region)]))
    divergences = []
    for region in PLAIN_REGIONS:
        each = [js(value[:, 0], value[:, REGIONS.index(region)]) for value in distributions]
        divergences.append(np.mean(each, axis=0))
        names.append(f"plain/attributes/js/full~{region}")
    names.append("plain/attributes/js/mean")
    return FeatureTable(
        names, np.stack([*columns, *divergences, np.mean(divergences, axis=0)], axis=1).astype(np.float32)
    )
