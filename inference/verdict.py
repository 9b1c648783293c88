"""What is said of one face: a verdict, how sure it is, and everything that stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy.special import betaincinv

from features.disagreement import Pair
from features.explain import Reason

COLUMNS = ("path", "face", "p_fake", "verdict", "doubts", "quality", "reasons", "error")  # of a CSV
REAL, FAKE, UNSURE = "real", "fake", "cannot tell"
LIMITS = {  # quality -> which side is poor, and how to say it
    "face_px": ("low", "the face is only {value:.0f} px wide"),
    "sharpness": ("low", "the face is blurred (sharpness {value:.0f})"),
    "score": ("low", "it hardly looks like a face to the face finder ({value:.2f})"),
    "yaw": ("high", "the face is turned away by {value:.0f} degrees"),
}


@dataclass(frozen=True)
class Region:
    """One region of the face. disagreement: see features/disagreement.py; rank: the share of real faces in which the region
    disagrees less, 0 to 1; both None for the whole face. answers: what each expert says of it, "expert.output" -> class
    probabilities by name, or one number in the output's unit."""

    name: str
    disagreement: float | None
    rank: float | None
    predictions: dict[str, float | dict[str, float]]

    def to_json(self) -> dict:
        return {
            "region": self.name,
            **{key: value for key, value in asdict(self).items() if key != "name"},
        }


@dataclass(frozen=True)
class Rarity:
    """The share of real faces that score at least as high, with its 95% interval (Clopper & Pearson, 1934), 0 to 1."""

    share: float
    low: float
    high: float

    @property
    def words(self) -> str:
        if self.share > 0.5:
            return f"{self.share:.0%} of real faces score as high or higher"
        least, most = f"1 in {1 / self.high:.0f}", f"1 in {1 / max(self.low, 1e-9):.0f}"
        few = f"fewer than 1 in {1 / self.high:.0f}"
        if self.share == 0:
            return f"{few} real faces score as high"
        return f"1 in {1 / self.share:.0f} real faces scores as high ({least} to {most})"


@dataclass
class Verdict:
    """What is said of one face, or why nothing can be said of one picture (`error`).

    p_fake: calibrated probability, 0 to 1; of a person in a video the mean over the frames. verdict: `real`, `fake` or `cannot
    tell`; doubts: why it cannot be told. quality: what the view of the face is like (px, grey levels squared, degrees,
    probability), and `overall`, in words. rarity: how usual such a p_fake is among real faces. reasons: up to three. regions:
    all eight. pairs: of every embedding. families: what each family of experts adds to the logit of p_fake; with `usual`, that
    of a usual real face (of boosted trees: the mean over training faces), they sum to it.
    """

    path: str
    face: int | None = None
    p_fake: float | None = None
    verdict: str = ""
    doubts: list[str] = field(default_factory=list)
    quality: dict[str, float | str] = field(default_factory=dict)
    rarity: Rarity | None = None
    reasons: list[Reason] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    families: dict[str, float] = field(default_factory=dict)
    usual: float | None = None
    threshold: float | None = None
    error: str = ""
    clip: dict = field(
        default_factory=dict
    )  # of a video: every frame's score, and the interval of the mean
    worst: Verdict | None = field(
        default=None, repr=False
    )  # of a video: about the frame with the highest score
    identity: np.ndarray | None = field(
        default=None, repr=False
    )  # of the whole face, to tell people apart
    box: tuple[float, ...] = ()  # x0, y0, x1, y1 in pixels of the picture
    aligned: np.ndarray | None = field(
        default=None, repr=False
    )  # (112, 112, 4) uint8 RGBA, for pictures

    @property
    def score(self) -> str:
        """p_fake in words, beside the threshold and real faces."""
        return f"p_fake {self.p_fake:.2f}, fake from {self.threshold:.2f} on; {self.rarity.words}"

    def to_json(self, whole: bool = False) -> dict:
        """JSON-ready. whole: with what stands behind it, region by region; of a person in a video behind the most suspect frame,
        under `worst_frame`."""
        row = {name: getattr(self, name) for name in COLUMNS}
        row |= {
            "reasons": [reason.to_json() for reason in self.reasons],
            "box": [round(x, 1) for x in self.box],
        }
        row |= {"clip": self.clip} if self.clip else {}
        if not whole or self.error:
            return row
        if self.worst is not None:
            return row | {"worst_frame": self.worst.to_json(whole=True)}
        return row | {
            "threshold": self.threshold,
            "rarity": asdict(self.rarity) | {"words": self.rarity.words} if self.rarity else None,
            "families": {name: round(value, 4) for name, value in self.families.items()},
            "usual": round(self.usual, 4),
            "regions": [region.to_json() for region in self.regions],
            "pairs": [pair.to_json() for pair in self.pairs],
        }

    def to_csv(self) -> dict:
        """The same row in flat text: what is unknown is empty, reasons and doubts are parted by ` | `."""
        row = {name: "" if getattr(self, name) is None else getattr(self, name) for name in COLUMNS}
        row["quality"] = "; ".join(f"{name}={value}" for name, value in self.quality.items())
        row["reasons"] = " | ".join(reason.sentence for reason in self.reasons)
        row["doubts"] = " | ".join(self.doubts)
        return row | {"p_fake": "" if self.p_fake is None else f"{self.p_fake:.4f}"}


def rarity(p_fake: float, real_scores: np.ndarray) -> Rarity:
    """How usual a score is among real validation faces. real_scores: (N,) their p_fake."""
    count, total = int((real_scores >= p_fake).sum()), len(real_scores)
    low = float(betaincinv(count, total - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 0.975)) if count < total else 1.0
    return Rarity(count / total, low, high)


def beyond(quality: Mapping[str, float], distance: float, seen: Mapping[str, float]) -> list[str]:
    """Why a face is not one of those that a detector can judge, in words; nothing where it is.

    quality: `data.quality.QUALITIES` of the face. distance: how far its columns lie from those of training faces
    (`Head.distance`). seen: limits of the same names, and of `distance`, from the checkpoint.
    """
    found = []
    for name, (side, words) in LIMITS.items():
        value = abs(quality[name])
        if name in seen and (value < seen[name] if side == "low" else value > seen[name]):
            what = "less" if side == "low" else "more"
            found.append(
                f"{words.format(value=value)}, {what} than 99 of 100 faces that the detector learned from"
            )
    if distance > seen["distance"]:
        found.append("the face as a whole is unlike the faces that the detector learned from")
    return found


LEANS = "it leans towards fake, and too many real faces do as well"


def unlike(doubts: list[str]) -> bool:
    """Whether a face is not one of those that can be judged; a score that only leans is about one that can."""
    return any(not doubt.startswith(LEANS) for doubt in doubts)


def decide(
    p_fake: float, threshold: float, doubts: list[str], calibrated: bool
) -> tuple[str, list[str]]:
    """The verdict, and all doubts. A score between one half and the threshold leans towards fake, and that is all.

    calibrated: whether p_fake is a probability (of `oneclass` it is a rank among real faces, of which half lie above .5).
    """
    if doubts:
        return UNSURE, doubts
    if p_fake >= threshold:
        return FAKE, []
    if calibrated and p_fake >= 0.5:
        return UNSURE, [f"{LEANS} (fake from {threshold:.2f} on)"]
    return REAL, []
