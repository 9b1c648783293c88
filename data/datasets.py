"""Labelled datasets: which pictures and frames there are, which of them belong together, which train and which test.

real = 0, fake = 1, everywhere in this project.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.images import SUFFIXES
from data.layouts import COMPRESSED, LAYOUTS, recognise
from data.layouts.tree import files_below
from data.samples import (
    FRAMES,
    LABELS,
    SHARES,
    SPLIT_NAMES,
    Clip,
    Listing,
    Sample,
    divide,
    is_video,
)
from data.video import VIDEO_SUFFIXES

__all__ = [
    "FRAMES",
    "Sample",
    "fill_groups_and_splits",
    "find_samples",
    "group_near_duplicates",
    "list_dataset",
    "spread",
]

NEAR = 4  # bits of 64 by which the perceptual hashes of near-duplicates may differ
PLAIN = "plain"  # the layout of folders and of index.csv, beside the official ones
EXPECTED = """expected one of
  real/ and fake/
  train/, val/ (or valid/) and test/, with real/ and fake/ in each
  index.csv with the columns path,label and, if known, group, split, video and method
  a published dataset as it is distributed (docs/datasets.md)"""


def find_samples(
    root: Path,
    index: Path | None = None,
    layout: str | None = None,
    frames: int = FRAMES,
    compression: str | None = None,
) -> list[Sample]:
    """The labelled pictures of a dataset, sorted by path; of videos, and of folders of their frames, `frames` evenly spaced.

    Layouts: an index.csv (path,label[,group][,split][,video][,method]; label real, fake, 0 or 1); folders `real` and
    `fake`, in `root` itself or below train, val (valid) and test, upper and lower case the same, folders below `real` and
    `fake` nested or not; the official ones of data/layouts. Where an index.csv is there it is what counts. One class alone
    will do: whoever needs both says so.

    index: an index.csv that lies elsewhere, its paths relative to its own folder; what it lists outside `root` is left
    out. Or a list of DeepfakeBench (.json). layout: "plain" or one of data.layouts.LAYOUTS, where it cannot be told.
    compression: of FaceForensics++, where several levels are there.

    Raises: FileNotFoundError where there is no such folder; ValueError where it holds no pictures in one of these
    layouts, or fits several, and for an unknown layout.
    """
    name, listing = list_dataset(root, index, layout, compression)
    samples = listing.samples(frames)
    if not samples and name == PLAIN:
        kinds = " ".join(sorted(SUFFIXES | VIDEO_SUFFIXES))
        raise ValueError(f"{root}: no images or videos ({kinds}) in it; {EXPECTED}")
    if not samples:
        raise ValueError(
            f"{root}: looks like {name}, but none of its videos or frames is there (docs/datasets.md)"
        )
    return samples


def list_dataset(
    root: Path, index: Path | None = None, layout: str | None = None, compression: str | None = None
) -> tuple[str, Listing]:
    """The layout of a dataset, and the clips and pictures in it. Arguments and Raises: as of `find_samples`."""
    root, index = Path(root), index and Path(index)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder of a dataset, {EXPECTED}")
    if index and not index.is_file():
        raise FileNotFoundError(f"{index}: no such file; give an index.csv, or leave --index out")
    if layout not in (None, PLAIN, *LAYOUTS):
        raise ValueError(
            f"--layout {layout}: there is no such layout; the layouts are {', '.join((PLAIN, *LAYOUTS))}"
        )
    name = layout or _layout_of(root, index)
    if compression and name not in COMPRESSED:
        raise ValueError(
            f"--compression {compression}: {root} is {name}; only {', '.join(COMPRESSED)} have levels of it"
        )
    if name == PLAIN:
        return name, Listing(_plain(root, index))
    if index and name != "deepfakebench":
        raise ValueError(
            f"{index}: --index does not go with the layout {name}, which has lists of its own"
        )
    return name, LAYOUTS[name].read(root, index, compression)


def _layout_of(root: Path, index: Path | None) -> str:
    """Raises: ValueError where several fit."""
    if index:
        return "deepfakebench" if index.suffix.lower() == ".json" else PLAIN
    if (root / "index.csv").is_file():
        return PLAIN
    name = recognise(root)
    if name and any(True for _ in _labelled_folders(root)):
        raise ValueError(
            f"{root}: looks like {name} and has real/ or fake/ too; say --layout {name} or --layout {PLAIN}"
        )
    return name or PLAIN


def _plain(root: Path, index: Path | None) -> list[Clip]:
    """Raises: ValueError."""
    if index:
        samples = _below(root, index)
    elif (root / "index.csv").is_file():
        samples = _read_index(root / "index.csv")
    else:
        samples = _read_folders(root)
    return [_clip(sample) for sample in samples]


def _clip(sample: Sample) -> Clip:
    """Of a picture, or of a video file, which is a group of its own unless one is given."""
    group, split, method = sample.group, sample.split, sample.method
    if is_video(sample.path):
        return Clip(
            sample.path, sample.label, (), group or sample.video or sample.path, split, method
        )
    return Clip(sample.video, sample.label, (sample.path,), group, split, method)


def _below(root: Path, index: Path) -> list[Sample]:
    """What `index` lists below `root`. Raises: ValueError."""
    samples, prefix = _read_index(index), root.resolve()
    base = index.parent.resolve()
    inside = [
        (base / sample.path, sample)
        for sample in samples
        if (base / sample.path).is_relative_to(prefix)
    ]
    if not inside:
        raise ValueError(f"{index}: none of its {len(samples)} pictures lies in {root}")
    return [replace(sample, path=path.relative_to(prefix).as_posix()) for path, sample in inside]


def _folders(parent: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """The folders directly below `parent` that are called one of `names`, in any case, with that name."""
    folders = [
        folder
        for folder in sorted(parent.iterdir())
        if folder.name.lower() in names and folder.is_dir()
    ]
    return [(folder, folder.name.lower()) for folder in folders]


def _labelled_folders(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(Folder, real or fake, split)."""
    for part, split in [
        (root, ""),
        *((folder, SPLIT_NAMES[name]) for folder, name in _folders(root, SPLIT_NAMES)),
    ]:
        yield from ((folder, name, split) for folder, name in _folders(part, ("real", "fake")))


