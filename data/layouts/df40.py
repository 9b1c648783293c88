"""DF40 (Yan et al., NeurIPS 2024): faces made in forty ways, as frames, fakes only but for nine methods.

<method>/ff/frames/071_054/000.png and <method>/cdf/frames/id0_id1_0000/000.png are made from FaceForensics++ and Celeb-DF.
Methods that synthesise whole faces have no frames/ (StyleGAN2/ff/071/..., StyleGAN2/cdf/Fake_from_Celeb-real/id0_0000/...); nine
others bring their own real pictures (heygen/fake/..., heygen/real/...). Only the latter are real here: train on the real videos
of FaceForensics++ as a dataset beside this one, or take a JSON of DeepfakeBench, which names both.

DF40_train/ (which may lack ff/) and DF40/ side by side are the official split of what comes from FaceForensics++; what comes
from Celeb-DF, and the nine, are for testing. A group is a pair of FaceForensics++ (071_054 with 054_071), a person of Celeb-DF.
Some methods pair source videos across the official splits: `evaluate.py inventory` counts them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data.images import SUFFIXES
from data.layouts import names
from data.layouts.tree import child, files_below, folders_in
from data.samples import Clip, Listing, film_order, is_video
from data.splits import with_val
from data.video import VIDEO_SUFFIXES

DOMAINS = ("ff", "cdf")
OWN = ("real", "fake")
PARTS = {"DF40_train": "train", "DF40": "test"}
# Folders that are no name of a clip: pictures directly in them are pictures by themselves.
PLAIN = {
    *DOMAINS,
    *OWN,
    "frames",
    "inversions",
    "celeb-real",
    "youtube-real",
    "fake_from_celeb-real",
    "fake_from_youtube-real",
}


def fits(root: Path) -> bool:
    named = root.resolve().name in PARTS and _methods(root)
    return bool(
        _parts(root) or named or any(child(folder, *DOMAINS) for folder in folders_in(root))
    )


def _parts(root: Path) -> dict[str, Path]:
    """Split -> its folder. None where `root` itself holds the methods."""
    return {
        split: found
        for part, split in PARTS.items()
        if (found := child(root, part)) and _methods(found)
    }


def read(root: Path, index: Path | None = None, compression: str | None = None) -> Listing:
    parts = _parts(root)
    clips, unlisted = [], []
    for split, place in (parts or {"": root}).items():
        methods = _methods(place)
        unlisted += [
            folder.relative_to(root).as_posix()
            for folder in folders_in(place)
            if folder not in methods
        ]
        for method in methods:
            clips += _clips(root, method, split if len(parts) > 1 else "")
    groups = names.linked((source for _, source in clips), mutual=True)
    listed = [
        replace(clip, group=names.group_of(source, groups) or clip.group) for clip, source in clips
    ]
    fakes_only = "fakes only: the real videos are those of FaceForensics++ and Celeb-DF"
    notes = [] if any(clip.label == 0 for clip in listed) else [fakes_only]
    return Listing(with_val(listed), [], unlisted, notes)


def _methods(place: Path) -> list[Path]:
    return [folder for folder in folders_in(place) if child(folder, "frames", *DOMAINS, *OWN)]


def _clips(root: Path, method: Path, split: str) -> list[tuple[Clip, str]]:
    """Every clip of one method, with its name where that is of FaceForensics++. split: of those."""
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
        video, ordered = (
            folder.relative_to(root).as_posix(),
            tuple(sorted(pictures, key=film_order)),
        )
        clips.append(_clip(method, folder, split, video, ordered))
    return clips


def _clip(
    method: Path, path: Path, split: str, video: str, pictures: tuple[str, ...]
) -> tuple[Clip, str]:
    """path: of the clip without suffix; the folder directly below that of its method says what it is made from."""
    top = path.relative_to(method).parts[0].lower()
    if top in OWN:
        label, group = OWN.index(top), f"{method.name}/{path.name}" if video else ""
    else:  # below cdf/, folders called Celeb-real hold fakes made from those videos
        label, group = 1, names.person(path.name) or path.name
    source = "" if top in ("cdf", *OWN) else path.name
    return Clip(
        video, label, pictures, group, split if source else "test", method.name if label else "real"
    ), source
