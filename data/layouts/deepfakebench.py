"""Lists of DeepfakeBench (Yan et al., NeurIPS 2023) and DF40: one JSON per dataset, naming frames.

{name: {label: {split: {clip: {"label": label, "frames": [...]}}}}}, with a compression level
between split and clip for some. A label that ends with "real" is real. Paths begin with folders of
another machine; what is left after cutting these lies in the dataset's folder or in one of its own.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from data.layouts import names
from data.layouts.faceforensics import LEVELS, choose_level
from data.layouts.tree import called, entries_of, is_file, is_inside, peek_json, read_json, word
from data.samples import LABELS, SPLIT_NAMES, Clip, Listing, evenly, film_order
from data.splits import SPLITS

COMPRESSED = True
FAKES = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
    "FF-SH": "FaceShifter",
    "DFD_fake": "DeepFakeDetection",
}
# Folders of datasets whose clips are called by source videos of FaceForensics++.
NUMBERED = {"faceforensics++", "deeperforensics-1.0", "df40", "df40_train"}
EXAMPLES = 3  # of malformed entries in a message
PROBES = 50  # paths that decide how much to cut


@dataclass(frozen=True)
class Entry:
    """A clip of a list. level: of compression, "" unknown. frames: in the order of the film."""

    name: str
    label: str
    split: str
    level: str
    frames: tuple[PurePosixPath, ...]

    @property
    def fake(self) -> bool:
        return not self.label.lower().endswith("real")

    @property
    def method(self) -> str:
        """By the label, or by the folder where lists of DF40 put several methods together."""
        if not self.fake:
            return "real"
        parts = self.frames[0].parts
        above = (i for i, part in enumerate(parts[:-2]) if part in ("DF40", "DF40_train"))
        below = next((parts[i + 1] for i in above), "")
        return FAKES.get(self.label) or below or re.sub(r"[_-]fake$", "", self.label, flags=re.I)


def fits(root: Path) -> bool:
    return bool(lists_in(root))


def is_list(path: Path) -> bool:
    tables = [labels for labels in peek_json(path).values() if isinstance(labels, dict)]
    splits = [splits for labels in tables for splits in labels.values()]
    return bool(splits) and all(isinstance(s, dict) and {*s} & {*SPLITS} for s in splits)


def lists_in(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*.json")) if is_list(path)]


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """index: the JSON, where it lies elsewhere or is one of several."""
    if index and not is_list(index):
        raise ValueError(f"{index}: no list of DeepfakeBench (docs/datasets.md)")
    lists = [index] if index else lists_in(root)
    if len(lists) != 1:
        found = ", ".join(path.name for path in lists) or "none"
        raise ValueError(f"{root}: lists of DeepfakeBench there: {found}; name one with --index")
    entries, malformed = _entries(lists[0])
    examples = ", ".join(malformed[:EXAMPLES]) + ", ..." * (len(malformed) > EXAMPLES)
    if not entries:
        raise ValueError(
            f"{lists[0]}: none of its entries is a clip with a list of frames: {examples}"
        )
    levels = {entry.level for entry in entries} - {""}
    level = choose_level(lists[0], sorted(levels), compression) if levels or compression else ""
    entries = [entry for entry in entries if entry.level in ("", level)]
    cut = _cut(root, lists[0], entries)

    @cache
    def files_in(folder: PurePosixPath) -> set[str]:
        return set(entries_of(root / folder))

    clips: dict[tuple[PurePosixPath, ...], tuple[Entry, set[str]]] = {}
    missing, outside, gone = [], [], 0
    for entry in entries:
        frames = [PurePosixPath(*path.parts[cut:]) for path in entry.frames]
        outside += [str(path) for path in frames if ".." in path.parts]
        present = tuple(p for p in frames if is_inside(p) and p.name in files_in(p.parent))
        gone += len(frames) - len(present)
        if present:
            clips.setdefault(present, (entry, set()))[1].add(entry.split)
        else:
            empty = f"{entry.label} {entry.name}: an empty list"
            missing.append(frames[0].parent.as_posix() if frames else empty)
    several = sum(len(splits) > 1 for _, splits in clips.values())
    notes = [lists[0].name]
    if gone:
        notes.append(f"{gone} of the frames that it names are not there")
    if outside:
        notes.append(f"{len(outside)} of them lead out of {root}, such as {outside[0]}")
    if several:
        notes.append(f"{several} clips are in several of its splits; test counts first, then val")
    if malformed:
        notes.append(
            f"{len(malformed)} of its entries are no clips with a list of frames, and passed over: "
            f"{examples}"
        )
    return Listing(_clips(clips), missing, [], notes)


def _entries(path: Path) -> tuple[list[Entry], list[str]]:
    """The clips of a list, and the places of what is none: DFDC's list holds such."""
    entries, malformed = [], []
    for place, clip in _leaves(read_json(path)):
        frames = clip.get("frames") if isinstance(clip, dict) else None
        if not (isinstance(frames, list) and all(isinstance(frame, str) for frame in frames)):
            malformed.append("/".join(place[1:]) or place[0])
            continue
        _, label, split, *level, name = place
        paths = (PurePosixPath(frame.replace("\\", "/")).as_posix() for frame in frames)
        frames = tuple(map(PurePosixPath, sorted(paths, key=film_order)))
        try:
            label = _label(label, clip.get("label"))
        except ValueError as error:
            raise ValueError(f"{path}: {'/'.join(place)}: {error}") from error
        entries.append(
            Entry(name, label, SPLIT_NAMES.get(split.lower(), ""), *(level or [""]), frames)
        )
    return entries, malformed


