"""Which pictures and faces train, validate and test.

No group (a source video, a person, near-duplicates) is divided between splits.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.feature_dataset import FeatureDataset
from data.people import identity_groups, near_identity_matches
from data.samples import Clip, Sample
from features.regions import REGIONS

SPLITS = ("train", "val", "test")
# Each split and the interval of 0..1 in which the hashes of its groups lie.
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
FITTING = {"train": (0.0, 0.875), "val": (0.875, 1.0)}  # the same where a test split is given
NEAR = 4  # bits of 64 by which the perceptual hashes of near-duplicates may differ
HELD_OUT = 0.15  # of the groups with real faces, where no validation split was given
LARGE = 0.05  # of all faces
FEW = 100  # real validation faces; with fewer, threshold and ranges are rough


# The splits of pictures, while a dataset is listed and a dump is written.


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def divide(
    groups: Iterable[str], shares: dict[str, tuple[float, float]], fill: bool
) -> dict[str, str]:
    """A split for each group by a hash of its name; fill: none is left empty, if possible."""
    place = {name: _fraction(name) for name in sorted(groups)}
    chosen = {n: next(s for s, (_, end) in shares.items() if x < end) for n, x in place.items()}
    for split, (first, end) in shares.items() if fill else ():
        count = Counter(chosen.values())
        spare = [name for name in chosen if count[chosen[name]] > 1]
        if not count[split] and spare:  # the nearest group fills the gap
            chosen[min(spare, key=lambda name: abs(place[name] - (first + end) / 2))] = split
    return chosen


def with_val(clips: Iterable[Clip]) -> list[Clip]:
    """Where there is no validation split, an eighth of the training groups becomes it."""
    clips = list(clips)
    if any(clip.split == "val" for clip in clips):
        return clips
    chosen = divide({clip.group for clip in clips if clip.split == "train"}, FITTING, fill=True)
    return [replace(c, split=chosen[c.group]) if c.split == "train" else c for c in clips]


def group_near_duplicates(hashes: Sequence[str]) -> list[str]:
    """A group name for each picture: hashes that differ by at most `NEAR` bits, and chains of them.

    Such hashes agree in at least two of six bands of bits; only those are compared. The name is that
    of the smallest hash of the group.
    """
    if wrong := [text for text in hashes if len(text) != 16]:
        raise ValueError(f"{wrong[0]!r} is not a perceptual hash of 16 hexadecimal digits")
    numbers = np.array([int(text, 16) for text in hashes], np.uint64)
    values, place = np.unique(numbers, return_inverse=True)
    bands = [((1 << 11) - 1) << start & (1 << 64) - 1 for start in range(0, 64, 11)]
    group = np.arange(len(values))
    for equal in combinations(bands, len(bands) - NEAR):
        for left, right in _equal_pairs(values & np.uint64(sum(equal))):
            near = np.bitwise_count(values[left] ^ values[right]) <= NEAR
            near &= group[left] != group[right]
            if near.any():
                ends = group[left[near]], group[right[near]]
                links = coo_array((np.ones(near.sum()), ends), shape=(len(group), len(group)))
                group = connected_components(links, directed=False)[1][group]
    # `values` ascend: the first of a group is its smallest.
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return [f"p{value:016x}" for value in values[first[group[place]]]]


def _equal_pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of equal keys (N,), as two arrays of indices at a time."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start, step = np.arange(len(keys)), 0
    while len(start):  # compare each key with the one `step` further on, while those are equal
        step += 1
        start = start[start + step < len(keys)]
        start = start[keys[start] == keys[start + step]]
        yield order[start], order[start + step]


def fill_groups_and_splits(samples: Sequence[Sample], hashes: Sequence[str]) -> list[Sample]:
    """The samples with every group and split known. Those that are given stay.

    Others take the group of their near-duplicates, and the split of their group (test before val
    before train); groups without one are divided 70/10/20.
    """
    alike = group_near_duplicates(hashes)
    given = defaultdict(Counter)
    for sample, near in zip(samples, alike, strict=True):
        if sample.group:
            given[near][sample.group] += 1
    grouped = []
    for sample, near in zip(samples, alike, strict=True):
        # The most frequent group of the near-duplicates, the first of several.
        most = min(given[near].items(), key=lambda item: (-item[1], item[0]), default=(near,))
        grouped.append(replace(sample, group=sample.group or most[0]))
    order = ("", *SPLITS)
    chosen = {}
    for sample in grouped:
        chosen[sample.group] = max(chosen.get(sample.group, ""), sample.split, key=order.index)
    unknown = [group for group, split in chosen.items() if not split]
    chosen |= divide(unknown, SHARES, fill=len(unknown) == len(chosen))
    return [replace(sample, split=sample.split or chosen[sample.group]) for sample in grouped]


# The splits of the faces of dumps, while a detector is fitted and evaluated.


def grouped_split(faces: FeatureDataset, groups: Sequence[str]) -> FeatureDataset:
    """The same faces in larger groups, none of them on two sides of the splits.

    A group takes the last of train, val and test among its faces; those of other splits are left out
    (split ""), so no training face enters the test split. A group with more than LARGE of all faces
    trains: people who cannot be told apart must not be a test.
    """
    names = np.asarray(groups, dtype=str)
    _, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    place = {name: index for index, name in enumerate(SPLITS)}
    given = np.array([place.get(split, 0) for split in faces.rows["split"].tolist()], dtype=int)
    side = np.zeros(len(counts), dtype=int)
    np.maximum.at(side, codes, given)
    side[counts > LARGE * len(faces)] = 0
    splits = np.where(given == side[codes], faces.rows["split"], "").astype(object)
    rows = {**faces.rows, "group": np.array(groups, dtype=object), "split": splits}
    return replace(faces, rows=rows)


def train_and_val(
    faces: FeatureDataset, notes: list[str], one_class: bool = False
) -> tuple[FeatureDataset, FeatureDataset]:
    """The faces to fit on and to validate on. Without real validation faces, groups are held out.

    Faces without any output do not validate. notes: warnings for the user are appended. one_class:
    no fakes are needed.
    """
    train, val = faces.split("train"), faces.split("val")
    if not len(train):
        found = {name: int((faces.rows["split"] == name).sum()) for name in (*SPLITS, "")}
        raise ValueError(f"no faces in the train split; faces per split: {found}")
    counts = train.counts()
    if not counts["real"]:
        raise ValueError("the train split holds no real faces; training needs them")
    if not counts["fake"] and not one_class:
        reals = counts["real"]
        raise ValueError(
            f"the train split holds {reals} real faces and no fake; add fakes, or use --one-class"
        )
    if not (val.known() & (val.rows["label"] == 0)).any():
        real = train.known() & (train.rows["label"] == 0)
        groups = sorted(set(train.rows["group"][real]), key=_fraction)
        held_out = set(groups[: max(1, round(HELD_OUT * len(groups)))])
        notes.append(
            f"the val split has no real faces: {len(held_out)} of the training groups validate"
        )
        inside = np.array([group in held_out for group in train.rows["group"]])
        train, val = train.select(~inside), train.select(inside)
    reals = int((val.known() & (val.rows["label"] == 0)).sum())
    if reals < FEW:
        notes.append(
            f"only {reals} real validation faces: the threshold, the ranges of real faces and the "
            "figures are rough"
        )
    return train, val


def identity_disjoint(faces: FeatureDataset) -> FeatureDataset:
    """Groups of the same person joined (data/people.py), and each on one side of the splits.

    Groups of train and val with a near-identity match in test are left out (split "").
    """
    names = [name for name in faces.arrays if name.endswith(".identity")]
    if not names:
        known = ", ".join(faces.arrays)
        raise ValueError(f"--identity-disjoint needs an identity embedding; the dump has {known}")
    whole = faces.arrays[names[0]][:, REGIONS.index("full")].astype(np.float32)
    real, given = faces.rows["label"] == 0, faces.rows["group"]
    # Each dataset by itself: what its faces share (a camera, compression) would join all of them.
    parts = [faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))]
    groups = given.copy()
    for part in parts:
        groups[part] = identity_groups(whole[part], given[part], real[part])
    disjoint = grouped_split(faces, groups)
    test = disjoint.rows["split"] == "test"
    doubtful = np.zeros(len(faces), dtype=bool)
    for part in parts:
        doubtful[part] = near_identity_matches(whole[part], real[part], ~test[part], test[part])
    left_out = np.isin(given.astype(str), given[doubtful].astype(str)) & ~test
    disjoint.rows["split"] = np.where(left_out, "", disjoint.rows["split"])
    return disjoint