def _read_folders(root: Path) -> list[Sample]:
    """Raises: ValueError where the folders are in no known layout."""
    folders = list(_labelled_folders(root))
    if not folders:
        raise ValueError(f"{root}: nothing in it says what is real and what is fake; {EXPECTED}")
    parts = [folder for folder, _ in _folders(root, SPLIT_NAMES)]
    if parts and any(folder.parent == root for folder, _, _ in folders):
        raise ValueError(
            f"{root}: has both real/ or fake/ and {parts[0].name}/; which holds the dataset? {EXPECTED}"
        )
    return [
        Sample(path.relative_to(root).as_posix(), LABELS[name], split=split)
        for folder, name, split in folders
        for path in files_below(folder, SUFFIXES | VIDEO_SUFFIXES)
    ]


def _read_index(index: Path) -> list[Sample]:
    """Raises: ValueError where the table is not as `find_samples` says, with the line's number."""
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = {"path", "label"} - set(reader.fieldnames)
            if missing:
                raise ValueError(f"has no column {' and no '.join(sorted(missing))}; {EXPECTED}")
            lines: dict[str, int] = {}
            samples = []
            for row in reader:
                sample = _sample(row, reader.line_num)
                first = lines.setdefault(sample.path, reader.line_num)
                if first != reader.line_num:
                    raise ValueError(
                        f"lists {sample.path!r} twice, in lines {first} and {reader.line_num}"
                    )
                samples.append(sample)
    except (ValueError, csv.Error) as error:  # text that is not UTF-8 is a ValueError too
        raise ValueError(f"{index}: {error}") from error
    return samples


def _sample(row: dict[str, str | None], line: int) -> Sample:
    """One row of index.csv. Raises: ValueError."""
    text = {
        name: (row.get(name) or "").strip()
        for name in ("path", "label", "group", "split", "video", "method")
    }
    path = PurePosixPath(text["path"])
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"line {line}: path {text['path']!r}: give it relative to the folder of index.csv, without '..'"
        )
    if text["label"].lower() not in LABELS:
        raise ValueError(f"line {line}: label {text['label']!r} is none of {', '.join(LABELS)}")
    if text["split"] and text["split"].lower() not in SPLIT_NAMES:
        raise ValueError(
            f"line {line}: split {text['split']!r} is none of {', '.join(SPLIT_NAMES)}"
        )
    split = SPLIT_NAMES.get(text["split"].lower(), "")
    return Sample(
        path.as_posix(),
        LABELS[text["label"].lower()],
        text["group"],
        split,
        text["video"],
        text["method"],
    )


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
    values, place = np.unique(
        np.array([int(text, 16) for text in hashes], np.uint64), return_inverse=True
    )
    bands = [((1 << 11) - 1) << start & (1 << 64) - 1 for start in range(0, 64, 11)]
    group = np.arange(len(values))
    for equal in combinations(bands, len(bands) - NEAR):
        for left, right in _equal_pairs(values & np.uint64(sum(equal))):
            near = (np.bitwise_count(values[left] ^ values[right]) <= NEAR) & (
                group[left] != group[right]
            )
            if near.any():
                ends = group[left[near]], group[right[near]]
                links = coo_array((np.ones(near.sum()), ends), shape=(len(group), len(group)))
                group = connected_components(links, directed=False)[1][group]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return [
        f"p{value:016x}" for value in values[first[group[place]]]
    ]  # `values` ascend: the first is the smallest


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
        sample.group
        or (
            min(given[near], key=lambda name: (-given[near][name], name)) if near in given else near
        )
        for sample, near in zip(samples, alike, strict=True)
    ]
    known: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, groups, strict=True):
        if sample.split:
            known[group].add(sample.split)
    chosen = divide(set(groups) - set(known), SHARES, fill=not known)
    chosen |= {
        group: next(split for split in ("test", "val", "train") if split in known[group])
        for group in known
    }
    return [
        replace(sample, group=group, split=sample.split or chosen[group])
        for sample, group in zip(samples, groups, strict=True)
    ]


def spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` of the samples, evenly spaced, so that every folder is in."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise ValueError(f"--limit {limit}: nothing would be left")
    return [samples[i * len(samples) // limit] for i in range(limit)]
