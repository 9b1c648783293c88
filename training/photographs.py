"""Faces of dumps beside other real pictures of the people whom they claim to show.

So `reference` becomes a family of features (features/reference.py), without a second look at pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from data.claims import Genuine
from data.feature_dataset import FeatureDataset
from features.reference import PERSON, identities, pooled


def with_photographs(
    faces: FeatureDataset, outputs: Mapping[str, Mapping], notes: list[str]
) -> FeatureDataset:
    """The faces, each with its person's photographs as one; NaN where there are none.

    A real picture is compared with other pictures of the same person, a fake with those of the person
    whose head it is, never with what it was made of (data/claims.py). notes: how many have any.
    """
    genuine, person = Genuine(faces.rows), faces.rows["person"].tolist()
    rows = [genuine.of(row, name) if name else () for row, name in enumerate(person)]
    known = [row for row, photographs in enumerate(rows) if len(photographs)]
    arrays = dict(faces.arrays)
    for name in identities(outputs):
        of_person = np.full_like(faces.arrays[name], np.nan)
        for row in known:
            of_person[row] = pooled(faces.arrays[name][rows[row]])
        arrays[name + PERSON] = of_person
    share = len(known) / max(len(faces), 1)
    notes.append(
        f"{len(known)} of {len(faces)} faces have photographs of their person ({share:.0%})"
    )
    return replace(faces, arrays=arrays)