def _label(above: str, own: object) -> str:
    """The label of a clip: its own, or the name above it."""
    called = above if own is None else word(own)
    number = LABELS.get(called)
    if not called or number is None and not isinstance(own, str | None):
        raise ValueError(f"label {reprlib.repr(own)} is no name such as FF-real, and not 0 or 1")
    if number not in (None, int(not above.lower().endswith("real"))):
        raise ValueError(f"label {own!r} contradicts {above!r}; get the list again")
    return above if own is None or number is not None else str(own)


def _leaves(data: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """What lies where clips belong: below name, label, split and, if given, compression level."""
    depth = 5 if place[3:] and place[3] in LEVELS else 4
    if isinstance(data, dict) and len(place) < depth:
        for key, value in data.items():
            yield from _leaves(value, (*place, key))
    else:
        yield place, data


def _cut(root: Path, path: Path, entries: list[Entry]) -> int:
    """How many leading parts of the paths to leave out."""
    probes = [e.frames[0].parts for e in evenly([e for e in entries if e.frames], PROBES)]
    hits = {
        cut: sum(
            is_inside(PurePosixPath(*parts[cut:])) and is_file(root.joinpath(*parts[cut:]))
            for parts in probes
        )
        for cut in range(max(map(len, probes), default=0))
    }
    best = max(hits, key=hits.get, default=0)
    if not hits.get(best):
        example = "/".join(probes[0]) if probes else "none"
        raise ValueError(
            f"{root}: holds none of the frames that {path} names, such as {example}; give the "
            "folder that holds FaceForensics++/, DF40/ and so on, or one of these"
        )
    return best


def _who(name: str, entry: Entry) -> tuple[str, str]:
    """Other datasets number their clips, too: three digits tell only of FaceForensics++."""
    above = {part.lower() for part in entry.frames[0].parts}
    numbered = bool(names.sources(name)) and not entry.label.upper().startswith("FF")
    return names.people(name, entry.method) if not numbered or above & NUMBERED else ("", "")


def _clips(found: dict[tuple[PurePosixPath, ...], tuple[Entry, set[str]]]) -> list[Clip]:
    """found: frames -> the entry, and the splits that it is in; the last of them counts."""
    # Several clips in one folder: its pictures are a clip each, named by the list.
    count = Counter(frames[0].parent for frames in found)
    clip_names = [
        entry.name if count[frames[0].parent] > 1 else called(frames[0].parent)
        for frames, (entry, _) in found.items()
    ]
    groups = names.linked(clip_names, mutual=True)
    clips = []
    for name, (frames, (entry, splits)) in zip(clip_names, found.items(), strict=True):
        folder = frames[0].parent
        video = (folder / name if count[folder] > 1 else folder).as_posix()
        split = max(splits - {""}, key=SPLITS.index, default="")
        pictures = tuple(path.as_posix() for path in frames)
        group = names.group_of(name, groups) or name
        clips.append(
            Clip(video, int(entry.fake), pictures, group, split, entry.method, *_who(name, entry))
        )
    return clips
