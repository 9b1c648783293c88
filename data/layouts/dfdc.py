"""Deepfake Detection Challenge (Dolhansky et al., 2020), as on Kaggle: 124,000 videos in parts.

metadata.json in each part is {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}}.
test/ and validation/ have a labels.csv (filename,label; 1 is fake). A group is an original with its
fakes. Actors are not named, and recur in the parts: a person is called by the original.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.layouts.tree import clips_in, folders_in, is_file, is_inside, peek_json, read_json, word
from data.samples import LABELS, SPLIT_NAMES, Clip, Listing
from data.tables import columns_of, label_of, read_table

METADATA = "metadata.json"
LABEL_LIST = "labels.csv"
COLUMNS = ["filename", "label"]  # of it


def fits(root: Path) -> bool:
    return any(_is_labelled(folder) for folder in _places(root))


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    clips, missing, unlisted = [], [], []
    for folder in _places(root):
        if not any(is_file(folder / name) for name in (METADATA, LABEL_LIST)):
            continue
        on_disk = {found.name: found for found in clips_in(root, folder)}
        for name, label, group, split in _labels(folder):
            if found := on_disk.pop(name, None):
                method = "" if label else "real"
                person = group if not label or group != name else ""  # "": of an unknown original
                clips.append(Clip(found.video, label, found.pictures, group, split, method, person))
            else:
                missing.append((folder.relative_to(root) / f"{name}.mp4").as_posix())
        unlisted += [found.video for found in on_disk.values()]
    if {clip.split for clip in clips} == {"train"}:  # as Kaggle writes beside every video
        note = "all of it is called train; divided by group, as there is nothing to test on"
        return Listing([replace(clip, split="") for clip in clips], missing, unlisted, [note])
    return Listing(clips, missing, unlisted)


def _places(root: Path) -> Iterator[Path]:
    """The folder itself, those in it, and those in its train/, val/ and test/."""
    yield root
    for folder in folders_in(root):
        yield folder
        if folder.name.lower() in SPLIT_NAMES:
            yield from folders_in(folder)


def _is_labelled(folder: Path) -> bool:
    """By the first entry of its list."""
    path = folder / LABEL_LIST
    if is_file(path):
        with suppress(OSError):
            return [name for name in columns_of(path) if name] == COLUMNS
    first = next(iter(peek_json(folder / METADATA).values()), None)
    return isinstance(first, dict) and "label" in first


def _labels(folder: Path) -> Iterator[tuple[str, int, str, str]]:
    """(Name without suffix, label, group, split) of every video that is listed."""
    own = SPLIT_NAMES.get(folder.name.lower(), "")
    if (folder / LABEL_LIST).is_file():
        for name, label in _csv_labels(folder / LABEL_LIST):
            yield name, label, name, own
        return
    path = folder / METADATA
    for file, entry in read_json(path).items():
        if not isinstance(entry, dict) or word(entry.get("label")) not in LABELS:
            found = reprlib.repr(entry)
            raise ValueError(f"{path}: {file}: expected a label REAL or FAKE, found {found}")
        name, label = _stem(path, file), LABELS[word(entry["label"])]
        split = own or SPLIT_NAMES.get(word(entry.get("split")), "")
        original = entry.get("original")
        yield name, label, Path(original).stem if isinstance(original, str) else name, split


def _stem(path: Path, file: str) -> str:
    if not is_inside(file) or PurePosixPath(file).name != file:
        raise ValueError(f"{path}: {file!r} is no name of a video beside it; get the file again")
    return Path(file).stem


def _csv_labels(path: Path) -> Iterator[tuple[str, int]]:
    for line, row in read_table(path, COLUMNS):
        if not row["filename"] or (label := label_of(row["label"])) is None:
            found = [row[name] for name in COLUMNS]
            raise ValueError(
                f"{path}: line {line}: expected a file and a label 0 or 1, found {found}"
            )
        yield _stem(path, row["filename"]), label
