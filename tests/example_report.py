"""A small report of made-up scores, made by the code that evaluate.py uses. Look at it:
    python -m tests.example_report outputs/reports/example

Scores of real and fake faces are normal, one unit wide, and `SKILL[system]` apart, so that the true
AUC is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from data.degrade import Condition
from data.feature_dataset import FeatureDataset
from data.files import write_json
from evaluation.measure import all_figures
from evaluation.metrics_table import FORMAT, read_report, table_of, write_metrics
from evaluation.protocols import Experiment, Run
from evaluation.report import write_report
from evaluation.robustness import curves
from evaluation.run import Progress, work
from evaluation.systems import (
    ABLATION,
    BASELINE,
    ENSEMBLE,
    MASC,
    METADATA,
    ZERO_SHOT,
    Fitted,
    System,
)
from features.regions import REGIONS

ODD = 'wild & "open" <b>50%_é|顔'
CLIPS = "clips"
REALS_ONLY = f"{MASC}, real faces only (zero-shot)"
SKILL = {MASC: 2.0, REALS_ONLY: 1.2, "clip_image, whole face": 1.6, METADATA: 0.3}
KINDS = {MASC: ENSEMBLE, REALS_ONLY: ZERO_SHOT, f"{MASC}, raw columns only": ABLATION}
FAILED = "mesonet_4 100% {x}"
REPLICATES = 40
OUTPUTS = {
    "lite.gender": {"kind": "distribution", "size": 2, "names": ["male", "female"]},
    "lite.identity": {"kind": "embedding", "size": 4, "names": []},
}
SMALL = ("from-wild",)  # one run, which is drawn in about a second
RUNS = {
    "in-clips": ("in-dataset", CLIPS, CLIPS, 0.0),
    "from-clips": ("cross-dataset", CLIPS, ODD, 1.0),
    "from-wild": ("cross-dataset", ODD, CLIPS, 1.1),
}


def faces_of(dataset: str, groups: int, seed: int = 0) -> FeatureDataset:
    """Per group, a real and a fake video of three frames (or six pictures of no video)."""
    rng, number = np.random.default_rng(seed), np.arange(groups * 6)
    label = number // 3 % 2
    rows = {
        "dataset": [dataset] * len(number),
        "path": [f"{dataset} {i:04d}, \udce9.jpg" for i in number],
        "video": [f"v{i // 3:04d}" if dataset == CLIPS else "" for i in number],
        "method": [("", f"swap{i // 6 % 2}")[y] for i, y in zip(number, label, strict=True)],
        "group": [f"{dataset}/g{i // 6:03d}" for i in number],
        "condition": [""] * len(number),
    }
    numbers = {"face": np.zeros(len(number), int), "label": label}
    numbers |= dict.fromkeys(("file_bytes", "width", "height", "sharpness", "score"), label * 0.0)
    numbers |= dict.fromkeys(("mean_r", "mean_g", "mean_b", "yaw", "pitch", "roll"), label * 0.0)
    numbers |= {"face_px": 100 + 40 * label + rng.normal(0, 20, len(number))}
    gender = np.repeat((number // 6 % 2)[:, None, None] == [0, 1], len(REGIONS), axis=1)
    identity = rng.normal(size=(len(number), len(REGIONS), 4))
    arrays = {"lite.gender": gender.astype(np.float32), "lite.identity": identity}
    rows = {name: np.array(values, dtype=object) for name, values in rows.items()}
    return FeatureDataset(arrays, rows | numbers)


def system_of(name: str, skill: float, seed: int) -> System:
    def p_fake(faces: FeatureDataset) -> np.ndarray:
        rng = np.random.default_rng(seed + len(faces))
        codes = np.unique(faces.rows["group"], return_inverse=True)[1]
        common = rng.normal(0, 0.3, codes.max() + 1)[codes]  # faces of one group are similar
        noise = rng.normal(size=len(faces)) + common
        return expit(1.5 * (noise + max(skill, 0) * (faces.rows["label"] - 0.5)))

    return System(name, KINDS.get(name, BASELINE), lambda *_: Fitted(p_fake, 0.6))


def refuse(*_: object) -> Fitted:
    raise ValueError("no weights & no network")


def beyond(experiment: Experiment, system: System, fitted: Fitted) -> list[dict]:
    """Rows of what is measured while a system is in memory."""
    run = experiment.in_dataset
    if run is None:
        return []
    rows = [{"metric": "columns", "value": 300}]
    faces = run.tests[CLIPS]
    kept = faces.select(np.arange(len(faces)) >= 7)  # seven faces are lost
    degraded = {Condition("jpeg", level): kept for level in (1, 3)} | {Condition("blur", 2): kept}
    rows += curves(faces, degraded, fitted.p_fake) if system.kind != ABLATION else []
    for output, loss in (("lite.identity", 0.08), ("lite.age", -0.004)):
        about = {"metric": "permutation_importance", "level": "frame", "attribute": output}
        rows += [{**about, "value": loss, "low": loss - 0.01, "high": loss + 0.01}] * (
            system.name == MASC
        )
    return [{**row, "run": run.id, "test": CLIPS} for row in rows]


def write_example(
    folder: Path,
    seed: int = 0,
    groups: int = 20,
    skill: float = 0,
    only: tuple[str, ...] = tuple(RUNS),
) -> tuple[dict, pd.DataFrame]:
    """report.json, metrics.csv and predictions in `folder`.

    only: which of RUNS; with the first one, few-shot runs, permuted labels, and all else that a
    report can hold. Returns: the report and its metrics.
    """
    faces = {name: faces_of(name, groups) for name in (CLIPS, ODD)}
    skills = SKILL | ({f"{MASC}, raw columns only": 1.0} if "in-clips" in only else {})
    plan = []
    for id in only:
        protocol, train, test, loss = RUNS[id]
        title = f"trained on {train}, tested on {test}"
        run = Run(id, protocol, title, {test: faces[test]})
        remarks = ["only 90 real validation faces"]
        experiment = Experiment(id, faces[train], faces[train], [run], remarks)
        systems = [
            system_of(name, value + skill - loss, seed + 1000 * i)
            for i, (name, value) in enumerate(skills.items())
        ]
        plan.append((experiment, [*systems, System(FAILED, BASELINE, refuse)]))
    for draw in (0, 1) if "in-clips" in only else ():
        for size in (100, 300):
            run = Run(f"few-in-clips-{size}-{draw}", "few-shot", "few faces", {CLIPS: faces[CLIPS]})
            made = Experiment(run.id, faces[CLIPS], faces[CLIPS], [run], size=size, seed=draw)
            plan.append((made, [system_of(MASC, np.log10(size), 7 * draw + size)]))
        run = Run(f"permuted-{draw}", "permuted-labels", "permuted", {CLIPS: faces[CLIPS]})
        made = Experiment(run.id, faces[CLIPS], faces[CLIPS], [run], seed=draw)
        plan.append((made, [system_of("permuted", 0, draw)]))
    progress = Progress.begin(folder, {})
    work(progress, plan, beyond)
    test = faces[CLIPS] if "in-clips" in only else faces[CLIPS].select(np.arange(0))
    table = table_of(all_figures(progress, plan, test, OUTPUTS, REPLICATES, 0))
    splits = {"train": {"real": 1200, "fake": 1180, "groups": 200}}
    dump = {"dump": "outputs/features/x/lite", "splits": splits, "no_face": 7, "unreadable": 1}
    report = {
        "format": FORMAT,
        "name": f"example of {ODD}",
        "created": "2025-11-25T12:00:00+00:00",
        "config": {"head": "logreg", "drop": [], "seed": seed},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
        "versions": {"python": "3.11.9", "numpy": "2.4.6"},
        "minutes": 12.5,
        "datasets": {CLIPS: dump, ODD: dump},
        "remarks": [
            "3 test pictures look like one in train, such as clips/a_\udce9.jpg = clips/b.jpg"
        ],
        "runs": {run.id: e.about(run) for e, _ in plan for run in e.runs},
    }
    write_metrics(folder / "metrics.csv", table)
    write_json(folder / "report.json", report)
    return read_report(folder)


def changed(
    folder: Path,
    change: Callable[[dict, pd.DataFrame], object],
    only: tuple[str, ...] = SMALL,
) -> Path:
    """An example whose report and metrics were changed in place. Returns: the folder."""
    report, table = write_example(folder, only=only)
    change(report, table)
    write_json(folder / "report.json", report)
    write_metrics(folder / "metrics.csv", table)
    return folder


def written(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def value(table: pd.DataFrame, metric: str = "auc", **where: object) -> float:
    """The one figure of whole tests that these columns tell."""
    rows = table[
        (table["metric"] == metric) & (table["attribute"] == "") & (table["condition"] == "")
    ]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    (found,) = rows["value"]
    return found


if __name__ == "__main__":
    write_example(Path(sys.argv[1]), groups=60)
    print(write_report(Path(sys.argv[1])) / "index.html")
