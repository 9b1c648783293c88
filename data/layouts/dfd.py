"""DeepFakeDetection (Google and Jigsaw, 2019), a part of FaceForensics++: 28 actors in 16 scenes.

01_02__kitchen_pan__ABCDEFGH.mp4 is 01__kitchen_pan.mp4 with the face of actor 2. There are no
official splits. Nearly all actors are swapped with one another, so a group is the actor filmed.
"""

from __future__ import annotations

from pathlib import Path

from data.layouts import faceforensics, names
from data.layouts.faceforensics import level_of
from data.layouts.tree import below, clips_in
from data.samples import Clip, Listing

COMPRESSED = True
FOLDERS = {
    "real": "original_sequences/actors",
    "DeepFakeDetection": "manipulated_sequences/DeepFakeDetection",
}


def fits(root: Path) -> bool:
    """A folder that holds FaceForensics++ too is that: this part needs --layout dfd."""
    found = any(below(root, folder).is_dir() for folder in FOLDERS.values())
    return found and not faceforensics.fits(root)


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    level = level_of(root, [below(root, folder) for folder in FOLDERS.values()], compression)
    clips, unlisted = [], []
    for method, folder in FOLDERS.items():
        for found in clips_in(root, below(root, folder) / level):
            label, group = int(method != "real"), names.actor(found.name)
            if group:
                who = names.people(found.name, method)
                clips.append(Clip(found.video, label, found.pictures, group, "", method, *who))
            else:
                unlisted.append(found.video)
    notes = [
        f"compression {level}",
        "groups are the actors filmed; the face of a fake may be that of another group",
        "several people may be in a frame of a fake, and only one of them is swapped",
    ]
    return Listing(clips, [], unlisted, notes)
