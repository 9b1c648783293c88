"""FaceForensics++ (Rössler et al., ICCV 2019): 1,000 videos, five manipulations, several levels.

Videos lie in <folder>/<level>/videos, or as frames in images/ or frames/. The official splits are
train.json, val.json and test.json, lists of pairs such as ["071", "054"]: both videos and both
fakes made of them are a group, and belong to the split.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Sequence
from pathlib import Path

from data.layouts import names
from data.layouts.tree import Found, below, clips_in, folders_in, read_json, word
from data.samples import Clip, Listing
from data.splits import SPLITS

COMPRESSED = True
LEVELS = ("raw", "c0", "c23", "c40")
REAL = "original_sequences/youtube"
FAKE = "manipulated_sequences"
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")


def fits(root: Path) -> bool:
    folders = (REAL, *(f"{FAKE}/{method}" for method in METHODS))
    return any(below(root, folder).is_dir() for folder in folders)


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """Without the official lists, groups are of linked source videos and splits unknown."""
    folders = {"real": below(root, REAL)}
    folders |= {method: below(root, f"{FAKE}/{method}") for method in METHODS}
    level = level_of(root, folders.values(), compression)
    found = {method: clips_in(root, folder / level) for method, folder in folders.items()}
    places, missing = _official_pairs(root)
    notes = [f"compression {level}", *_notes(root, folders)]
    if places:
        missing += _missing(root, folders, level, found, places)
    else:
        groups = names.linked(each.name for some in found.values() for each in some)
        places, missing = {source: ("", group) for source, group in groups.items()}, []
        notes.append("no train.json, val.json and test.json here or in splits/: splits are unknown")
    clips, unlisted = [], []
    for method, some in found.items():
        label = int(method != "real")
        for each in some:
            ids = names.sources(each.name)
            place = {places.get(source) for source in ids}
            if len(ids) == 1 + label and len(place) == 1 and None not in place:
                split, group = place.pop()
                who = names.people(each.name, method)
                clips.append(Clip(each.video, label, each.pictures, group, split, method, *who))
            else:
                unlisted.append(each.video)
    return Listing(clips, missing, unlisted, notes)


def level_of(root: Path, folders: Collection[Path], compression: str | None) -> str:
    """The compression level to read."""
    levels = [level for level in LEVELS if any((folder / level).is_dir() for folder in folders)]
    return choose_level(root, levels, compression)


def choose_level(path: Path, levels: Sequence[str], compression: str | None) -> str:
    """The level asked for, or the only one."""
    if compression is None and len(levels) == 1:
        return levels[0]
    if compression in levels:
        return compression
    listed = ", ".join(levels) or f"none of {', '.join(LEVELS)}"
    raise ValueError(f"{path}: compression levels there: {listed}; choose one with --compression")


def _official_pairs(root: Path) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Source video -> (split, its pair), and the lists that are missing."""
    pairs, absent = {}, []
    for split in SPLITS:
        path = root / f"{split}.json"
        if not path.is_file():
            path = root / "splits" / path.name
        if not path.is_file():
            absent.append(path.name)
            continue
        for pair in read_json(path, list):
            if not isinstance(pair, list) or len(pair) != 2 or not all(map(word, pair)):
                raise ValueError(
                    f"{path}: {reprlib.repr(pair)} is no pair of videos; get the official file again"
                )
            group = "_".join(sorted(map(str, pair)))
            for source in map(str, pair):
                if (other := pairs.setdefault(source, (split, group))) != (split, group):
                    raise ValueError(
                        f"{path}: {source} is in the pair {other[1]} of {other[0]} too; get it again"
                    )
    return pairs, absent


def _missing(
    root: Path,
    folders: dict[str, Path],
    level: str,
    found: dict[str, list[Found]],
    official: dict[str, tuple[str, str]],
) -> list[str]:
    """Named by the lists, and not in the folders that are there."""
    pairs = sorted({tuple(group.split("_")) for _, group in official.values()})
    fakes = [f"{a}_{b}" for pair in pairs for a, b in (pair, pair[::-1])]
    missing = []
    for method, folder in folders.items():
        if folder.is_dir():
            base = (folder / level).relative_to(root).as_posix()
            present = {clip.name for clip in found[method]}
            expected = sorted(official) if method == "real" else fakes
            missing += [f"{base}/{name}" for name in expected if name not in present]
    return missing


def _notes(root: Path, folders: dict[str, Path]) -> list[str]:
    fakes, dfd = below(root, FAKE), below(root, f"{FAKE}/DeepFakeDetection")
    others = [folder for folder in folders_in(fakes) if folder not in (*folders.values(), dfd)]
    notes = [f"{REAL}: the real videos are not there"] * (not folders["real"].is_dir())
    notes += [f"{method} is not there" for method in METHODS if not folders[method].is_dir()]
    notes += [f"{FAKE}/{each.name}: no method of FaceForensics++, passed over" for each in others]
    return notes + ["DeepFakeDetection lies here too; --layout dfd reads it"] * dfd.is_dir()
