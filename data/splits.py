"""Which faces train and which test."""

from __future__ import annotations

import numpy as np

from data.feature_dataset import FeatureDataset, grouped_split
from data.people import identity_groups, near_identity_matches
from features.regions import REGIONS


def identity_disjoint(faces: FeatureDataset) -> FeatureDataset:
    """Groups joined where real faces look like one person, and everybody kept on one side of the splits (`kept_apart`).

    Groups of train and val with a face that may be of a person in test, though not certainly, are in no split ("") either.
    Raises: ValueError where no output is an identity embedding.
    """
    names = [name for name in faces.arrays if name.endswith(".identity")]
    if not names:
        raise ValueError(
            f"--identity-disjoint needs an identity embedding; the dump has {', '.join(faces.arrays)}"
        )
    whole = faces.arrays[names[0]][:, REGIONS.index("full")].astype(np.float32)
    real, given = faces.rows["label"] == 0, faces.rows["group"]
    groups = given.copy()
    # Each dataset by itself: what its faces share (a camera, compression) would join them all, beside another dataset.
    parts = [faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))]
    for part in parts:
        groups[part] = identity_groups(whole[part], given[part], real[part])
    apart = grouped_split(faces, groups)
    testing = apart.rows["split"] == "test"
    doubtful = np.zeros(len(faces), dtype=bool)
    for part in parts:
        doubtful[part] = near_identity_matches(
            whole[part], real[part], ~testing[part], testing[part]
        )
    left_out = np.isin(given.astype(str), given[doubtful].astype(str)) & ~testing
    apart.rows["split"] = np.where(left_out, "", apart.rows["split"])
    return apart
