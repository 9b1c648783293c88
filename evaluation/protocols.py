"""Protocols: which faces train and which test.

Every `Experiment` is one training set with the runs that are made with it, so that in-dataset,
cross-dataset and Cross-AUC figures come from the same fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data.feature_dataset import FeatureDataset
from data.people import JOIN, largest_share, near_identity_matches
from data.splits import identity_disjoint, train_and_val
from features.regions import REGIONS

SIZES = (100, 300, 1000, 3000)  # training faces of few-shot runs
MIN_FACES = 20  # of each class, to test on or, of a method, to leave out


@dataclass(frozen=True)
class Run:
    """tests: name -> faces."""

    id: str
    protocol: str
    title: str
    tests: dict[str, FeatureDataset]


@dataclass(frozen=True)
class Experiment:
    """One training set and what is tested with it.

    Attributes:
        remarks: what a reader must know about the split.
        size: training faces asked for, of a few-shot run.
        seed: of a few-shot draw or a label permutation.
        excluded: the method that was left out of training.
    """

    name: str
    train: FeatureDataset
    val: FeatureDataset
    runs: list[Run]
    remarks: list[str] = field(default_factory=list)
    size: int | None = None
    seed: int | None = None
    excluded: str = ""

    @property
    def in_dataset(self) -> Run | None:
        return next((run for run in self.runs if run.protocol == "in-dataset"), None)

    def about(self, run: Run) -> dict:
        """An entry of report.json's `runs`."""
        parts = {
            name: {"datasets": datasets_of(part), **part.counts()}
            for name, part in (("train", self.train), ("val", self.val))
        }
        typed = {"size": self.size, "seed": self.seed, "excluded": self.excluded}
        about = {"protocol": run.protocol, "title": run.title, **parts, **typed}
        return about | {"remarks": self.remarks}


