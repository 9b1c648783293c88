"""Celeb-DF v1 and v2 (Li et al., CVPR 2020): videos of celebrities, and face swaps between them.

Celeb-synthesis/id0_id16_0000.mp4 is Celeb-real/id0_0000.mp4 with the face of person 16. In
List_of_testing_videos.txt, 1 is REAL ("1 YouTube-real/00170.mp4"). A group is the person filmed
(for YouTube-real the video); persons recur across the official splits.
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
    test = _test_list(root / LIST)
    clips, unlisted, seen = [], [], set()
    for folder, method in METHODS.items():
        for found in clips_in(root, child(root, folder) or root / folder):
            group = names.person(found.name)
            if folder == "YouTube-real":
                group = f"YouTube-real/{found.name}"
            if not group:
                unlisted.append(found.video)
                continue
            key, label = (folder.lower(), found.name), int(method != "real")
            if test.get(key, label) != label:
                called = ("real", "fake")[1 - label]
                raise ValueError(f"{root / LIST}: calls {found.video} {called}; get it again")
            seen.add(key)
            split = ("test" if key in test else "train") if test else ""
            clips.append(Clip(found.video, label, found.pictures, group, split, method))
    if not test:
        return Listing(clips, [LIST], unlisted, ["splits are unknown"])
    missing = [f"{folder}/{name}" for folder, name in sorted(test.keys() - seen)]
    note = f"{len(test) - len(missing)} test videos; an eighth of the other groups validates"
    return Listing(with_val(clips), missing, unlisted, [note])


def _test_list(path: Path) -> dict[tuple[str, str], int]:
    """(Folder in lower case, video) -> label, 0 real."""
    test: dict[tuple[str, str], int] = {}
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        name = PurePosixPath(words[-1])
        if len(words) != 2 or words[0] not in ("0", "1") or len(name.parts) != 2:
            raise ValueError(
                f"{path}: line {number}: expected '1 YouTube-real/00170.mp4', found {line!r}"
            )
        test[name.parts[0].lower(), name.stem] = 1 - int(words[0])
    return test
