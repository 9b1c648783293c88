"""WildDeepfake (Zi et al., ACM MM 2020): 7,314 sequences of face crops out of 707 videos from the internet.

real_train/, fake_train/, real_test/ and fake_test/ (also written "real train") with numbered folders, one per source video,
which hold one folder of pictures per sequence: real_train/1/real/0/23.png, the name being the number of the frame. A group is a
numbered folder; an eighth of the train groups is for validation. Who is shown and how a fake was made is not known.
"""

from __future__ import annotations

from pathlib import Path

from data.images import SUFFIXES
from data.layouts.tree import child, files_below
from data.samples import Clip, Listing, film_order
from data.splits import with_val

FOLDERS = {
    (name, split): label
    for label, name in enumerate(("real", "fake"))
    for split in ("train", "test")
}


def fits(root: Path) -> bool:
    return sum(_folder(root, name, split) is not None for name, split in FOLDERS) >= 2


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    clips, unlisted = [], []
    for (name, split), label in FOLDERS.items():
        folder = _folder(root, name, split)
        sequences: dict[Path, list[str]] = {}
        for path in files_below(folder, SUFFIXES) if folder else ():
            sequences.setdefault(path.parent.relative_to(folder), []).append(
                path.relative_to(root).as_posix()
            )
        for inner, pictures in sequences.items():
            number = next((part for part in inner.parts if part.isdecimal()), None)
            if number is None:
                unlisted += pictures
                continue
            video = (folder / inner).relative_to(root).as_posix()
            ordered = tuple(sorted(pictures, key=film_order))
            clips.append(
                Clip(
                    video,
                    label,
                    ordered,
                    f"{name}_{split}/{number}",
                    split,
                    "" if label else "real",
                )
            )
    return Listing(with_val(clips), [], unlisted)


def _folder(root: Path, name: str, split: str) -> Path | None:
    return child(root, f"{name}_{split}", f"{name} {split}", f"{name}-{split}")
