"""The content of a dataset folder: layout, videos and frames, and what is wrong with it.

No video is opened. `python evaluate.py inventory DATASET`
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from data.datasets import list_dataset
from data.images import SUFFIXES
from data.layouts import recognise
from data.layouts.tree import files_below, folders_in, walk
from data.samples import FRAMES, Clip, Listing
from data.splits import SPLITS
from data.video import VIDEO_SUFFIXES, split_frame

ALL_SPLITS = (*SPLITS, "")
EXAMPLES = 3  # of each finding
LINES = 8  # of each list
MANY = 100  # folders that are looked into where the one above them is no dataset
DEPTH = 3  # folders by which unused files are counted


@dataclass(frozen=True)
class Count:
    """One line of the table. videos: files and folders of frames. frames: as preprocessed."""

    split: str
    label: int
    method: str
    groups: int
    videos: int
    frames: int


@dataclass
class Inventory:
    """The findings.

    Attributes:
        layout: its name, "" where the folder is no dataset.
        reason: why it cannot be read.
        counts: by split, label and method.
        split_leaks: group in several splits -> these.
        missing: named by official lists or index.csv, and not there.
        unlisted: clips that no list names.
        empty: video files of no bytes.
        over: folder -> number of its pictures and videos that are not used.
        suffixes, folders, inside: files by suffix, folders, and layouts of these, of no dataset.
    """

    root: Path
    layout: str = ""
    reason: str = ""
    counts: list[Count] = field(default_factory=list)
    split_leaks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    over: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    inside: dict[str, str] = field(default_factory=dict)


def survey(
    root: Path, index: Path | None = None, layout: str | None = None, compression: str | None = None
) -> Inventory:
    """The inventory of a folder. Arguments: as of data.datasets.find_samples."""
    root = Path(root)
    try:
        name, listing = list_dataset(root, index, layout, compression)
    except ValueError as error:
        return _no_dataset(root, str(error))
    paths = {path for clip in listing.clips for path in clip.pictures or (clip.video,)}
    used = {(split_frame(path) or [Path(path)])[0].as_posix() for path in paths}
    files = files_below(root, SUFFIXES | VIDEO_SUFFIXES)
    present = {path.relative_to(root).as_posix() for path in files}
    return Inventory(
        root,
        name,
        counts=_counts(listing.clips),
        split_leaks=_split_leaks(listing.clips),
        missing=listing.missing + sorted(p for p in used - present if not (root / p).exists()),
        unlisted=listing.unlisted,
        empty=[c.video for c in listing.clips if not c.pictures and _is_empty(root / c.video)],
        over=_unused(sorted(present - used), listing),
        notes=listing.notes,
    )


def _no_dataset(root: Path, reason: str) -> Inventory:
    folders, inside = folders_in(root), {}
    for folder in folders[:MANY]:
        try:
            inside[folder.name] = recognise(folder)
        except ValueError:
            continue
    files = (file for _, _, files in walk(root) for file in files)
    return Inventory(
        root,
        reason=reason,
        suffixes=Counter(Path(file).suffix.lower() or "no suffix" for file in files),
        folders=[folder.name for folder in folders],
        inside={folder: layout for folder, layout in inside.items() if layout},
    )


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _counts(clips: Sequence[Clip]) -> list[Count]:
    groups, videos, frames = defaultdict(set), defaultdict(set), Counter()
    for clip in clips:
        key = (ALL_SPLITS.index(clip.split), clip.label, clip.method)
        groups[key] |= {clip.group} - {""}
        videos[key] |= {clip.video} - {""}
        frames[key] += min(len(clip.pictures), FRAMES) or FRAMES
    return [
        Count(ALL_SPLITS[key[0]], *key[1:], len(groups[key]), len(videos[key]), frames[key])
        for key in sorted(frames)
    ]


def _split_leaks(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split)
    leaks = {
        group: tuple(split for split in SPLITS if split in splits[group])
        for group in sorted(splits.keys() - {""})
    }
    return {group: found for group, found in leaks.items() if len(found) > 1}


def _unused(paths: Sequence[str], listing: Listing) -> Counter[str]:
    """Folder -> files in it that are neither used nor in a clip that no list names."""
    unlisted = {*listing.unlisted}
    return Counter(
        "/".join(path.parent.parts[:DEPTH]) or "."
        for path in map(PurePosixPath, paths)
        if unlisted.isdisjoint(each.as_posix() for each in (path, *path.parents))
    )


def text_of(found: Inventory) -> str:
    """The inventory as a text, with the counts as a table."""
    if found.reason:
        return _unusable(found)
    lines = [f"{found.root}: {found.layout}", *(f"note: {note}" for note in found.notes)]
    lines += ["", _table(found.counts), ""]
    if any(row.videos for row in found.counts):
        lines.append(f"frames: of each video at most {FRAMES}, evenly spaced (--frames)")
    lines += _remarks(found)
    lines += _list("missing", found.missing, "named by its lists and not there")
    passed = "there and named by none of its lists, so passed over"
    lines += _list("not listed", found.unlisted, passed)
    lines += _list("empty files", found.empty, "videos without a byte")
    if found.over:
        lines.append(f"passed over: {found.over.total()} other pictures and videos, by folder")
        lines += [f"  {folder}: {count}" for folder, count in found.over.most_common(LINES)]
        lines += _more(len(found.over))
    return "\n".join(lines).rstrip()


def _unusable(found: Inventory) -> str:
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.suffixes.most_common(LINES))
    folders = ", ".join(found.folders[:LINES]) + ", ..." * (len(found.folders) > LINES)
    lines = [f"{found.root}: cannot be used as it is", found.reason, f"files: {kinds or 'none'}"]
    lines.append(f"folders: {folders or 'none'}")
    lines += [f"{found.root / folder} looks like {name}" for folder, name in found.inside.items()]
    return "\n".join(lines)


def _table(counts: Sequence[Count]) -> str:
    if not counts:
        return "no videos and no pictures"
    table = pd.DataFrame(counts)
    total = {"split": "all", "videos": table["videos"].sum(), "frames": table["frames"].sum()}
    table["split"] = table["split"].replace("", "unknown")
    table["label"] = table["label"].map({0: "real", 1: "fake"})
    table["method"] = table["method"].replace("", "-")
    table = pd.concat([table.astype(object), pd.DataFrame([total])]).fillna("")
    return table.to_string(index=False)


def _remarks(found: Inventory) -> list[str]:
    labels = defaultdict(set)
    for row in found.counts:
        labels[row.split].add(row.label)
    remarks = [
        f"one class: {split or 'what has no split'} is all {('real', 'fake')[max(labels[split])]}"
        for split in ALL_SPLITS
        if len(labels[split]) == 1
    ]
    remarks += ["splits: what has none is divided 70/10/20 by group"] * bool(labels[""])
    if leaks := [f"{group} ({', '.join(found)})" for group, found in found.split_leaks.items()]:
        examples = ", ".join(leaks[:EXAMPLES])
        remarks.append(f"groups in several splits: {len(leaks)}, such as {examples}")
    return remarks


def _list(title: str, items: Sequence[str], what: str) -> list[str]:
    """A line for every folder with some of the items."""
    folders = defaultdict(list)
    for item in map(PurePosixPath, items):
        folders[item.parent.as_posix()].append(item.name)
    lines = []
    for folder, names in sorted(folders.items(), key=lambda each: (-len(each[1]), each[0]))[:LINES]:
        many = f"{len(names)}, such as " * (len(names) > EXAMPLES)
        lines.append(f"  {folder}: {many}{', '.join(names[:EXAMPLES])}")
    return [f"{title}: {len(items)} {what}", *lines, *_more(len(folders))] if items else []


def _more(folders: int) -> list[str]:
    return [f"  and in {folders - LINES} more folders"] * (folders > LINES)
