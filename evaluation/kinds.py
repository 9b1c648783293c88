"""By kind of fake: what systems find of methods and datasets that were left out of their training.

From the predictions of the protocol `left-out`. Every method counts alike in a mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from evaluation.measure import false_alarm_rows
from evaluation.metrics import auc, interval
from evaluation.metrics_table import counts_of, pick, unique
from evaluation.page import Names, Table
from evaluation.predictions import FACE, of_test, read_predictions
from evaluation.protocols import DATASET, SOURCE, VALIDATION, Experiment, Run, datasets_of
from evaluation.run import Jobs, Progress
from evaluation.tables import INTERVALS, numbers, view
from training.left_out import Scored, clear_below, level_of

EACH, MEAN = "its source, each", "mean of "
METRICS = {
    "auc": "AUC",
    "called_fake": "fakes called fake at the threshold that the validation faces set",
    "nothing_found": "fakes with `nothing found`",
    "false_alarms": "real faces called fake at the threshold that the validation faces set",
    "cleared": "real faces with `nothing found`",
}
BY_GROUP = (
    f"{INTERVALS}; the fakes of a single source are drawn one by one",
    "A mean counts every method alike; its interval is about these methods, not about others",
)
CLEAR = (
    "`nothing found`: below the p_fake that so large a share of the real validation faces has as was chosen on what "
    "shares neither dataset nor source with the line (docs/evaluation.md)"
)
NOTES = dict.fromkeys(METRICS, BY_GROUP)
NOTES |= {"nothing_found": (*BY_GROUP, CLEAR), "cleared": (INTERVALS, CLEAR)}
NOTES["false_alarms"] = ("95% intervals of Clopper & Pearson, which take faces for independent",)


@dataclass(frozen=True)
class Part(Scored):
    """Scores of one test by one system. faces: a row each; source: what was left out, with its
    dataset; edge: p_fake below which `nothing found` is said.
    """

    faces: pd.DataFrame
    source: tuple[str, str]
    edge: float = 0.0

    @property
    def of_method(self) -> bool:
        """Whether the fakes are of the method that the test is called after."""
        return set(self.faces["method"][self.faces["label"] == 1]) == {self.kind}

    def apart(self, other: Part) -> bool:
        """Whether nothing that was left out for one was left out for the other."""
        (a, one), (b, two) = self.source, other.source
        return a != b or bool(one and two and one != two)


def figures(progress: Progress, plan: Jobs, replicates: int) -> Iterator[dict]:
    """Rows of metrics.csv: every test of every system, and means over methods."""
    systems = defaultdict(list)
    for experiment, fitted in plan:
        if experiment.runs[0].protocol in (SOURCE, DATASET):
            for system in fitted:
                if not progress.of(experiment, system)["failed"]:
                    systems[system.name, system.kind].append(experiment)
    for (name, kind), experiments in systems.items():
        about = {"system": name, "kind": kind, "level": "frame"}
        for row in _of_system(progress, name, experiments, replicates):
            yield {**about, **row}


def _of_system(
    progress: Progress, system: str, experiments: Sequence[Experiment], replicates: int
) -> Iterator[dict]:
    tests: list[tuple[Experiment, dict[str, Part]]] = []
    for experiment in experiments:
        (run,) = experiment.runs
        found = read_predictions(progress.predictions(run.id, system))
        done = progress.done[f"{experiment.name}/{system}"]
        tests.append((experiment, _parts(found, run, experiment.excluded, done["threshold"])))
    chosen = [
        part
        for experiment, parts in tests
        for test, part in parts.items()
        if part.left_out == SOURCE or test == experiment.excluded
    ]
    each: list[Part] = []
    for experiment, parts in tests:
        if not parts:
            continue
        (run,), first = experiment.runs, next(iter(parts.values()))
        level = level_of([part for part in chosen if part.apart(first)])[0]
        edge = clear_below(first.real, level, first.threshold)
        parts = [replace(part, edge=edge) for part in parts.values()]
        about = {"run": run.id, "protocol": run.protocol, "note": experiment.excluded}
        about["train"] = " + ".join(datasets_of(experiment.train))
        for part in parts:
            rows, real = [*_rows([part], replicates)], part.label == 0
            if not part.of_method:
                alarms = false_alarm_rows(part.p_fake[real], part.group[real], part.threshold)
                rows += [{**row, "test": part.kind} for row in alarms]
            yield from ({**row, **about} for row in rows)
        if run.protocol == SOURCE:
            each += parts
        else:
            yield from ({**about, **row} for row in _means(parts, replicates))
    about = {"protocol": SOURCE, "note": EACH}
    yield from ({**about, **row} for row in _means(each, replicates))


def _parts(found: pd.DataFrame, run: Run, excluded: str, threshold: float) -> dict[str, Part]:
    """Test -> its part, of those with a score."""
    real, parts = of_test(found, VALIDATION)["p_fake"].to_numpy(), {}
    for test in (test for test in run.tests if test != VALIDATION):
        faces = of_test(found, test)
        if not len(faces) or not len(real):
            continue
        label, p_fake, group = (faces[name].to_numpy() for name in ("label", "p_fake", "group"))
        if len(set(group[label == 1])) == 1:
            group = np.where(label == 1, faces["path"], group)
        whole = run.protocol == DATASET
        source = (excluded, "") if whole else (faces["dataset"].iloc[0], excluded)
        scores = (label, p_fake, group, threshold, real, True)
        parts[test] = Part(test, run.protocol, *scores, faces, source)
    return parts


def _kind(part: Part) -> str:
    return part.kind.partition(": ")[0] if ": " in part.kind else ""


def _means(parts: Sequence[Part], replicates: int) -> Iterator[dict]:
    """Over the methods of each kind, and over all methods."""
    methods = [part for part in parts if part.of_method]
    kinds = defaultdict(list)
    for part in methods:
        kinds[_kind(part)].append(part)
    for kind, of_kind in {**kinds, "all": methods}.items():
        if kind and len(methods) > 1:
            test = f"{MEAN}{len(of_kind)}"
            yield from ({**x, "test": test, "group": kind} for x in _rows(of_kind, replicates))


def _rows(parts: Sequence[Part], replicates: int) -> Iterator[dict]:
    """Figures of a part, or means over several."""
    faces = pd.concat([part.faces for part in parts]).drop_duplicates(FACE)
    counts = counts_of(faces["label"].to_numpy(), faces["group"].to_numpy())
    about = {"test": parts[0].kind, "group": _kind(parts[0]), **counts}
    called = [(part.p_fake >= part.threshold).astype(float) for part in parts]
    clear = [(part.p_fake < part.edge).astype(float) for part in parts]
    code = np.concatenate([part.label + 2 * place for place, part in enumerate(parts)])
    group = np.concatenate([part.group for part in parts])
    wanted = {
        "auc": (auc, [part.p_fake for part in parts]),
        "called_fake": (_share(1), called),
        "nothing_found": (_share(1), clear),
    }
    wanted = wanted if faces["label"].any() else {}
    if not parts[0].of_method:
        wanted |= {"cleared": (_share(0), clear)}
    for metric, (figure, values) in wanted.items():

        def mean(y: np.ndarray, p: np.ndarray, figure=figure) -> float:
            found = [figure(y[y // 2 == i] % 2, p[y // 2 == i]) for i in np.unique(y // 2)]
            known = [value for value in found if not np.isnan(value)]
            return float(np.mean(known)) if known else float("nan")

        found = interval(mean, code, np.concatenate(values), group, replicates)
        yield {**about, "metric": metric, **found}


def _share(label: int) -> Callable[[np.ndarray, np.ndarray], float]:
    def share(y: np.ndarray, p: np.ndarray) -> float:
        return float(p[y == label].mean()) if (y == label).any() else float("nan")

    return share


def tables_of(names: Names, table: pd.DataFrame) -> Iterator[Table]:
    """A table per metric: a line for every left-out method, mean and dataset."""
    rows = pick(table, protocol=(SOURCE, DATASET)).drop(columns="kind")
    whole, mean = rows["protocol"] == DATASET, rows["test"].str.startswith(MEAN)
    order = [whole, rows["note"].where(whole, ""), rows["group"] == "", rows["group"] == "all"]
    order = pd.concat([*order, rows["group"], mean], axis=1)
    rows = rows.iloc[sorted(range(len(rows)), key=order.apply(tuple, axis=1).tolist().__getitem__)]
    index = {"note": "left out", "group": "kind", "test": "tested on"}
    rows = rows.rename(columns=index)
    rows["tested on"] = [
        test.removeprefix(f"{kind}: ")
        for kind, test in zip(rows["kind"], rows["tested on"], strict=True)
    ]
    for metric, title in METRICS.items():
        if not len(found := pick(rows, metric=metric)):
            continue
        headings = {name: name for name in unique(found, "system")}
        spec = (found, [*index.values()], "system", headings, NOTES[metric], None, False)
        made = view(names("kinds", metric), f"Left out of training: {title}", *spec)
        lines = found.drop_duplicates([*index.values()]).to_dict("records")
        made.cells.insert(len(index), "real + fake", [*map(numbers, lines)])
        yield made
