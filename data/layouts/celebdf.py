"""Celeb-DF v1 and v2 (Li et al., CVPR 2020): videos of celebrities, and face swaps between them.

Celeb-synthesis/id0_id16_0000.mp4 is Celeb-real/id0_0000.mp4 with the face of person 16. In
List_of_testing_videos.txt, 1 is REAL ("1 YouTube-real/00170.mp4"). A group is the person filmed
(for YouTube-real the video); persons recur across the official splits.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.layouts import names
from data.layouts.tree import child, clips_in
from data.samples import Clip, Listing

LIST = "List_of_testing_videos.txt"
LINE = re.compile(r"([01])\s+([^/]+)/([^/]+?)(?:\.\w+)?")
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
            who = ("", "") if folder == "YouTube-real" else names.people(found.name, method)
            clips.append(Clip(found.video, label, found.pictures, group, split, method, *who))
    if not test:
        return Listing(clips, [LIST], unlisted, ["splits are unknown"])
    missing = [f"{folder}/{name}" for folder, name in sorted(test.keys() - seen)]
    note = f"{len(test) - len(missing)} test videos; an eighth of the other groups validates"
    return Listing(clips, missing, unlisted, [note])


def _test_list(path: Path) -> dict[tuple[str, str], int]:
    """(Folder in lower case, video) -> label, 0 real."""
    test = {}
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if match := LINE.fullmatch(line):
            test[match[2].lower(), match[3]] = 1 - int(match[1])
        elif line:
            expected = "'1 YouTube-real/00170.mp4'"
            raise ValueError(f"{path}: line {number}: expected {expected}, found {line!r}")
    return test
