"""Labelled image folders: which pictures there are, which of them belong together, which train and which test.

real = 0, fake = 1, everywhere in this project.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.images import SUFFIXES, find_images

LABELS = {"real": 0, "0": 0, "fake": 1, "1": 1}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Each split and the share of the groups, counted from 0 to 1, that it takes.
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
NEAR = 4  # bits of 64 by which the perceptual hashes of near-duplicates may differ
LAYOUTS = """expected one of
  real/ and fake/
  train/, val/ (or valid/) and test/, with real/ and fake/ in each
  index.csv with the columns path,label and, if known, group, split, video and method"""


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    path: POSIX, relative to the dataset's root. label: 0 real, 1 fake. group: what must not be divided between splits
    (a source video, a person), "" unknown. split: train, val, test, "" unknown. video: the clip it is a frame of, "" for
    a picture by itself. method: how a fake was made, "" unknown, or real.
    """

    path: str
    label: int
    group: str = ""
    split: str = ""
    video: str = ""
    method: str = ""


def find_samples(root: Path, index: Path | None = None) -> list[Sample]:
    """The labelled pictures of a dataset, sorted by path.

    Layouts: an index.csv (path,label[,group][,split][,video][,method]; label real, fake, 0 or 1), or folders `real` and
    `fake`, in `root` itself or below train, val (valid) and test. Upper and lower case are the same; folders below `real` and
    `fake` may be nested. One class alone will do: whoever needs both says so.

    index: an index.csv that lies elsewhere, its paths relative to its own folder; what it lists outside `root` is left
    out.

    Raises: FileNotFoundError where there is no such folder; ValueError where it holds no pictures in one of these
    layouts.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder of a dataset, {LAYOUTS}")
    if index is not None:
        samples = _below(root, Path(index))
    elif (root / "index.csv").is_file():
        samples = _read_index(root / "index.csv")
    else:
        samples = _read_folders(root)
    if not samples:
        raise ValueError(f"{root}: no images ({' '.join(sorted(SUFFIXES))}) in it; {LAYOUTS}")
    return sorted(samples, key=lambda sample: sample.path)


def _below(root: Path, index: Path) -> list[Sample]:
    """What `index` lists below `root`. Raises: FileNotFoundError, ValueError."""
    if not index.is_file():
        raise FileNotFoundError(f"{index}: no such file; give an index.csv, or leave --index out")
    samples, prefix = _read_index(index), root.resolve()
    base = index.parent.resolve()
    inside = [(base / sample.path, sample) for sample in samples if (base / sample.path).is_relative_to(prefix)]
    if not inside:
        raise ValueError(f"{index}: none of its {len(samples)} pictures lies in {root}")
    return [replace(sample, path=path.relative_to(prefix).as_posix()) for path, sample in inside]


def _folders(parent: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """The folders directly below `parent` that are called one of `names`, in any case, with that name."""
    folders = [folder for folder in sorted(parent.iterdir()) if folder.name.lower() in names and folder.is_dir()]
    return [(folder, folder.name.lower()) for folder in folders]


def _read_folders(root: Path) -> list[Sample]:
    """Raises: ValueError where the folders are in no known layout."""
    parts = [(folder, SPLIT_NAMES[name]) for folder, name in _folders(root, SPLIT_NAMES)]
    if parts and _folders(root, ("real", "fake")):
        raise ValueError(f"{root}: has both real/ or fake/ and {parts[0][0].name}/; which holds the dataset? {LAYOUTS}")
    samples, labelled = [], False
    for part, split in parts or [(root, "")]:
        for folder, name in _folders(part, ("real", "fake")):
            labelled = True
            paths = (path.relative_to(root).as_posix() for path in find_images(folder))
            samples += [Sample(path, LABELS[name], split=split) for path in paths]
    if not labelled:
        raise ValueError(f"{root}: nothing in it says what is real and what is fake; {LAYOUTS}")
    return samples


def _read_index(index: Path) -> list[Sample]:
    """Raises: ValueError where the table is not as `find_samples` says, with the line's number."""
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = {"path", "label"} - set(reader.fieldnames)
            if missing:
                raise ValueError(f"has no column {' and no '.join(sorted(missing))}; {LAYOUTS}")
            lines: dict[str, int] = {}
            samples = []
            for row in reader:
                sample = _sample(row, reader.line_num)
                first = lines.setdefault(sample.path, reader.line_num)
                if first != reader.line_num:
                    raise ValueError(f"lists {sample.path!r} twice, in lines {first} and {reader.line_num}")
                samples.append(sample)
    except (ValueError, csv.Error) as error:  # text that is not UTF-8 is a ValueError too
        raise ValueError(f"{index}: {error}") from error
    return samples


