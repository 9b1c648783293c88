"""The preview of the Deepfake Detection Challenge (Dolhansky et al., 2019): 66 actors.

dataset.json: {"method_A/643049/643049_A/1_643049_A_001.mp4": {"label": "fake", "set": "train",
"target_id": 643049, "swapped_id": 1224068, ...}, ...}. A group is the actor filmed (target_id); the
other one gave the face.
"""

from __future__ import annotations

import reprlib
from pathlib import Path, PurePosixPath

from data.layouts.tree import (
    WITHIN,
    called,
    files_below,
    folders_in,
    is_inside,
    peek_json,
    pictures_in,
    read_json,
    word,
)
from data.samples import LABELS, SPLIT_NAMES, Clip, Listing
from data.video import VIDEO_SUFFIXES

LIST = "dataset.json"


def fits(root: Path) -> bool:
    entries = peek_json(root / LIST).values()
    return any(isinstance(entry, dict) and "set" in entry for entry in entries)


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    on_disk = _on_disk(root)
    clips, missing = [], []
    for path, entry in read_json(root / LIST).items():
        entry = entry if isinstance(entry, dict) else {}
        method, name = path.split("/")[0], PurePosixPath(path).stem
        label = LABELS.get(word(entry.get("label")))
        split = SPLIT_NAMES.get(word(entry.get("set")))
        if label is None or split is None:
            raise ValueError(
                f"{root / LIST}: {path}: expected a label real or fake and a set, found "
                f"{reprlib.repr(entry)}"
            )
        if not is_inside(path):
            raise ValueError(f"{root / LIST}: {path!r} leads out of its folder; get the file again")
        video, pictures = on_disk.pop((method, name), ("", ()))
        if not video:
            missing.append(path)
            continue
        person, donor = (word(entry.get(name)) for name in ("target_id", "swapped_id"))
        group, made_by = person or PurePosixPath(path).parent.name, method if label else "real"
        who = (person, donor if label else "")
        clips.append(Clip(video, label, pictures, group, split, made_by, *who))
    return Listing(clips, missing, [video for video, _ in on_disk.values()])


def _on_disk(root: Path) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """(Top folder, name) -> (video, frames) of every clip; frames where the video is not there."""
    found = {}
    for top in folders_in(root):
        for folder in (folder for name in WITHIN for folder in folders_in(top / name)):
            if pictures := pictures_in(root, folder):
                found[top.name, called(folder)] = folder.relative_to(root).as_posix(), pictures
        for path in files_below(top, VIDEO_SUFFIXES):
            found[top.name, path.stem] = path.relative_to(root).as_posix(), ()
    return found
