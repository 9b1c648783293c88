"""From predictions on disk to rows of metrics.csv and remarks."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from data.dump import Dump
from data.feature_dataset import FeatureDataset, join_dumps
from evaluation import sanity
from evaluation.delong import delong
from evaluation.inspect import inconsistency
from evaluation.metrics import FIGURES, summary
from evaluation.metrics_table import UNITS, counts_of
from evaluation.predictions import FACE, face_table, of_test, read_predictions, scored_by_both
from evaluation.protocols import DATASET, SOURCE, Run, datasets_of, of_dataset, unused
from evaluation.run import Jobs, Progress
from evaluation.subgroups import attributes, by_group
from evaluation.systems import ABLATION, MASC, ZERO_SHOT
from inference.verdict import FalseAlarmRate

ENDS = 1 << 20  # bytes of an array, at each end, that are compared to tell dumps apart
PACKAGES = [
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "xgboost",
    "facenet-pytorch",
    "av",
]


def provenance() -> dict:
    """Git commit of the code and versions of its packages."""
    commands = (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    options = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
    try:
        head, changes = (subprocess.run(["git", *x], **options).stdout.strip() for x in commands)
        git = {"commit": head, "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):  # no git, or an exported folder
        git = {"commit": None, "dirty": False}
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    return {"git": git, "versions": versions}


def identity(dump: Dump) -> dict:
    """What a dump is, wherever it lies: which pictures, which experts, in which condition."""
    known = {name: dump.meta[name] for name in ("dataset", "weights")}
    names = ("samples", "faces", "precision", "degrade")
    known |= {name: dump.meta["config"].get(name) for name in names}
    known |= {"pictures": dump.meta.get("pictures"), "digest": dump.digest}
    return {**known, "faces_found": len(dump), "content": content(dump)}


def content(dump: Dump) -> str:
    """SHA-256 of the table of faces, and of the size, beginning and end of every array."""
    digest = hashlib.sha256((dump.path / "index.csv").read_bytes())
    for path in sorted(dump.path.glob("*.npy")):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(f"{path.name} {size}".encode() + file.read(ENDS))
            file.seek(max(0, size - ENDS))
            digest.update(file.read(ENDS))
    return digest.hexdigest()


def dataset_entry(dump: Dump) -> dict:
    """An entry of report.json's `datasets`."""
    faces = join_dumps([dump])
    splits = {split: faces.split(split).counts() for split in ("train", "val", "test")}
    lost = {name: dump.meta["counts"].get(name, 0) for name in ("no_face", "unreadable")}
    return {"dump": str(dump.path), "splits": splits, **lost}


def all_figures(
    progress: Progress,
    plan: Jobs,
    test: FeatureDataset,
    outputs: Mapping,
    replicates: int,
    seed: int,
) -> Iterator[dict]:
    """All rows of metrics.csv but those of evaluation/kinds.py.

    test: the test faces of all datasets.
    """
    people = attributes(test, outputs)
    for experiment, systems in plan:
        leaking = sanity.leaking_columns(experiment.train) if experiment.in_dataset else {}
        trained = " + ".join(datasets_of(experiment.train))
        fitted = [x.name for x in systems if not progress.of(experiment, x)["failed"]]
        for run in experiment.runs:
            masc = read_predictions(progress.predictions(run.id, MASC)) if MASC in fitted else None
            for system in systems:
                name, done = system.name, progress.of(experiment, system)
                rows = fit_rows(done, run)
                if name in fitted and run.protocol not in (SOURCE, DATASET):
                    found = read_predictions(progress.predictions(run.id, name))
                    against = masc if name != MASC else None
                    rows += run_rows(found, run, done["threshold"], against, replicates, seed)
                    if run.protocol == "in-dataset" and system.kind not in (ABLATION, ZERO_SHOT):
                        rows += subgroup_rows(found, run, people, done["threshold"], replicates)
                        rows += stratified_rows(found, run, leaking)
                about = {"system": name, "kind": system.kind, "run": run.id, "train": trained}
                about |= {name: getattr(experiment, name) for name in ("size", "seed")}
                about["protocol"] = run.protocol
                yield from ({**about, **row} for row in rows)
    for name in datasets_of(test):
        yield from ({**row, "test": name} for row in inconsistency(of_dataset(test, name), outputs))


def fit_rows(done: Mapping, run: Run) -> list[dict]:
    """The threshold, and what was measured after the fit."""
    note = f"failed: {done['failed']}" if done["failed"] else "; ".join(done["notes"])
    rows = [{"metric": "threshold", "value": done["threshold"], "note": note}]
    return rows + [row for row in done["rows"] if row.get("run", run.id) == run.id]


