"""Pictures of a dump that are called real in one place and fake in another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from data.dump import Dump
from data.pictures import FILE, read_prints
from data.video import file_of

EXAMPLES = 3


def two_labels(dump: Dump) -> list[str]:
    """Remarks that name files of one content, and pictures of one perceptual hash, with two labels.

    The former are mistakes. The latter are usual where fakes are swaps of small faces: 2% of DFDC's
    pictures, none of OpenForensics'.
    """
    paths, labels = dump.rows["path"].tolist(), dump.rows["label"].tolist()
    content = {each.file: each.sha256 for each in read_prints(dump.path / FILE) or []}
    files = [file_of(path).as_posix() for path in paths]
    known = [(content[f], f, y) for f, y in zip(files, labels, strict=True) if content.get(f)]
    same = _pairs(known)
    hashes = dump.rows["phash"].tolist()
    similar = _pairs(
        (phash, path, label)
        for phash, path, label, file in zip(hashes, paths, labels, files, strict=True)
        if content.get(file) not in same
    )
    remarks = []
    if same:
        remarks.append(
            f"{len(same)} files are called both real and fake under two names, with the same content, "
            f"such as {_named(same)}: one of the labels is wrong"
        )
    if similar:
        remarks.append(
            f"{len(similar)} fakes look like a picture called real (the same perceptual hash), such as "
            f"{_named(similar)}: usual for face swaps, else one of the labels is wrong"
        )
    return remarks


def _pairs(known: Iterable[tuple[str, str, int]]) -> dict[str, tuple[str, str]]:
    """Key -> a real and a fake one. known: (key, name, label)."""
    first: dict[str, dict[int, str]] = defaultdict(dict)
    for key, name, label in known:
        first[key].setdefault(label, name)
    return {key: (of[0], of[1]) for key, of in first.items() if len(of) == 2}


def _named(pairs: dict[str, tuple[str, str]]) -> str:
    return "; ".join(f"{real} = {fake}" for real, fake in [*pairs.values()][:EXAMPLES])
