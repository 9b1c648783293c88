"""Folders called real and fake, with or without train/, val/ and test/ above them.

Frames of one clip must not be spread over the splits. data/layouts/runs.py tells from their names
which pictures are frames: real/CLIP/0001.png, real/CLIP_0001.png.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from data.layouts import names
from data.layouts.runs import INNER, SORTS, runs_of
from data.layouts.series import PEOPLE, sources
from data.layouts.tree import called, everything_below, folders_in
from data.samples import LABELS, SPLIT_NAMES, Clip, Listing, is_video

EXPECTED = """expected one of
  real/ and fake/
  train/, val/ (or valid/) and test/, with real/ and fake/ in each
  index.csv with the columns path,label and, if known, group, split, video, method, person and donor
  a published dataset as it is distributed (docs/datasets.md)"""


# What pictures are called, and nobody is.
THINGS = re.compile(r"(image|img|picture|pic|photo|portrait|face|frame|sample|real|fake)s?", re.I)
FULL = re.compile(r"[A-Z]\w*[ _][A-Z]")  # Ronald_Reagan, whom no GAN made


def labelled(root: Path) -> list[tuple[Path, str, str]]:
    """(Folder, real or fake, split)."""
    parts = [(root, ""), *_named(root, SPLIT_NAMES)]
    return [
        (folder, name, SPLIT_NAMES.get(part_name, ""))
        for part, part_name in parts
        for folder, name in _named(part, ("real", "fake"))
    ]


def _named(parent: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """(Folder, name in lower case) of those directly below `parent` with one of these names."""
    return [(f, f.name.lower()) for f in folders_in(parent) if f.name.lower() in names]


def read(root: Path) -> Listing:
    folders = labelled(root)
    parts = _named(root, SPLIT_NAMES)
    if parts and any(folder.parent == root for folder, _, _ in folders):
        raise ValueError(
            f"{root}: has real/ or fake/ and {parts[0][1]}/; which holds the dataset? {EXPECTED}"
        )
    clips, passed = [], []
    for folder, name, split in folders:
        found, odd = everything_below(folder)
        passed += [(path.relative_to(root).as_posix(), reason) for path, reason in odd]
        base = folder.relative_to(root)
        paths = [path.relative_to(folder).as_posix() for path in found]
        for clip in _clips(paths, LABELS[name], split):
            video, group = ((base / n).as_posix() if n else "" for n in (clip.video, clip.group))
            pictures = tuple((base / path).as_posix() for path in clip.pictures)
            clips.append((replace(clip, video=video, pictures=pictures, group=group), clip.group))
    made = any(clip.method for clip, _ in clips)
    clips = [
        replace(clip, group=group, method=clip.method or "real" * (made and not clip.label))
        for (clip, _), group in zip(clips, _groups(clips), strict=True)
    ]
    clips = _with_people(clips)
    return Listing(clips, notes=_notes(clips), passed=passed)


def _clips(paths: list[str], label: int, split: str) -> list[Clip]:
    """The clips and single pictures of one folder called real or fake; all names relative to it."""
    videos = [path for path in paths if is_video(path)]
    runs = runs_of(path for path in paths if not is_video(path))
    stems = [PurePosixPath(video).with_suffix("") for video in videos]
    shared = sources(stem.name for stem in stems)
    clips = [
        Clip(video, label, (), stem.with_name(shared[stem.name]).as_posix(), split)
        for video, stem in zip(videos, stems, strict=True)
    ]
    for run in runs:
        clips.append(Clip(run.name * run.film, label, run.pictures, run.source, split))
        if not run.film:
            person = PurePosixPath(run.source).name
            clips[-1:] = [
                Clip("", label, (p,), run.source, split, person=person) for p in run.pictures
            ]
    methods = [_above(clip.video) for clip in clips]
    count = Counter(methods)  # a folder of one clip is no method
    return [
        replace(clip, method=method if label and count[method] > 1 else "")
        for clip, method in zip(clips, methods, strict=True)
    ]


def _with_people(clips: list[Clip]) -> list[Clip]:
    """The same, with whom they show. clips: series of pictures with their names as a person.

    A name is a person's where real pictures go by it and by others, as a collection has them. That a
    fake of the name shows this person is then what it claims.
    """
    real = {clip.person for clip in clips if clip.person and not clip.label}
    kinds = {name for name in real if SORTS.match(name) or THINGS.fullmatch(name)}
    real -= {name for name in kinds if not FULL.match(name)}
    if len(real) < PEOPLE:
        real = set()
    found = []
    for clip in clips:
        person, donor = clip.person if clip.person in real else "", ""
        if clip.video:
            name = names.bare(called(PurePosixPath(clip.video)))
            person, donor = names.people(name, clip.method if clip.label else "real")
        found.append(replace(clip, person=person, donor=donor))
    return found


def _above(video: str) -> str:
    """The first folder above a clip, as in fake/Deepfakes/071_054/0001.png; or ""."""
    above = PurePosixPath(video).parts[:-1]
    return next((part for part in above if not INNER.fullmatch(part)), "")


def _groups(clips: list[tuple[Clip, str]]) -> list[str]:
    """A group for each clip: the same for clips of the same source in real/ and fake/.

    clips: with their sources below real/ or fake/, "" of single pictures, which get no group.
    """
    last = [names.bare(called(PurePosixPath(clip.video or source))) for clip, source in clips]
    ends = [called(PurePosixPath(source)) for _, source in clips]
    places = {(clip.label, clip.split, clip.method, source) for clip, source in clips}
    count = Counter((*place, called(PurePosixPath(source))) for *place, source in places)
    several = {name for (*_, name), number in count.items() if number > 1}
    linked = names.linked(last)
    if linked and max(Counter(linked.values()).values()) > len(linked) / 2:  # paired at random
        linked = names.linked(last, mutual=True)
    spread = _spread_over_splits(clips)
    groups = []
    for (clip, source), name, end in zip(clips, last, ends, strict=True):
        inner = source.removeprefix(f"{clip.method}/") if end in several else end
        # Where splits are given, equal names in two of them need not be one source.
        apart = clip.split and inner and source not in spread
        own = f"{clip.split}/{inner}" if apart else inner
        groups.append(names.group_of(name, linked) or own)
    shared = Counter(groups)
    return [
        clip.video if is_video(clip.video) and not clip.pictures and shared[group] == 1 else group
        for (clip, _), group in zip(clips, groups, strict=True)
    ]


def _spread_over_splits(clips: list[tuple[Clip, str]]) -> set[str]:
    """Sources of which every split has other frames: somebody dealt out frames, not clips."""
    names_of = defaultdict(lambda: defaultdict(list))
    for clip, source in clips:
        if source and clip.split and clip.pictures:
            files = [PurePosixPath(path).name for path in clip.pictures]
            names_of[clip.label, source][clip.split] += files
    several = [(key[1], [*by.values()]) for key, by in names_of.items() if len(by) > 1]
    dealt = [s for s, by in several if len({*chain(*by)}) == sum(map(len, by)) > len(by)]
    return {*dealt} if 2 * len(dealt) > len(several) else set()


def _notes(clips: list[Clip]) -> list[str]:
    frames = [clip for clip in clips if clip.video and clip.pictures]
    people = {clip.group for clip in clips if clip.group and not clip.video}
    notes = []
    if frames:
        notes.append(
            f"{len(frames)} folders or series of numbered pictures, such as {frames[0].video}, are "
            "taken as clips; an index.csv says otherwise"
        )
    if people:
        notes.append(
            f"{len(people)} series of pictures of one name, such as {min(people)}, are taken as "
            "groups; an index.csv says otherwise"
        )
    return notes
