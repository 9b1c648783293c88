"""Reading what an evaluation left: results.json and predictions, checked before anything is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import numpy as np

from evaluation.metrics import HEADINGS
from evaluation.predictions import Predictions, by_video, of_test, read_predictions
from evaluation.results import FORMAT

UNITS = {"frame": "frames", "video": "videos"}
AGAIN = "run the evaluation again"

# What results.json holds: a type; (shape,) for one that may be null; [shape] for a list of it; {str: shape} for any keys.
CELL = {"value": (Real,), "low": (Real,), "high": (Real,)}
FACES = {"real": int, "fake": int, "groups": int}
PART = {"datasets": [str], **FACES}
FIGURES = dict.fromkeys(("n", "n_real", "n_fake", "n_groups"), int) | dict.fromkeys(
    HEADINGS, (CELL,)
)
TEST = {
    "test": str,
    "level": str,
    "figures": FIGURES,
    "delong": ({"difference": (Real,), "p": (Real,)},),
}
SYSTEM = {
    "name": str,
    "kind": str,
    "note": str,
    "threshold": (Real,),
    "seconds": Real,
    "predictions": (str,),
    "tests": [TEST],
}
RUN = {
    "id": str,
    "protocol": str,
    "title": str,
    "train": PART,
    "val": PART,
    "remarks": [str],
    "systems": [SYSTEM],
}
POINT = {
    "level": int,
    "parameter": str,
    "n": int,
    "lost": int,
    "auc": (CELL,),
    "auc_with_lost": (CELL,),
}
CURVE = {
    "system": str,
    "dataset": str,
    "family": str,
    "clean": (CELL,),
    "slope": (Real,),
    "points": [POINT],
}
GROUP = {"name": str, "n_real": int, "n_fake": int, "auc": (CELL,), "fpr": (CELL,)}
GAP = {"auc": (Real,), "fpr": (Real,)}
MATRIX = [[(Real,)]]
LISTS = {
    "remarks": str,
    "runs": RUN,
    "few_shot": {
        "dataset": str,
        "system": str,
        "asked": int,
        "faces": int,
        "figures": FIGURES,
        "seed": int,
    },
    "robustness": CURVE,
    "subgroups": {
        "run": str,
        "system": str,
        "dataset": str,
        "attribute": str,
        "groups": [GROUP],
        "largest_gap": GAP,
    },
    "importance": {"run": str, "group": str, "fall": (CELL,)},
    "ablation": {"run": str, "name": str, "columns": (int,), "dataset": str, "auc": (CELL,)},
    "inconsistency": {
        "dataset": str,
        "output": str,
        "regions": [str],
        "real": MATRIX,
        "fake": MATRIX,
        "n_real": int,
    }
    | {"n_fake": int, "unit": str},
}
DATASET = {"dump": str, "splits": {str: FACES}, "no_face": int, "unreadable": int}
SHAPE = {
    "name": str,
    "created": str,
    "config": dict,
    "git": {"commit": (str,), "dirty": bool},
    "versions": {str: str},
}
SHAPE |= {"minutes": Real, "datasets": {str: DATASET}} | {
    name: [shape] for name, shape in LISTS.items()
}


def _check(found: object, shape: object, where: str) -> None:
    """Raises: ValueError that names the first place where `found` is not of the shape."""
    if isinstance(shape, tuple):
        if found is None:
            return
        (shape,) = shape
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(found, kind):
        raise ValueError(f"{where} is {found!r:.60}, not {kind.__name__}")
    if isinstance(shape, dict):
        if missing := [key for key in shape if key is not str and key not in found]:
            raise ValueError(f"{where} has no {', '.join(missing)}")
        inside = dict.fromkeys(found, shape[str]) if str in shape else shape
        for key, inner in inside.items():
            _check(found[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        for place, each in enumerate(found):
            _check(each, shape[0], f"{where}[{place}]")


def _check_sense(data: Mapping) -> None:
    """Raises: ValueError where values of the right shape mean nothing."""
    levels = {
        test["level"]
        for run in data["runs"]
        for system in run["systems"]
        for test in system["tests"]
    }
    if strange := levels - {*UNITS}:
        raise ValueError(
            f"a test is on the level {', '.join(sorted(strange))}, not on {' or '.join(UNITS)}"
        )
    for entry in data["inconsistency"]:
        size = len(entry["regions"])
        if any([len(row) for row in entry[name]] != [size] * size for name in ("real", "fake")):
            raise ValueError(
                f"{entry['output']} of {entry['dataset']} has {size} regions and matrices of another size"
            )


def read_results(folder: Path) -> dict:
    """results.json of a report; lists that it lacks are empty.

    Raises: FileNotFoundError, ValueError where it is missing, damaged or of another format, with its name.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the folder of a report that evaluate.py wrote"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or "format" not in data:
            raise ValueError("no report of evaluate.py")
        if data["format"] == FORMAT:
            data = {**{name: [] for name in LISTS}, **data}
            _check(data, SHAPE, "it")
            _check_sense(data)
    except ValueError as error:  # JSON and UTF-8 errors are of this kind too
        raise ValueError(f"{path}: damaged or not a report: {error}; {AGAIN}") from None
    if data["format"] != FORMAT:
        raise ValueError(
            f"{path}: a report of format {data['format']!r}, this version reads {FORMAT}; {AGAIN}"
        )
    return data


def read_scores(path: Path) -> Predictions:
    """Raises: FileNotFoundError, ValueError where the file is missing or damaged, with its name."""
    found = read_predictions(path)
    if not np.isin(found["label"], (0, 1)).all():
        raise ValueError(f"{path}: damaged (labels other than 0 and 1); {AGAIN}")
    return found


def at_level(found: Predictions, test: str, level: str) -> Predictions:
    rows = of_test(found, test)
    return by_video(rows) if level == "video" else rows


def flat(data: object, where: str = "") -> dict[str, str]:
    """A row for every value: `dotted.key` -> the value as text. Lists of plain values are values."""
    if isinstance(data, list) and any(isinstance(value, dict) for value in data):
        data = dict(enumerate(data))
    if isinstance(data, dict) and data:
        parts = [
            flat(value, f"{where}.{key}" if where else str(key)) for key, value in data.items()
        ]
        return {key: value for part in parts for key, value in part.items()}
    return {where: data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}
