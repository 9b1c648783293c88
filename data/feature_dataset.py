"""Faces of one or several dumps as one table, and which of them train, validate and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.dump import COLUMNS, Dump
from features.regions import REGIONS

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15  # of the groups with real faces, where no validation split was given
LARGE = 0.05  # of all faces
FEW = 100  # real validation faces; with fewer, threshold and ranges are rough


@dataclass
class FeatureDataset:
    """The faces of one or several dumps, row by row.

    arrays: "expert.output" -> (N, R, D) float16. rows: (N,) columns of index.csv (data/dump.py), `group` prefixed by the
    dataset, `dataset`, and `condition`: what the pictures went through first (data/degrade.py), "" nothing.
    """

    arrays: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows["label"])

    def select(self, keep: np.ndarray) -> FeatureDataset:
        return FeatureDataset(
            {name: value[keep] for name, value in self.arrays.items()},
            {name: value[keep] for name, value in self.rows.items()},
        )

    def split(self, name: str) -> FeatureDataset:
        return self.select(np.flatnonzero(self.rows["split"] == name))

    def counts(self) -> dict[str, int]:
        fake = int(self.rows["label"].sum())
        return {"real": len(self) - fake, "fake": fake, "groups": len(set(self.rows["group"]))}


def join_dumps(dumps: Sequence[Dump]) -> FeatureDataset:
    """Several dumps as one table.

    Raises: ValueError where they were not made by the same experts, or this version cuts other regions.
    """
    first = dumps[0]
    for dump in dumps:
        if tuple(dump.meta["regions"]) != REGIONS:
            raise ValueError(
                f"{dump.path}: has other regions than {', '.join(REGIONS)}; preprocess the dataset again"
            )
        precisions = [each.meta["config"].get("precision") for each in (dump, first)]
        if precisions[0] != precisions[1]:
            raise ValueError(
                f"{dump.path} was computed in {precisions[0]}, {first.path} in {precisions[1]}: a classifier would learn the "
                "rounding; preprocess both with the same --precision"
            )
        for what in ("weights", "outputs"):
            if dump.meta[what] != first.meta[what]:
                raise ValueError(
                    f"{dump.path} and {first.path} differ in {what} (experts {', '.join(dump.meta['weights'])} and "
                    f"{', '.join(first.meta['weights'])}); preprocess both with the same experts and weights"
                )
    arrays = {
        name: np.concatenate([dump.arrays[name] for dump in dumps])
        for name in first.meta["outputs"]
    }
    columns = {name: np.concatenate([dump.rows[name] for dump in dumps]) for name in COLUMNS}
    datasets = np.concatenate([np.full(len(dump), dump.meta["dataset"]) for dump in dumps])
    conditions = np.concatenate(
        [np.full(len(dump), dump.meta["config"].get("degrade", "")) for dump in dumps]
    )
    groups = [
        f"{d}/{g or path}"
        for d, g, path in zip(datasets, columns["group"], columns["path"], strict=True)
    ]
    return FeatureDataset(
        arrays,
        {
            **columns,
            "dataset": datasets,
            "condition": conditions,
            "group": np.array(groups, dtype=object),
        },
    )


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def grouped_split(faces: FeatureDataset, groups: Sequence[str]) -> FeatureDataset:
    """The same faces in other, larger groups, none on two sides of the splits; faces that would be are in no split ("").

    A group is of the last of train, val and test that any of its faces was given; its faces of other splits are left out. So
    nothing tests that was given to train, whatever has been trained on it. A group with more than LARGE of all faces trains:
    many people who cannot be told apart must not be a test.
    groups: N names.
    """
    unique, codes, counts = np.unique(
        np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
    )
    place = {name: index for index, name in enumerate(SPLITS)}
    given = np.array([place.get(split, 0) for split in faces.rows["split"].tolist()], dtype=int)
    side = np.zeros(len(unique), dtype=int)
    np.maximum.at(side, codes, given)
    side[counts > LARGE * len(faces)] = 0
    splits = np.where(given == side[codes], faces.rows["split"], "").astype(object)
    return FeatureDataset(
        faces.arrays, {**faces.rows, "group": np.array(groups, dtype=object), "split": splits}
    )


def train_and_val(
    faces: FeatureDataset, notes: list[str], one_class: bool = False
) -> tuple[FeatureDataset, FeatureDataset]:
    """The faces to fit on and those to validate on. Without real validation faces, training groups are held out.

    notes: what the user should know is added. one_class: fakes are not needed.
    Raises: ValueError where there are no training faces, or none of a class that is needed.
    """
    train, val = faces.split("train"), faces.split("val")
    if not len(train):
        found = {name: int((faces.rows["split"] == name).sum()) for name in (*SPLITS, "")}
        raise ValueError(f"no faces in the train split; faces per split: {found}")
    counts = train.counts()
    if not counts["real"]:
        raise ValueError(
            "the train split holds no real faces; nothing can be learned about consistency without them"
        )
    if not counts["fake"] and not one_class:
        raise ValueError(
            f"the train split holds {counts['real']} real faces and no fake; add fakes, or learn from real faces alone "
            "with --one-class"
        )
    if not val.counts()["real"]:
        groups = sorted(set(train.rows["group"][train.rows["label"] == 0]), key=_fraction)
        held_out = set(groups[: max(1, round(HELD_OUT * len(groups)))])
        notes.append(
            f"the val split has no real faces: {len(held_out)} of the training groups validate instead"
        )
        inside = np.array([group in held_out for group in train.rows["group"]])
        train, val = train.select(~inside), train.select(inside)
    reals = val.counts()["real"]
    if reals < FEW:
        notes.append(
            f"only {reals} real validation faces, each {1 / reals:.0%} of them: take the threshold, the ranges of real faces "
            "and the figures as rough"
        )
    return train, val
