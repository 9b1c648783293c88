"""Lists of DeepfakeBench (Yan et al., NeurIPS 2023) and DF40: one JSON per dataset, the frames of every clip named.

{name: {label: {split: {clip: {"label": label, "frames": [...]}}}}}, with a compression level between split and clip for
FaceForensics++, FaceShifter and DeepFakeDetection. A label that ends with "real" is real. Paths begin with folders of the machine
they were written on, some with backslashes; they are cut where what is left lies in the dataset's folder, which holds
FaceForensics++/, Celeb-DF-v2/, DF40/ and so on, or is one of them.

One clip may stand in several splits: all of DeepFakeDetection is train, val and test, the test videos of Celeb-DF are among the
train videos, and val is often a copy of test. A clip of the test split is for testing and nothing else here; where that leaves
no val split, it is an eighth of the train groups.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.layouts import names
from data.layouts.faceforensics import LEVELS
from data.layouts.tree import peek_json, read_table
from data.samples import SPLIT_NAMES, Clip, Listing, evenly, film_order
from data.splits import with_val

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
EXAMPLES = 3  # of malformed entries, that are named
PROBES = 50  # paths by which it is found how much to cut


@dataclass(frozen=True)
class Entry:
    """A clip as a list has it. level: of compression, "" where there are none. frames: POSIX, in the order of the film."""

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
        below = next(
            (parts[i + 1] for i, part in enumerate(parts[:-2]) if part in ("DF40", "DF40_train")),
            "",
        )
        return FAKES.get(self.label) or below or re.sub(r"[_-]fake$", "", self.label, flags=re.I)


def fits(root: Path) -> bool:
    return bool(_lists(root))


def is_list(path: Path) -> bool:
    data = peek_json(path)
    labels = (
        [found for found in data.values() if isinstance(found, dict)]
        if isinstance(data, dict)
        else []
    )
    splits = [found for label in labels for found in label.values()]
    return bool(splits) and all(
        isinstance(found, dict) and {*found} & {"train", "val", "test"} for found in splits
    )


def _lists(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*.json")) if is_list(path)]


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """index: the JSON, where it lies elsewhere or is one of several.

    Raises: ValueError where there are several lists or compression levels and none is named, or none of the frames is there.
    """
    if index and not is_list(index):
        raise ValueError(
            f"{index}: no list of DeepfakeBench, {{name: {{label: {{split: {{clip: {{frames: [...]}}}}}}}}}}"
        )
    lists = [index] if index else _lists(root)
    if len(lists) != 1:
        found = ", ".join(path.name for path in lists) or "none"
        raise ValueError(f"{root}: lists of DeepfakeBench there: {found}; name one with --index")
    every, malformed = _entries(read_table(lists[0]))
    told = ", ".join(malformed[:EXAMPLES]) + ", ..." * (len(malformed) > EXAMPLES)
    if not every:
        raise ValueError(
            f"{lists[0]}: none of its entries is a clip with a list of frames: {told or 'it is empty'}"
        )
    entries = _of_level(lists[0], every, compression)
    cut, there = _cut(root, lists[0], entries), _Names(root)
    clips: dict[tuple[PurePosixPath, ...], tuple[Entry, set[str]]] = {}
    missing, gone = [], 0
    for entry in entries:
        frames = [PurePosixPath(*path.parts[cut:]) for path in entry.frames]
        present = tuple(
            path for path in frames if _inside(path.parts) and path.name in there[path.parent]
        )
        gone += len(frames) - len(present)
        if present:
            clips.setdefault(present, (entry, set()))[1].add(entry.split)
        else:
            missing.append(
                frames[0].parent.as_posix()
                if frames
                else f"{entry.label} {entry.name}: an empty list"
            )
    several = sum(len(splits) > 1 for _, splits in clips.values())
    notes = [lists[0].name]
    notes += [f"{gone} of the frames that it names are not there"] * bool(gone)
    notes += [
        f"{several} clips are in several of its splits; those in test are for testing only"
    ] * bool(several)
    listed = _listed(clips)
    if malformed:
        notes.append(
            f"{len(malformed)} of its entries are no clips with a list of frames, and passed over: {told}"
        )
    return Listing(
        listed if any(clip.split == "val" for clip in listed) else with_val(listed),
        missing,
        [],
        notes,
    )


def _entries(data: dict) -> tuple[list[Entry], list[str]]:
    """The clips of a list, and where what is none stands: DFDC's holds a clip where a table of clips belongs."""
    entries, malformed = [], [name for name, labels in data.items() if not isinstance(labels, dict)]
    tables = (labels for labels in data.values() if isinstance(labels, dict))
    for label, splits in ((label, splits) for labels in tables for label, splits in labels.items()):
        for split, content in splits.items():
            if not isinstance(content, dict):
                malformed.append(f"{label}/{split}")
                continue
            levels = {
                key: value
                for key, value in content.items()
                if key in LEVELS and isinstance(value, dict)
            }
            malformed += [
                f"{label}/{split}/{key}" for key in content if levels and key not in levels
            ]
            for level, clips in (levels or {"": content}).items():
                for name, clip in clips.items():
                    if not (isinstance(clip, dict) and isinstance(clip.get("frames"), list)):
                        malformed.append("/".join(filter(None, (label, split, level, name))))
                        continue
                    paths = (PurePosixPath(str(path).replace("\\", "/")) for path in clip["frames"])
                    frames = tuple(sorted(paths, key=lambda path: film_order(path.as_posix())))
                    own = clip.get("label")
                    known = SPLIT_NAMES.get(split.lower(), "")
                    entries.append(
                        Entry(name, own if isinstance(own, str) else label, known, level, frames)
                    )
    return entries, malformed


