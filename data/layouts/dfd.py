"""DeepFakeDetection (Google and Jigsaw, 2019), which comes with FaceForensics++: 28 actors in 16 scenes, and swaps of them.

original_sequences/actors/<level>/videos/01__kitchen_pan.mp4 is actor 1; manipulated_sequences/DeepFakeDetection/<level>/videos/
01_02__kitchen_pan__ABCDEFGH.mp4 is that scene with the face of actor 2. There are no official splits. Nearly all actors are
swapped with one another, so groups that kept apart everybody who is seen would be a single one: the group of a clip is the
actor who was filmed, and the face of a fake may be that of somebody in another split.

Several people may be in a frame, of whom one is swapped.
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
    """A folder that holds FaceForensics++ too is that: this one is then asked for by name."""
    return not faceforensics.fits(root) and any(
        below(root, folder).is_dir() for folder in FOLDERS.values()
    )


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    """Raises: ValueError where there are several compression levels and none is named, or not the one that is."""
    level = level_of(root, [below(root, folder) for folder in FOLDERS.values()], compression)
    clips, unlisted = [], []
    for method, folder in FOLDERS.items():
        for found in clips_in(root, below(root, folder) / level):
            group = names.actor(found.name)
            if group:
                clips.append(
                    Clip(found.video, int(method != "real"), found.pictures, group, "", method)
                )
            else:
                unlisted.append(found.video)
    notes = [
        f"compression {level}",
        "groups are the actors who were filmed; the face of a fake may be that of an actor of another group",
        "several people may be in a frame of a fake, and only one of them is swapped",
    ]
    return Listing(clips, [], unlisted, notes)
