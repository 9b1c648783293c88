"""Celeb-DF, version 1 and 2 (Li et al., CVPR 2020): videos of celebrities and swaps between them.

Celeb-real/id0_0000.mp4, Celeb-synthesis/id0_id16_0000.mp4 (that video with the face of person 16), YouTube-real/00000.mp4 of
people unknown. List_of_testing_videos.txt names the test videos, "1 YouTube-real/00170.mp4", where 1 is REAL, the other way
round than here. Those videos lie among the others: all else is for training, an eighth of its groups for validation.

A group is a person, with the fakes of the videos of that person; of YouTube-real it is the video. The face of a fake may be
that of somebody in another group, and people of the test list have training videos too: the list is of videos.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from data.layouts import names
from data.layouts.tree import child, clips_in
from data.samples import Clip, Listing
from data.splits import with_val

LIST = "List_of_testing_videos.txt"
METHODS = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "Celeb-synthesis"}


def fits(root: Path) -> bool:
    return sum(child(root, folder) is not None for folder in METHODS) >= 2


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """Without the list, splits are unknown. Raises: ValueError for a list that is not as the official one."""
    tested = _test_list(root / LIST)
    clips, unlisted, seen = [], [], set()
    for folder, method in METHODS.items():
        for found in clips_in(root, child(root, folder) or root / folder):
            group = (
                names.person(found.name)
                if folder.startswith("Celeb")
                else f"YouTube-real/{found.name}"
            )
            if not group:
                unlisted.append(found.video)
                continue
            key, label = (folder.lower(), found.name), int(method != "real")
            if tested.get(key, label) != label:
                raise ValueError(
                    f"{root / LIST}: calls {found.video} {('real', 'fake')[1 - label]}; get the official list again"
                )
            seen.add(key)
            split = ("test" if key in tested else "train") if tested else ""
            clips.append(Clip(found.video, label, found.pictures, group, split, method))
    if not tested:
        return Listing(clips, [LIST], unlisted, ["splits are unknown"])
    missing = [f"{folder}/{name}" for folder, name in sorted(tested.keys() - seen)]
    note = f"{len(tested) - len(missing)} test videos; an eighth of the others, by group, is for validation"
    return Listing(with_val(clips), missing, unlisted, [note])


def _test_list(path: Path) -> dict[tuple[str, str], int]:
    """(Folder in lower case, video) -> label, 0 real. Raises: ValueError with the line's number."""
    tested: dict[tuple[str, str], int] = {}
    if not path.is_file():
        return tested
    for number, line in enumerate(
        path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1
    ):
        words = line.split()
        if not words:
            continue
        name = PurePosixPath(words[-1])
        if len(words) != 2 or words[0] not in ("0", "1") or len(name.parts) != 2:
            raise ValueError(
                f"{path}: line {number}: expected '1 YouTube-real/00170.mp4', found {line!r}"
            )
        tested[name.parts[0].lower(), name.stem] = 1 - int(words[0])
    return tested
