"""Every experiment with every system: fit, predict, write down; then score what was written and put it into results.json.

A report folder holds `progress.json` and `predictions/<run>/<system>.csv` while it is made. Each system is written down once
all its predictions are on disk, so a run that is killed goes on with the system that it was at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from data.gathered import Faces
from data.store import write_json
from evaluation.predictions import write_predictions
from evaluation.protocols import Experiment, slug
from evaluation.systems import Fitted, System

# What else is found out about a fitted system, while it is in memory: (experiment, system, fitted) -> name -> JSON-ready.
Also = Callable[[Experiment, System, Fitted], dict[str, object]]


@dataclass
class Progress:
    """What a report folder holds so far. done: "<experiment>/<system>" -> what is known of it besides its predictions."""

    folder: Path
    settings: dict
    done: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, settings: dict, overwrite: bool = False) -> Progress:
        """Go on where an earlier run with the same settings stopped.

        Raises: ValueError where the folder holds the report of another one, or something else.
        """
        path = folder / "progress.json"
        settings = json.loads(json.dumps(settings))
        if overwrite or not path.is_file():
            if not overwrite and folder.is_dir() and any(folder.iterdir()):
                raise ValueError(f"{folder}: holds files and no report; choose another --name, or move them")
            folder.mkdir(parents=True, exist_ok=True)
            progress = cls(folder, settings)
            progress.save()
            return progress
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            there, done = found["settings"], found["done"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: not written by this program; choose another --name, or --overwrite it") from None
        if there != settings:
            differing = sorted(key for key in there.keys() | settings.keys() if there.get(key) != settings.get(key))
            raise ValueError(
                f"{folder}: holds a report with other settings ({', '.join(differing)}); --overwrite it, or choose another "
                "--name"
            )
        return cls(folder, settings, done)

    def save(self) -> None:
        write_json(self.folder / "progress.json", {"settings": self.settings, "done": self.done})

    def predictions(self, run: str, system: str) -> Path:
        return self.folder / "predictions" / run / f"{slug(system)}.csv"


def work(progress: Progress, plan: Sequence[tuple[Experiment, Sequence[System]]], also: Also) -> None:
    """Fit and predict what is not done yet. A system that cannot learn from the faces of an experiment says why, and is left."""
    jobs = [(experiment, system) for experiment, systems in plan for system in systems]
    left = [job for job in jobs if _key(*job) not in progress.done]
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), unit=" fits", disable=not left) as bar:
        for experiment, system in left:
            bar.set_postfix_str(f"{experiment.name}: {system.name}")
            progress.done[_key(experiment, system)] = _one(progress, experiment, system, also)
            progress.save()
            bar.update()


def _key(experiment: Experiment, system: System) -> str:
    return f"{experiment.name}/{system.name}"


def _one(progress: Progress, experiment: Experiment, system: System, also: Also) -> dict:
    start = time.perf_counter()
    try:
        fitted = system.fit(experiment.train, experiment.val)
        for run in experiment.runs:
            tests = {name: (faces, fitted.p_fake(faces)) for name, faces in run.tests.items()}
            write_predictions(progress.predictions(run.id, system.name), tests)
        found = also(experiment, system, fitted)
    except (ValueError, FileNotFoundError) as error:
        return {"failed": str(error), "notes": [], "threshold": None, "seconds": time.perf_counter() - start}
    return {
        "failed": "",
        "notes": fitted.notes,
        "threshold": fitted.threshold,
        "seconds": time.perf_counter() - start,
        **found,
    }


def counts(faces: Faces) -> dict:
    """{"datasets", "real", "fake", "groups"} of training or validation faces."""
    return {"datasets": sorted(set(faces.rows["dataset"].tolist())), **faces.counts()}
