"""Every experiment with every system: fit, predict, write down; then score what was written and put it into results.json.

A report folder holds `progress.json` and `predictions/<run>/<system>.csv` while it is made. Each system is written down once
all its predictions are on disk, so a run that is killed goes on with the system that it was at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from data.feature_dataset import FeatureDataset
from data.files import write_json
from evaluation.predictions import write_predictions
from evaluation.protocols import Experiment, slug
from evaluation.systems import Fitted, System

# Settings of evaluate.py under which the fits of a report stay what they are.
FREE = (
    "replicates",
    "roots",
    "device",
    "protocols",
    "ablations",
    "few_shot",
    "permutations",
    "networks",
    "features",
)

# What else is found out about a fitted system, while it is in memory: (experiment, system, fitted) -> name -> JSON-ready.
Also = Callable[[Experiment, System, Fitted], dict[str, object]]


@dataclass
class Progress:
    """What a report folder holds so far. done: "<experiment>/<system>" -> what is known of it besides its predictions."""

    folder: Path
    settings: dict
    done: dict[str, dict] = field(default_factory=dict)
    minutes: float = 0.0  # that earlier starts took

    @classmethod
    def begin(cls, folder: Path, settings: dict, overwrite: bool = False) -> Progress:
        """Go on where an earlier run with the same settings stopped.

        Settings that change no fit (`FREE`) may be others. Raises: ValueError where the folder holds the report of another one,
        or something else.
        """
        path = folder / "progress.json"
        settings = json.loads(json.dumps(settings))
        if overwrite or not path.is_file():
            if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
                raise ValueError(
                    f"{folder}: holds files and no report; choose another --name, or move them"
                )
            shutil.rmtree(folder / "predictions", ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            progress = cls(folder, settings)
            progress.save()
            return progress
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            there, done, minutes = found["settings"], found["done"], float(found.get("minutes", 0))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}: not written by this program; choose another --name, or --overwrite it"
            ) from None
        differing = sorted(
            key for key in there.keys() | settings.keys() if there.get(key) != settings.get(key)
        )
        if differing := [key for key in differing if key not in FREE]:
            raise ValueError(
                f"{folder}: holds a report with other settings ({', '.join(differing)}); --overwrite it, or choose another "
                "--name"
            )
        return cls(folder, settings, done, minutes)

    def save(self) -> None:
        write_json(
            self.folder / "progress.json",
            {"settings": self.settings, "done": self.done, "minutes": self.minutes},
        )

    def finished(self, experiment: Experiment, system: System) -> bool:
        """Whether a system was fitted without failing and all its predictions are there."""
        found = self.done.get(_key(experiment, system))
        there = (self.predictions(run.id, system.name).is_file() for run in experiment.runs)
        return found is not None and not found["failed"] and all(there)

    def predictions(self, run: str, system: str) -> Path:
        return self.folder / "predictions" / run / f"{slug(system)}.csv"


def work(
    progress: Progress,
    plan: Sequence[tuple[Experiment, Sequence[System]]],
    also: Also,
    commit: str | None = None,
) -> int:
    """Fit and predict what is not done yet. A system that cannot learn from the faces of an experiment says why, and is left
    until the next start. commit: of the code, kept with every fit. Returns: how many were left to do."""
    jobs = [(experiment, system) for experiment, systems in plan for system in systems]
    left = [job for job in jobs if not progress.finished(*job)]
    with tqdm(
        total=len(jobs), initial=len(jobs) - len(left), unit=" fits", disable=not left
    ) as bar:
        for experiment, system in left:
            bar.set_postfix_str(f"{experiment.name}: {system.name}")
            progress.done[_key(experiment, system)] = {
                **_one(progress, experiment, system, also),
                "commit": commit,
            }
            progress.save()
            bar.update()
    return len(left)


def _key(experiment: Experiment, system: System) -> str:
    return f"{experiment.name}/{system.name}"


def _one(progress: Progress, experiment: Experiment, system: System, also: Also) -> dict:
    start = time.perf_counter()
    try:
        fitted = system.fit(experiment.train, experiment.val)
        for run in experiment.runs:
            tests = {name: (faces, fitted.p_fake(faces)) for name, faces in run.tests.items()}
            write_predictions(progress.predictions(run.id, system.name), tests)
    except (ValueError, FileNotFoundError) as error:
        return {
            "failed": str(error),
            "notes": [],
            "threshold": None,
            "seconds": time.perf_counter() - start,
        }
    notes, found = list(fitted.notes), {}
    try:
        found = also(experiment, system, fitted)
    except (ValueError, FileNotFoundError) as error:
        notes.append(f"not measured further: {error}")
    return {
        "failed": "",
        "notes": notes,
        "threshold": fitted.threshold,
        "seconds": time.perf_counter() - start,
        **found,
    }


def counts(faces: FeatureDataset) -> dict:
    """{"datasets", "real", "fake", "groups"} of training or validation faces."""
    return {"datasets": sorted(set(faces.rows["dataset"].tolist())), **faces.counts()}
