"""A video -> what is said of each person in it: a score for every frame in which they are seen, and over all of them.

Evenly spaced frames are looked at, a few at a time, so a two-hour film takes no more memory than a short one. Faces of
different frames are one person's where they look alike and, if so, all the more where they are in the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from data.images import MAX_PIXELS, ImageError
from data.video import read_frames, seconds_of
from inference.verdict import FAKE, REAL, UNSURE, Verdict, decide, rarity, unlike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inference.detector import Detector

AT_ONCE = 8  # frames in memory
# Cosine of two faces, plus NEAR times how much their boxes overlap, from which on they are one person's; the overlap alone where
# no expert tells identities.
SAME = 0.35
NEAR = 0.3
SEEN = (
    0.1  # of the frames: somebody who is in fewer, and in more than one, is told to be hardly seen
)
DRAWS = 2000


@dataclass
class Person:
    """One person of a clip. places: which of the frames; p_fake: of each of them; doubtful: frames in which the face is unlike
    those of training; worst: the verdict about the frame with the highest score."""

    box: tuple[float, ...]
    identity: np.ndarray | float = 0.0  # the sum over the frames
    places: list[int] = field(default_factory=list)
    p_fake: list[float] = field(default_factory=list)
    doubtful: int = 0
    worst: Verdict | None = None

    def add(self, place: int, verdict: Verdict) -> None:
        self.places.append(place)
        self.p_fake.append(verdict.p_fake)
        self.doubtful += unlike(verdict.doubts)
        if verdict.identity is not None:
            self.identity = self.identity + verdict.identity
        self.box = verdict.box
        if self.worst is None or verdict.p_fake > self.worst.p_fake:
            self.worst = verdict

    def alike(self, verdict: Verdict) -> float:
        """How much a face looks like this person's, and lies where theirs was."""
        if verdict.identity is None:
            return overlap(self.box, verdict.box)
        lengths = np.linalg.norm(self.identity) * np.linalg.norm(verdict.identity)
        cosine = float(self.identity @ verdict.identity / lengths) if lengths > 0 else 0.0
        return cosine + NEAR * overlap(self.box, verdict.box)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / both if both > 0 else 0.0


def assign(people: list[Person], verdicts: list[Verdict], place: int) -> None:
    """Give every face of one frame to the person it is, nobody two of them (Kuhn, 1955); strangers are new people."""
    scores = np.array(
        [[person.alike(verdict) for verdict in verdicts] for person in people]
    ).reshape(-1, len(verdicts))
    left = set(range(len(verdicts)))
    for row, column in zip(*linear_sum_assignment(-scores), strict=True):
        if scores[row, column] >= SAME:
            people[row].add(place, verdicts[column])
            left.discard(int(column))
    for column in sorted(left):
        person = Person(verdicts[column].box)
        person.add(place, verdicts[column])
        people.append(person)


def predict_clip(
    detector: Detector, path: Path, frames: int, max_pixels: int = MAX_PIXELS
) -> list[Verdict]:
    """One verdict per person, who is seen most first; one with an error where there is nobody or no video.

    detector: one that looks at all faces. frames: how many to look at. p_fake of a verdict is the mean
    over the frames, `clip` holds each of them, and `worst` the verdict about the most suspect one.
    """
    people: list[Person] = []
    seen, failed = 0, ""
    bar = tqdm(total=frames, unit="frame", desc=path.name[:30], leave=False, disable=None)
    for start in range(0, frames, AT_ONCE):
        places = range(start, min(frames, start + AT_ONCE))
        read = dict(
            zip(
                places,
                read_frames(path, [(place, frames) for place in places], max_pixels),
                strict=True,
            )
        )
        failed = next(
            (image.reason for image in read.values() if isinstance(image, ImageError)), failed
        )
        images = {place: image for place, image in read.items() if isinstance(image, np.ndarray)}
        seen += len(images)
        judged = detector.predict_images(
            list(images.values()), [f"{path}@{place}of{frames}" for place in images]
        )
        for place in images:
            here = [
                verdict
                for verdict in judged
                if verdict.path == f"{path}@{place}of{frames}" and not verdict.error
            ]
            if here:
                assign(people, here, place)
        bar.update(len(places))
    bar.close()
    if not people:
        return [Verdict(str(path), error=failed if not seen else f"no face found in {seen} frames")]
    people.sort(key=lambda person: -len(person.places))
    duration = seconds_of(path)
    return [
        summarise(detector, person, path, number, seen, frames, duration)
        for number, person in enumerate(people)
    ]


