"""What a dataset consists of before any file is opened: clips, and pictures with their labels.

real = 0, fake = 1, everywhere in this project.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from data.video import VIDEO_SUFFIXES, frame_names, split_frame

LABELS = {"real": 0, "0": 0, "fake": 1, "1": 1}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
FRAMES = 32  # of every video
PEOPLE = ("person", "donor")  # whom a picture shows; the last fields of a sample and of a clip

Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    Attributes:
        path: POSIX, relative to the dataset's root; a frame of a video has a name (data/video.py).
        group: what must not be divided between splits (a source video, a person).
        video: the clip it is a frame of, "" for a single picture.
        method: how a fake was made, or real; perhaps its kind and a colon first: "swaps: SimSwap".
        person: who was filmed, whose head it is, and so whom a fake claims to show; "" unknown.
        donor: whose face was put in; "" of real pictures, of other fakes, and unknown.
    """

    path: str
    label: int
    group: str = ""
    split: str = ""
    video: str = ""
    method: str = ""
    person: str = ""
    donor: str = ""


@dataclass(frozen=True)
class Clip:
    """A video file, a folder of frames (`pictures`), or a single picture (`video` is empty)."""

    video: str
    label: int
    pictures: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    method: str = ""
    person: str = ""
    donor: str = ""

    def samples(self, frames: int = FRAMES) -> list[Sample]:
        paths = evenly(self.pictures, frames) if self.pictures else frame_names(self.video, frames)
        same = (self.label, self.group, self.split, self.video, self.method)
        same += (self.person, self.donor)
        return [Sample(path, *same) for path in paths]


@dataclass
class Listing:
    """The clips of a dataset.

    missing: only in official lists; unlisted: only on the disk. passed: files and folders that are
    not read, and why.
    """

    clips: list[Clip]
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)

    def samples(self, frames: int = FRAMES) -> list[Sample]:
        """Sorted by path, the frames of a video by their number."""
        frame_names("", frames)  # checks `frames`, also where there are no videos

        def order(sample: Sample) -> tuple[str, int]:
            frame = split_frame(sample.path)
            return (frame[0].as_posix(), frame[1]) if frame else (sample.path, 0)

        return sorted((s for clip in self.clips for s in clip.samples(frames)), key=order)


def is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def evenly(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At most `count` of the items, evenly spaced as the frames of a video are."""
    if count >= len(items):
        return items
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def even_subsample(samples: Sequence[Sample], limit: int | None) -> Sequence[Sample]:
    """At most `limit` of the samples, evenly spaced from the first one."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise ValueError(f"--limit {limit}: nothing would be left")
    return [samples[i * len(samples) // limit] for i in range(limit)]


def film_order(name: str) -> tuple[str | int, ...]:
    """A key to sort frames by: numbers in names count as numbers, so 10.png follows 9.png."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))
