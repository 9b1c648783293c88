"""Which faces train and which test: the experiments of the tables.

Every `Experiment` is one training set with the runs that are made with it, so that in-dataset, cross-dataset and Cross-AUC
figures come from the same fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data.feature_dataset import FeatureDataset
from data.people import JOIN, largest_share, near_identity_matches
from data.splits import identity_disjoint, train_and_val
from features.regions import REGIONS

SIZES = (100, 300, 1000, 3000)
MIN_FACES = 20  # of each class, to test on or, of a method, to leave out


@dataclass(frozen=True)
class Run:
    """tests: what it is called -> its faces."""

    id: str
    protocol: str
    title: str
    tests: dict[str, FeatureDataset]


@dataclass(frozen=True)
class Experiment:
    """One training set. remarks: what a reader must know about the split."""

    name: str
    train: FeatureDataset
    val: FeatureDataset
    runs: list[Run]
    remarks: list[str] = field(default_factory=list)


def slug(text: str) -> str:
    """A file name of a title: lower case, letters and digits of any alphabet, hyphens."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "unnamed"


def datasets_of(faces: FeatureDataset) -> list[str]:
    return sorted(set(faces.rows["dataset"].tolist()))


def of_dataset(faces: FeatureDataset, name: str) -> FeatureDataset:
    return faces.select(faces.rows["dataset"] == name)


def enough(faces: FeatureDataset) -> bool:
    """Whether both classes are there in numbers that say something."""
    counts = faces.counts()
    return min(counts["real"], counts["fake"]) >= MIN_FACES


def by_given_splits(faces: FeatureDataset) -> list[Experiment]:
    """One experiment for each dataset: in-dataset, cross-dataset, and reals of it against fakes of others and vice versa.

    In the last, a classifier that tells the datasets apart, and not real from fake, shows itself by AUCs far from .5 in opposite
    directions.
    """
    experiments, every = (
        [],
        {name: of_dataset(faces.split("test"), name) for name in datasets_of(faces)},
    )
    tests = {name: test for name, test in every.items() if enough(test)}
    reals, fakes = (
        [name for name, test in every.items() if test.counts()[label] >= MIN_FACES]
        for label in ("real", "fake")
    )
    for name in datasets_of(faces):
        remarks: list[str] = []
        try:
            train, val = train_and_val(of_dataset(faces, name), remarks)
        except ValueError:
            continue  # a dataset for testing only
        runs = []
        if name in tests:
            runs.append(
                Run(
                    f"in-{slug(name)}",
                    "in-dataset",
                    f"trained and tested on {name}",
                    {name: tests[name]},
                )
            )
        if others := {other: test for other, test in tests.items() if other != name}:
            runs.append(
                Run(
                    f"from-{slug(name)}",
                    "cross-dataset",
                    f"trained on {name}, tested on others",
                    others,
                )
            )
        cross_auc = {
            f"reals of {a}, fakes of {b}": reals_against_fakes(every[a], every[b])
            for a in reals
            for b in fakes
            if a != b and name in (a, b)
        }
        if cross_auc:
            title = f"trained on {name}, reals of one dataset against fakes of another"
            runs.append(Run(f"cross-auc-{slug(name)}", "cross-auc", title, cross_auc))
        experiments.append(Experiment(name, train, val, runs, remarks))
    return experiments


def unused(faces: FeatureDataset) -> list[str]:
    """For each dataset that cannot train alone, or be tested alone, by its given splits: why, for a reader of the tables."""
    remarks = []
    for name in datasets_of(faces):
        given = of_dataset(faces, name)
        train, test = (given.split(split).counts() for split in ("train", "test"))
        if not (train["real"] and train["fake"]):
            remarks.append(
                f"{name}: nothing is trained on it alone ({train['real']} real and {train['fake']} fake training faces)"
            )
        if not enough(given.split("test")):
            remarks.append(
                f"{name}: not tested by itself ({test['real']} real and {test['fake']} fake test faces; {MIN_FACES} of each are "
                "needed)"
            )
    return remarks


def reals_against_fakes(reals: FeatureDataset, fakes: FeatureDataset) -> FeatureDataset:
    """The real faces of one test and the fakes of another."""
    parts = [reals.select(reals.rows["label"] == 0), fakes.select(fakes.rows["label"] == 1)]
    return FeatureDataset(
        *(
            {
                key: np.concatenate([getattr(p, which)[key] for p in parts])
                for key in getattr(reals, which)
            }
            for which in ("arrays", "rows")
        )
    )


def together(faces: FeatureDataset) -> list[Experiment]:
    """All datasets train together, each is tested by itself."""
    names = datasets_of(faces)
    tests = {name: of_dataset(faces.split("test"), name) for name in names}
    tests = {name: test for name, test in tests.items() if enough(test)}
    if len(names) < 2 or not tests:
        return []
    remarks: list[str] = []
    train, val = train_and_val(faces, remarks)
    run = Run("together", "in-dataset", f"trained on {' and '.join(names)} together", tests)
    return [Experiment("together", train, val, [run], remarks)]


