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
from data.files import write_csv

COLUMNS = ["test", "dataset", "path", "face", "video", "method", "group", "label", "p_fake"]
NUMBERS = {"face": int, "label": int, "p_fake": float}
FACE = ("dataset", "path", "face")  # identifies a face, in every table
CLIP = ["dataset", "method", "video", "label"]  # two methods may have made fakes of one name
AGAIN = "run the evaluation again"


def face_keys(rows: Mapping[str, np.ndarray]) -> list[tuple]:
    """`FACE` of every row."""
    return list(zip(*(rows[name].tolist() for name in FACE), strict=True))


def write_predictions(path: Path, tests: Mapping[str, tuple[FeatureDataset, np.ndarray]]) -> None:
    """tests: name -> its faces and their (N,) p_fake, NaN where unknown."""
    rows = []
    for test, (faces, p_fake) in tests.items():
        known = [faces.rows[name].tolist() for name in COLUMNS if name not in ("test", "p_fake")]
        texts = ["" if np.isnan(p) else f"{p:.6g}" for p in p_fake.tolist()]
        rows += [(test, *row) for row in zip(*known, texts, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, COLUMNS, rows)


def read_predictions(path: Path) -> pd.DataFrame:
    """The table that `write_predictions` wrote.

    Raises:
        FileNotFoundError, ValueError: where the file is missing or damaged, with its name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {AGAIN}")
    try:
        found = pd.read_csv(
            path,
            dtype=dict.fromkeys(COLUMNS, object) | NUMBERS,
            keep_default_na=False,
            na_values={"p_fake": [""]},
            encoding_errors="surrogateescape",
        )
    except ValueError as error:  # pandas' parser errors are of this kind too
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None
    if list(found) != COLUMNS:
        raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}; {AGAIN}")
    if not found["label"].isin((0, 1)).all():
        raise ValueError(f"{path}: damaged (labels other than 0 and 1); {AGAIN}")
    return found


def of_test(found: pd.DataFrame, test: str, level: str = "frame") -> pd.DataFrame:
    """The rows of one test that have a score, or its clips."""
    rows = found[(found["test"] == test) & found["p_fake"].notna()]
    return by_video(rows) if level == "video" else rows


def by_video(found: pd.DataFrame) -> pd.DataFrame:
    """One row per clip: the mean p_fake of its frames. Pictures that belong to no clip are left
    out.

    The `path` of a clip is its video, whichever of its frames have a score.
    """
    clips = found[found["video"] != ""].groupby(CLIP, sort=True)
    means = clips.agg(test=("test", "first"), group=("group", "first"), p_fake=("p_fake", "mean"))
    means = means.reset_index()
    return means.assign(path=means["video"], face=0)[COLUMNS]


def scored_by_both(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The rows of `a` that `b` has with the same label, and b's score of them as `p_other`."""
    keys = [*FACE, "method", "label"]
    other = b[[*keys, "p_fake"]].rename(columns={"p_fake": "p_other"})
    return a.merge(other, on=keys, how="inner")
