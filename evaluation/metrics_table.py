"""metrics.csv: every figure of a report is one row. Tables, plots, pages and cards are views of it.

Beside it lies report.json: configuration, commit, versions, the runs with their counts, remarks.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data.files import replacing
from data.names import for_csv, from_csv

FORMAT = 3
AGAIN = "run the evaluation again"
UNITS = {"frame": "frames", "video": "videos"}

# train: datasets, joined by " + ". condition: "" or a degradation such as jpeg:3 ("clean": the same
# faces undegraded). low, high: 95% interval by group. n, n_fake, groups: test faces (or videos).
# kind: of evaluation/systems.py. size: training faces of a few-shot run. seed: of few-shot draws and
# label permutations. attribute, group: part of the test faces that the figure is about (gender,
# Female), or the output and regions it belongs to.
NUMBERS = ["value", "low", "high", "n", "n_fake", "groups", "size", "seed"]
WHOLE = NUMBERS[3:]  # integers, which may be missing
TEXTS = ["system", "train", "test", "protocol", "level", "condition", "metric"]
COLUMNS = [*TEXTS, *NUMBERS[:6], "run", "kind", "size", "seed", "attribute", "group", "note"]
TEXTS += ["run", "kind", "attribute", "group", "note"]
KEYS = [x for x in TEXTS if x not in ("note", "kind")] + ["size", "seed"]  # of a figure
# Keys of report.json, and of the entries of two of its parts.
REPORT = {"name", "created", "config", "git", "versions", "minutes", "datasets", "remarks", "runs"}
ENTRIES = {
    "runs": {"protocol", "title", "train", "val", "remarks"},
    "datasets": {"dump", "splits", "no_face", "unreadable"},
}


def table_of(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Rows with some of `COLUMNS`; what is not given is "" or missing."""
    table = pd.DataFrame(list(rows), columns=COLUMNS, dtype=object)
    table[TEXTS] = table[TEXTS].fillna("")
    return table.astype(dict.fromkeys(NUMBERS, float))


def pick(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows with the wanted value, or one of a tuple of values, in every named column."""
    for column, values in wanted.items():
        table = table[table[column].isin(values if isinstance(values, tuple) else (values,))]
    return table


def unique(rows: pd.DataFrame, *columns: str) -> list:
    """Distinct values, or tuples of them, in the order of the rows."""
    values = [rows[name] for name in columns]
    return list(dict.fromkeys(values[0] if len(columns) == 1 else zip(*values, strict=True)))


def counts_of(y: np.ndarray, groups: np.ndarray) -> dict[str, int]:
    return {"n": len(y), "n_fake": int(y.sum()), "groups": len(set(groups))}


def write_table(path: Path, table: pd.DataFrame, **options: object) -> None:
    """UTF-8; names that are not UTF-8 are kept byte by byte. options: of `DataFrame.to_csv`."""
    table = _texts(table, for_csv)
    with replacing(path) as file:
        text = table.to_csv(index=False, lineterminator="\n", quoting=_quoting(table), **options)
        file.write(text.encode("utf-8", "surrogateescape"))


def _quoting(table: pd.DataFrame) -> int:
    """All texts where one holds a carriage return, which the csv module leaves bare."""
    bare = any("\r" in str(cell) for name in table for cell in table[name].unique())
    return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL


def _texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """With texts and the names of strangers changed."""

    def changed(value: object) -> object:
        return change(value) if isinstance(value, str) else value

    texts = [name for name in table if table[name].dtype == object]
    return table.assign(**{name: table[name].map(changed).astype(object) for name in texts})


def read_table(path: Path, types: Mapping[str, type]) -> pd.DataFrame:
    """A table with just these columns. Errors name the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {AGAIN}")
    try:
        table = pd.read_csv(
            path,
            dtype=types,
            keep_default_na=False,
            na_values={name: [""] for name, kind in types.items() if kind is not object},
            encoding_errors="surrogateescape",
        )
        if list(table) != list(types):
            raise ValueError(f"expected the columns {', '.join(types)}")
        table = _texts(table, from_csv)
        if "level" in types and (strange := set(table["level"]) - {"", *UNITS}):
            raise ValueError(f"a figure is on the level {strange.pop()}, not frame or video")
        if "label" in types and not table["label"].isin((0, 1)).all():
            raise ValueError("labels other than 0 and 1")
    except ValueError as error:  # pandas' parser errors are of this kind too
        raise ValueError(f"{path}: {error}: damaged; {AGAIN}") from None
    return table


def write_metrics(path: Path, table: pd.DataFrame) -> None:
    write_table(path, table.astype(dict.fromkeys(WHOLE, "Int64")))


def read_metrics(path: Path) -> pd.DataFrame:
    return read_table(path, {name: float if name in NUMBERS else object for name in COLUMNS})


def read_report(folder: Path) -> tuple[dict, pd.DataFrame]:
    """report.json and metrics.csv. Errors name the file that is missing or damaged."""
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the folder of a report that evaluate.py wrote"
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT:
            raise ValueError(f"a report of format {report['format']}, this version reads {FORMAT}")
        missing = REPORT - report.keys()
        for part, keys in ENTRIES.items():
            for name, entry in report.get(part, {}).items():
                missing |= {f"{part}.{name}.{key}" for key in keys - entry.keys()}
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: damaged or not a report: {error}; {AGAIN}") from None
    table = read_metrics(path.with_name("metrics.csv"))
    if unknown := sorted(set(table["run"]) - {"", *report["runs"]}):
        raise ValueError(f"{path}: lacks the run {unknown[0]} of metrics.csv; {AGAIN}")
    return report, table
