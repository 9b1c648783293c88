"""metrics.csv: every figure of a report is one row. Tables, plots, pages and cards are views of it.

Besides it lies report.json: configuration, commit, versions, the runs with their counts, remarks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from data.files import replacing
from evaluation.metrics import FIGURES

FORMAT = 3
AGAIN = "run the evaluation again"
UNITS = {"frame": "frames", "video": "videos"}

# system: what was measured. train: datasets it was trained on, joined by " + ". test: the test set.
# level: frame or video. condition: "" or a degradation such as jpeg:3 ("clean": the same faces
# undegraded). low, high: 95% interval by group. n, n_fake, groups: test faces (or videos). run: key
# of report.json's `runs`. kind: of evaluation/systems.py. size: training faces of a few-shot run.
# seed: of few-shot draws and label permutations. attribute, group: part of the test faces that the
# figure is about (gender, Female), or the output and regions it belongs to.
NUMBERS = ["value", "low", "high", "n", "n_fake", "groups", "size", "seed"]
WHOLE = NUMBERS[3:]  # integers, which may be missing
TEXTS = ["system", "train", "test", "protocol", "level", "condition", "metric"]
COLUMNS = [*TEXTS, *NUMBERS[:6], "run", "kind", "size", "seed", "attribute", "group", "note"]
TEXTS += ["run", "kind", "attribute", "group", "note"]
KEYS = [name for name in TEXTS if name not in ("note", "kind")] + ["size", "seed"]  # of a figure
# Keys of report.json and their types; of `runs` and `datasets` also of each entry.
REPORT = {"name": str, "created": str, "config": dict, "git": dict, "versions": dict}
REPORT |= {"minutes": (int, float), "datasets": dict, "remarks": list, "runs": dict}
RUN = {"protocol": str, "title": str, "train": dict, "val": dict, "remarks": list}
DATASET = {"dump": str, "splits": dict, "no_face": int, "unreadable": int}


def table_of(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Rows with some of `COLUMNS`; what is not given is "" or missing."""
    table = pd.DataFrame(list(rows), columns=COLUMNS, dtype=object)
    table[TEXTS] = table[TEXTS].fillna("")
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name]).astype(float)
    return table


def figure_rows(summary: Mapping, **about: object) -> list[dict]:
    """One row per figure of `evaluation.metrics.summary`."""
    counts = {"n": summary["n"], "n_fake": summary["n_fake"], "groups": summary["n_groups"]}
    return [{**about, **counts, "metric": name, **summary[name]} for name in FIGURES]


def write_metrics(path: Path, table: pd.DataFrame) -> None:
    """UTF-8; names that are not UTF-8 are kept byte by byte."""
    shown = table.astype(dict.fromkeys(WHOLE, "Int64"))
    with replacing(path) as file:
        text = shown.to_csv(index=False, lineterminator="\n")
        file.write(text.encode("utf-8", "surrogateescape"))


def read_metrics(path: Path) -> pd.DataFrame:
    """Raises: FileNotFoundError, ValueError where the file is missing or damaged, with its name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {AGAIN}")
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, object) | dict.fromkeys(NUMBERS, float),
            keep_default_na=False,
            na_values={name: [""] for name in NUMBERS},
            encoding_errors="surrogateescape",
        )
        if list(table) != COLUMNS:
            raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
        if strange := sorted(set(table["level"]) - {"", *UNITS}):
            raise ValueError(f"a figure is on the level {', '.join(strange)}, not frame or video")
    except ValueError as error:  # pandas' parser errors are of this kind too
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None
    return table


def _check(found: object, shape: Mapping, where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {found!r:.60}, not an object")
    for key, kind in shape.items():
        if key not in found:
            raise ValueError(f"{where} has no {key}")
        if not isinstance(found[key], kind):
            raise ValueError(f"{where}.{key} is {found[key]!r:.60}")


def read_report(folder: Path) -> tuple[dict, pd.DataFrame]:
    """report.json and metrics.csv of a report.

    Raises:
        FileNotFoundError, ValueError: where one is missing, damaged or of another format, with its
            name.
    """
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the folder of a report that evaluate.py wrote"
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        _check(report, {"format": int}, "it")
        known = report["format"] == FORMAT
        if known:
            _check(report, REPORT, "it")
            for part, shape in (("runs", RUN), ("datasets", DATASET)):
                for name, entry in report[part].items():
                    _check(entry, shape, f"{part}.{name}")
    except ValueError as error:  # JSON and UTF-8 errors are of this kind too
        raise ValueError(f"{path}: damaged or not a report: {error}; {AGAIN}") from None
    if not known:
        raise ValueError(
            f"{path}: a report of format {report['format']}, this version reads {FORMAT}; {AGAIN}"
        )
    table = read_metrics(path.with_name("metrics.csv"))
    if unknown := sorted(set(table["run"]) - {"", *report["runs"]}):
        raise ValueError(f"{path}: lacks the run {unknown[0]} of metrics.csv; {AGAIN}")
    return report, table
