"""Which pictures are frames of one clip, or photographs of one person, by their names alone.

A folder is a clip where its pictures are called alike but for numbers (CLIP/0001.png,
CLIP/fr000_subj0.jpg). So are pictures side by side that are called alike but for the number of the
frame, where what they share has a number of its own or says that it is a film (071_0001.png,
video_001.png; data/layouts/series.py). These are not:

- what a camera calls its photographs (IMG_0001.jpg);
- folders between which one numbering goes on (00000/00000.png, 01000/01000.png);
- folders that sort: called by a method or a collection, with more than `LONGEST` pictures, or the
  only one beside no other (stylegan/0001.png), unless they are called like a clip (`SURE`);
- pictures called by a name that has no number (Aaron_Eckhart/Aaron_Eckhart_0001.jpg): a group, of
  which no picture is left out.

A folder within the folder of a clip says nothing (`INNER`), nor does one whose name is that of a
folder within most others, too (0, face_0).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from data.layouts.series import CAMERA, FILM, called, films_and_groups, sources
from data.layouts.tree import WITHIN
from data.samples import SPLIT_NAMES, film_order

# Folders that say nothing about the clip in them or the one they are in.
INNER = re.compile(
    "|".join([*WITHIN, *SPLIT_NAMES])
    + r"|raw|c0|c23|c40|eyes|mouth|nose|rgb|mtcnn|retinaface|data_(src|dst)|landmarks"
    r"|(cropped|aligned)([_-]?(faces?|images?|frames?))?|(frames?|faces?|crops?)([_-](cropped|aligned))?"
    r"|(frames?|frm|fr)[_-]?\d+|(faces?|crops?)[_-]?\d{1,2}",
    re.IGNORECASE,
)
INDEX = re.compile(rf"(?!{FILM.pattern})([a-z]+[_-]?)?\d+", re.IGNORECASE)  # as 0, face_0, id1
WHO = re.compile(r"(id|person|subject|subj|actor|client|user)[_-]?\d+", re.IGNORECASE)
LONGEST = 2000  # frames of a clip; a folder of more is a collection
ALIKE = 0.5  # of the pictures of a clip that are called alike
MANY = 12  # folders with the same folders in them: too many for methods with the same clips
# Names of folders that hold a clip even where they are alone, and that hold no clip but many pictures.
SURE = re.compile(r"\d+(\.\w+)?$|.*\d{3}|id\d|" + FILM.pattern, re.IGNORECASE)
SORTS = re.compile(
    r"(.*gan|.*diff.*|sdxl.*|sd|dall.*|midjourney.*|flux.*|.*swap.*|.*fakes?|face2face|neuraltextures"
    r"|.*shifter|ffhq.*|celeba.*|lfw)[\d.-]*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Run:
    """Pictures that belong together, in the order of the film. name: "" of a single picture; source:
    the same for clips that may be of one source."""

    name: str
    pictures: tuple[str, ...]
    film: bool = False
    source: str = ""


def runs_of(paths: Iterable[str]) -> list[Run]:
    """All the pictures, each in one run. Paths and names are relative to real/ or fake/."""
    folders = defaultdict(list)
    for path in paths:
        folders[PurePosixPath(path).parent].append(path)
    folders = _clip_folders(folders)
    beside = defaultdict(list)  # the folders of pictures in one folder
    for folder in folders:
        beside[folder.parent].append(folder)
    runs = []
    for siblings in beside.values():
        alike = [f for f in siblings if f.parts and _is_numbered(f, folders[f], siblings)]
        alike = [] if _go_on(alike, folders) else alike
        several = sum(len(folders[f]) > 1 for f in alike) > 1
        shared = sources(f.name for f in alike)
        for folder in siblings:
            pictures = tuple(sorted(folders[folder], key=film_order))
            person = _is_person(folder, pictures)
            sure = person or SURE.match(folder.name)
            if folder in alike and (several or len(pictures) > 1 and sure):
                who = next((part for part in folder.parent.parts if WHO.fullmatch(part)), "")
                source = who or folder.with_name(shared[folder.name]).as_posix()
                runs.append(Run(folder.as_posix(), pictures, not person, source))
            else:
                runs += _series(folder, pictures)
    return runs


def _clip_folders(folders: dict[PurePosixPath, list[str]]) -> dict[PurePosixPath, list[str]]:
    """The pictures by the folder of the clip: 000 of 000/frames and of 000/0."""
    found = defaultdict(list)
    for folder, pictures in folders.items():
        while INNER.fullmatch(folder.name):
            folder = folder.parent  # noqa: PLW2901
        found[folder] += pictures
    above = defaultdict(list)
    for folder in found:
        if len(folder.parts) > 1:
            above[folder.parent.parent].append(folder)
    within = [f for some in above.values() if _recur(some, found) for f in some]
    for folder in within:
        found[folder.parent] += found.pop(folder)
    return _clip_folders(found) if within else found


def _recur(folders: Sequence[PurePosixPath], pictures: dict[PurePosixPath, list[str]]) -> bool:
    """Whether they are the same few in most folders that they are in, or of a frame each."""
    inside, names = {f.parent for f in folders}, {f.name for f in folders}
    numbered = sum(bool(re.search(r"\d", f.name)) for f in inside)
    are_clips = len(inside) >= MANY or 2 * numbered > len(inside) > 1
    if not are_clips or not all(map(INDEX.fullmatch, names)):
        return False
    if 2 * len(folders) < len(inside) * len(names):
        return False
    called = {PurePosixPath(path).name for folder in folders for path in pictures[folder]}
    return len(names) < len(inside) or len(called) < 3


def _name(folder: PurePosixPath, path: str) -> str:
    """What a picture is called within the folder of the clip: frame0_071 of frame0/071.png."""
    *inner, name = PurePosixPath(path).relative_to(folder).with_suffix("").parts
    tells = [part for part in inner if re.search(r"\d", part) and not re.fullmatch(r"c\d+", part)]
    return "_".join([*tells, name])


def _is_numbered(
    folder: PurePosixPath, pictures: Sequence[str], siblings: Sequence[PurePosixPath]
) -> bool:
    """Whether they are called alike but for numbers, as the frames of one clip are."""
    if any(CAMERA.fullmatch(PurePosixPath(path).stem) for path in pictures):
        return False
    if not SURE.match(folder.name) and len(pictures) > LONGEST:
        return False
    called = (re.sub(r"\d+", "0", _name(folder, path)) for path in pictures)
    pattern, count = Counter(called).most_common(1)[0]
    if "0" not in pattern or count < ALIKE * len(pictures):
        return False
    return not _sorts(folder, siblings) or _is_person(folder, pictures)


def _sorts(folder: PurePosixPath, siblings: Sequence[PurePosixPath]) -> bool:
    """Whether it is called by a method, and not as others beside it are: clip_diff01, anna_fake."""
    if not SORTS.match(folder.name):
        return False
    number, tail = re.compile(r"\d+"), re.compile(r"[_-][a-z]+$", re.IGNORECASE)
    same = [f for f in siblings if number.sub("0", f.name) == number.sub("0", folder.name)]
    ends = [f for f in siblings if (end := tail.search(folder.name)) and f.name.endswith(end[0])]
    return not (len(same) > 1 and FILM.match(folder.name)) and len(ends) < 3


def _go_on(alike: Sequence[PurePosixPath], folders: dict[PurePosixPath, list[str]]) -> bool:
    """Whether one numbering of the pictures goes on from folder to folder: 01000/01000.png."""
    stems = [[PurePosixPath(path).stem for path in folders[folder]] for folder in alike]
    called = [*(folder.name for folder in alike), *(stem for some in stems for stem in some)]
    if len(alike) < 2 or not all(map(str.isdecimal, called)):
        return False
    numbers = sorted((int(f.name), *map(int, some)) for f, some in zip(alike, stems, strict=True))
    ends = [*(first for first, *_ in numbers[1:]), float("inf")]
    return all(
        first == min(some) and max(some) < end
        for (first, *_), some, end in zip(numbers, numbers, ends, strict=True)
    )


def _is_person(folder: PurePosixPath, pictures: Sequence[str]) -> bool:
    own = folder.name.lower()
    return not re.search(r"\d", own) and PurePosixPath(pictures[0]).stem.lower().startswith(own)


def _series(folder: PurePosixPath, pictures: Sequence[str]) -> list[Run]:
    """The pictures of one folder that is no clip."""
    stems = {path: _name(folder, path) for path in pictures}
    says = called(stems.values())
    series = defaultdict(list)
    for path in pictures:
        series[says[stems[path]]].append(path)
    films, people = films_and_groups(says[stem] for stem in stems.values())
    runs = []
    for one, some in series.items():
        if one in people or one in films and (len(some) <= LONGEST or len(films) > 1):
            name, source = ((folder / text).as_posix() for text in (one.clip, one.source))
            runs.append(Run(name, tuple(some), one in films, source))
        else:
            runs += [Run("", (path,)) for path in some]
    return runs
