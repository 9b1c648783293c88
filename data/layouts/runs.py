"""Which pictures are frames of one clip, or photographs of one person, by their names alone.

A folder is a clip where its pictures are called alike but for numbers (CLIP/0001.png,
CLIP/fr000_subj0.jpg). So are pictures side by side that are called alike but for the last number,
where what they share has a number of its own or says that it is a film (071_0001.png,
video_001.png). These are not:

- what a camera calls its photographs (IMG_0001.jpg);
- folders between which one numbering goes on (00000/00000.png, 01000/01000.png);
- folders that sort: called by a method or a collection, with more than `LONGEST` pictures, or the
  only one beside no other (stylegan/0001.png), unless they are called like a clip (`SURE`);
- pictures called by a name that has no number (Aaron_Eckhart/Aaron_Eckhart_0001.jpg): a group, of
  which no picture is left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from data.layouts import names
from data.layouts.tree import WITHIN
from data.samples import SPLIT_NAMES, film_order

# Folders that say nothing about the clip in them or the one they are in.
INNER = {*WITHIN, *SPLIT_NAMES, "raw", "c0", "c23", "c40", "crops", "faces", "aligned", "cropped"}
LONGEST = 2000  # frames of a clip; a folder of more is a collection
ALIKE = 0.8  # of the pictures of a clip that are called alike
PEOPLE = 3  # names without a number, from which on pictures called by one are a group
CAMERA = re.compile(
    r"_?(IMG|DSC|DSCN|DSCF|DCIM|PXL|MVIMG|SAM|GOPR|DJI|P1|WP|Screenshot|WhatsApp|\d{8}_\d{6})"
)
FILM = re.compile(r"(video|clip|vid|movie|film|scene|shot|seq)", re.IGNORECASE)
# Names of folders that hold a clip even where they are alone, and that hold no clip but many pictures.
SURE = re.compile(r"\d+(\.\w+)?$|.*\d{3}|id\d|" + FILM.pattern, re.IGNORECASE)
SORTS = re.compile(
    r"(.*gan|.*diff.*|sdxl.*|sd|dall.*|midjourney.*|flux.*|.*swap.*|.*fakes?|face2face|neuraltextures"
    r"|.*shifter|ffhq.*|celeba.*|lfw)[\d.-]*$",
    re.IGNORECASE,
)
FRAME = re.compile(
    r"([_\-. ]+(frame|fr|f))?[_\-. ]*$", re.IGNORECASE
)  # 071_frame_ of 071_frame_0001
FACE = re.compile(  # the face of a frame: 0001_face, 000_crop1
    r"(?<=\d)[_\-. ]*(face|crop|aligned|person|subj)[_\-. ]*\d{0,2}$", re.IGNORECASE
)
SERIES = re.compile(r"(.*\D)?(\d{1,6})")  # what pictures share, and the number of one


@dataclass(frozen=True)
class Run:
    """Pictures that belong together, in the order of the film. name: "" of a single picture."""

    name: str
    pictures: tuple[str, ...]
    film: bool = False


def runs_of(paths: Iterable[str]) -> list[Run]:
    """All the pictures, each in one run. Paths and names are relative to real/ or fake/."""
    folders = defaultdict(list)
    for path in paths:
        folders[_clip_folder(PurePosixPath(path).parent)].append(path)
    beside = defaultdict(list)  # the folders of pictures in one folder
    for folder in folders:
        beside[folder.parent].append(folder)
    runs = []
    for siblings in beside.values():
        alike = [f for f in siblings if f.parts and _is_numbered(f, folders[f])]
        alike = [] if _go_on(alike, folders) else alike
        several = sum(len(folders[f]) > 1 for f in alike) > 1
        for folder in siblings:
            pictures = tuple(sorted(folders[folder], key=film_order))
            person = _is_person(folder, pictures)
            sure = person or SURE.match(folder.name)
            if folder in alike and (several or len(pictures) > 1 and sure):
                runs.append(Run(folder.as_posix(), pictures, not person))
            else:
                runs += _series(pictures)
    return runs


def _clip_folder(folder: PurePosixPath) -> PurePosixPath:
    """The folder of the clip: 000 of 000/frames."""
    while folder.name.lower() in INNER:
        folder = folder.parent
    return folder


def _pattern(path: str) -> str:
    return re.sub(r"\d+", "0", PurePosixPath(path).stem)


def _is_numbered(folder: PurePosixPath, pictures: Sequence[str]) -> bool:
    """Whether they are called alike but for numbers, as the frames of one clip are."""
    if any(CAMERA.match(PurePosixPath(path).stem) for path in pictures):
        return False
    if not SURE.match(folder.name) and len(pictures) > LONGEST:
        return False
    pattern, count = Counter(map(_pattern, pictures)).most_common(1)[0]
    sorts = SORTS.match(folder.name) and not _is_person(folder, pictures)
    return "0" in pattern and count >= ALIKE * len(pictures) and not sorts


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


def _series(pictures: Sequence[str]) -> list[Run]:
    """The pictures of one folder that is no clip."""
    stems, numbered_twice = _stems(pictures)
    series = defaultdict(list)
    for path in pictures:
        shared = _shared(stems[path])
        folder = _clip_folder(PurePosixPath(path).parent)
        series[(folder / shared).as_posix() if shared else ""].append(path)
    runs = [Run("", (path,)) for path in series.pop("", [])]
    long = {name for name, some in series.items() if 1 < len(some) <= LONGEST}
    called = {name: PurePosixPath(name).name for name in series}
    numbers = {name for name in long if re.search(r"\d", called[name])}
    people = long - numbers if len(long - numbers) >= PEOPLE else set()
    for name, some in series.items():
        sure = FILM.match(called[name]) or _is_official(called[name]) or numbered_twice
        film = name in long and bool(sure) or len(numbers) > 1 and name in numbers
        if film or name in people:
            runs.append(Run(name, tuple(some), film))
        else:
            runs += [Run("", (path,)) for path in some]
    return runs


def _stems(pictures: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Path -> its name with the number of the frame last; and whether a number of the face followed
    it, as in VIDEO_30_0."""
    stems = {path: FACE.sub("", PurePosixPath(path).stem) for path in pictures}
    if _is_frame_first([*stems.values()]):
        return {path: "_".join(reversed(stem.split("_"))) for path, stem in stems.items()}, False
    if not _several(stems):
        cut = {path: re.sub(r"(?<=\d)_\d{1,2}$", "", stem) for path, stem in stems.items()}
        if _several(cut):
            return cut, True
    return stems, False


def _several(stems: dict[str, str]) -> bool:
    shared = Counter(filter(None, map(_shared, stems.values())))
    return any(count > 1 for count in shared.values())


def _shared(stem: str) -> str:
    """The name without the number of the frame; "" where it is called as by a camera, or has none."""
    match = SERIES.fullmatch(stem)
    return FRAME.sub("", match[1] or "") if match and not CAMERA.match(stem) else ""


def _is_frame_first(stems: Sequence[str]) -> bool:
    """00000_071: the first numbers are counted from 0 or 1, and the last ones are not."""
    pairs = [re.fullmatch(r"(\d+)_(\d+)", stem) for stem in stems]
    if len(pairs) < 2 or not all(pairs):
        return False
    first, last = ({int(pair[side]) for pair in pairs} for side in (1, 2))
    counted = [
        len(some) > 1 and some == {*range(min(some), max(some) + 1)} for some in (first, last)
    ]
    return counted[0] and min(first) in (0, 1) and not counted[1]


def _is_official(name: str) -> bool:
    """Whether a published dataset calls a clip so, alone or not."""
    return bool(names.person(name) or names.actor(name) or len(names.sources(name)) == 2)
