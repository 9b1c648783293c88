"""Every experiment with every system: fit, predict, write down.

A system is noted as done in `progress.json` once all its predictions are on disk, so an evaluation
that is killed goes on with the system that it was at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from data.files import write_json
from evaluation.plan import Measure
from evaluation.predictions import write_predictions
from evaluation.protocols import Experiment, slug
from evaluation.systems import System

Jobs = Sequence[tuple[Experiment, Sequence[System]]]


@dataclass
class Progress:
    """What a report folder holds so far.

    Attributes:
        settings: what all fits of a report must have in common.
        done: "<experiment>/<system>" -> failed, notes, threshold, seconds, commit, rows.
    """

    folder: Path
    settings: dict
    done: dict[str, dict] = field(default_factory=dict)
    minutes: float = 0.0

    @classmethod
    def begin(cls, folder: Path, settings: dict, overwrite: bool = False) -> Progress:
        """Go on where an earlier run with the same settings stopped."""
        path, settings = folder / "progress.json", json.loads(json.dumps(settings))
        if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"{folder}: holds files and no report; choose another --name, or move them"
            )
        if overwrite or not path.is_file():
            shutil.rmtree(folder / "predictions", ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            progress = cls(folder, settings)
            progress.save()
            return progress
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before, done, minutes = found["settings"], found["done"], float(found["minutes"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}: not written by this version; choose another --name, or --overwrite it"
            ) from None
        names = sorted(before.keys() | settings.keys())
        if differing := [name for name in names if before.get(name) != settings.get(name)]:
            raise ValueError(
                f"{folder}: holds a report with other settings ({', '.join(differing)}); choose another --name, or "
                "--overwrite it"
            )
        return cls(folder, settings, done, minutes)

    def save(self) -> None:
        known = {name: getattr(self, name) for name in ("settings", "done", "minutes")}
        write_json(self.folder / "progress.json", known)

    def of(self, experiment: Experiment, system: System) -> dict:
        return self.done[f"{experiment.name}/{system.name}"]

    def finished(self, experiment: Experiment, system: System) -> bool:
        """Whether a system was fitted without failing and all its predictions are on disk."""
        found = self.done.get(f"{experiment.name}/{system.name}")
        files = (self.predictions(run.id, system.name).is_file() for run in experiment.runs)
        return found is not None and not found["failed"] and all(files)

    def predictions(self, run: str, system: str) -> Path:
        return self.folder / "predictions" / run / f"{slug(system)}.csv"


def work(progress: Progress, plan: Jobs, measure: Measure, commit: str | None = None) -> int:
    """Fit and predict what is not done yet; returns how much that was.

    A system that fails is tried again at the next start. commit: of the code, kept with every fit.
    """
    jobs = [(experiment, system) for experiment, systems in plan for system in systems]
    left = [job for job in jobs if not progress.finished(*job)]
    done = len(jobs) - len(left)
    with tqdm(total=len(jobs), initial=done, unit=" fits", disable=not left) as bar:
        for experiment, system in left:
            bar.set_postfix_str(f"{experiment.name}: {system.name}")
            start = time.perf_counter()
            found = _fit(progress, experiment, system, measure)
            found |= {"seconds": round(time.perf_counter() - start, 2), "commit": commit}
            progress.done[f"{experiment.name}/{system.name}"] = found
            progress.save()
            bar.update()
    return len(left)


def _fit(progress: Progress, experiment: Experiment, system: System, measure: Measure) -> dict:
    done = {"failed": "", "notes": [], "threshold": None, "rows": []}
    try:
        fitted = system.fit(experiment.train, experiment.val)
        for run in experiment.runs:
            tests = {name: (faces, fitted.p_fake(faces)) for name, faces in run.tests.items()}
            write_predictions(progress.predictions(run.id, system.name), tests)
    except (ValueError, FileNotFoundError) as error:
        return done | {"failed": str(error)}
    done |= {"notes": [*fitted.notes], "threshold": fitted.threshold}
    try:
        done["rows"] = measure(experiment, system, fitted)
    except (ValueError, FileNotFoundError) as error:
        done["notes"].append(f"not measured further: {error}")
    return done
