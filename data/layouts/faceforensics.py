"""FaceForensics++ (Rössler et al., ICCV 2019): 1,000 videos, five manipulations, several levels.

Videos lie in <folder>/<level>/videos, or as frames in images/ or frames/. The official splits are
train.json, val.json and test.json, lists of pairs such as ["071", "054"]: both videos and both
fakes made of them are a group, and belong to the split.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from data.layouts import names
from data.layouts.tree import Found, below, clips_in, folders_in, read_json
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
    named = [
        (clip, method, ids)
        for method, clips in found.items()
        for clip in clips
        if len(ids := names.sources(clip.name)) == (1 if method == "real" else 2)
    ]
    pairs, missing = _official_pairs(root)
    notes = [f"compression {level}", *_notes(root, folders)]
    place: dict[str, tuple[str, str]] = {}  # video -> split, group
    if pairs:
        for clip, _, ids in named:
            of = {pairs.get(source) for source in ids}
            if len(of) == 1 and None not in of:
                place[clip.video] = of.pop()
        missing += _missing(root, folders, level, found, pairs)
    else:
        groups, missing = names.linked(clip.name for clip, _, _ in named), []
        place = {clip.video: ("", groups[ids[0]]) for clip, _, ids in named}
        notes.append("no train.json, val.json and test.json here or in splits/: splits are unknown")
    clips = [
        Clip(clip.video, int(method != "real"), clip.pictures, group, split, method)
        for clip, method, _ in named
        if clip.video in place
        for split, group in [place[clip.video]]
    ]
    unlisted = [clip.video for clips in found.values() for clip in clips if clip.video not in place]
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
    pairs: dict[str, tuple[str, str]] = {}
    absent = []
    for split in SPLITS:
        path = root / f"{split}.json"
        if not path.is_file():
            path = root / "splits" / path.name
        if not path.is_file():
            absent.append(path.name)
            continue
        for pair in read_json(path, list):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError(
                    f"{path}: {pair} is no pair such as ['071', '054']; get the official file again"
                )
            group = "_".join(sorted(map(str, pair)))
            for source in map(str, pair):
                if (other := pairs.setdefault(source, (split, group))) != (split, group):
                    raise ValueError(
                        f"{path}: {source} is in the pair {other[1]} of {other[0]} too; get the "
                        "official files again"
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
