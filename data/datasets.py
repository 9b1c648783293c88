"""Labelled datasets: the pictures and frames in a folder, with their labels, groups and splits."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.images import SUFFIXES
from data.layouts import LAYOUTS, compressed, folders, recognise
from data.layouts.deepfakebench import lists_in
from data.layouts.folders import EXPECTED
from data.layouts.tree import WITHIN, child, entries_of, folders_in, passed_below
from data.layouts.tree import is_file as is_there
from data.names import for_screen
from data.samples import FRAMES, LABELS, PEOPLE, SPLIT_NAMES, Clip, Listing, Sample, is_video
from data.splits import with_val
from data.tables import Files, label_of, name_of, read_table
from data.video import VIDEO_SUFFIXES, split_frame

log = logging.getLogger("masc")
MANY = 100  # folders that are looked into where the one above them is no dataset
INDEX = "index.csv"
# What somebody may have meant as the index.
OTHER_INDEX = re.compile(r"index\.(csv|tsv|txt|tab|xlsx?|ods|parquet)(\.\w+)?", re.IGNORECASE)
OPTIONAL = ("group", "split", "video", *PEOPLE, "method", "kind")  # columns of it
PLAIN = "plain"  # the layout of folders and of index.csv, beside the official ones


def find_samples(
    root: Path,
    index: Path | None = None,
    layout: str | None = None,
    frames: int = FRAMES,
    compression: str | None = None,
) -> list[Sample]:
    """The labelled pictures of a dataset, sorted by path. An index.csv counts before folders.

    Args:
        index: an index.csv elsewhere, its paths relative to its own folder; what it lists outside
            `root` is left out. Or a list of DeepfakeBench (.json).
        layout: "plain" or one of data.layouts.LAYOUTS, where it is ambiguous.
        compression: level of FaceForensics++, where several are there.
    """
    name, listing = list_dataset(root, index, layout, compression)
    _warn(root, listing)
    samples = listing.samples(frames)
    if not samples and name == PLAIN:
        kinds = " ".join(sorted(SUFFIXES | VIDEO_SUFFIXES))
        raise ValueError(f"{root}: no images or videos ({kinds}) in it; {EXPECTED}")
    if not samples:
        example = f", such as {for_screen(listing.missing[0])}" if listing.missing else ""
        raise ValueError(
            f"{root}: looks like {name}, but none of its videos or frames is there{example} (frames "
            f"are looked for in folders called {', '.join(WITHIN)}, too)"
        )
    left = sum(len(clip.pictures) for clip in listing.clips)
    left -= sum(split_frame(sample.path) is None for sample in samples)
    notes = listing.notes + [f"{left} pictures beyond {frames} of a clip are left out"] * bool(left)
    if notes:
        log.info("%s: %s", root, for_screen("; ".join(notes)))
    return samples


def _warn(root: Path, listing: Listing) -> None:
    """One line each about what is missing and what is not read, with examples."""
    if missing := listing.missing:
        example = for_screen(missing[0])
        log.warning("%s: %d listed and not there, such as %s", root, len(missing), example)
    passed = listing.passed
    examples = {reason: path for path, reason in reversed(passed)}
    counts = Counter(reason for _, reason in passed).most_common()
    told = [f"{n} {reason} (such as {examples[reason]})" for reason, n in counts]
    if told:
        log.warning("%s: not used: %s", root, for_screen("; ".join(told)))


def list_dataset(
    root: Path, index: Path | None = None, layout: str | None = None, compression: str | None = None
) -> tuple[str, Listing]:
    """The layout of a dataset, and its clips. Arguments: as of `find_samples`."""
    root, index = Path(root), index and Path(index)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder of a dataset, {EXPECTED}")
    if index and not index.is_file():
        raise FileNotFoundError(f"{index}: no such file; give an index.csv, or leave --index out")
    if layout not in (None, PLAIN, *LAYOUTS):
        known = ", ".join((PLAIN, *LAYOUTS))
        raise ValueError(f"--layout {layout}: no such layout; the layouts are {known}")
    name = layout or _layout_of(root, index)
    if compression and not compressed(name):
        levels = ", ".join(filter(compressed, LAYOUTS))
        raise ValueError(
            f"--compression {compression}: {root} is {name}; only {levels} have levels"
        )
    if name == PLAIN:
        return name, _plain(root, index)
    if index and name != "deepfakebench":
        raise ValueError(f"{index}: --index does not go with the layout {name}, which has lists")
    listing = LAYOUTS[name].read(root, index, compression)
    return name, replace(listing, clips=with_val(listing.clips), passed=passed_below(root, root))


def _layout_of(root: Path, index: Path | None) -> str:
    if index:
        return "deepfakebench" if index.suffix.lower() == ".json" else PLAIN
    if _index_in(root):
        return PLAIN
    name = recognise(root)
    if name and folders.labelled(root):
        raise ValueError(
            f"{root}: looks like {name} and has real/ or fake/ too; say --layout {name} or {PLAIN}"
        )
    return name or PLAIN


def _plain(root: Path, index: Path | None) -> Listing:
    if index := index or _index_in(root):
        return Listing([_clip(sample) for sample in _read_index(root, index)])
    tables = [name for name in entries_of(root) if OTHER_INDEX.fullmatch(name)]
    passed = [(name, f"not called {INDEX}, so it is not read as one") for name in tables]
    if not folders.labelled(root):
        hints = [f"{for_screen(name)} is {reason}" for name, reason in passed] + hints_of(root)
        hints = "".join(f"\n{hint}" for hint in hints)
        nothing = "nothing in it says what is real and what is fake"
        raise ValueError(f"{root}: {nothing}; {EXPECTED}{hints}")
    listing = folders.read(root)
    return replace(listing, passed=passed + listing.passed)


def _index_in(root: Path) -> Path | None:
    """The index.csv of a folder, its name in any case."""
    found = [root / name for name in entries_of(root) if name.casefold() == INDEX]
    found = [path for path in found if is_there(path)]
    if len(found) > 1 and root / INDEX not in found:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{root}: has {names}; which is the index? Call it {INDEX}")
    return root / INDEX if root / INDEX in found else next(iter(found), None)


def hints_of(root: Path) -> list[str]:
    """What lies one folder down, where `root` itself is no dataset."""
    hints = []
    for folder in folders_in(root)[:MANY]:
        try:
            found = "plain" if _index_in(folder) or folders.labelled(folder) else ""
            found = found or recognise(folder)
        except ValueError:
            continue
        places = [folder, *([inner] if (inner := child(folder, "dataset_json")) else [])]
        lists = [path for place in places if not folders_in(place) for path in lists_in(place)]
        if lists:
            others = f", or another of its {len(lists)} lists" * (len(lists) > 1)
            hints.append(
                f"{lists[0].parent} has lists of DeepfakeBench: "
                f"python preprocessing_pipeline.py --data-root {root} --index {lists[0]}{others}"
            )
        elif found:
            hints.append(f"{folder} looks like {found}: give that folder")
    return [for_screen(hint) for hint in hints]


def _clip(sample: Sample) -> Clip:
    """Of a picture, or of a video file, which is a group of its own unless one is given."""
    group, rest = sample.group, (sample.split, sample.method, sample.person, sample.donor)
    if is_video(sample.path):
        return Clip(sample.path, sample.label, (), group or sample.video or sample.path, *rest)
    return Clip(sample.video, sample.label, (sample.path,), group, *rest)


# A user's index.csv.


def _read_index(root: Path, index: Path) -> list[Sample]:
    """What an index lists below `root`; refused where nothing of it is there."""
    files, lines, samples, missing = Files(index.parent), {}, [], []
    top, base = root.resolve(), index.parent.resolve()
    for line, row in read_table(index, more=OPTIONAL):
        try:
            sample, is_there = _sample(row, files)
        except ValueError as error:
            raise ValueError(f"{index}: line {line}: {error}") from error
        if (first := lines.setdefault(sample.path, line)) != line:
            raise ValueError(f"{index}: lists {sample.path!r} twice, in lines {first} and {line}")
        if top != base:
            place = base / sample.path
            if not place.is_relative_to(top):
                continue
            sample = replace(sample, path=place.relative_to(top).as_posix())
        samples.append(sample)
        if not is_there:
            missing.append(row["path"])
    if lines and not samples:
        raise ValueError(f"{index}: none of its {len(lines)} pictures lies in {root}")
    if missing:
        some = "none" if len(missing) == len(samples) else f"only {len(samples) - len(missing)}"
        text = (
            f"{index}: {some} of the {len(samples)} files that it lists can be found; missing is "
        )
        text += f"{for_screen(missing[0])!r}, for example; paths count from the folder of index.csv"
        if len(missing) == len(samples):
            raise ValueError(text)
        log.warning("%s", text)
    return samples


def _sample(row: dict[str, str], files: Files) -> tuple[Sample, bool]:
    """One line of an index.csv, and whether its file is there.

    Without a group, the person is one: nobody may be in two splits.
    """
    path, label = files.within(row["path"]), row["label"]
    group, split, video, person, donor, *made = (name_of(row.get(name, "")) for name in OPTIONAL)
    frame = path[path.rindex("@") :] if split_frame(path) else ""
    file = path.removesuffix(frame)
    found = files.find(file)
    if (number := label_of(label)) is None:
        raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLIT_NAMES)}")
    split = SPLIT_NAMES.get(split.lower(), "")
    name = (found or PurePosixPath(file).as_posix()) + frame
    method = ": ".join(filter(None, made[::-1])) if number else made[0]  # "swaps: SimSwap"
    people = (person, donor if number else "")
    sample = Sample(name, number, group or person, split, video, method, *people)
    return sample, found is not None
