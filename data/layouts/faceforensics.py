"""FaceForensics++ (Rössler et al., ICCV 2019): 1,000 videos and five ways of forging them, at three compression levels.

original_sequences/youtube/<level>/videos/071.mp4, manipulated_sequences/<method>/<level>/videos/071_054.mp4, or folders of
frames in images/ or frames/ instead of videos/. The official splits are train.json, val.json and test.json, lists of pairs:
both videos of ["071", "054"] and both fakes made of them belong to the split. A pair is a group.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from data.layouts import names
from data.layouts.tree import Found, below, clips_in, folders_in, read_json
from data.samples import Clip, Listing

COMPRESSED = True
LEVELS = ("raw", "c0", "c23", "c40")
REAL = "original_sequences/youtube"
FAKE = "manipulated_sequences"
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
SPLITS = ("train", "val", "test")


def fits(root: Path) -> bool:
    return any(
        below(root, folder).is_dir()
        for folder in (REAL, *(f"{FAKE}/{method}" for method in METHODS))
    )


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """The clips of one compression level.

    Without the official lists, the group of a clip is the source videos that its name links, and splits are unknown.
    Raises: ValueError where there are several levels and none is named, for one that is not there, and for lists that are
    not as the official ones.
    """
    folders = {"real": below(root, REAL)} | {
        method: below(root, f"{FAKE}/{method}") for method in METHODS
    }
    level = level_of(root, folders.values(), compression)
    found = {method: clips_in(root, folder / level) for method, folder in folders.items()}
    named = _named(found)
    official, absent = _official_pairs(root)
    notes = [f"compression {level}", *_notes(root, folders)]
    if official:
        place = {clip.video: {official.get(source) for source in ids} for clip, _, ids in named}
        place = {
            video: pairs.pop()
            for video, pairs in place.items()
            if len(pairs) == 1 and None not in pairs
        }
        missing = [*absent, *_missing(root, folders, level, found, official)]
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
    """The compression level to read. Raises: ValueError that lists what there is."""
    there = [level for level in LEVELS if any((folder / level).is_dir() for folder in folders)]
    if compression is None and len(there) == 1:
        return there[0]
    if compression in there:
        return compression
    listed = f"{root}: compression levels there: {', '.join(there) or 'none'}"
    if compression is None and there:
        raise ValueError(
            f"{listed}; choose one with --compression, since they hold the same videos"
        )
    raise ValueError(f"{listed}, and none called {compression or ' or '.join(LEVELS)}")


def _official_pairs(root: Path) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Source video -> (split, its pair), and which lists are missing. Raises: ValueError for a list of something else."""
    pairs: dict[str, tuple[str, str]] = {}
    absent = []
    for split in SPLITS:
        path = next(
            (p for p in (root / f"{split}.json", root / "splits" / f"{split}.json") if p.is_file()),
            None,
        )
        if path is None:
            absent.append(f"{split}.json")
            continue
        data = read_json(path)
        if not (
            isinstance(data, list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in data)
        ):
            raise ValueError(
                f'{path}: not a list of pairs such as [["071", "054"], ...]; get the official file again'
            )
        for pair in data:
            group = "_".join(sorted(map(str, pair)))
            for source in map(str, pair):
                if pairs.setdefault(source, (split, group)) != (split, group):
                    before, other = pairs[source]
                    raise ValueError(
                        f"{path}: {source} is in the pair {other} of {before} too; get the official files again"
                    )
    return pairs, absent


def _named(found: dict[str, list[Found]]) -> list[tuple[Found, str, tuple[str, ...]]]:
    """Clips whose names are of the form that their folder asks for, with method and source videos."""
    every = [
        (clip, method, names.sources(clip.name))
        for method, clips in found.items()
        for clip in clips
    ]
    return [
        (clip, method, ids)
        for clip, method, ids in every
        if len(ids) == (1 if method == "real" else 2)
    ]


def _missing(
    root: Path,
    folders: dict[str, Path],
    level: str,
    found: dict[str, list[Found]],
    official: dict[str, tuple[str, str]],
) -> list[str]:
    """What the lists name and the folders that are there lack."""
    pairs = sorted({tuple(group.split("_")) for _, group in official.values()})
    fakes = [f"{a}_{b}" for pair in pairs for a, b in (pair, pair[::-1])]
    missing = []
    for method, folder in folders.items():
        if folder.is_dir():
            base, there = (
                (folder / level).relative_to(root).as_posix(),
                {clip.name for clip in found[method]},
            )
            missing += [
                f"{base}/{name}"
                for name in (sorted(official) if method == "real" else fakes)
                if name not in there
            ]
    return missing


def _notes(root: Path, folders: dict[str, Path]) -> list[str]:
    fakes, dfd = below(root, FAKE), below(root, f"{FAKE}/DeepFakeDetection")
    others = [folder for folder in folders_in(fakes) if folder not in (*folders.values(), dfd)]
    notes = [f"{REAL}: the real videos are not there"] * (not folders["real"].is_dir())
    notes += [f"{method} is not there" for method in METHODS if not folders[method].is_dir()]
    notes += [
        f"{FAKE}/{folder.name}: no method of FaceForensics++, passed over" for folder in others
    ]
    if dfd.is_dir():
        notes.append("DeepFakeDetection lies here too; --layout dfd reads it")
    return notes