def summarise(
    detector: Detector,
    person: Person,
    path: Path,
    number: int,
    seen: int,
    frames: int,
    duration: float | None,
) -> Verdict:
    """What is said of one person of a clip."""
    scores = np.array(person.p_fake)
    draws = np.random.default_rng(0).integers(len(scores), size=(DRAWS, len(scores)))
    low, high = (float(x) for x in np.percentile(scores[draws].mean(1), [2.5, 97.5]))
    mean = float(scores.mean())
    doubts = []
    if 2 * person.doubtful > len(scores):
        doubts.append(
            f"in {person.doubtful} of {len(scores)} frames the face is unlike those that the detector learned from"
        )
    elif seen > 1 and len(scores) < max(2, SEEN * seen):
        doubts.append(f"the person is seen in {len(scores)} of {seen} frames only")
    verdict, doubts = decide(mean, detector.threshold, doubts, detector.head.kind != "oneclass")
    if verdict in (REAL, FAKE) and low < detector.threshold <= high:
        verdict, doubts = (
            UNSURE,
            [f"over the frames the mean may lie on either side of {detector.threshold:.2f}"],
        )
    times = [
        None if duration is None else round((place + 0.5) / frames * duration, 2)
        for place in person.places
    ]
    worst = person.places[int(scores.argmax())]
    clip = {"frames_looked_at": seen, "frames": person.places, "seconds": times}
    clip |= {
        "p_fake": [round(float(p), 4) for p in scores],
        "low": round(low, 4),
        "high": round(high, 4),
    }
    clip |= {"worst": {"frame": worst, "of": frames, "seconds": times[person.places.index(worst)]}}
    return replace(
        person.worst,
        path=str(path),
        face=number,
        p_fake=mean,
        verdict=verdict,
        doubts=doubts,
        rarity=rarity(mean, detector.checkpoint.arrays["real_scores"]),
        clip=clip,
        worst=person.worst,
        identity=None,
    )


def draw_scores(verdicts: list[Verdict]) -> Figure:
    """Scores over time, a line per person. verdicts: of one clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    timed = all(second is not None for verdict in verdicts for second in verdict.clip["seconds"])
    for verdict, colour in zip(verdicts, _colours(), strict=False):
        x = verdict.clip["seconds" if timed else "frames"]
        label = f"person {verdict.face + 1}: {verdict.verdict}, mean {verdict.p_fake:.2f}"
        axes.plot(x, verdict.clip["p_fake"], "o-", color=colour, markersize=4, label=label)
        axes.axhspan(verdict.clip["low"], verdict.clip["high"], color=colour, alpha=0.1)
    axes.axhline(verdicts[0].threshold, color="#5f6368", linestyle="--", linewidth=1)
    axes.text(
        1.0,
        verdicts[0].threshold,
        "fake from here on",
        fontsize=8,
        color="#5f6368",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
    )
    axes.set(
        ylim=(0, 1), xlabel="seconds" if timed else "frame", ylabel="p_fake; band: 95% of its mean"
    )
    axes.legend(loc="upper left", fontsize=9)
    return figure


def _colours() -> Iterator[str]:
    yield from (
        "#0072b2",
        "#d55e00",
        "#009e73",
        "#cc79a7",
        "#e69f00",
        "#56b4e9",
        "#5f6368",
        "#000000",
    )
