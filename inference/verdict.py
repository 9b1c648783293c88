"""The verdict for one face: decision rule, abstention limits, and its forms as text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest

from data.names import for_screen, for_table
from features.disagreement import Pair
from features.explain import Reason
from inference.reference import Reference

FAKE, CLEAR, UNSURE = "fake", "nothing found", "cannot tell"
WORDS = {FAKE: "looks manipulated", CLEAR: CLEAR, UNSURE: UNSURE}  # as people read them
CSV_COLUMNS = ("path", "face", "p_fake", "verdict", "doubts", "quality", "reasons", "error")
CSV_COLUMNS += ("threshold", "false_alarm_rate", "frames_asked", "frames_unreadable")
CSV_COLUMNS += ("unreadable_because", "notes", "prior", "nothing_found_below", "meaning")
CSV_COLUMNS += ("person", "photographs", "p_conflict", "pattern", "pattern_because")
# Quality -> which side of its limit is poor, and the sentence.
LIMITS = {
    "face_px": ("below", "the face is only {:.0f} px wide, less than 99% of the training faces"),
    "sharpness": ("below", "the face is more blurred than 99% of the training faces ({:.0f})"),
    "score": ("below", "face detector less sure than for 99% of the training faces ({:.2f})"),
    "yaw": ("above", "the face is turned by {:.0f} degrees, more than 99% of the training faces"),
}
MISSING = "more features are missing than for 99% of the training faces"
UNLIKE_TRAINING = "the face as a whole is unlike the training faces"
BETWEEN = "the score is between those of fakes and those where nothing is found"
NEVER_CLEAR = "the score is below the threshold, and at no score can this detector rule out a fake"
BY_SCORE = (BETWEEN, NEVER_CLEAR)  # reasons to abstain that are not about the picture


@dataclass(frozen=True)
class Region:
    name: str
    disagreement: float | None  # with the others (features/disagreement.py); of no whole face
    rank: float | None  # share of real faces in which it disagrees less, 0 to 1
    predictions: dict[str, float | dict[str, float]]  # "expert.output" -> by class, or one number

    def to_json(self) -> dict:
        row = asdict(self)
        return {"region": row.pop("name"), **row}


@dataclass(frozen=True)
class FalseAlarmRate:
    """Share of real validation faces that score at least as high, and its 95% interval, 0 to 1."""

    share: float
    low: float
    high: float

    @classmethod
    def at(cls, p_fake: float, real_scores: np.ndarray) -> FalseAlarmRate:
        """With the interval of Clopper & Pearson (1934). real_scores: (N,) p_fake of real faces."""
        count, total = int((real_scores >= p_fake).sum()), len(real_scores)
        interval = binomtest(count, total).proportion_ci(method="exact")
        return cls(count / total, float(interval.low), float(interval.high))

    @property
    def words(self) -> str:
        if self.share > 0.5:
            return f"{self.share:.0%} of real faces score as high or higher"
        if self.share == 0:
            return f"fewer than 1 in {1 / self.high:.0f} real faces score as high"
        interval = f"1 in {1 / self.high:.0f} to 1 in {1 / max(self.low, 1e-9):.0f}"
        return f"1 in {1 / self.share:.0f} real faces scores as high ({interval})"


@dataclass
class Verdict:
    """The result for one face, or for one person in a video; or why there is none (`error`)."""

    path: str
    face: int | None = None  # number of the face in the picture, or of the person in the video
    p_fake: float | None = None  # calibrated probability; in a video the mean over the frames
    verdict: str = ""  # `FAKE`, `CLEAR` or `UNSURE`; the same for every prior
    reasons_to_abstain: list[str] = field(default_factory=list)  # sentences, for `UNSURE`
    quality: dict[str, float | str] = field(default_factory=dict)  # `overall` is in words
    false_alarm_rate: FalseAlarmRate | None = None
    reasons: list[Reason] = field(default_factory=list)  # strongest first
    regions: list[Region] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    # What each family of experts adds to `baseline_logit`; together they are the logit of p_fake.
    families: dict[str, float] = field(default_factory=dict)
    baseline_logit: float | None = None
    threshold: float | None = None  # p_fake from which on it is `FAKE`
    clear_below: float | None = None  # p_fake below which it is `CLEAR`; 0 never
    prior: float | None = None  # share of fakes that p_fake is for; None: p_fake is a rank
    fpr: float | None = None  # share of real validation faces that the threshold was set for
    meaning: str = ""  # what `CLEAR` is worth, a sentence
    record: list[str] = field(default_factory=list)  # what the detector finds and misses, sentences
    error: str = ""
    notes: list[str] = field(default_factory=list)  # on how the face was found, sentences
    # Of a video: frames, their scores and times, 95% interval of the mean; and its highest score.
    clip: dict = field(default_factory=dict)
    worst_frame: Verdict | None = field(default=None, repr=False)
    identity: np.ndarray | None = field(default=None, repr=False)  # embedding of the whole face
    box: tuple[float, ...] = ()  # x0, y0, x1, y1 in pixels of the picture
    aligned: np.ndarray | None = field(default=None, repr=False)  # (112, 112, 4) uint8 RGBA
    frame: int = 0  # of an animated picture
    reference: Reference | None = None  # how it fits photographs of the person claimed
    turn: int = 0  # degrees clockwise by which the face stands turned: 0, 90, 180 or 270

    @property
    def words(self) -> str:
        """The verdict as people read it."""
        return WORDS[self.verdict]

    @property
    def p_words(self) -> str:
        prior = "" if self.prior is None else f" (if {_percent(self.prior)} of faces are fakes)"
        return f"p_fake {self.p_fake:.2f}{prior}"

    @property
    def scale(self) -> str:
        """Where the verdicts begin, and how many real faces score as high."""
        alarms = f"{_percent(self.fpr)} of real validation faces"
        begin = f"{WORDS[FAKE]} from {self.threshold:.2f} on (as {alarms})"
        clear = f", {CLEAR} below {self.clear_below:.2f}" if self.clear_below else ""
        return f"{begin}{clear}; {self.false_alarm_rate.words}"

    def at_prior(self, prior: float) -> Verdict:
        """The same verdict, with p_fake for another share of fakes among all faces, 0 to 1.

        p_fake is a posterior probability: its log-odds move by those of the prior (Saerens et al.,
        Neural Computation 2002). The order of faces stays, and so does every verdict.
        """
        if self.error or prior == self.prior:
            return self
        if self.prior is None:
            raise ValueError("p_fake is a rank among real faces here; no prior changes it")
        shift = float(logit(prior) - logit(self.prior))

        def moved(p: float) -> float:
            return p if p <= 0 or p >= 1 else float(expit(logit(p) + shift))

        clip = dict(self.clip)
        if clip:
            clip |= {name: round(moved(clip[name]), 4) for name in ("low", "high")}
            clip["p_fake"] = [round(moved(p), 4) for p in clip["p_fake"]]
        return replace(
            self,
            p_fake=moved(self.p_fake),
            threshold=moved(self.threshold),
            clear_below=moved(self.clear_below),
            baseline_logit=self.baseline_logit + shift,
            clip=clip,
            worst_frame=self.worst_frame and self.worst_frame.at_prior(prior),
            prior=prior,
        )

    @property
    def in_frames(self) -> str:
        """Which person of a video, and in how many frames."""
        frames = f"{len(self.clip['frames'])} of {self.clip['frames_looked_at']} frames"
        return f"person {self.face + 1}, in {frames}"

    @property
    def unreadable(self) -> str:
        """How many frames of a video could not be read, and why; empty where all were."""
        clip = self.clip or {}
        if not (lost := clip.get("frames_unreadable")):
            return ""
        because = for_screen(clip["unreadable_because"])
        return f"{lost} of {clip['frames_asked']} frames could not be read ({because})"

    @property
    def warnings(self) -> list[str]:
        found = [self.unreadable] if self.unreadable else []
        found += [f"Note: {note}" for note in self.notes]
        found += [f"Cannot tell: {reason}" for reason in self.reasons_to_abstain]
        overall = self.quality.get("overall", "good")
        return found if overall == "good" else [*found, f"Careful: {overall}"]

    def to_text(self) -> str:
        """For the screen: a headline, then warnings and reasons, indented."""
        path = for_screen(self.path)
        if self.error:
            return f"{path}: not scored: {for_screen(self.error)}"
        face = f" (face {self.face + 1})" if self.face else ""
        lines = [f"    {text}" for text in [*self.warnings, self.meaning] if text]
        if clip := self.clip:
            face = f" ({self.in_frames})"
            frame, seconds = clip["worst"]["frame"], clip["worst"]["seconds"]
            time = f"frame {frame + 1}" if seconds is None else f"{seconds:.1f} s"
            interval = f"{clip['low']:.2f} to {clip['high']:.2f}"
            lines.insert(0, f"    mean over the frames, 95% {interval}; highest at {time}:")
        sentences = [reason.sentence for reason in self.reasons] or ["no single reason"]
        headline = f"{path}{face}: {self.words}  {self.p_words}"
        lines.insert(0, f"    {self.scale}")
        found = [headline, *lines, *(f"  - {sentence}" for sentence in sentences)]
        if self.reference:
            found += [f"  {self.reference.headline}"]
            found += [f"  - {sentence}" for sentence in self.reference.sentences]
        return "\n".join(found)

    def to_json(self, whole: bool = False) -> dict:
        """JSON-ready. whole: with regions, pairs and families; in a video of the worst frame."""
        rate = self.false_alarm_rate
        row = {
            "path": self.path,
            "face": self.face,
            "p_fake": self.p_fake,
            "verdict": self.verdict,
            "doubts": self.reasons_to_abstain,
            "quality": self.quality,
            "reasons": [asdict(reason) for reason in self.reasons],
            "error": self.error,
            "notes": self.notes,
            "box": [round(x, 1) for x in self.box],
            "threshold": self.threshold,
            "nothing_found_below": self.clear_below,
            "prior": self.prior,
            "meaning": self.meaning,
            "rarity": rate and asdict(rate) | {"words": rate.words},
        }
        if self.clip:
            row["clip"] = self.clip
        if self.reference:
            row["reference"] = self.reference.to_json()
        if not whole or self.error:
            return row
        row["record"] = self.record
        if self.worst_frame is not None:
            return row | {"worst_frame": self.worst_frame.to_json(whole=True)}
        return row | {
            "families": {name: round(value, 4) for name, value in self.families.items()},
            "usual": round(self.baseline_logit, 4),
            "regions": [region.to_json() for region in self.regions],
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def to_csv(self) -> dict:
        """One row of `CSV_COLUMNS`: unknown values are empty, sentences are joined by ` | `."""
        rate, clip, found = self.false_alarm_rate, self.clip or {}, self.reference
        row = self.to_json() | {
            "p_fake": "" if self.p_fake is None else f"{self.p_fake:.4f}",
            "doubts": " | ".join(self.reasons_to_abstain),
            "quality": "; ".join(f"{name}={value}" for name, value in self.quality.items()),
            "reasons": " | ".join(reason.sentence for reason in self.reasons),
            "threshold": "" if self.p_fake is None else f"{self.threshold:.4f}",
            "false_alarm_rate": "" if rate is None else f"{rate.share:.4f}",
            "frames_asked": clip.get("frames_asked", ""),
            "frames_unreadable": clip.get("frames_unreadable", ""),
            "unreadable_because": clip.get("unreadable_because", ""),
            "notes": " | ".join(self.notes),
            "nothing_found_below": "" if self.clear_below is None else f"{self.clear_below:.4f}",
            "person": found.person.name if found else "",
            "photographs": len(found.person.used) if found else "",
            "p_conflict": found.conflict_words if found else "",
            "pattern": found.pattern if found else "",
            "pattern_because": " | ".join(found.sentences) if found else "",
        }
        cells = {name: "" if row[name] is None else row[name] for name in CSV_COLUMNS}
        return {k: for_table(cell) if isinstance(cell, str) else cell for k, cell in cells.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def outside_limits(
    quality: Mapping[str, float], missing: float, distance: float, limits: Mapping[str, float]
) -> list[str]:
    """Reasons to abstain: outside the abstention limits.

    missing: share of the features without a value; distance: `Head.distance`; limits: percentiles of
    the training set, of them and every quality.
    """
    found = []
    for name, (poor, sentence) in LIMITS.items():
        value, limit = abs(quality[name]), limits.get(name)
        if limit is not None and (value < limit if poor == "below" else value > limit):
            found.append(sentence.format(value))
    found += [MISSING] * (missing > limits.get("missing", 1))
    return [*found, UNLIKE_TRAINING] if distance > limits["distance"] else found


def out_of_distribution(reasons_to_abstain: Sequence[str]) -> bool:
    """Whether a face lies outside the abstention limits; the score alone does not tell."""
    return any(reason not in BY_SCORE for reason in reasons_to_abstain)


def decide(
    p_fake: float, threshold: float, clear_below: float, reasons_to_abstain: list[str]
) -> tuple[str, list[str]]:
    """The verdict, and all reasons to abstain. clear_below: as of `Verdict`."""
    if reasons_to_abstain:
        return UNSURE, reasons_to_abstain
    if p_fake >= threshold:
        return FAKE, []
    if p_fake < clear_below:
        return CLEAR, []
    return UNSURE, [BETWEEN if clear_below else NEVER_CLEAR]
