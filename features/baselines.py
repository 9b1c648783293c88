"""What MASC must beat: how far one gets without looking at consistency at all, and with the plainest consistency.

Both make feature tables of the same kind as features/columns.py, so the same heads are fitted to them on the same splits.
"""

from __future__ import annotations

import numpy as np

from features.columns import FeatureTable
from features.measures import cosine, js
from features.regions import REGIONS

FILE = ("file_bytes", "width", "height", "mean_r", "mean_g", "mean_b")
METADATA = (*FILE, "sharpness", "face_px", "score", "yaw", "pitch", "roll")
PLAIN_REGIONS = ("upper", "middle", "lower", "left", "right")


def metadata_features(rows: dict[str, np.ndarray]) -> FeatureTable:
    """File size, picture size, mean colour; of the face its sharpness, size, pose and the finder's confidence: what a detector
    could learn instead of faces.

    rows: the columns of a dump's index. Returns: (N, 12).
    """
    values = np.stack([np.asarray(rows[name], np.float32) for name in METADATA], axis=1)
    return FeatureTable([f"metadata/{name}" for name in METADATA], values)


def plain_features(arrays: dict[str, np.ndarray]) -> FeatureTable:
    """The project's first design: the whole face against five regions, 16 columns.

    Cosine of identity and of appearance (the vision-language embedding in the `full` profile), the mean Jensen-Shannon
    divergence of all attribute distributions, each for five regions; and the mean of the latter. arrays: raw outputs
    (N, R, D); of several identities or embeddings the first counts. Returns: (N, 16), fewer where experts were left out.
    Raises: ValueError where there is nothing to compare.
    """
    sums = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    short = {name: name.rpartition(".")[2] for name in sums}
    distributions = [
        sums[name]
        for name in sums
        if short[name] in ("age", "gender", "race", "expression", "emotion")
    ]
    alike = [
        [name for name in sums if short[name] in kinds]
        for kinds in (("identity",), ("embedding", "appearance"))
    ]
    embeddings = {names[0]: sums[names[0]] for names in alike if names}
    names, columns = [], []
    for name, value in embeddings.items():
        for region in PLAIN_REGIONS:
            names.append(f"plain/{name}/cos/full~{region}")
            columns.append(cosine(value[:, 0], value[:, REGIONS.index(region)]))
    divergences = []
    for region in PLAIN_REGIONS if distributions else ():
        each = [js(value[:, 0], value[:, REGIONS.index(region)]) for value in distributions]
        divergences.append(np.mean(each, axis=0))
        names.append(f"plain/attributes/js/full~{region}")
    if divergences:
        names.append("plain/attributes/js/mean")
        divergences.append(np.mean(divergences, axis=0))
    if not names:
        raise ValueError(
            "no identity, embedding or attribute among the answers; the first version's columns need one"
        )
    return FeatureTable(names, np.stack([*columns, *divergences], axis=1).astype(np.float32))
