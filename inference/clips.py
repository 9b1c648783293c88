"""Videos: faces tracked over evenly spaced frames, and one verdict per person.

Faces of two frames belong to one person if their identity embeddings are similar; the overlap of
their boxes adds to the similarity.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from data.images import ImageError
from data.reader import Reader
from features.reference import SOMEBODY_ELSE
from inference.detector import Detector
from inference.reference import Reference
from inference.verdict import (
    BETWEEN,
    CLEAR,
    FAKE,
    UNSURE,
    FalseAlarmRate,
    Verdict,
    decide,
    out_of_distribution,
)

FRAMES_IN_MEMORY = 8
SAME_PERSON = 0.35  # similarity from which on two faces are one person's
OVERLAP_WEIGHT = 0.3  # of the overlap beside the cosine of the identity embeddings
MIN_SHARE = 0.1  # of the frames that a person must be in
BOOTSTRAP = 2000


@dataclass
class Track:
    box: tuple[float, ...] = ()  # of the latest face
    identity: np.ndarray | float = 0.0  # sum of the embeddings
    frames: list[int] = field(default_factory=list)
    p_fake: list[float] = field(default_factory=list)  # one per frame
    out_of_distribution: int = 0  # frames outside the abstention limits
    worst: Verdict | None = None  # for the frame with the highest score
    references: list[Reference] = field(default_factory=list)  # of each frame, if there is a person

    def add(self, frame: int, verdict: Verdict) -> None:
        self.frames.append(frame)
        self.p_fake.append(verdict.p_fake)
        self.out_of_distribution += out_of_distribution(verdict.reasons_to_abstain)
        if verdict.identity is not None:
            self.identity = self.identity + verdict.identity
        self.box = verdict.box
        if verdict.reference:
            seen = max((found.p_conflict for found in self.references), default=-1.0)
            if not verdict.reference.p_conflict > seen:  # only the card of the worst is drawn
                verdict.reference = replace(verdict.reference, view=None)
            self.references.append(verdict.reference)
        if self.worst is None or verdict.p_fake > self.worst.p_fake:
            self.worst = verdict

    def similarity(self, verdict: Verdict) -> float:
        """Of a face to this person: by identity and position, or by position alone."""
        overlap = iou(self.box, verdict.box)
        if verdict.identity is None:
            return overlap
        norms = np.linalg.norm(self.identity) * np.linalg.norm(verdict.identity)
        cosine = float(self.identity @ verdict.identity / norms) if norms > 0 else 0.0
        return cosine + OVERLAP_WEIGHT * overlap


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - width * height
    return width * height / union if union > 0 else 0.0


def assign(tracks: list[Track], verdicts: list[Verdict], frame: int) -> None:
    """Add each face of one frame to a track of its own (Kuhn, 1955), or to a new one."""
    scores = np.array([[track.similarity(verdict) for verdict in verdicts] for track in tracks])
    scores = scores.reshape(len(tracks), len(verdicts))
    chosen = {
        column: tracks[row]
        for row, column in zip(*linear_sum_assignment(-scores), strict=True)
        if scores[row, column] >= SAME_PERSON
    }
    for column, verdict in enumerate(verdicts):
        if column not in chosen:
            tracks.append(Track())
        chosen.get(column, tracks[-1]).add(frame, verdict)


def predict_clip(
    detector: Detector, path: Path, frames: int, reader: Reader | None = None
) -> list[Verdict]:
    """One verdict per person, those in most frames first, or one verdict with an error.

    Frames lost by damage are counted in `clip`; those that a short video does not have are not.
    """
    detector, tracks, read, lost = detector.for_all_faces(), [], 0, []
    reader = reader or Reader()
    bar = tqdm(total=frames, unit="frame", desc=path.name[:30], leave=False, disable=None)
    for start in range(0, frames, FRAMES_IN_MEMORY):
        wanted = [(n, frames) for n in range(start, min(frames, start + FRAMES_IN_MEMORY))]
        images = {}
        for (number, _), image in zip(wanted, reader.frames(path, wanted), strict=True):
            if isinstance(image, ImageError):
                lost += [] if image.repeated else [image.reason]
            else:
                images[number] = image
        read += len(images)
        # A clip does not lie down in its middle.
        detector.cutter.turned = not tracks or any(track.worst.turn for track in tracks)
        batch = detector.predict_batch(list(images.values()), [str(path)] * len(images))
        for number, verdicts in zip(images, batch, strict=True):
            if faces := [verdict for verdict in verdicts if not verdict.error]:
                assign(tracks, faces, number)
        bar.update(len(wanted))
    bar.close()
    if not tracks:
        damage = f"{len(lost)} of {frames} frames could not be read ({lost[0]})" if lost else ""
        error = "; ".join([f"no face found in {read} frames"] * bool(read) + [damage] * bool(lost))
        return [Verdict(str(path), error=error)]
    tracks.sort(key=lambda track: -len(track.frames))
    counts = read, frames, reader.seconds(path)
    people = [summarise(detector, track, number, *counts) for number, track in enumerate(tracks)]
    if detector.person:
        compare_most_like(detector, tracks, people, read)
    streams = reader.stream_count(path)
    for person in people:
        if streams > 1:
            note = f"only the first of {streams} video streams in the file was judged"
            person.notes = [note, *person.notes]
        person.clip["frames_unreadable"] = len(lost)
        person.clip["unreadable_because"] = lost[0] if lost else ""
    return people


def summarise(
    detector: Detector, track: Track, number: int, read: int, frames: int, duration: float | None
) -> Verdict:
    """The verdict for one person. read: how many of `frames` could be read; duration: seconds."""
    scores, abstain = np.array(track.p_fake), []
    draws = np.random.default_rng(0).integers(len(scores), size=(BOOTSTRAP, len(scores)))
    low, high = map(float, np.percentile(scores[draws].mean(1), [2.5, 97.5]))
    mean, threshold = float(scores.mean()), detector.threshold
    if 2 * track.out_of_distribution > len(scores):
        count = f"{track.out_of_distribution} of {len(scores)}"
        abstain = [f"in {count} frames the face is unlike the training faces"]
    elif read > 1 and len(scores) < max(2, MIN_SHARE * read):
        abstain = [f"the person is in only {len(scores)} of {read} frames"]
    verdict, abstain = decide(mean, threshold, detector.clear_below, abstain)
    if verdict == FAKE and low < threshold:
        verdict, abstain = UNSURE, ["the 95% interval of the mean contains the threshold"]
    if verdict == CLEAR and high >= detector.clear_below:
        verdict, abstain = UNSURE, [f"the 95% interval of the mean ends in doubt: {BETWEEN}"]
    times = [duration and round((n + 0.5) / frames * duration, 2) for n in track.frames]
    worst = int(scores.argmax())
    clip = {
        "frames_asked": frames,
        "frames_looked_at": read,
        "frames": track.frames,
        "seconds": times,
        "p_fake": scores.round(4).tolist(),
        "low": round(low, 4),
        "high": round(high, 4),
        "worst": {"frame": track.frames[worst], "of": frames, "seconds": times[worst]},
    }
    return replace(
        track.worst,
        face=number,
        p_fake=mean,
        verdict=verdict,
        reasons_to_abstain=abstain,
        false_alarm_rate=FalseAlarmRate.at(mean, detector.real_scores),
        meaning=detector.record.meaning if verdict == CLEAR else "",
        clip=clip,
        worst_frame=track.worst,
        identity=None,
    )


def compare_most_like(
    detector: Detector, tracks: list[Track], people: list[Verdict], frames: int
) -> None:
    """The one who is most like the photographs of the person is compared with them, nobody else.

    Most like: least probably somebody else, inside and outside; of those in enough frames, if any are.
    """
    often = [len(track.frames) >= MIN_SHARE * frames for track in tracks]
    unlike = [
        np.mean([found.probabilities[SOMEBODY_ELSE] for found in track.references])
        for track in tracks
    ]
    unlike = np.nan_to_num(unlike, nan=2.0) + 2 * (np.array(often) < max(often))
    for number, (track, person) in enumerate(zip(tracks, people, strict=True)):
        own = number == int(np.argmin(unlike))
        person.reference = detector.comparer.over(track.references) if own else None
        person.worst_frame.reference = person.reference


def read_worst_frame(
    path: Path, verdict: Verdict, reader: Reader | None = None
) -> np.ndarray | ImageError:
    """The frame with a person's highest score, (H, W, 3) uint8 RGB."""
    worst = verdict.clip["worst"]
    return (reader or Reader()).frames(path, [(worst["frame"], worst["of"])])[0]
