"""WildDeepfake (Zi et al., ACM MM 2020): 7,314 sequences of face crops out of 707 videos.

real_train/1/real/0/23.png (or "real train/...") is of source video 1, a group. Persons and methods
are not known.
"""

from __future__ import annotations

from pathlib import Path

from data.images import SUFFIXES
from data.layouts.tree import child, files_below
from data.samples import Clip, Listing, film_order

FOLDERS = [(label, split) for label in ("real", "fake") for split in ("train", "test")]


def fits(root: Path) -> bool:
    return sum(_folder(root, label, split) is not None for label, split in FOLDERS) >= 2


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    clips, unlisted = [], []
    for label, split in FOLDERS:
        folder = _folder(root, label, split)
        sequences: dict[Path, list[str]] = {}
        for path in files_below(folder, SUFFIXES) if folder else ():
            sequences.setdefault(path.parent, []).append(path.relative_to(root).as_posix())
        for inner, pictures in sequences.items():
            parts = inner.relative_to(folder).parts
            number = next((part for part in parts if part.isdecimal()), None)
            if number is None:
                unlisted += pictures
                continue
            video, fake = inner.relative_to(root).as_posix(), label == "fake"
            ordered = tuple(sorted(pictures, key=film_order))
            group, method = f"{label}_{split}/{number}", "" if fake else "real"
            clips.append(Clip(video, int(fake), ordered, group, split, method))
    return Listing(clips, [], unlisted)


def _folder(root: Path, label: str, split: str) -> Path | None:
    return child(root, f"{label}_{split}", f"{label} {split}", f"{label}-{split}")
