"""DF40 (Yan et al., NeurIPS 2024): fakes of forty methods, as frames; nine come with real pictures.

<method>/ff/ and <method>/cdf/ are made from FaceForensics++ and Celeb-DF (simswap/ff/frames/071_054,
StyleGAN2/cdf/Fake_from_Celeb-real/id0_0000); some methods have real/ and fake/ instead. DF40_train/
(which may lack ff/) and DF40/ side by side are the official split of what comes from
FaceForensics++; all else is for testing. Some methods pair videos across the splits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data.images import SUFFIXES
from data.layouts import names
from data.layouts.tree import called, child, files_below, folders_in
from data.samples import Clip, Listing, film_order, is_video
from data.video import VIDEO_SUFFIXES

DOMAINS = ("ff", "cdf")
OWN = ("real", "fake")
PARTS = {"DF40_train": "train", "DF40": "test"}
# Folders that are not named like a clip: the pictures in them are single pictures.
PLAIN = {*DOMAINS, *OWN, "frames", "inversions", "celeb-real", "youtube-real"}
PLAIN |= {"fake_from_celeb-real", "fake_from_youtube-real"}


def fits(root: Path) -> bool:
    named = root.resolve().name in PARTS and _methods(root)
    return bool(_parts(root) or named or any(child(each, *DOMAINS) for each in folders_in(root)))


def _parts(root: Path) -> dict[str, Path]:
    """Split -> its folder; empty where `root` itself holds the methods."""
    parts = ((split, child(root, part)) for part, split in PARTS.items())
    return {split: found for split, found in parts if found and _methods(found)}


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    parts = _parts(root)
    clips, unlisted = [], []
    for split, place in (parts or {"": root}).items():
        methods = _methods(place)
        others = [folder for folder in folders_in(place) if folder not in methods]
        unlisted += [folder.relative_to(root).as_posix() for folder in others]
        for method in methods:
            clips += _clips(root, method, split if len(parts) > 1 else "")
    groups = names.linked((source for _, source in clips), mutual=True)
    clips = [
        replace(clip, group=names.group_of(source, groups) or clip.group) for clip, source in clips
    ]
    note = "fakes only: the real videos are those of FaceForensics++ and Celeb-DF"
    return Listing(clips, [], unlisted, [note] * all(clip.label for clip in clips))


def _methods(place: Path) -> list[Path]:
    return [folder for folder in folders_in(place) if child(folder, "frames", *DOMAINS, *OWN)]


def _clips(root: Path, method: Path, split: str) -> list[tuple[Clip, str]]:
    """The clips of one method, with their names where these are of FaceForensics++."""
    folders: dict[Path, list[str]] = {}
    clips = []
    for path in files_below(method, SUFFIXES | VIDEO_SUFFIXES):
        name = path.relative_to(root).as_posix()
        if is_video(name):
            clips.append(_clip(method, path.with_suffix(""), split, name, ()))
        elif path.parent.name.lower() in PLAIN:
            clips.append(_clip(method, path.with_suffix(""), split, "", (name,)))
        else:
            folders.setdefault(path.parent, []).append(name)
    for folder, pictures in folders.items():
        ordered = tuple(sorted(pictures, key=film_order))
        path = folder.with_name(called(folder))
        clips.append(_clip(method, path, split, folder.relative_to(root).as_posix(), ordered))
    return clips


def _clip(
    method: Path, path: Path, split: str, video: str, pictures: tuple[str, ...]
) -> tuple[Clip, str]:
    """path: of the clip without suffix."""
    top = path.relative_to(method).parts[0].lower()
    if top in OWN:
        label, group = OWN.index(top), f"{method.name}/{path.name}" if video else ""
    else:  # below cdf/, folders called Celeb-real hold fakes made from those videos
        label, group = 1, names.person(path.name) or path.name
    source = "" if top in ("cdf", *OWN) else path.name
    made_by, split = method.name if label else "real", split if source else "test"
    who = names.people(path.name, made_by) if top not in OWN else ("", "")
    return Clip(video, label, pictures, group, split, made_by, *who), source