def run_rows(
    found: pd.DataFrame,
    run: Run,
    threshold: float,
    masc: pd.DataFrame | None,
    replicates: int,
    seed: int,
) -> list[dict]:
    """All metrics of every test, on frames and on clips, and DeLong's test against MASC."""
    rows: list[dict] = []
    for test, level in product(run.tests, UNITS):
        part = of_test(found, test, level)
        if not len(part):
            continue
        y, p, groups = (part[name].to_numpy() for name in ("label", "p_fake", "group"))
        figures = summary(y, p, groups.tolist(), threshold, replicates, seed)
        new = [{"metric": x, **counts_of(y, groups), **figures[x]} for x in FIGURES]
        new += false_alarm_rows(p[y == 0], groups[y == 0], threshold)
        if masc is not None:
            new += delong_rows(scored_by_both(part, of_test(masc, test, level)))
        rows += [{"test": test, "level": level, **row} for row in new]
    return rows


def false_alarm_rows(p_real: np.ndarray, groups: np.ndarray, threshold: float) -> list[dict]:
    """Real faces called fake, their share with the exact interval: that of a few is known badly."""
    if not len(p_real):
        return []
    rate = FalseAlarmRate.at(threshold, p_real)
    note = f"{int((p_real >= threshold).sum())} of {len(p_real)} real faces"
    about = {"n": len(p_real), "n_fake": 0, "groups": len(set(groups)), "note": note}
    found = {"value": rate.share, "low": rate.low, "high": rate.high}
    return [{"metric": "false_alarms", **about, **found}]


def delong_rows(both: pd.DataFrame) -> list[dict]:
    """ΔAUC of MASC and the system on the faces both have scored, and DeLong's p-value."""
    y = both["label"].to_numpy()
    if min((y == 0).sum(), (y == 1).sum()) < 2:
        return []
    found = delong(y, both["p_other"].to_numpy(), both["p_fake"].to_numpy())
    about = {"n": len(y), "n_fake": int(y.sum()), "note": f"{MASC} less this system"}
    delta = {"value": found["difference"], "low": found["low"], "high": found["high"]}
    return [
        {"metric": "delta_auc", **about, **delta},
        {"metric": "delong_p", **about, "value": found["p"]},
    ]


def with_columns(found: pd.DataFrame, test: str, columns: pd.DataFrame) -> pd.DataFrame:
    """The predictions of a test beside what else is known of the faces."""
    return of_test(found, test).merge(columns, on=FACE, how="left", validate="m:1")


def subgroup_rows(
    found: pd.DataFrame, run: Run, people: pd.DataFrame, threshold: float, replicates: int
) -> list[dict]:
    return [
        {"test": test, **row}
        for test in run.tests
        for attribute in people.columns[len(FACE) :]
        for row in by_group(with_columns(found, test, people), attribute, threshold, replicates)
    ]


def stratified_rows(found: pd.DataFrame, run: Run, leaking: Iterable[str]) -> list[dict]:
    """AUC stratified by every leaking number; n is the number of pairs."""
    rows = []
    for (test, faces), column in product(run.tests.items(), leaking):
        part = with_columns(found, test, face_table(faces, {column: faces.rows[column]}))
        columns = (part[name].to_numpy(float) for name in ("label", "p_fake", column))
        auc, pairs = sanity.stratified_auc(*columns)
        about = {"test": test, "level": "frame", "metric": "stratified_auc"}
        rows.append({**about, "attribute": column, "value": auc, "n": pairs})
    return rows


def remarks_of(faces: FeatureDataset, progress: Progress, plan: Jobs, now: Mapping) -> list[str]:
    """Failed fits, code of several commits, datasets not used, duplicates, leaks."""
    done = {f"{e.name}: {s.name}": progress.of(e, s) for e, systems in plan for s in systems}
    failed = [f"{name}: {found['failed']}" for name, found in done.items() if found["failed"]]
    remarks = [f"{len(failed)} fits FAILED, such as {'; '.join(failed[:3])}"] if failed else []
    commits = sorted({found["commit"] or "unknown" for found in done.values()})
    commit = now["git"]["commit"] or "unknown"
    if commits != [commit]:
        made = ", ".join(commit[:10] for commit in commits)
        remarks.append(f"fitted by commit {made}, reported by {commit[:10]}")
    remarks += unused(faces) + sanity.duplicates(faces)
    for name in datasets_of(faces):
        remarks += sanity.leaks(of_dataset(faces, name).split("train"), name)
    return remarks
