"""Two baselines: metadata of the file and the detection, and the plainest consistency features."""

from __future__ import annotations

import numpy as np

from features.columns import FeatureTable
from features.measures import cosine, js
from features.regions import REGIONS

FILE = ("file_bytes", "width", "height", "mean_r", "mean_g", "mean_b")
METADATA = (*FILE, "sharpness", "face_px", "score", "yaw", "pitch", "roll")
PLAIN_REGIONS = ("upper", "middle", "lower", "left", "right")


def metadata_features(rows: dict[str, np.ndarray]) -> FeatureTable:
    """(N, 12) columns of a dump's index: what a detector could learn instead of faces."""
    values = np.stack([np.asarray(rows[name], np.float32) for name in METADATA], axis=1)
    return FeatureTable([f"metadata/{name}" for name in METADATA], values)


def plain_features(arrays: dict[str, np.ndarray]) -> FeatureTable:
    """The project's first design: (N, 16), the whole face against five regions.

    Cosine of the first identity and of the first appearance embedding, the mean Jensen-Shannon
    divergence of all attribute distributions, and the mean of the latter over the regions. Fewer
    columns where experts were left out. arrays: raw outputs (N, R, D).
    """
    short = {name: name.rpartition(".")[2] for name in arrays}
    floats = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    attributes = ("age", "gender", "race", "expression", "emotion")
    distributions = [floats[name] for name in floats if short[name] in attributes]
    columns: dict[str, np.ndarray] = {}
    for kinds in (("identity",), ("embedding", "appearance")):
        if name := next((name for name in floats if short[name] in kinds), None):
            for region in PLAIN_REGIONS:
                value = cosine(floats[name][:, 0], floats[name][:, REGIONS.index(region)])
                columns[f"plain/{name}/cos/full~{region}"] = value
    if distributions:
        for region in PLAIN_REGIONS:
            each = [js(value[:, 0], value[:, REGIONS.index(region)]) for value in distributions]
            columns[f"plain/attributes/js/full~{region}"] = np.mean(each, axis=0)
        divergences = list(columns.values())[-len(PLAIN_REGIONS) :]
        columns["plain/attributes/js/mean"] = np.mean(divergences, axis=0)
    if not columns:
        raise ValueError(
            "no identity, embedding or attribute among the outputs; the plain baseline needs one"
        )
    return FeatureTable.of(columns)