def _sample(row: dict[str, str | None], line: int) -> Sample:
    """One row of index.csv. Raises: ValueError."""
    text = {name: (row.get(name) or "").strip() for name in ("path", "label", "group", "split", "video", "method")}
    path = PurePosixPath(text["path"])
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"line {line}: path {text['path']!r}: give it relative to the folder of index.csv, without '..'"
        )
    if text["label"].lower() not in LABELS:
        raise ValueError(f"line {line}: label {text['label']!r} is none of {', '.join(LABELS)}")
    if text["split"] and text["split"].lower() not in SPLIT_NAMES:
        raise ValueError(f"line {line}: split {text['split']!r} is none of {', '.join(SPLIT_NAMES)}")
    split = SPLIT_NAMES.get(text["split"].lower(), "")
    return Sample(path.as_posix(), LABELS[text["label"].lower()], text["group"], split, text["video"], text["method"])


def group_near_duplicates(hashes: list[str]) -> list[str]:
    """A group name for each picture: those whose hashes differ by at most `NEAR` bits share it, and so do chains of
    them.

    Hashes within 4 bits of each other agree in at least two of six bands of bits; only those that do are compared,
    which keeps a million pictures far from a million million comparisons. The name is that of the smallest hash of the
    group, so it depends neither on the order nor on other pictures.

    hashes: 64-bit perceptual hashes as 16 hexadecimal digits (data/images.py).
    Raises: ValueError for something else.
    """
    for text in hashes:
        if len(text) != 16:
            raise ValueError(f"{text!r} is not a perceptual hash of 16 hexadecimal digits")
    values, place = np.unique(np.array([int(text, 16) for text in hashes], np.uint64), return_inverse=True)
    bands = [((1 << 11) - 1) << start & (1 << 64) - 1 for start in range(0, 64, 11)]
    group = np.arange(len(values))
    for equal in combinations(bands, len(bands) - NEAR):
        for left, right in _equal_pairs(values & np.uint64(sum(equal))):
            near = (np.bitwise_count(values[left] ^ values[right]) <= NEAR) & (group[left] != group[right])
            if near.any():
                ends = group[left[near]], group[right[near]]
                links = coo_array((np.ones(near.sum()), ends), shape=(len(group), len(group)))
                group = connected_components(links, directed=False)[1][group]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return [f"p{value:016x}" for value in values[first[group[place]]]]  # `values` ascend: the first is the smallest


def _equal_pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of equal keys, as two arrays of indices at a time. keys: (N,)."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start, step = np.arange(len(keys)), 0
    while len(start):  # compare each key with the one `step` further on, while those are equal
        step += 1
        start = start[start + step < len(keys)]
        start = start[keys[start] == keys[start + step]]
        yield order[start], order[start + step]


def fill_groups_and_splits(samples: list[Sample], hashes: list[str]) -> list[Sample]:
    """The samples with every group and split known. What is given is kept as it is.

    A sample without a group shares that of its near-duplicates, a given one if they have one. A sample without a split
    takes that of its group if any of it has one (test before val before train); the other groups are divided 70/10/20
    by a hash of their names, so that a picture stays where it is when others come or go.

    hashes: perceptual hashes, one per sample.
    """
    alike = group_near_duplicates(hashes)
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for sample, near in zip(samples, alike, strict=True):
        if sample.group:
            given[near][sample.group] += 1
    groups = [
        sample.group or (min(given[near], key=lambda name: (-given[near][name], name)) if near in given else near)
        for sample, near in zip(samples, alike, strict=True)
    ]
    known: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, groups, strict=True):
        if sample.split:
            known[group].add(sample.split)
    chosen = _divide(set(groups) - set(known), fill=not known)
    chosen |= {group: next(split for split in ("test", "val", "train") if split in known[group]) for group in known}
    return [
        replace(sample, group=group, split=sample.split or chosen[group])
        for sample, group in zip(samples, groups, strict=True)
    ]


def _divide(groups: set[str], fill: bool) -> dict[str, str]:
    """A split for each group, by its name alone. fill: leave no split empty where there are groups enough."""
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48 for name in sorted(groups)}
    chosen = {name: next(split for split, (_, end) in SHARES.items() if x < end) for name, x in place.items()}
    for split, (first, end) in SHARES.items() if fill else ():
        count = Counter(chosen.values())
        spare = [name for name in chosen if count[chosen[name]] > 1]
        if not count[split] and spare:  # a handful of groups: the nearest one fills the gap
            chosen[min(spare, key=lambda name: abs(place[name] - (first + end) / 2))] = split
    return chosen


def spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` of the samples, evenly spaced, so that every folder is in."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise ValueError(f"--limit {limit}: nothing would be left")
    return [samples[i * len(samples) // limit] for i in range(limit)]
