"""What lies in a dataset's folder: its layout, videos and frames by split, label and method, and what is wrong with it.

No video is opened. `python evaluate.py inventory DATASET`
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.datasets import list_dataset
from data.images import SUFFIXES
from data.layouts import recognise
from data.layouts.tree import files_below, folders_in, walk
from data.samples import FRAMES, Clip, Listing
from data.video import VIDEO_SUFFIXES, split_frame

SPLITS = ("train", "val", "test", "")
EXAMPLES = 3  # of each thing that is said of many
LINES = 8  # of each list
MANY = 100  # folders that are looked into where the one above them is no dataset
DEPTH = 3  # folders by which files that are passed over are counted


@dataclass(frozen=True)
class Count:
    """One line of the table. videos: files and folders of frames; frames: pictures that preprocessing would look at."""

    split: str
    label: int
    method: str
    groups: int
    videos: int
    frames: int


@dataclass
class Inventory:
    """layout: its name, "" where it is none. reason: why it cannot be read. counts: by split, label and method. crossing: groups
    in several splits -> these. missing: what official lists or index.csv name and the disk lacks. unlisted: clips that no list
    names. empty: video files of no bytes. over: folder -> pictures and videos in it that are not used. suffixes, folders: what
    is there at all, where it cannot be read. inside: folder in it -> its layout, likewise."""

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
    """See data.datasets.find_samples for the arguments. Raises: FileNotFoundError."""
    root = Path(root)
    try:
        name, listing = list_dataset(root, index, layout, compression)
    except ValueError as error:
        folders = folders_in(root)
        inside = {folder.name: name for folder in folders[:MANY] if (name := _layout_of(folder))}
        found = Inventory(
            root, reason=str(error), folders=[folder.name for folder in folders], inside=inside
        )
        for _, _, files in walk(root):
            found.suffixes.update(Path(file).suffix.lower() or "no suffix" for file in files)
        return found
    used = {_file_of(path) for clip in listing.clips for path in clip.pictures or (clip.video,)}
    there = {
        path.relative_to(root).as_posix() for path in files_below(root, SUFFIXES | VIDEO_SUFFIXES)
    }
    gone = sorted(path for path in used - there if not (root / path).exists())
    return Inventory(
        root,
        name,
        counts=_counts(listing.clips),
        split_leaks=_split_leaks(listing.clips),
        missing=listing.missing + gone,
        unlisted=listing.unlisted,
        empty=[
            clip.video
            for clip in listing.clips
            if not clip.pictures and _is_empty(root / clip.video)
        ],
        over=_over(sorted(there - used), listing),
        notes=listing.notes,
    )


def _layout_of(folder: Path) -> str:
    try:
        return recognise(folder) or ""
    except ValueError:
        return ""


def _file_of(path: str) -> str:
    frame = split_frame(path)
    return path if frame is None else frame[0].as_posix()


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _counts(clips: Iterable[Clip]) -> list[Count]:
    groups, videos, frames = defaultdict(set), defaultdict(set), Counter()
    for clip in clips:
        key = (SPLITS.index(clip.split), clip.label, clip.method)
        groups[key] |= {clip.group} - {""}
        videos[key] |= {clip.video} - {""}
        frames[key] += min(len(clip.pictures), FRAMES) or FRAMES
    return [
        Count(SPLITS[split], label, method, len(groups[key]), len(videos[key]), frames[key])
        for key in sorted(frames)
        for split, label, method in [key]
    ]


def _split_leaks(clips: Iterable[Clip]) -> dict[str, tuple[str, ...]]:
    splits = defaultdict(set)
    for clip in clips:
        if clip.group and clip.split:
            splits[clip.group].add(clip.split)
    return {
        group: tuple(sorted(found, key=SPLITS.index))
        for group, found in sorted(splits.items())
        if len(found) > 1
    }


def _over(paths: Iterable[str], listing: Listing) -> Counter[str]:
    """Folder -> files in it that are neither used nor in a clip that no list names."""
    said = {*listing.unlisted}
    over: Counter[str] = Counter()
    for path in map(PurePosixPath, paths):
        if said.isdisjoint((path.as_posix(), *map(PurePosixPath.as_posix, path.parents))):
            over["/".join(path.parent.parts[:DEPTH]) or "."] += 1
    return over


def text_of(found: Inventory) -> str:
    """For people to read, the table aligned."""
    if found.reason:
        return _unusable(found)
    blocks = [
        f"{found.root}: {found.layout}",
        *(f"note: {note}" for note in found.notes),
        "",
        _table(found.counts),
        "",
    ]
    if any(row.videos for row in found.counts):
        blocks.append(f"frames: of each video at most {FRAMES}, evenly spaced (--frames)")
    blocks += _remarks(found)
    blocks += _list("missing", found.missing, "named by its lists and not there")
    blocks += _list(
        "not listed", found.unlisted, "there and named by none of its lists, so passed over"
    )
    blocks += _list("empty files", found.empty, "videos without a byte")
    if found.over:
        lines = [f"  {folder}: {count}" for folder, count in found.over.most_common(LINES)]
        rest = len(found.over) - len(lines)
        lines += [f"  and in {rest} more folders"] * (rest > 0)
        blocks += [
            f"passed over: {found.over.total()} other pictures and videos, by folder",
            *lines,
        ]
    return "\n".join(blocks).rstrip()


def _unusable(found: Inventory) -> str:
    kinds = (
        ", ".join(f"{count} {suffix}" for suffix, count in found.suffixes.most_common(LINES))
        or "none"
    )
    folders = ", ".join(found.folders[:LINES]) + ", ..." * (len(found.folders) > LINES)
    lines = [
        f"{found.root}: cannot be used as it is",
        found.reason,
        f"files: {kinds}",
        f"folders: {folders or 'none'}",
    ]
    return "\n".join(
        [
            *lines,
            *(f"{found.root / folder} looks like {name}" for folder, name in found.inside.items()),
        ]
    )


def _table(counts: Sequence[Count]) -> str:
    lines = [("split", "label", "method", "groups", "videos", "frames")]
    for row in counts:
        label = ("real", "fake")[row.label]
        lines.append(
            (
                row.split or "unknown",
                label,
                row.method or "-",
                str(row.groups),
                str(row.videos),
                str(row.frames),
            )
        )
    if not counts:
        return "no videos and no pictures"
    totals = (str(sum(getattr(row, name) for row in counts)) for name in ("videos", "frames"))
    lines.append(("all", "", "", "", *totals))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _remarks(found: Inventory) -> list[str]:
    labels = defaultdict(set)
    for row in found.counts:
        labels[row.split].add(row.label)
    remarks = []
    for split in SPLITS:
        if len(labels[split]) == 1:
            only = "fake" if labels[split] == {1} else "real"
            remarks.append(f"one class: {split or 'what has no split'} is all {only}")
    if labels[""]:
        remarks.append("splits: what has none is divided 70/10/20 by group")
    if found.split_leaks:
        examples = [
            f"{group} ({', '.join(splits)})"
            for group, splits in list(found.split_leaks.items())[:EXAMPLES]
        ]
        remarks.append(
            f"groups in several splits: {len(found.split_leaks)}, such as {', '.join(examples)}"
        )
    return remarks


def _list(title: str, items: Sequence[str], what: str) -> list[str]:
    """A line for every folder that the items lie in."""
    folders = defaultdict(list)
    for item in items:
        folders[PurePosixPath(item).parent.as_posix()].append(PurePosixPath(item).name)
    most = sorted(folders.items(), key=lambda each: (-len(each[1]), each[0]))
    lines = [
        f"  {folder}: {len(names)}, such as {', '.join(names[:EXAMPLES])}"
        if len(names) > EXAMPLES
        else f"  {folder}: {', '.join(names)}"
        for folder, names in most[:LINES]
    ]
    lines += [f"  and in {len(most) - LINES} more folders"] * (len(most) > LINES)
    return [f"{title}: {len(items)} {what}", *lines] if items else []
