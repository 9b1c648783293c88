"""Looking through folders: files below one, and the clips in it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.images import SUFFIXES
from data.samples import film_order, is_video

# Folders that benchmarks put between a folder of clips and the clips; videos come before frames.
WITHIN = ("videos", "frames", "images", "frames_all")


@dataclass(frozen=True)
class Found:
    """A clip. name: of its file or folder, without suffix. Others: as in data.samples.Clip."""

    name: str
    video: str
    pictures: tuple[str, ...] = ()


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Everything below `folder` with one of these suffixes, in any case, sorted by POSIX path.

    A folder named like a file is listed, not entered: reading it says what is wrong.
    """
    found: list[Path] = []
    for parent, folders, files in walk(folder):
        wanted = {name for name in (*folders, *files) if Path(name).suffix.lower() in suffixes}
        found += [parent / name for name in wanted]
        folders[:] = [name for name in folders if name not in wanted]
    return sorted(found, key=Path.as_posix)


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk without hidden names, sorted, along links, each folder once."""

    def refuse(error: OSError) -> None:
        raise error

    # A link to a folder above would list what is beside `folder` as if it were below.
    above = (parent.stat() for parent in Path(folder).resolve().parents)
    entered = {(status.st_dev, status.st_ino) for status in above}
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(_visible, folders))
        yield Path(parent), folders, sorted(filter(_visible, files))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _entries(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((each for each in entries if _visible(each.name)), key=lambda each: each.name)


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in `folder`, sorted; none where there is no such folder."""
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def child(folder: Path, *names: str) -> Path | None:
    """The folder directly in `folder` with one of these names, in any case."""
    wanted = {name.lower() for name in names}
    return next((found for found in folders_in(folder) if found.name.lower() in wanted), None)


def below(root: Path, path: str) -> Path:
    """root / path, or what has these names in another case; of several, one that is not empty."""
    found = root
    for name in Path(path).parts:
        same = [folder for folder in folders_in(found) if folder.name.lower() == name.lower()]
        same.sort(key=lambda folder, name=name: (not _entries(folder), folder.name != name))
        found = same[0] if same else found / name
    return found


def pictures_in(root: Path, folder: Path) -> tuple[str, ...]:
    """Pictures directly in `folder`, relative to `root`, in the order of the film."""
    names = [e.name for e in _entries(folder) if Path(e.name).suffix.lower() in SUFFIXES]
    base = folder.relative_to(root)
    return tuple((base / name).as_posix() for name in sorted(names, key=film_order))


def clips_in(root: Path, folder: Path) -> list[Found]:
    """The clips of a folder: its video files, else its folders of pictures; or those in WITHIN."""
    places = [folder, *(folder / name for name in WITHIN)]
    for place in places:
        if files := [place / entry.name for entry in _entries(place) if is_video(entry.name)]:
            return [Found(file.stem, file.relative_to(root).as_posix()) for file in files]
    for place in places:
        inner = {each: pictures_in(root, each) for each in folders_in(place)}
        if any(inner.values()):
            return [
                Found(each.name, each.relative_to(root).as_posix(), pictures)
                for each, pictures in inner.items()
                if pictures
            ]
    return []


def read_json(path: Path, kind: type = dict) -> dict | list:
    """The content of an official list."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); get the official file again"
        ) from error
    if not isinstance(data, kind):
        raise ValueError(f"{path}: no {kind.__name__} of videos; get the official file again")
    return data


def peek_json(path: Path) -> dict:
    """The same; empty where there is no such file or another content."""
    try:
        return read_json(path)
    except ValueError:
        return {}
