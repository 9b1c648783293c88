"""From predictions on disk to results.json: figures with intervals, DeLong's test, subgroups, growth with training faces."""

from __future__ import annotations

import hashlib
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data.dump import Dump
from evaluation.delong import delong
from evaluation.metrics import summary
from evaluation.predictions import Predictions, by_video, face_keys, of_test, read_predictions
from evaluation.protocols import Experiment, Run
from evaluation.run import Progress, counts
from evaluation.sanity import chance, stratified_auc, telling
from evaluation.subgroups import by_group
from evaluation.systems import MASC, System

FORMAT = 2
FEWEST = 3  # permutations whose mean says something
ENDS = 1 << 20  # bytes of an array, at each end, that are looked at to tell dumps apart
PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "xgboost",
    "facenet-pytorch",
    "av",
)
Plan = Sequence[tuple[Experiment, Sequence[System]]]


def provenance() -> dict:
    """Git commit of the code and versions of what it stands on."""
    here = Path(__file__).parent
    try:
        said = [
            subprocess.run(
                ["git", *words], cwd=here, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
        git = {"commit": said[0], "dirty": bool(said[1])}
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository: an exported folder
        git = {"commit": None, "dirty": False}
    return {
        "git": git,
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
    }


def identity(dump: Dump) -> dict:
    """What a dump is, wherever it lies: which pictures, which experts, in which condition."""
    config = {
        name: dump.meta["config"].get(name) for name in ("samples", "faces", "precision", "degrade")
    }
    about = {
        "dataset": dump.meta["dataset"],
        "faces_found": len(dump),
        "weights": dump.meta["weights"],
        **config,
    }
    return {**about, "content": content(dump)}


def content(dump: Dump) -> str:
    """A SHA-256 that tells two dumps apart: their table of faces, and the size, beginning and end of every array."""
    told = hashlib.sha256((dump.path / "index.csv").read_bytes())
    for path in sorted(dump.path.glob("*.npy")):
        size = path.stat().st_size
        with path.open("rb") as file:
            told.update(f"{path.name} {size}".encode() + file.read(ENDS))
            file.seek(max(0, size - ENDS))
            told.update(file.read(ENDS))
    return told.hexdigest()


def figures(found: Predictions, threshold: float, replicates: int, seed: int) -> dict:
    return summary(
        found["label"], found["p_fake"], found["group"].tolist(), threshold, replicates, seed
    )


def compared(found: Predictions, masc: Predictions | None) -> dict | None:
    """DeLong's test of MASC against another system, on the faces that both have scored; None where there is none."""
    if masc is None:
        return None
    keys = [
        list(zip(*(each[n].tolist() for n in ("dataset", "path", "face", "method")), strict=True))
        for each in (masc, found)
    ]
    place = {key: row for row, key in enumerate(keys[0])}
    pairs = [(place[key], row) for row, key in enumerate(keys[1]) if key in place]
    if not pairs:
        return None
    ours, theirs = np.array(pairs).T
    y = found["label"][theirs]
    if min((y == 0).sum(), (y == 1).sum()) < 2:
        return None
    return {"against": MASC, **delong(y, masc["p_fake"][ours], found["p_fake"][theirs])}


def entry_of(
    progress: Progress,
    run: Run,
    system: System,
    done: dict,
    masc: Predictions | None,
    replicates: int,
    seed: int,
) -> dict:
    """One system in one run, with figures of every test, on frames and, where there are clips, on videos."""
    path = progress.predictions(run.id, system.name)
    note = "; ".join(done["notes"])
    entry = {"name": system.name, "kind": system.kind, "note": note, "threshold": done["threshold"]}
    entry |= {"seconds": round(done["seconds"], 2), "predictions": None, "tests": []}
    if done["failed"]:
        return entry | {"note": f"failed: {done['failed']}"}
    found = read_predictions(path)
    for test in run.tests:
        frames = of_test(found, test)
        levels = {"frame": frames, "video": by_video(frames)}
        other = None if masc is None else of_test(masc, test)
        for level, rows in levels.items():
            if not len(rows["label"]):
                continue
            against = by_video(other) if level == "video" and other is not None else other
            entry["tests"].append(
                {
                    "test": test,
                    "level": level,
                    "figures": figures(rows, done["threshold"], replicates, seed),
                    "delong": compared(rows, against) if system.name != MASC else None,
                }
            )
    return entry | {"predictions": path.relative_to(progress.folder).as_posix()}


def runs_of(
    progress: Progress, plan: Plan, replicates: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """All runs of results.json, and the growth with training faces (few-shot runs are told there alone)."""
    runs, growth = [], []
    for experiment, systems in plan:
        train, val = counts(experiment.train), counts(experiment.val)
        for run in experiment.runs:
            done = {
                system.name: progress.done[f"{experiment.name}/{system.name}"] for system in systems
            }
            ours = MASC in done and not done[MASC]["failed"]
            masc = read_predictions(progress.predictions(run.id, MASC)) if ours else None
            entries = [
                entry_of(progress, run, system, done[system.name], masc, replicates, seed)
                for system in systems
            ]
            if run.protocol == "few-shot":
                growth += points(experiment, entries)
            else:
                runs.append(
                    {
                        "id": run.id,
                        "protocol": run.protocol,
                        "title": run.title,
                        "train": train,
                        "val": val,
                    }
                    | {"remarks": experiment.remarks, "systems": entries}
                )
    return runs, growth


ASKED = re.compile(r", (\d+) faces, seed \d+$")  # in the name of a few-shot experiment


def points(experiment: Experiment, entries: Sequence[dict]) -> list[dict]:
    """Of the curve that shows how a score grows with training faces."""
    return [
        {
            "dataset": test["test"],
            "system": entry["name"],
            "asked": int(ASKED.search(experiment.name)[1]),
            "faces": len(experiment.train),
            "figures": test["figures"],
            "seed": int(experiment.name.rpartition(" ")[2]),
        }
        for entry in entries
        for test in entry["tests"]
        if test["level"] == "frame"
    ]


def subgroups_of(
    progress: Progress, plan: Plan, said: dict[tuple, dict[str, str]], systems: Sequence[str]
) -> list[dict]:
    """AUC and FPR per group of people, of in-dataset runs. said: (dataset, path, face) -> attribute -> group."""
    entries = []
    for experiment, fitted in plan:
        for run in (run for run in experiment.runs if run.protocol == "in-dataset"):
            for system in (system for system in fitted if system.name in systems):
                done = progress.done[f"{experiment.name}/{system.name}"]
                if done["failed"]:
                    continue
                found = read_predictions(progress.predictions(run.id, system.name))
                for test in run.tests:
                    rows = of_test(found, test)
                    groups = [said[key] for key in face_keys(rows)]
                    for attribute in groups[0] if groups else ():
                        names = np.array([group[attribute] for group in groups], dtype=object)
                        figures = by_group(
                            names, rows["label"], rows["p_fake"], rows["group"], done["threshold"]
                        )
                        entries.append(
                            {
                                "run": run.id,
                                "system": system.name,
                                "dataset": test,
                                "attribute": attribute,
                                **figures,
                            }
                        )
    return entries


def ablation_of(progress: Progress, plan: Plan, runs: Sequence[dict]) -> list[dict]:
    """MASC beside itself with less: columns and AUC on frames, of in-dataset runs."""
    columns = {
        (run.id, system.name): progress.done[f"{experiment.name}/{system.name}"].get("columns")
        for experiment, systems in plan
        for run in experiment.runs
        for system in systems
    }
    return [
        {"run": run["id"], "name": system["name"], "columns": columns[run["id"], system["name"]]}
        | {"dataset": test["test"], "auc": test["figures"]["auc"]}
        for run in runs
        if run["protocol"] == "in-dataset"
        for system in run["systems"]
        if system["kind"] == "ablation" or system["name"] == MASC
        for test in system["tests"]
        if test["level"] == "frame"
    ]


def chance_remarks(runs: Sequence[dict]) -> list[str]:
    """What the fits on permuted labels reached, for each test, over all permutations."""
    values: dict[str, list[float]] = {}
    for run in runs:
        if run["protocol"] == "sanity":
            for system in run["systems"]:
                for test in system["tests"]:
                    if test["level"] == "frame":
                        values.setdefault(test["test"], []).append(test["figures"]["auc"]["value"])
    remarks = []
    for test, aucs in values.items():
        mean = chance(aucs)
        said = f"{test}: trained on permuted labels ({len(aucs)} permutations), what labels teach {MASC} has a mean AUC of "
        said += f"{mean['value']:.3f}"
        if len(aucs) < FEWEST:
            remarks.append(f"{said}; too few permutations to say whether that is .50")
            continue
        holds = mean["low"] <= 0.5 <= mean["high"]
        verdict = "does not hold .50, which chance does once in a hundred times: look for what leaks the labels"
        remarks.append(
            f"{said}; the 99% interval of the mean, {mean['low']:.3f} to {mean['high']:.3f}, "
            f"{'holds .50, as it must' if holds else verdict}"
        )
    return remarks


def stratified_remarks(progress: Progress, plan: Plan) -> list[str]:
    """Where a number tells the labels by itself: what is left of each AUC among faces that are alike in it."""
    remarks = []
    for experiment, systems in plan:
        runs = [run for run in experiment.runs if run.protocol == "in-dataset"]
        for column in telling(experiment.train) if runs else ():
            for run in runs:
                for test, faces in run.tests.items():
                    values, left, pairs = (
                        dict(zip(face_keys(faces.rows), faces.rows[column], strict=True)),
                        [],
                        0,
                    )
                    for system in (system for system in systems if system.kind != "ablation"):
                        if progress.done[f"{experiment.name}/{system.name}"]["failed"]:
                            continue
                        rows = of_test(
                            read_predictions(progress.predictions(run.id, system.name)), test
                        )
                        of = np.array([values[key] for key in face_keys(rows)])
                        value, pairs = stratified_auc(rows["label"], rows["p_fake"], of)
                        left.append(f"{system.name} {value:.3f}")
                    remarks.append(
                        f"{test}: among faces alike in {column} ({pairs} pairs of a real face and a fake of the same twentieth), "
                        f"the AUC is {'; '.join(left)}"
                    )
    return remarks


def made_by(progress: Progress, plan: Plan, now: dict) -> list[str]:
    """What failed, and which commits made what is told, where that is more than the one that tells it."""
    done = {
        f"{e.name}: {s.name}": progress.done[f"{e.name}/{s.name}"]
        for e, systems in plan
        for s in systems
    }
    failed = [f"{name}: {found['failed']}" for name, found in done.items() if found["failed"]]
    remarks = [f"{len(failed)} fits FAILED, such as {'; '.join(failed[:3])}"] if failed else []
    commits = sorted({found["commit"] or "unknown" for found in done.values() if "commit" in found})
    if commits and commits != [now["git"]["commit"] or "unknown"]:
        by = ", ".join(commit[:10] for commit in commits)
        remarks.append(f"fitted by commit {by}, told by {(now['git']['commit'] or 'unknown')[:10]}")
    return remarks


def without_nan(data: object) -> object:
    """JSON has no NaN: None stands for it."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