def slug(text: str) -> str:
    """A file name of a title: lower case, letters and digits of any alphabet, hyphens."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "unnamed"


def datasets_of(faces: FeatureDataset) -> list[str]:
    return sorted(set(faces.rows["dataset"].tolist()))


def of_dataset(faces: FeatureDataset, name: str) -> FeatureDataset:
    return faces.select(faces.rows["dataset"] == name)


def enough(faces: FeatureDataset) -> bool:
    counts = faces.counts()
    return min(counts["real"], counts["fake"]) >= MIN_FACES


def by_given_splits(faces: FeatureDataset) -> list[Experiment]:
    """One experiment per dataset: in-dataset, cross-dataset, and Cross-AUC.

    Cross-AUC is measured on reals of one dataset against fakes of another. A classifier that tells
    the datasets apart, and not real from fake, has AUCs far from .5 in opposite directions.
    """
    names = datasets_of(faces)
    test_split = faces.split("test")
    every = {name: of_dataset(test_split, name) for name in names}
    tests = {name: test for name, test in every.items() if enough(test)}
    reals, fakes = (
        [name for name, test in every.items() if test.counts()[label] >= MIN_FACES]
        for label in ("real", "fake")
    )
    experiments = []
    for name in names:
        remarks: list[str] = []
        try:
            train, val = train_and_val(of_dataset(faces, name), remarks)
        except ValueError:
            continue  # a dataset for testing only
        own = {name: tests[name]} if name in tests else {}
        others = {other: test for other, test in tests.items() if other != name}
        cross_auc = {
            f"reals of {a}, fakes of {b}": reals_against_fakes(every[a], every[b])
            for a in reals
            for b in fakes
            if a != b and name in (a, b)
        }
        title = f"trained on {name}, "
        runs = [
            Run(f"in-{slug(name)}", "in-dataset", f"trained and tested on {name}", own),
            Run(f"from-{slug(name)}", "cross-dataset", f"{title}tested on others", others),
            Run(f"cross-auc-{slug(name)}", "cross-auc", f"{title}Cross-AUC", cross_auc),
        ]
        runs = [run for run in runs if run.tests]
        experiments.append(Experiment(name, train, val, runs, remarks))
    return experiments


def unused(faces: FeatureDataset) -> list[str]:
    """Remarks on datasets that cannot be trained on, or tested on, alone."""
    remarks = []
    for name in datasets_of(faces):
        given = of_dataset(faces, name)
        train, test = (given.split(split).counts() for split in ("train", "test"))
        if not (train["real"] and train["fake"]):
            remarks.append(
                f"{name}: nothing is trained on it alone ({train['real']} real and {train['fake']} fake "
                "training faces)"
            )
        if not enough(given.split("test")):
            remarks.append(
                f"{name}: not tested by itself ({test['real']} real and {test['fake']} fake test faces; "
                f"{MIN_FACES} of each are needed)"
            )
    return remarks


def reals_against_fakes(reals: FeatureDataset, fakes: FeatureDataset) -> FeatureDataset:
    """The real faces of one test and the fakes of another."""
    parts = [reals.select(reals.rows["label"] == 0), fakes.select(fakes.rows["label"] == 1)]
    arrays = {key: np.concatenate([part.arrays[key] for part in parts]) for key in reals.arrays}
    rows = {key: np.concatenate([part.rows[key] for part in parts]) for key in reals.rows}
    return FeatureDataset(arrays, rows)


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
    """In-dataset again, after joining the groups of real faces that look like one person."""
    experiments = []
    for name in datasets_of(faces):
        given = of_dataset(faces, name)
        if not given.counts()["real"]:
            continue
        apart = identity_disjoint(given)
        test = apart.split("test")
        remarks = [
            identity_remark(given, apart),
            f"only groups of real faces could be joined: {resembling(apart):.0%} of the test fakes resemble a "
            f"training fake (cosine above {JOIN}); they may show one person, or be alike because one program made them",
        ]
        try:
            train, val = train_and_val(apart, remarks)
        except ValueError:
            continue
        if enough(test):
            title = f"{name}, identity-disjoint"
            run = Run(f"identity-disjoint-{slug(name)}", "identity-disjoint", title, {name: test})
            experiments.append(Experiment(title, train, val, [run], remarks))
    return experiments


def identity_remark(given: FeatureDataset, apart: FeatureDataset) -> str:
    share = largest_share(apart.rows["group"])
    before, after = (len(set(part.rows["group"])) for part in (given, apart))
    left_out = int((apart.rows["split"] == "").sum())
    return (
        f"{before} groups joined into {after} ({share:.1%} of the faces in the largest, which trains); {left_out} "
        "faces left out, whose person, or somebody similar, is in a later split; in the given splits "
        f"{on_both_sides(given, apart):.0%} of the real test faces belong to a person with training faces, according to "
        "the identity embedding"
    )


def resembling(apart: FeatureDataset) -> float:
    """Share of test fakes as similar to a training fake as two faces of one person are."""
    name = next(name for name in apart.arrays if name.endswith(".identity"))
    whole = apart.arrays[name][:, REGIONS.index("full")].astype(np.float32)
    fake = apart.rows["label"] == 1
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
    """For each manipulation: trained without it, tested on it and the reals of its datasets."""
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
            title = f"trained without {method}, tested on it"
            id = f"without-{slug(method)}"
            run = Run(id, "leave-one-manipulation-out", title, {method: test})
            name = f"without {method}"
            experiments.append(Experiment(name, train, val, [run], remarks, excluded=method))
    return experiments


def few_shot(experiment: Experiment, faces: int, seed: int) -> Experiment | None:
    """The in-dataset run with about `faces` training faces, in whole groups.

    For one seed, a smaller set is part of every larger one. None where there are fewer faces, or
    where whole groups make it half as many again.
    """
    groups = experiment.train.rows["group"].astype(str)
    run = experiment.in_dataset
    if len(groups) < faces or run is None:
        return None
    names, inverse = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    rank = np.argsort(order)[inverse]  # of each face's group in the drawn order
    counts = np.cumsum(np.bincount(rank, minlength=len(order)))
    train = experiment.train.select(rank <= np.searchsorted(counts, faces))
    if len(train) > 1.5 * faces:
        return None
    title = f"{run.title}, {faces} training faces, draw {seed}"
    smaller = Run(f"few-{run.id}-{faces}-{seed}", "few-shot", title, run.tests)
    name = f"{experiment.name}, {faces} faces, draw {seed}"
    return replace(experiment, name=name, train=train, runs=[smaller], size=faces, seed=seed)


def permuted_labels(experiment: Experiment, seed: int) -> Experiment | None:
    """The in-dataset run with permuted training and validation labels: it must be at chance."""
    run = experiment.in_dataset
    if run is None:
        return None
    rng = np.random.default_rng(seed)
    train, val = (
        replace(part, rows={**part.rows, "label": permute(part.rows["label"], rng)})
        for part in (experiment.train, experiment.val)
    )
    title = f"{run.title}, permuted training labels, permutation {seed}"
    checked = Run(f"permuted-{run.id}-{seed}", "permuted-labels", title, run.tests)
    name = f"{experiment.name}, permuted labels {seed}"
    return replace(experiment, name=name, train=train, val=val, runs=[checked], seed=seed)


def permute(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random labels independent of the true ones: the same share of each class is called fake.

    A plain permutation of a few thousand labels correlates with the truth by about .02 by chance,
    and a strong column makes .44 or .56 of that. labels: (N,) 0 or 1. Returns: the same.
    """
    found, share = np.zeros_like(labels), labels.mean()
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        found[rows[: round(share * len(rows))]] = 1
    return found


PROTOCOLS = {
    "given": by_given_splits,
    "together": together,
    "identity-disjoint": identity_disjoint_experiments,
    "manipulations": leave_one_manipulation_out,
}


def experiments_of(faces: FeatureDataset, protocols: Sequence[str]) -> list[Experiment]:
    """All experiments of the protocols. Raises: ValueError where there are none."""
    found = [experiment for name in protocols for experiment in PROTOCOLS[name](faces)]
    found = [experiment for experiment in found if experiment.runs]
    if not found:
        counts = {split: faces.split(split).counts() for split in ("train", "val", "test")}
        raise ValueError(
            f"nothing to train and test on for {', '.join(protocols)}: a test needs {MIN_FACES} faces of each "
            f"class; there are {counts}"
        )
    return found
