"""The content of a dataset folder, and what is wrong with it. No video is opened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath

import pandas as pd

from data.datasets import list_dataset
from data.images import SUFFIXES
from data.layouts.tree import files_below, folders_in, walk
from data.names import for_screen
from data.samples import FRAMES, Clip, Listing
from data.splits import SPLITS
from data.video import VIDEO_SUFFIXES, file_of

EXAMPLES = 3  # of each finding
LINES = 8  # of each list
DEPTH = 3  # folders by which unused files are counted


@dataclass
class Inventory:
    """The findings.

    Attributes:
        layout: "" where the folder is no dataset; `reason` says why, and what is in it.
        counts: (split, label, method, groups, videos, frames), frames as preprocessed.
        split_leaks: group in several splits -> these.
        people: how many are known, fakes with a donor, all fakes; clips and single pictures.
        missing, unlisted: clips that lists name and are not there; clips that no list names.
        empty: video files of no bytes.
        over: folder -> number of its pictures and videos that are not used.
        passed: other files and folders that are not read, and why.
    """

    root: Path
    layout: str = ""
    reason: str = ""
    counts: list[tuple] = field(default_factory=list)
    split_leaks: dict[str, list[str]] = field(default_factory=dict)
    people: tuple[int, int, int] = (0, 0, 0)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    over: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)


def survey(
    root: Path, index: Path | None = None, layout: str | None = None, compression: str | None = None
) -> Inventory:
    """The inventory of a folder. Arguments: as of data.datasets.find_samples."""
    root = Path(root)
    try:
        name, listing = list_dataset(root, index, layout, compression)
    except ValueError as error:
        return Inventory(root, reason="\n".join([str(error), *_contents(root)]))
    paths = {path for clip in listing.clips for path in clip.pictures or (clip.video,)}
    used = {file_of(path).as_posix() for path in paths}
    files = files_below(root, SUFFIXES | VIDEO_SUFFIXES)
    present = {path.relative_to(root).as_posix() for path in files}
    gone = {path for path in used - present if not (root / path).exists()}
    return Inventory(
        root,
        name,
        counts=_counts(listing.clips),
        split_leaks=_split_leaks(listing.clips),
        people=_people(listing.clips),
        missing=listing.missing + sorted(gone - {*listing.missing}),
        unlisted=listing.unlisted,
        empty=[c.video for c in listing.clips if not c.pictures and _is_empty(root / c.video)],
        over=_unused(sorted(present - used), listing),
        notes=listing.notes,
        passed=listing.passed,
    )


def _contents(root: Path) -> list[str]:
    """What is in a folder that is no dataset."""
    suffixes = Counter(
        Path(f).suffix.lower() or "no suffix" for *_, files in walk(root) for f in files
    )
    kinds = ", ".join(
        f"{count} {for_screen(suffix)}" for suffix, count in suffixes.most_common(LINES)
    )
    folders = folders_in(root)
    names = ", ".join(for_screen(f.name) for f in folders[:LINES]) + ", ..." * (
        len(folders) > LINES
    )
    return [f"files: {kinds or 'none'}", f"folders: {names or 'none'}"]


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _counts(clips: Sequence[Clip]) -> list[tuple]:
    rows = [
        (c.split, c.label, c.method, c.group or None, c.video or None, len(c.pictures) or FRAMES)
        for c in clips
    ]
    table = pd.DataFrame(rows, columns=["split", "label", "method", "groups", "videos", "frames"])
    table["split"] = pd.Categorical(table["split"], [*SPLITS, ""])
    table["frames"] = table["frames"].clip(upper=FRAMES)
    by_kind = table.groupby(["split", "label", "method"], observed=True, as_index=False)
    counts = by_kind.agg({"groups": "nunique", "videos": "nunique", "frames": "sum"})
    return list(counts.itertuples(index=False, name="Count"))


def _split_leaks(clips: Sequence[Clip]) -> dict[str, list[str]]:
    splits = defaultdict(set)
    for clip in clips:
        if clip.group and clip.split:
            splits[clip.group].add(clip.split)
    several = sorted((group, found) for group, found in splits.items() if len(found) > 1)
    return {group: sorted(found, key=SPLITS.index) for group, found in several}


def _people(clips: Sequence[Clip]) -> tuple[int, int, int]:
    known = {name for clip in clips for name in (clip.person, clip.donor) if name}
    donors = [bool(clip.donor) for clip in clips if clip.label]
    return len(known), sum(donors), len(donors)


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
        return f"{found.root}: cannot be used as it is\n{found.reason}"
    lines = [
        f"{for_screen(str(found.root))}: {found.layout}",
        *(f"note: {for_screen(note)}" for note in found.notes),
    ]
    lines += ["", _table(found.counts), ""]
    if any(row.videos for row in found.counts):
        lines.append(f"frames: of each video at most {FRAMES}, evenly spaced (--frames)")
    for split, rows in groupby(found.counts, key=attrgetter("split")):
        if len(labels := {("real", "fake")[row.label] for row in rows}) == 1:
            lines.append(f"one class: {split or 'what has no split'} is all {labels.pop()}")
    if any(not row.split for row in found.counts):
        lines.append("splits: what has none is divided 70/10/20 by group")
    if leaks := [
        f"{for_screen(group)} ({', '.join(splits)})" for group, splits in found.split_leaks.items()
    ]:
        examples = ", ".join(leaks[:EXAMPLES])
        lines.append(f"groups in several splits: {len(leaks)}, such as {examples}")
    people, donors, fakes = found.people
    if people:
        lines.append(
            f"people: {people:,} known"
            + f", {donors:,} of {fakes:,} fakes with a donor" * bool(fakes)
        )
    passed = "there and named by none of its lists, so passed over"
    lines += _list("missing", found.missing, "named by its lists and not there")
    lines += _list("not listed", found.unlisted, passed)
    lines += _list("empty files", found.empty, "videos without a byte")
    if found.over:
        lines.append(f"passed over: {found.over.total()} other pictures and videos, by folder")
        lines += [
            f"  {for_screen(folder)}: {count}" for folder, count in found.over.most_common(LINES)
        ]
        lines += _more(len(found.over))
    reasons = defaultdict(list)
    for path, reason in found.passed:
        reasons[reason].append(path)
    for reason, paths in reasons.items():
        lines += _list("not read", paths, reason)
    return "\n".join(lines).rstrip()


def _table(counts: Sequence[tuple]) -> str:
    if not counts:
        return "no videos and no pictures"
    table = pd.DataFrame(counts, dtype=object)
    sums = {"split": "all", "videos": table["videos"].sum(), "frames": table["frames"].sum()}
    table["split"] = table["split"].replace("", "unknown")
    table["label"] = table["label"].map({0: "real", 1: "fake"})
    table["method"] = table["method"].replace("", "-").map(for_screen)
    return pd.concat([table, pd.DataFrame([sums])]).fillna("").to_string(index=False)


def _list(title: str, items: Sequence[str], what: str) -> list[str]:
    """A line for every folder with some of the items."""
    folders = defaultdict(list)
    for item in map(PurePosixPath, map(for_screen, items)):
        folders[item.parent.as_posix()].append(item.name)
    lines = []
    for folder, names in sorted(folders.items(), key=lambda each: (-len(each[1]), each[0]))[:LINES]:
        many = f"{len(names)}, such as " * (len(names) > EXAMPLES)
        lines.append(f"  {folder}: {many}{', '.join(names[:EXAMPLES])}")
    return [f"{title}: {len(items)} {what}", *lines, *_more(len(folders))] if items else []


def _more(folders: int) -> list[str]:
    return [f"  and in {folders - LINES} more folders"] * (folders > LINES)
