"""Looking through folders: files below one, and the clips in it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.images import SUFFIXES
from data.samples import film_order, is_video

# Folders that benchmarks put between a folder of clips and the clips; whole videos come before frames of them.
WITHIN = ("videos", "frames", "images", "frames_all")


@dataclass(frozen=True)
class Found:
    """A clip on the disk. name: its file or folder without suffix. video, pictures: as in data.samples.Clip."""

    name: str
    video: str
    pictures: tuple[str, ...] = ()


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Everything below `folder` that has one of these suffixes, in any case, sorted by POSIX path.

    Links to folders are followed; no folder is entered twice. What is hidden (a leading dot, __MACOSX) is passed over.
    A folder that is called like a file is listed, not entered: reading it says what is wrong with it.

    Raises: OSError where a folder cannot be listed.
    """
    found: list[Path] = []
    for parent, folders, files in walk(folder):
        wanted = {name for name in (*folders, *files) if Path(name).suffix.lower() in suffixes}
        found += [parent / name for name in wanted]
        folders[:] = [name for name in folders if name not in wanted]
    return sorted(found, key=Path.as_posix)


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk without what is hidden, sorted, along links, each folder once. Raises: OSError where one cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    # Nor those that hold it: a link back to them would list what is beside it as if it were below.
    entered = {
        (status.st_dev, status.st_ino)
        for status in (above.stat() for above in Path(folder).resolve().parents)
    }
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if _visible(name))
        yield Path(parent), folders, sorted(name for name in files if _visible(name))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in `folder`, sorted; none where there is no such folder."""
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def child(folder: Path, *names: str) -> Path | None:
    """The folder directly in `folder` that is called one of `names`, in any case."""
    wanted = {name.lower() for name in names}
    return next((found for found in folders_in(folder) if found.name.lower() in wanted), None)


def below(root: Path, path: str) -> Path:
    """root / path, or what is there under the same names in another case; of several, one that holds something."""
    found = root
    for name in Path(path).parts:
        same = [folder for folder in folders_in(found) if folder.name.lower() == name.lower()]
        same.sort(key=lambda folder, name=name: (not _entries(folder), folder.name != name))
        found = same[0] if same else found / name
    return found


def pictures_in(root: Path, folder: Path) -> tuple[str, ...]:
    """Pictures directly in `folder`, as paths relative to `root`, in the order of the film."""
    names = [
        entry.name for entry in _entries(folder) if Path(entry.name).suffix.lower() in SUFFIXES
    ]
    base = folder.relative_to(root)
    return tuple((base / name).as_posix() for name in sorted(names, key=film_order))


def _entries(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if _visible(entry.name)), key=lambda entry: entry.name
        )


def clips_in(root: Path, folder: Path) -> list[Found]:
    """The clips in a folder of them: video files in it or in its videos/, else folders of pictures in it or in its frames/
    or images/."""
    places = [folder, *(folder / name for name in WITHIN)]
    for place in places:
        files = [entry.name for entry in _entries(place) if is_video(entry.name)]
        if files:
            base = place.relative_to(root)
            return [Found(Path(name).stem, (base / name).as_posix()) for name in files]
    for place in places:
        found = [
            Found(inner.name, inner.relative_to(root).as_posix(), pictures)
            for inner in folders_in(place)
            if (pictures := pictures_in(root, inner))
        ]
        if found:
            return found
    return []


def read_json(path: Path) -> object:
    """Raises: ValueError where there is no such file, or it is no JSON."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it comes with the dataset")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # text that is not UTF-8 too
        raise ValueError(f"{path}: not JSON ({error}); get the official file again") from error


def read_table(path: Path) -> dict:
    """The same where it must be a table. Raises: ValueError."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not a table of videos; get the official file again")
    return data


def peek_json(path: Path) -> object:
    """What is in the file; None where there is no such file or it is no JSON."""
    try:
        return read_json(path)
    except ValueError:
        return None
