"""Made-up people: genuine pictures of them, and swaps between them."""

from __future__ import annotations

import numpy as np

from data.feature_dataset import FeatureDataset
from features.regions import REGIONS

INNER, OUTER, WHOLE = (REGIONS.index(name) for name in ("inner", "outer", "full"))
OUTPUTS = ("lite.identity",)
PEOPLE, PICTURES, SIZE = 24, 4, 64


def toy_people(split: str = "val", seed: int = 0) -> FeatureDataset:
    """People with a direction each, four pictures of each, and two swaps of each picture: the inner face
    is the donor's, the outer one the head's."""
    rng = np.random.default_rng(seed)
    names = [f"{split}{number:02d}" for number in range(PEOPLE)]
    of = dict(zip(names, rng.normal(size=(PEOPLE, SIZE)), strict=True))
    rows, vectors = [], []

    def add(path, label, head, face):
        parts = np.stack([of[head] if region == "outer" else of[face] for region in REGIONS])
        parts[WHOLE] = (of[head] + of[face]) / 2
        vectors.append(parts + rng.normal(scale=0.7, size=parts.shape))
        rows.append((path, label, head, face if label else "", split))

    for name in names:
        for number in range(PICTURES):
            add(f"real/{name}/{name}_{number}.jpg", 0, name, name)
            for donor in rng.choice([x for x in names if x != name], 2, replace=False):
                add(f"fake/{name}_{number}__{donor}_{number}.jpg", 1, name, donor)
    columns = {}
    for place, column in enumerate(("path", "label", "person", "donor", "split")):
        columns[column] = np.array([row[place] for row in rows], object if place != 1 else int)
    count = len(rows)
    columns |= {name: np.array([""] * count, object) for name in ("video", "method", "condition")}
    columns |= {"group": columns["person"], "face": np.zeros(count, int)}
    columns["dataset"] = np.array(["toy"] * count, object)
    columns |= dict.fromkeys(("face_px", "sharpness", "score"), np.full(count, 100.0))
    columns["yaw"] = np.zeros(count)
    return FeatureDataset({"lite.identity": np.stack(vectors).astype(np.float16)}, columns)