def identity_disjoint_experiments(faces: FeatureDataset) -> list[Experiment]:
    """In-dataset and cross-dataset again, after joining the groups of real faces that look like one person."""
    experiments = []
    for name in datasets_of(faces):
        given = of_dataset(faces, name)
        if not given.counts()["real"]:
            continue
        apart = identity_disjoint(given)
        share = largest_share(apart.rows["group"])
        before, after = (len(set(part.rows["group"])) for part in (given, apart))
        left_out, both = int((apart.rows["split"] == "").sum()), on_both_sides(given, apart)
        remarks = [
            f"{before} groups joined into {after} ({share:.1%} of the faces in the largest, which trains), {left_out} faces left "
            f"out, who are or resemble somebody on a later side; in the given splits {both:.0%} of the real test faces belong to "
            "somebody who also has training faces, as far as the identity embedding can tell",
            f"only real faces could be joined: {resembling(apart):.0%} of the test fakes resemble a training fake (cosine above "
            f"{JOIN}); they may show one person, or look alike because one program drew them",
        ]
        test = apart.split("test")
        try:
            train, val = train_and_val(apart, remarks)
        except ValueError:
            continue
        if not enough(test):
            continue
        run = Run(
            f"people-{slug(name)}", "identity-disjoint", f"{name}, people apart", {name: test}
        )
        experiments.append(Experiment(f"{name}, people apart", train, val, [run], remarks))
    return experiments


def resembling(apart: FeatureDataset) -> float:
    """Share of test fakes whose whole face is as like a training fake as faces of one person are."""
    name = next(name for name in apart.arrays if name.endswith(".identity"))
    whole, fake = (
        apart.arrays[name][:, REGIONS.index("full")].astype(np.float32),
        apart.rows["label"] == 1,
    )
    testing, trains = (fake & (apart.rows["split"] == split) for split in ("test", "train"))
    near = near_identity_matches(whole, ~fake, testing, trains, JOIN, what=fake)
    return float(near[testing].mean()) if testing.any() else float("nan")


def on_both_sides(given: FeatureDataset, apart: FeatureDataset) -> float:
    """Share of real test faces whose joined group also has training faces in the given splits."""
    real, splits, people = given.rows["label"] == 0, given.rows["split"], apart.rows["group"]
    trained = set(people[splits == "train"])
    tested = people[real & (splits == "test")]
    return float(np.mean([person in trained for person in tested])) if len(tested) else float("nan")


def leave_one_manipulation_out(faces: FeatureDataset) -> list[Experiment]:
    """For each way of making fakes: trained without it, tested on it against the real test faces of the same datasets."""
    fake, methods = faces.rows["label"] == 1, faces.rows["method"]
    known = sorted({method for method in methods[fake].tolist() if method})
    experiments = []
    for method in known if len(known) > 1 else ():
        of_method = fake & (methods == method)
        remarks: list[str] = []
        try:
            train, val = train_and_val(faces.select(~of_method), remarks)
        except ValueError:
            continue
        home = np.isin(faces.rows["dataset"], list(set(faces.rows["dataset"][of_method].tolist())))
        test = faces.select((of_method | (~fake & home)) & (faces.rows["split"] == "test"))
        if enough(test) and train.counts()["fake"]:
            run = Run(
                f"without-{slug(method)}",
                "leave-one-manipulation-out",
                f"trained without {method}, tested on it",
                {method: test},
            )
            experiments.append(Experiment(f"without {method}", train, val, [run], remarks))
    return experiments


def few_shot(experiment: Experiment, faces: int, seed: int) -> Experiment | None:
    """The same with about `faces` training faces: whole groups, both classes as they come. None where there are fewer, or where
    whole groups make it half as many again.

    For one seed, a smaller set is part of every larger one.
    """
    groups = experiment.train.rows["group"].astype(str)
    if len(groups) < faces:
        return None
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    place = {group: i for i, group in enumerate(order.tolist())}
    rank = np.array([place[group] for group in groups.tolist()])
    counts = np.cumsum(np.bincount(rank, minlength=len(order)))
    train = experiment.train.select(rank <= np.searchsorted(counts, faces))
    if len(train) > 1.5 * faces:
        return None
    name = f"{experiment.name}, {faces} faces, seed {seed}"
    runs = [
        Run(
            f"few-{run.id}-{faces}-{seed}",
            "few-shot",
            f"{run.title}, {faces} training faces",
            run.tests,
        )
        for run in experiment.runs
        if run.protocol == "in-dataset"
    ]
    return replace(experiment, name=name, train=train, runs=runs)


def sanity(experiment: Experiment) -> Experiment | None:
    """The in-dataset runs again, for systems that are given permuted labels (evaluation/systems.py)."""
    title = "{}; training labels permuted, nothing but labels teaches, so that it must be .50"
    runs = [
        Run(f"permuted-{run.id}", "sanity", title.format(run.title), run.tests)
        for run in experiment.runs
        if run.protocol == "in-dataset"
    ]
    return (
        replace(experiment, name=f"{experiment.name}, permuted labels", runs=runs) if runs else None
    )


PROTOCOLS = {
    "given": by_given_splits,
    "together": together,
    "people": identity_disjoint_experiments,
    "methods": leave_one_manipulation_out,
}


def experiments_of(faces: FeatureDataset, protocols: Sequence[str]) -> list[Experiment]:
    """All experiments of the protocols named. Raises: ValueError where there is nothing to train and test on."""
    found = [experiment for name in protocols for experiment in PROTOCOLS[name](faces)]
    found = [experiment for experiment in found if experiment.runs]
    if not found:
        counts = {split: faces.split(split).counts() for split in ("train", "val", "test")}
        raise ValueError(
            f"nothing to train and test on for {', '.join(protocols)}: a test needs {MIN_FACES} faces of each class; there "
            f"are {counts}"
        )
    return found
