"""Labelled datasets: the pictures and frames in a folder, with their labels, groups and splits."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.images import SUFFIXES
from data.layouts import LAYOUTS, compressed, recognise
from data.layouts.tree import files_below
from data.samples import FRAMES, LABELS, SPLIT_NAMES, Clip, Listing, Sample, is_video
from data.video import VIDEO_SUFFIXES

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
    """The labelled pictures of a dataset, sorted by path.

    Layouts: an index.csv, which counts where it is there (path,label[,group][,split][,video]
    [,method]; label real, fake, 0 or 1); folders `real` and `fake`, in `root` or below train, val
    (valid) and test, in any case, nested or not; the official ones of data/layouts.

    Args:
        index: an index.csv elsewhere, its paths relative to its own folder; what it lists outside
            `root` is left out. Or a list of DeepfakeBench (.json).
        layout: "plain" or one of data.layouts.LAYOUTS, where it is ambiguous.
        frames: evenly spaced, of every video and every folder of frames.
        compression: level of FaceForensics++, where several are there.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no pictures in one of these layouts, or fits several.
    """
    name, listing = list_dataset(root, index, layout, compression)
    samples = listing.samples(frames)
    if not samples and name == PLAIN:
        kinds = " ".join(sorted(SUFFIXES | VIDEO_SUFFIXES))
        raise ValueError(f"{root}: no images or videos ({kinds}) in it; {EXPECTED}")
    if not samples:
        raise ValueError(
            f"{root}: looks like {name}, but none of its videos or frames is there "
            "(docs/datasets.md)"
        )
    return samples


def list_dataset(
    root: Path, index: Path | None = None, layout: str | None = None, compression: str | None = None
) -> tuple[str, Listing]:
    """The layout of a dataset, and its clips. Arguments and errors: as of `find_samples`."""
    root, index = Path(root), index and Path(index)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder of a dataset, {EXPECTED}")
    if index and not index.is_file():
        raise FileNotFoundError(f"{index}: no such file; give an index.csv, or leave --index out")
    if layout not in (None, PLAIN, *LAYOUTS):
        raise ValueError(
            f"--layout {layout}: there is no such layout; the layouts are "
            f"{', '.join((PLAIN, *LAYOUTS))}"
        )
    name = layout or _layout_of(root, index)
    if compression and not compressed(name):
        levels = ", ".join(filter(compressed, LAYOUTS))
        raise ValueError(
            f"--compression {compression}: {root} is {name}; only {levels} have levels of it"
        )
    if name == PLAIN:
        return name, Listing([_clip(sample) for sample in _plain(root, index)])
    if index and name != "deepfakebench":
        raise ValueError(
            f"{index}: --index does not go with the layout {name}, which has lists of its own"
        )
    return name, LAYOUTS[name].read(root, index, compression)


def _layout_of(root: Path, index: Path | None) -> str:
    if index:
        return "deepfakebench" if index.suffix.lower() == ".json" else PLAIN
    if (root / "index.csv").is_file():
        return PLAIN
    name = recognise(root)
    if name and any(True for _ in _labelled_folders(root)):
        raise ValueError(
            f"{root}: looks like {name} and has real/ or fake/ too; say --layout {name} or "
            f"--layout {PLAIN}"
        )
    return name or PLAIN


def _plain(root: Path, index: Path | None) -> list[Sample]:
    if index:
        return _below(root, index)
    if (root / "index.csv").is_file():
        return _read_index(root / "index.csv")
    return _read_folders(root)


def _clip(sample: Sample) -> Clip:
    """Of a picture, or of a video file, which is a group of its own unless one is given."""
    group, split, method = sample.group, sample.split, sample.method
    if is_video(sample.path):
        group = group or sample.video or sample.path
        return Clip(sample.path, sample.label, (), group, split, method)
    return Clip(sample.video, sample.label, (sample.path,), group, split, method)


# Folders called real and fake.


def _folders(parent: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """(Folder, name in lower case) of those directly below `parent` with one of these names."""
    folders = ((folder, folder.name.lower()) for folder in sorted(parent.iterdir()))
    return [(folder, name) for folder, name in folders if name in names and folder.is_dir()]


def _labelled_folders(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(Folder, real or fake, split)."""
    splits = ((folder, SPLIT_NAMES[name]) for folder, name in _folders(root, SPLIT_NAMES))
    for part, split in ((root, ""), *splits):
        yield from ((folder, name, split) for folder, name in _folders(part, ("real", "fake")))


def _read_folders(root: Path) -> list[Sample]:
    folders = list(_labelled_folders(root))
    if not folders:
        raise ValueError(f"{root}: nothing in it says what is real and what is fake; {EXPECTED}")
    parts = [folder for folder, _ in _folders(root, SPLIT_NAMES)]
    if parts and any(folder.parent == root for folder, _, _ in folders):
        raise ValueError(
            f"{root}: has both real/ or fake/ and {parts[0].name}/; which holds the dataset? "
            f"{EXPECTED}"
        )
    return [
        Sample(path.relative_to(root).as_posix(), LABELS[name], split=split)
        for folder, name, split in folders
        for path in files_below(folder, SUFFIXES | VIDEO_SUFFIXES)
    ]


# A user's index.csv.


def _below(root: Path, index: Path) -> list[Sample]:
    """What an index elsewhere lists below `root`."""
    samples, prefix, base = _read_index(index), root.resolve(), index.parent.resolve()
    inside = [
        replace(sample, path=(base / sample.path).relative_to(prefix).as_posix())
        for sample in samples
        if (base / sample.path).is_relative_to(prefix)
    ]
    if not inside:
        raise ValueError(f"{index}: none of its {len(samples)} pictures lies in {root}")
    return inside


def _read_index(index: Path) -> list[Sample]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if missing := sorted({"path", "label"} - set(reader.fieldnames)):
                raise ValueError(f"has no column {' and no '.join(missing)}; {EXPECTED}")
            lines: dict[str, int] = {}
            samples = []
            for row in reader:
                sample, line = _sample(row, reader.line_num), reader.line_num
                if (first := lines.setdefault(sample.path, line)) != line:
                    raise ValueError(f"lists {sample.path!r} twice, in lines {first} and {line}")
                samples.append(sample)
    except (ValueError, csv.Error) as error:  # text that is not UTF-8 is a ValueError too
        raise ValueError(f"{index}: {error}") from error
    return samples


def _sample(row: dict[str, str | None], line: int) -> Sample:
    """One line of an index.csv."""
    names = ("path", "label", "group", "split", "video", "method")
    path, label, group, split, video, method = ((row.get(n) or "").strip() for n in names)
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(
            f"line {line}: path {path!r}: give it relative to the folder of index.csv, without '..'"
        )
    if label.lower() not in LABELS:
        raise ValueError(f"line {line}: label {label!r} is none of {', '.join(LABELS)}")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(f"line {line}: split {split!r} is none of {', '.join(SPLIT_NAMES)}")
    split = SPLIT_NAMES.get(split.lower(), "")
    return Sample(
        PurePosixPath(path).as_posix(), LABELS[label.lower()], group, split, video, method
    )
