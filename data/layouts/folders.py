"""Folders called real and fake, with or without train/, val/ and test/ above them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data.layouts.tree import everything_below, folders_in
from data.samples import LABELS, SPLIT_NAMES, Clip, Listing, is_video

EXPECTED = """expected one of
  real/ and fake/
  train/, val/ (or valid/) and test/, with real/ and fake/ in each
  index.csv with the columns path,label and, if known, group, split, video and method
  a published dataset as it is distributed (docs/datasets.md)"""


def labelled(root: Path) -> list[tuple[Path, str, str]]:
    """(Folder, real or fake, split)."""
    parts = [(root, ""), *_named(root, SPLIT_NAMES)]
    return [
        (folder, name, SPLIT_NAMES.get(part_name, ""))
        for part, part_name in parts
        for folder, name in _named(part, ("real", "fake"))
    ]


def _named(parent: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """(Folder, name in lower case) of those directly below `parent` with one of these names."""
    return [(f, f.name.lower()) for f in folders_in(parent) if f.name.lower() in names]


def read(root: Path) -> Listing:
    folders = labelled(root)
    if not folders:
        raise ValueError(f"{root}: nothing in it says what is real and what is fake; {EXPECTED}")
    parts = _named(root, SPLIT_NAMES)
    if parts and any(folder.parent == root for folder, _, _ in folders):
        raise ValueError(
            f"{root}: has real/ or fake/ and {parts[0][1]}/; which holds the dataset? {EXPECTED}"
        )
    clips, passed = [], []
    for folder, name, split in folders:
        found, odd = everything_below(folder)
        passed += [(path.relative_to(root).as_posix(), reason) for path, reason in odd]
        for path in (path.relative_to(root).as_posix() for path in found):
            if is_video(path):
                clips.append(Clip(path, LABELS[name], (), path, split))
            else:
                clips.append(Clip("", LABELS[name], (path,), "", split))
    return Listing(clips, passed=passed)
