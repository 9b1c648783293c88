"""Predictions of a system on disk: predict first, score after.

One CSV per run and system, a row per face of every test of the run. A face that the system cannot
score has an empty p_fake.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data.feature_dataset import FeatureDataset
from evaluation.metrics_table import pick, read_table, write_table

COLUMNS = ["test", "dataset", "path", "face", "video", "method", "group", "label", "p_fake"]
TYPES = dict.fromkeys(COLUMNS, object) | {"face": int, "label": int, "p_fake": float}
FACE = ["dataset", "path", "face"]  # identifies a face, in every table
CLIP = ["dataset", "method", "video", "label"]  # two methods may have made fakes of one name


def face_table(faces: FeatureDataset, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`columns` of every face, to be merged with others by `FACE`."""
    keys = {name: faces.rows[name] for name in FACE}
    return pd.DataFrame(keys | columns, dtype=object).astype({"face": int})


def write_predictions(path: Path, tests: Mapping[str, tuple[FeatureDataset, np.ndarray]]) -> None:
    """tests: name -> its faces and their (N,) p_fake, NaN where unknown."""
    parts = []
    for test, (faces, p_fake) in tests.items():
        known = {name: faces.rows[name] for name in COLUMNS[1:-1]}
        parts.append(pd.DataFrame({"test": test, **known, "p_fake": p_fake}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, pd.concat(parts), float_format="%.6g")


def read_predictions(path: Path) -> pd.DataFrame:
    return read_table(path, TYPES)


def of_test(found: pd.DataFrame, test: str, level: str = "frame") -> pd.DataFrame:
    """The rows of one test that have a score, or its clips."""
    rows = pick(found, test=test).dropna(subset="p_fake")
    return by_video(rows) if level == "video" else rows


def by_video(found: pd.DataFrame) -> pd.DataFrame:
    """One row per clip, with the mean p_fake of its frames. Pictures of no clip are left out.

    The `path` of a clip is its video, whichever of its frames have a score.
    """
    clips = found[found["video"] != ""].groupby(CLIP, sort=True)
    means = clips.agg(test=("test", "first"), group=("group", "first"), p_fake=("p_fake", "mean"))
    means = means.reset_index()
    return means.assign(path=means["video"], face=0)[COLUMNS]


def scored_by_both(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The rows of `a` that `b` has with the same label, and b's score of them as `p_other`."""
    keys = [*FACE, "method", "label"]
    return a.merge(b[[*keys, "p_fake"]].rename(columns={"p_fake": "p_other"}), on=keys)
