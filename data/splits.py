"""Which faces train and which test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from data.feature_dataset import FeatureDataset
from data.people import identity_groups, near_identity_matches
from features.regions import REGIONS

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15  # of the groups with real faces, where no validation split was given
LARGE = 0.05  # of all faces
FEW = 100  # real validation faces; with fewer, threshold and ranges are rough


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


def identity_disjoint(faces: FeatureDataset) -> FeatureDataset:
    """Groups joined where real faces look like one person, and everybody kept on one side of the splits (`kept_apart`).

    Groups of train and val with a face that may be of a person in test, though not certainly, are in no split ("") either.
    Raises: ValueError where no output is an identity embedding.
    """
    names = [name for name in faces.arrays if name.endswith(".identity")]
    if not names:
        raise ValueError(
            f"--identity-disjoint needs an identity embedding; the dump has {', '.join(faces.arrays)}"
        )
    whole = faces.arrays[names[0]][:, REGIONS.index("full")].astype(np.float32)
    real, given = faces.rows["label"] == 0, faces.rows["group"]
    groups = given.copy()
    # Each dataset by itself: what its faces share (a camera, compression) would join them all, beside another dataset.
    parts = [faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))]
    for part in parts:
        groups[part] = identity_groups(whole[part], given[part], real[part])
    apart = grouped_split(faces, groups)
    testing = apart.rows["split"] == "test"
    doubtful = np.zeros(len(faces), dtype=bool)
    for part in parts:
        doubtful[part] = near_identity_matches(
            whole[part], real[part], ~testing[part], testing[part]
        )
    left_out = np.isin(given.astype(str), given[doubtful].astype(str)) & ~testing
    apart.rows["split"] = np.where(left_out, "", apart.rows["split"])
    return apart
