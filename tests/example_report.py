"""A results folder of made-up scores, as an evaluation leaves it: what the report writer is given.

Scores of real and fake faces are normal, one unit wide, and `SKILL[system]` apart, so that the true AUC is known. Look at it:
    python -m tests.example_report outputs/reports/example
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit

from data.files import write_csv, write_json
from evaluation.delong import delong
from evaluation.metrics import auc, bootstrap, fpr_at, summary
from evaluation.predictions import COLUMNS, Predictions, by_video
from evaluation.report import write_report
from evaluation.results import FORMAT
from features.regions import REGIONS

ODD = 'wild & "open" <b>50%_é|顔'
CLIPS = "clips"
SKILL = {
    "MASC": 2.0,
    "MASC, real faces only": 1.2,
    "clip_image, whole face": 1.6,
    "first 16 columns": 0.8,
    "metadata": 0.3,
}
KINDS = {"MASC": "masc", "MASC, real faces only": "ablation"}
FAILED = "mesonet_4 100% {x}"
REPLICATES = 40
LEVELS = 5
SMALL = ("from-wild",)  # one run, which is drawn in about a second


def interval(y: np.ndarray, p: np.ndarray, groups: np.ndarray, figure=auc) -> dict:
    low, high = bootstrap({"it": figure}, y, p, groups, REPLICATES)["it"]
    return {"value": figure(y, p), "low": low, "high": high}


class Example:
    """Makes it up, one random number after the other. skill: added to that of every system."""

    def __init__(self, seed: int, groups: int, skill: float) -> None:
        self.rng, self.groups, self.skill = np.random.default_rng(seed), groups, skill

    def faces(self, dataset: str, test: str) -> Predictions:
        """Per group, a real and a fake video of three frames (or six pictures of no video)."""
        number = np.arange(self.groups * 6)
        label = number // 3 % 2
        where = [
            f"{('real', 'fake')[y]}/{dataset} {n:04d}, \udce9.jpg"
            for n, y in zip(number, label, strict=True)
        ]
        clips = [f"v{n // 3:04d}" if dataset == CLIPS else "" for n in number]
        return {
            "test": np.full(len(number), test),
            "dataset": np.full(len(number), dataset),
            "path": np.array(where),
            "face": np.zeros(len(number), int),
            "video": np.array(clips),
            "method": np.array(
                [("", f"swap{n % 2}")[y] for n, y in zip(number // 6, label, strict=True)]
            ),
            "group": np.array([f"{dataset}/g{n // 6:03d}" for n in number]),
            "label": label,
        }

    def scores(self, faces: Predictions, skill: float) -> np.ndarray:
        """Faces of one group have something in common."""
        common = self.rng.normal(0, 0.3, self.groups)[np.arange(len(faces["label"])) // 6]
        apart = max(skill + self.skill, 0) * (faces["label"] - 0.5)
        return np.round(expit(1.5 * (self.rng.normal(0, 1, len(common)) + common + apart)), 6)

    def run(
        self,
        folder: Path,
        name: str,
        protocol: str,
        train: list[str],
        tests: dict[str, str],
        loss: float = 0,
    ) -> dict:
        """tests: test -> dataset. loss: of every skill. Writes the predictions."""
        faces = {test: self.faces(dataset, test) for test, dataset in tests.items()}
        counts = {"datasets": train, "real": 1200, "fake": 1180, "groups": 200}
        systems, masc = [], {}
        for system, skill in SKILL.items():
            path = folder / "predictions" / name / f"{len(systems)}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            scored = {
                test: {**found, "p_fake": self.scores(found, skill - loss)}
                for test, found in faces.items()
            }
            rows = [
                row
                for found in scored.values()
                for row in zip(*(found[c].tolist() for c in COLUMNS), strict=True)
            ]
            write_csv(path, list(COLUMNS), rows)
            measured = []
            for test, found in scored.items():
                for level, part in (("frame", found), ("video", by_video(found))):
                    if len(part["label"]):
                        y, p = part["label"], part["p_fake"]
                        figures = summary(y, p, part["group"].tolist(), 0.6, REPLICATES)
                        against = (
                            {"against": "MASC", **delong(y, masc[test, level], p)}
                            if masc.get((test, level)) is not None
                            else None
                        )
                        masc.setdefault((test, level), p)
                        measured.append(
                            {"test": test, "level": level, "figures": figures, "delong": against}
                        )
            systems.append(
                {
                    "name": system,
                    "kind": KINDS.get(system, "baseline"),
                    "note": "",
                    "threshold": 0.6,
                    "seconds": 3.21,
                }
                | {"predictions": path.relative_to(folder).as_posix(), "tests": measured}
            )
        failed = {
            "name": FAILED,
            "kind": "baseline",
            "note": "failed: no weights & no network",
            "threshold": None,
        }
        systems.append(failed | {"seconds": 0.0, "predictions": None, "tests": []})
        title = f"trained on {' and '.join(train)}, tested on {' and '.join(tests)}"
        return {
            "id": name,
            "protocol": protocol,
            "title": title,
            "train": counts,
            "val": counts,
            "remarks": ["only 90 real validation faces"],
            "systems": systems,
        }

    def few_shot(self) -> list[dict]:
        entries = []
        for system in ("MASC", "metadata"):
            for size in (100, 300, 1000):
                for seed in range(3):
                    faces = self.faces(CLIPS, CLIPS)
                    p = self.scores(faces, SKILL[system] * np.log10(size) / 3)
                    figures = summary(faces["label"], p, faces["group"].tolist(), 0.6, REPLICATES)
                    entry = {
                        "dataset": CLIPS,
                        "system": system,
                        "asked": size,
                        "faces": size + seed,
                    }
                    entries.append(entry | {"figures": figures, "seed": seed})
        return entries

    def robustness(self) -> list[dict]:
        curves = []
        for family, unit in (("jpeg", "quality"), ("blur", "px wide")):
            for system in ("MASC", "clip_image, whole face", "metadata"):
                points, every = [], []
                for level in range(LEVELS + 1):
                    faces = self.faces(CLIPS, CLIPS)
                    p = self.scores(faces, SKILL[system] * (1 - 0.15 * level))
                    lost = self.rng.random(len(p)) < 0.03 * level
                    y, groups = faces["label"], faces["group"]
                    every.append(interval(y[~lost], p[~lost], groups[~lost]))
                    point = {
                        "level": level,
                        "parameter": f"{100 - 15 * level} {unit}",
                        "n": int((~lost).sum()),
                    }
                    point |= {"lost": int(lost.sum()), "auc": every[-1]}
                    points.append(
                        point | {"auc_with_lost": interval(y, np.where(lost, 0, p), groups)}
                    )
                slope = float(
                    np.polyfit(range(LEVELS + 1), [each["value"] for each in every], 1)[0]
                )
                curve = {"system": system, "dataset": CLIPS, "family": family, "clean": every[0]}
                curves.append(curve | {"slope": slope, "points": points[1:]})
        return curves

    def subgroups(self, run: dict) -> list[dict]:
        entries = []
        for attribute, names in (
            ("gender", ("female", "male")),
            ("age band", ("0-19", "20-39", "40-59", "60+")),
        ):
            groups = []
            for name in names:
                faces = self.faces(CLIPS, CLIPS)
                y, p = faces["label"], self.scores(faces, SKILL["MASC"])
                figures = {
                    "auc": interval(y, p, faces["group"]),
                    "fpr": interval(y, p, faces["group"], lambda y, p: fpr_at(y, p, 0.6)),
                }
                groups.append(
                    {"name": name, "n_real": int((y == 0).sum()), "n_fake": int(y.sum()), **figures}
                )
            groups.append({"name": "other", "n_real": 3, "n_fake": 0, "auc": None, "fpr": None})
            values = {
                key: [group[key]["value"] for group in groups if group[key]]
                for key in ("auc", "fpr")
            }
            gaps = {key: max(found) - min(found) for key, found in values.items()}
            entry = {"run": run["id"], "system": "MASC", "dataset": CLIPS, "attribute": attribute}
            entries.append(entry | {"groups": groups, "largest_gap": gaps})
        return entries

    def inconsistency(self) -> list[dict]:
        entries = []
        for output, unit in (
            ("lite.identity", "1 - cosine"),
            ("lite.age", "Jensen-Shannon divergence, nats"),
        ):
            entry = {
                "dataset": CLIPS,
                "output": output,
                "regions": list(REGIONS),
                "n_real": 120,
                "n_fake": 120,
                "unit": unit,
            }
            for word, more in (("real", 0), ("fake", 0.15)):
                half = np.triu(self.rng.uniform(0.2, 0.5, (8, 8)), 1)
                half[0, 5] += more
                whole = [
                    [None if i == j else value for j, value in enumerate(row)]
                    for i, row in enumerate((half + half.T).tolist())
                ]
                entry[word] = whole
            entries.append(entry)
        return entries

    def beyond(self, run: dict) -> dict:
        """All lists that are not about runs. run: the one they belong to."""
        known = {
            system["name"]: system["tests"][0]["figures"]["auc"]
            for system in run["systems"]
            if system["tests"]
        }
        falls = {
            "lite.identity": 0.08,
            "lite.age": 0.03,
            "lite.expression_with_a_long_name": -0.004,
        }
        return {
            "few_shot": self.few_shot(),
            "robustness": self.robustness(),
            "subgroups": self.subgroups(run),
            "importance": [
                {"run": run["id"], "dataset": CLIPS, "group": name}
                | {"fall": {"value": fall, "low": fall - 0.01, "high": fall + 0.015}}
                for name, fall in falls.items()
            ],
            "ablation": [
                {
                    "run": run["id"],
                    "name": name,
                    "columns": 300 - 40 * place,
                    "dataset": CLIPS,
                    "auc": found,
                }
                for place, (name, found) in enumerate(known.items())
            ],
            "inconsistency": self.inconsistency(),
        }


RUNS: dict[str, tuple] = {
    "in-clips": ("in-dataset", [CLIPS], {CLIPS: CLIPS}, 0),
    "in-wild": ("in-dataset", [ODD], {ODD: ODD}, 0.3),
    "people-clips": ("identity-disjoint", [CLIPS], {CLIPS: CLIPS}, 0.5),
    "from-clips": ("cross-dataset", [CLIPS], {ODD: ODD}, 1),
    "from-wild": ("cross-dataset", [ODD], {CLIPS: CLIPS}, 1.1),
    "without-swap": ("leave-one-manipulation-out", [CLIPS], {"swap_0": CLIPS}, 0.7),
}


def write_example(
    folder: Path,
    seed: int = 0,
    groups: int = 20,
    skill: float = 0,
    only: tuple[str, ...] = tuple(RUNS),
) -> dict:
    """results.json and predictions in `folder`. only: which of RUNS; with the first one, all else that a report can hold.

    Returns: the content of results.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    example = Example(seed, groups, skill)
    runs = [example.run(folder, name, *RUNS[name]) for name in only]
    data = {
        "format": FORMAT,
        "name": f"example of {ODD}",
        "created": "2025-11-25T12:00:00+00:00",
        "config": {
            "training": {"head": "logreg", "drop": []},
            "replicates": REPLICATES,
            "seed": seed,
        },
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
        "versions": {"python": "3.11.9", "numpy": "2.4.6"},
        "minutes": 12.5,
        "datasets": {
            name: {"dump": f"outputs/features/{name}/lite", "no_face": 7, "unreadable": 1}
            | {
                "splits": {
                    split: {"real": n, "fake": n - 20, "groups": n // 6}
                    for split, n in (("train", 1200), ("test", 120))
                }
            }
            for name in (CLIPS, ODD)
        },
        "remarks": [
            "3 test pictures look like one in train, such as clips/a_\udce9.jpg = clips/b.jpg: figures on them flatter"
        ],
        "runs": runs,
    }
    if "in-clips" in only:
        data |= example.beyond(runs[only.index("in-clips")])
    write_json(folder / "results.json", data)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def changed(folder: Path, change: Callable[[dict], object], only: tuple[str, ...] = SMALL) -> Path:
    """An example whose results.json was changed. Returns: the folder."""
    data = write_example(folder, only=only)
    change(data)
    (folder / "results.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def written(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    write_example(Path(sys.argv[1]), groups=60)
    print(write_report(Path(sys.argv[1])) / "index.html")
