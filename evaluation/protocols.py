"""Protocols: which faces train and which test.

Every `Experiment` is one training set with the runs that are made with it, so that in-dataset,
cross-dataset and Cross-AUC figures come from the same fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from data.feature_dataset import FeatureDataset
from data.people import JOIN, largest_share, near_identity_matches
from data.splits import identity_disjoint, train_and_val
from features.regions import REGIONS

SIZES = (100, 300, 1000, 3000)  # training faces of few-shot runs
MIN_FACES = 20  # of each class, to test on or, of a method, to leave out
# Protocols of `left_out`, and its test of the real faces that a threshold was set on.
SOURCE, DATASET, VALIDATION = "without its source", "without a dataset", "(validation)"


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
        about = {name: getattr(self, name) for name in ("size", "seed", "excluded", "remarks")}
        for name, part in (("train", self.train), ("val", self.val)):
            about[name] = {"datasets": datasets_of(part), **part.counts()}
        return {"protocol": run.protocol, "title": run.title, **about}


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


def all_real(faces: FeatureDataset) -> bool:
    """Whether it can be tested on for false alarms alone."""
    counts = faces.counts()
    return counts["real"] >= MIN_FACES and not counts["fake"]


def tests_of(faces: FeatureDataset) -> dict[str, FeatureDataset]:
    """dataset -> its test faces, of the datasets that can be tested on."""
    test = faces.split("test")
    tests = {name: of_dataset(test, name) for name in datasets_of(test)}
    return {name: test for name, test in tests.items() if enough(test) or all_real(test)}


def experiment_of(
    name: str, faces: FeatureDataset, runs: list[Run], remarks: Sequence[str] = (), **more: str
) -> list[Experiment]:
    """The experiment that trains on the training faces; none where a class or a test is missing."""
    remarks = [*remarks]
    try:
        train, val = train_and_val(faces, remarks)
    except ValueError:  # a dataset for testing only
        return []
    runs = [run for run in runs if run.tests]
    return [Experiment(name, train, val, runs, remarks, **more)] if runs else []


def by_given_splits(faces: FeatureDataset) -> list[Experiment]:
    """One experiment per dataset: in-dataset, cross-dataset, and Cross-AUC.

    Cross-AUC takes reals of one dataset and fakes of another. A classifier that tells the datasets
    apart, and not real from fake, has AUCs far from .5 in opposite directions.
    """
    test, tests, experiments = faces.split("test"), tests_of(faces), []
    dataset, label, names = test.rows["dataset"], test.rows["label"], datasets_of(test)
    rows = {(x, y): np.flatnonzero((dataset == x) & (label == y)) for x in names for y in (0, 1)}
    cross = {
        (a, b): test.select(np.concatenate([rows[a, 0], rows[b, 1]]))
        for a, b in permutations(names, 2)
        if min(len(rows[a, 0]), len(rows[b, 1])) >= MIN_FACES
    }
    for name in datasets_of(faces):
        own = {x: tests[x] for x in tests if x == name}
        others = {x: tests[x] for x in tests if x != name}
        pairs = {f"reals of {a}, fakes of {b}": x for (a, b), x in cross.items() if name in (a, b)}
        title = f"trained on {name}, "
        runs = [
            Run(f"in-{slug(name)}", "in-dataset", f"trained and tested on {name}", own),
            Run(f"from-{slug(name)}", "cross-dataset", f"{title}tested on others", others),
            Run(f"cross-auc-{slug(name)}", "cross-auc", f"{title}Cross-AUC", pairs),
        ]
        experiments += experiment_of(name, of_dataset(faces, name), runs)
    return experiments


def unused(faces: FeatureDataset) -> list[str]:
    """Remarks on datasets that cannot be trained on, or tested on, alone."""
    remarks = []
    for name in datasets_of(faces):
        train, test = (of_dataset(faces, name).split(x) for x in ("train", "test"))
        found = [f"{x['real']} real and {x['fake']} fake" for x in (train.counts(), test.counts())]
        if len(set(train.rows["label"])) < 2:
            remarks.append(f"{name}: nothing is trained on it alone ({found[0]} training faces)")
        if not (enough(test) or all_real(test)):
            remarks.append(
                f"{name}: not tested by itself ({found[1]} test faces; {MIN_FACES} of each are needed)"
            )
    return remarks


def together(faces: FeatureDataset) -> list[Experiment]:
    """All datasets train together, each is tested by itself."""
    names = datasets_of(faces)
    title = f"trained on {' and '.join(names)} together"
    run = Run("together", "in-dataset", title, tests_of(faces))
    return experiment_of("together", faces, [run]) if len(names) > 1 else []


def identity_disjoint_experiments(faces: FeatureDataset) -> list[Experiment]:
    """In-dataset again, after joining the groups of real faces that look like one person."""
    experiments = []
    for name in datasets_of(faces):
        given = of_dataset(faces, name)
        if not given.counts()["real"]:
            continue
        apart = identity_disjoint(given)
        before, after = (len(set(part.rows["group"])) for part in (given, apart))
        left_out = int((apart.rows["split"] == "").sum())
        remarks = [
            f"{before} groups joined into {after} ({largest_share(apart.rows['group']):.1%} of "
            "the faces in the largest, "
            f"which trains); {left_out} faces left out, whose person, or somebody similar, is in a later split; in the "
            f"given splits {on_both_sides(given, apart):.0%} of the real test faces belong to a person with training "
            "faces, according to the identity embedding",
            f"only groups of real faces could be joined: {resembling(apart):.0%} of the test fakes resemble a "
            f"training fake (cosine above {JOIN}); they may show one person, or be alike because one program made them",
        ]
        title, id = f"{name}, identity-disjoint", f"identity-disjoint-{slug(name)}"
        run = Run(id, "identity-disjoint", title, tests_of(apart))
        experiments += experiment_of(title, apart, [run], remarks)
    return experiments


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
    tested = people[real & (splits == "test")]
    both = np.isin(tested.astype(str), people[splits == "train"].astype(str))
    return float(both.mean()) if len(tested) else float("nan")


def leave_one_manipulation_out(faces: FeatureDataset) -> list[Experiment]:
    """For each manipulation: trained without it, tested on it and the reals of its datasets."""
    fake, methods, datasets = (faces.rows[name] for name in ("label", "method", "dataset"))
    known = sorted({*methods[fake == 1].tolist()} - {""})
    experiments = []
    for method in known if len(known) > 1 else ():
        of_method = (fake == 1) & (methods == method)
        home = (fake == 0) & np.isin(datasets, datasets[of_method])
        test = faces.select((of_method | home) & (faces.rows["split"] == "test"))
        title, protocol = f"trained without {method}, tested on it", "leave-one-manipulation-out"
        tests = {method: test} if enough(test) else {}
        runs = [Run(f"without-{slug(method)}", protocol, title, tests)]
        rest = faces.select(~of_method)
        experiments += experiment_of(f"without {method}", rest, runs, excluded=method)
    return experiments


def left_out(faces: FeatureDataset) -> list[Experiment]:
    """Each dataset left out of training, and each group that has all the fakes of some methods.

    Such a group is a source of samples of a few methods; both protocols test these method by method,
    against real test faces of the dataset and all of the source. A dataset is tested on its test
    split, or on all faces where that has too few. Sets of real faces that never train are tested too.
    Where dumps hold versions of an expert that was trained without the dataset, these are seen, for
    a source of it, too.
    """
    label, dataset, group, method, split = (
        faces.rows[name] for name in ("label", "dataset", "group", "method", "split")
    )
    names, experiments = datasets_of(faces), []
    unseen = {x for x in names if {*split[dataset == x]} == {"test"}}
    for name in (name for name in names if name not in unseen):
        own = dataset == name
        seen, methods = faces.unseen(name), methods_of_one_group(of_dataset(faces, name))
        tested = own & (label == 0) & (split == "test")
        for source in sorted(set(methods.values())):
            of_source = own & (group == source)
            home = tested | (of_source & (label == 0))
            made = [x for x in methods if methods[x] == source]
            tests = {x: seen.select(home | (own & (method == x))) for x in made}
            id, title = f"left-out-{slug(source)}", f"trained without {source}, tested on it"
            runs = [Run(id, SOURCE, title, tests)]
            rest = seen.select(~of_source)
            experiments += experiment_of(f"without {source}", rest, runs, excluded=source)
        tests = {x: seen.select(tested | (own & (method == x))) for x in methods}
        tests |= {x: y for x, y in tests_of(seen).items() if x in unseen and all_real(y)}
        whole = of_dataset(seen, name)
        tests |= {name: whole.split("test") if enough(whole.split("test")) else whole}
        if len(names) > 1 and (enough(tests[name]) or all_real(tests[name])):
            title = f"trained without {name}, tested on it"
            runs = [Run(f"left-out-{slug(name)}", DATASET, title, tests)]
            rest = seen.select(~own)
            experiments += experiment_of(f"without all of {name}", rest, runs, excluded=name)
    for experiment in experiments:
        real = experiment.val.rows["label"] == 0
        experiment.runs[0].tests[VALIDATION] = experiment.val.select(real)
    return experiments


def methods_of_one_group(faces: FeatureDataset) -> dict[str, str]:
    """method -> its group; empty unless every method has just one, and there are several groups."""
    fake = (faces.rows["label"] == 1) & (faces.rows["method"] != "")
    pairs = {*zip(faces.rows["method"][fake], faces.rows["group"][fake], strict=True)}
    found = dict(sorted(pairs))
    return found if len(found) == len(pairs) and len(set(found.values())) > 1 else {}


def few_shot(experiment: Experiment, faces: int, seed: int) -> Experiment | None:
    """The in-dataset run with about `faces` training faces, in whole groups.

    For one seed, a smaller set is part of every larger one. None where there are fewer faces, or
    whole groups make it half as many again.
    """
    groups, run = experiment.train.rows["group"].astype(str), experiment.in_dataset
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
    run, rng = experiment.in_dataset, np.random.default_rng(seed)
    if run is None:
        return None
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
    and a strong column makes .44 or .56 of that.
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
    "left-out": left_out,
}


def experiments_of(
    faces: FeatureDataset, protocols: Sequence[str], required: bool = True
) -> list[Experiment]:
    """All experiments of the protocols (`reference` trains nothing and has none).

    Raises: ValueError where there are none, and some are required.
    """
    wanted = [name for name in protocols if name in PROTOCOLS]
    found = [experiment for name in wanted for experiment in PROTOCOLS[name](faces)]
    if not found and required:
        counts = {split: faces.split(split).counts() for split in ("train", "val", "test")}
        raise ValueError(
            f"nothing to train and test on for {', '.join(protocols)}: a test needs {MIN_FACES} faces of each "
            f"class; there are {counts}"
        )
    return found
