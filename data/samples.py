"""What a dataset consists of: clips and pictures with their labels, groups and splits, before any of them is opened.

real = 0, fake = 1, everywhere in this project.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from data.video import VIDEO_SUFFIXES, frame_names, split_frame

LABELS = {"real": 0, "0": 0, "fake": 1, "1": 1}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Each split and the share of the groups, counted from 0 to 1, that it takes.
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
FITTING = {"train": (0.0, 0.875), "val": (0.875, 1.0)}  # the same where a test split is given
FRAMES = 32  # of every video


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    path: POSIX, relative to the dataset's root; of a frame of a video, its name (data/video.py). label: 0 real, 1 fake.
    group: what must not be divided between splits (a source video, a person), "" unknown. split: train, val, test, ""
    unknown. video: the clip it is a frame of, "" for a picture by itself. method: how a fake was made, "" unknown, or
    real.
    """

    path: str
    label: int
    group: str = ""
    split: str = ""
    video: str = ""
    method: str = ""


@dataclass(frozen=True)
class Clip:
    """A video file, the frames of one in a folder, or a picture by itself.

    video: the file or the folder, "" for a picture. pictures: paths of the frames in the order of the film; none where
    `video` is a file that has yet to be opened. All else as in `Sample`.
    """

    video: str
    label: int
    pictures: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    method: str = ""

    def samples(self, frames: int = FRAMES) -> list[Sample]:
        """At most `frames` of it, evenly spaced."""
        paths = evenly(self.pictures, frames) if self.pictures else frame_names(self.video, frames)
        return [
            Sample(path, self.label, self.group, self.split, self.video, self.method)
            for path in paths
        ]


@dataclass
class Listing:
    """What an adapter (data/layouts) found.

    missing: what the official lists name and the disk lacks. unlisted: what lies on the disk and is not used: no list names
    it, or it belongs to something else. notes: what else somebody who uses this should know. All are for people to read.
    """

    clips: list[Clip]
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def samples(self, frames: int = FRAMES) -> list[Sample]:
        """Sorted by path, frames of one video by their number. Raises: ValueError for `frames` below 1."""
        frame_names("", frames)  # says so for pictures too
        return sorted(
            (sample for clip in self.clips for sample in clip.samples(frames)), key=_order
        )


def _order(sample: Sample) -> tuple[str, int]:
    frame = split_frame(sample.path) if "@" in sample.path else None
    return (sample.path, 0) if frame is None else (frame[0].as_posix(), frame[1])


def is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def evenly(items: Sequence[str], count: int) -> Sequence[str]:
    """At most `count` of the items, evenly spaced as the frames of a video are."""
    if count >= len(items):
        return items
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def film_order(name: str) -> tuple[str | int, ...]:
    """What to sort frames by: numbers in their names count as numbers, so that 10.png follows 9.png."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def divide(
    groups: Iterable[str], shares: dict[str, tuple[float, float]], fill: bool
) -> dict[str, str]:
    """A split for each group, by a hash of its name alone, so that a group stays where it is when others come or go.

    shares: `SHARES` or `FITTING`. fill: leave no split empty where there are groups enough.
    """
    place = {
        name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
        for name in sorted(groups)
    }
    chosen = {
        name: next(split for split, (_, end) in shares.items() if x < end)
        for name, x in place.items()
    }
    for split, (first, end) in shares.items() if fill else ():
        count = Counter(chosen.values())
        spare = [name for name in chosen if count[chosen[name]] > 1]
        if not count[split] and spare:  # a handful of groups: the nearest one fills the gap
            chosen[min(spare, key=lambda name: abs(place[name] - (first + end) / 2))] = split
    return chosen


def with_val(clips: Iterable[Clip]) -> list[Clip]:
    """The same with an eighth of the training groups for validation, where the official lists know train and test only."""
    clips = list(clips)
    chosen = divide({clip.group for clip in clips if clip.split == "train"}, FITTING, fill=True)
    return [
        replace(clip, split=chosen[clip.group]) if clip.split == "train" else clip for clip in clips
    ]