def _of_level(path: Path, entries: list[Entry], compression: str | None) -> list[Entry]:
    """Entries of one compression level. Raises: ValueError where there are several, or not the one that is named."""
    there = sorted({entry.level for entry in entries if entry.level})
    if compression is None and len(there) > 1:
        raise ValueError(
            f"{path}: compression levels there: {', '.join(there)}; choose one with --compression"
        )
    if compression is not None and compression not in there:
        raise ValueError(
            f"{path}: compression levels there: {', '.join(there) or 'none'}, and none called {compression}"
        )
    return [entry for entry in entries if entry.level in ("", compression or (there or [""])[0])]


def _cut(root: Path, path: Path, entries: list[Entry]) -> int:
    """How many leading parts of the paths to leave out. Raises: ValueError where no frame is found."""
    probes = [
        entry.frames[0].parts
        for entry in evenly([entry for entry in entries if entry.frames], PROBES)
    ]
    longest = max(map(len, probes), default=0)
    hits = {
        cut: sum(_inside(parts[cut:]) and root.joinpath(*parts[cut:]).is_file() for parts in probes)
        for cut in range(longest)
    }
    best = max(hits, key=hits.get, default=0)
    if not hits.get(best):
        example = "/".join(probes[0]) if probes else "none"
        raise ValueError(
            f"{root}: holds none of the frames that {path} names, such as {example}; give the folder that holds "
            "FaceForensics++/, DF40/ and so on, or one of these"
        )
    return best


def _inside(parts: tuple[str, ...]) -> bool:
    """Whether a path of these parts stays in the folder that it is relative to."""
    return bool(parts) and parts[0] != "/" and ".." not in parts


class _Names(dict[PurePosixPath, set[str]]):
    """Folder -> names of what is in it; each folder is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __missing__(self, folder: PurePosixPath) -> set[str]:
        path = self.root / folder
        self[folder] = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        return self[folder]


def _listed(found: dict[tuple[PurePosixPath, ...], tuple[Entry, set[str]]]) -> list[Clip]:
    """A clip for each, in the first of test, val and train that it is in. found: its frames -> it, and its splits."""
    count = Counter(
        frames[0].parent for frames in found
    )  # more than one: a folder of pictures that each are a clip
    called = [
        entry.name if count[f[0].parent] > 1 else f[0].parent.name
        for f, (entry, _) in found.items()
    ]
    groups = names.linked(called, mutual=True)
    clips = []
    for name, (frames, (entry, splits)) in zip(called, found.items(), strict=True):
        folder = frames[0].parent
        video = (folder / name if count[folder] > 1 else folder).as_posix()
        split = next((split for split in ("test", "val", "train") if split in splits), "")
        pictures = tuple(path.as_posix() for path in frames)
        group = names.group_of(name, groups) or name
        clips.append(Clip(video, int(entry.fake), pictures, group, split, entry.method))
    return clips
