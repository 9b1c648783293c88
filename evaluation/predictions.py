"""What a system said of every test face, on disk: predict first, score after.

One CSV per run and system, a row per face of every test of the run. A face that the system cannot score has an empty p_fake.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.feature_dataset import FeatureDataset
from data.files import write_csv

COLUMNS: dict[str, type] = {
    "test": str,
    "dataset": str,
    "path": str,
    "face": int,
    "video": str,
    "method": str,
    "group": str,
    "label": int,
    "p_fake": float,
}
Predictions = dict[str, np.ndarray]  # column -> (N,)
FACE = ("dataset", "path", "face")  # what tells a face, in every table


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
    write_csv(path, list(COLUMNS), rows)


def read_predictions(path: Path) -> Predictions:
    """Raises: FileNotFoundError, ValueError where the file is not one of these, with its name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run the evaluation again")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = list(csv.reader(file, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: damaged ({error}); run the evaluation again") from error
    if not lines or lines[0] != list(COLUMNS):
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}; run the evaluation again"
        )
    try:
        columns = list(zip(*lines[1:], strict=True)) or [()] * len(COLUMNS)
        return {
            name: np.array(
                [kind(value or "nan") if kind is float else kind(value) for value in values],
                dtype=kind,
            )
            for (name, kind), values in zip(COLUMNS.items(), columns, strict=True)
        }
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); run the evaluation again") from error


def of_test(found: Predictions, test: str) -> Predictions:
    """The rows of one test that have a score."""
    rows = (found["test"] == test) & ~np.isnan(found["p_fake"])
    return {name: values[rows] for name, values in found.items()}


def by_video(found: Predictions) -> Predictions:
    """One row per clip: the mean p_fake of its frames. Pictures that belong to no clip are left out.

    A clip is told by dataset, method and video together: two methods may have made fakes of the same name. Its `path` is the
    video, whichever of its frames have a score.
    """
    rows = np.flatnonzero(found["video"] != "")
    names = ("dataset", "method", "video", "label")
    keys = np.array(
        ["\0".join(str(found[name][row]) for name in names) for row in rows], dtype=object
    )
    _, first, clip = np.unique(keys.astype(str), return_index=True, return_inverse=True)
    columns = {name: values[rows][first] for name, values in found.items()}
    columns |= {"path": columns["video"], "face": np.zeros(len(first), int)}
    columns["p_fake"] = np.bincount(clip, found["p_fake"][rows], len(first)) / np.bincount(
        clip, minlength=len(first)
    )
    return columns
