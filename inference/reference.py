"""Is this really them? A face against genuine photographs of the person whom it claims to show.

The photographs become one `Person` (inference/person.py); a face is compared with them region by
region, and the answer is a `Reference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import numpy as np
import torch

from data.dump import NO_FACE
from data.faces import FaceCrops, FaceCutter
from data.images import ImageError
from data.names import for_screen
from data.reader import Reader
from features.reference import (
    CONSISTENT,
    OTHER_FACE,
    OTHER_HEAD,
    PATTERNS,
    SOMEBODY_ELSE,
)
from features.regions import REGIONS, Crop
from inference.bundled import comparison_for
from inference.comparison import CANNOT_TELL, Comparison, beyond
from inference.person import (
    SOMEBODY,
    Faces,
    Given,
    Person,
    person_of,
    pixels_of,
    same_picture,
)
from models.ensemble import Ensemble
from models.person_net import HEAD, head_mask

MOST_FACES = 5  # of a photograph, among which the person is looked for
PARTS = {
    "full": "the whole face",
    "upper": "eyes and forehead",
    "middle": "cheeks and nose",
    "lower": "mouth and chin",
    "left": "the left half",
    "right": "the right half",
    "inner": "the inner face",
    "outer": "hair, ears, jaw and neck",
}
SAYS = {
    CONSISTENT: "Inner face and head both fit {name}.",
    OTHER_FACE: "Hair, ears, jaw and neck fit {name} better than the inner face does.",
    OTHER_HEAD: "The inner face fits {name} better than hair, ears, jaw and neck do.",
    SOMEBODY_ELSE: "Neither the inner face nor hair, ears, jaw and neck fit {name}.",
    CANNOT_TELL: "Whether this is an untouched picture of {name} cannot be told.",
}
BETWEEN = "the likeness lies between that of genuine pictures and that of swaps and other people"
AMONG = "the picture, or a copy of it, is among the photographs"
POOR = "the photographs are too small, blurred, turned away or cut off"
NO_OUTPUT = "the comparison has no output for this face"
RARE = 0.05  # share of genuine pairs
TOLD = ("inner", "outer", "full")  # regions with a sentence
# Limit -> sentence.
DOUBTS = {
    "face_px": "the face is only {:.0f} px wide",
    "sharpness": "the face is too blurred ({:.0f})",
    "noise": "the picture is too noisy (sharpness {:.0f})",
    "yaw": "the face is turned by {:.0f} degrees",
    "seen": "only {:.0%} of hair, ears, jaw and neck are in the picture",
}


@dataclass(frozen=True)
class Likeness:
    """One region of a face and of the photographs.

    similarity: cosine; genuine: share of genuine pairs that are less alike; different: share of pairs
    of different people that are more alike; the rest: the 5th and 95th percentile of either.
    """

    region: str
    similarity: float
    genuine: float
    different: float
    genuine_low: float
    genuine_high: float
    different_low: float
    different_high: float

    @property
    def sentence(self) -> str:
        part = PARTS[self.region]
        text = f"{part[0].upper()}{part[1:]}: similarity {self.similarity:.2f}"
        if self.genuine >= RARE:
            return f"{text}; more alike than {_of(self.genuine)} genuine pairs"
        rare = f"less alike than {_of(1 - self.genuine)} genuine pairs"
        others = f"than {_of(1 - self.different)} pairs of different people"
        return f"{text}; {rare}, more alike {others}"


def _of(share: float) -> str:
    """`62 of 100`; `199 of 200` from there on, and `hardly any` below one of 200."""
    if share < 0.005:
        return "hardly any"
    return "199 of 200" if share >= 0.995 else f"{round(100 * share)} of 100"


@dataclass
class Reference:
    """How a face fits genuine photographs of a person.

    Attributes:
        p_conflict: probability that it is no untouched picture of the person, if half of such pictures
            are none: another face on this head, this face on another head and somebody else alike.
        pattern: of `PATTERNS`, or `CANNOT_TELL`, with `doubts`.
        probabilities: of each of `PATTERNS`.
        fpr: share of genuine pictures that reach `threshold`.
        view: (128, 128, 3) uint8 RGB of `HEAD`.
    """

    person: Person
    p_conflict: float
    pattern: str
    probabilities: dict[str, float]
    regions: list[Likeness]
    threshold: float
    fpr: float
    doubts: list[str] = field(default_factory=list)
    view: np.ndarray | None = field(default=None, repr=False)

    @property
    def of(self) -> str:
        """The photographs in words."""
        count = len(self.person.used)
        number = "one genuine photograph" if count == 1 else f"{count} genuine photographs"
        return f"{number} of {for_screen(self.person.name)}"

    @property
    def conflict_words(self) -> str:
        return "" if np.isnan(self.p_conflict) else f"{self.p_conflict:.2f}"

    @property
    def headline(self) -> str:
        """The pattern, the photographs and p_conflict, in a line."""
        p = f"; p_conflict {self.conflict_words}" if self.conflict_words else ""
        return f"Against {self.of}: {self.pattern}{p}"

    @property
    def sentences(self) -> list[str]:
        """Most important first."""
        name = for_screen(self.person.name)
        found = [SAYS[self.pattern].format(name=name)]
        found += [f"Cannot tell: {doubt}." for doubt in self.doubts]
        by_name = {region.region: region for region in self.regions}
        known = [by_name[name] for name in TOLD if name in by_name]
        found += [f"{each.sentence}." for each in known if not np.isnan(each.similarity)]
        return found

    def likeness(self, region: str) -> Likeness | None:
        return next((each for each in self.regions if each.region == region), None)

    def to_json(self) -> dict:
        return {
            "person": self.person.name,
            "p_conflict": None if np.isnan(self.p_conflict) else round(self.p_conflict, 4),
            "pattern": self.pattern,
            "doubts": self.doubts,
            "sentences": self.sentences,
            "probabilities": {k: round(p, 4) for k, p in self.probabilities.items() if p == p},
            "threshold": round(self.threshold, 4),
            "photographs": [x.name for x in self.person.used],
            "photographs_left_out": self.person.left_out,
            "notes": self.person.notes,
            "regions": [
                {k: v if isinstance(v, str) else round(v, 4) for k, v in asdict(region).items()}
                for region in self.regions
                if region.similarity == region.similarity
            ],
        }


class Comparer:
    """Compares faces with people. comparison: without one, a bundled one.

    Raises: FileNotFoundError, ValueError: unusable file or weights.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        weights_dir: Path | None = None,
        comparison: Path | None = None,
    ) -> None:
        comparison = comparison or comparison_for(weights_dir)
        self.comparison = Comparison.load(comparison)
        weights = self.comparison.weights
        self.ensemble = Ensemble(tuple(weights), device, weights_dir=weights_dir)
        if self.ensemble.weights != weights:
            other = ", ".join(x for x in weights if weights[x] != self.ensemble.weights[x])
            raise ValueError(
                f"{comparison}: made with other weights of {other}; restore them, or make it again "
                "(python -m training.reference)"
            )
        self.crops: tuple[Crop, ...] = tuple({HEAD, *self.ensemble.crops.values()})
        self.cutter = FaceCutter("all", crops=self.crops, max_faces=MOST_FACES, turned=True)

    def outputs(self, crops: FaceCrops) -> dict[str, np.ndarray]:
        """output -> (F, R, D) float32."""
        found = self.ensemble(crops.views)
        return {name: found[name].float().numpy() for name in self.comparison.outputs}

    def person(
        self, photographs: Sequence[Given], name: str = SOMEBODY, reader: Reader | None = None
    ) -> Person:
        """Raises: ImageError: none of the photographs can be used, or they show several people."""
        reader, names, faces = reader or Reader(), [], []
        for number, given in enumerate(photographs, 1):
            told = str(given) if isinstance(given, Path | str) else f"photograph {number}"
            names.append(for_screen(told))
            try:
                image = pixels_of(given, Path(told), reader)
            except ImageError as error:
                faces.append(error.reason)
                continue
            crops = self.cutter([image])
            if not len(crops):
                faces.append(NO_FACE)
                continue
            views = crops.views[HEAD][:, :3].permute(0, 2, 3, 1).numpy().copy()
            faces.append(Faces(self.outputs(crops), views, self.doubts_of(crops)))
        if not names:
            raise ImageError(Path("photographs"), "none were given; name some of the person")
        if not any(isinstance(each, Faces) for each in faces):
            told = "; ".join(f"{x}: {why}" for x, why in zip(names, faces, strict=True))
            raise ImageError(
                Path(names[0]),
                f"no photograph of {name} can be used ({told})",
            )
        return person_of(name, names, faces, self.comparison)

    def compare(self, crops: FaceCrops, person: Person) -> list[Reference]:
        """One for each face. crops: with `self.crops`."""
        found, fit = self.outputs(crops), self.comparison.of(len(person.used))
        values = self.comparison.compared(found, person.embedding)
        probabilities, (genuine, different) = fit.probabilities(values), fit.ranks(values)
        quantiles = [(x, q) for x in (fit.genuine, fit.different) for q in (0.05, 0.95)]
        ranges = np.stack([np.quantile(x, q, axis=0) for x, q in quantiles])
        places = {region: self.comparison.column(region) for region in REGIONS}
        places = {region: place for region, place in places.items() if place is not None}
        doubts, answers = self.doubts_of(crops), []
        for row, (own, p) in enumerate(zip(values, probabilities, strict=True)):
            face = {name: x[row] for name, x in found.items()}
            every = [{k: x[i] for k, x in person.each.items()} for i in range(len(person.used))]
            if any(same_picture(face, one, self.comparison) for one in every if one):
                doubts[row].append(AMONG)
            doubts[row] += [POOR] * person.poor + [NO_OUTPUT] * bool(np.isnan(p).any())
            numbers = np.stack([own, genuine[row], different[row], *ranges])
            regions = [
                Likeness(name, *numbers[:, place].tolist()) for name, place in places.items()
            ]
            view = crops.views[HEAD][row, :3].cpu().permute(1, 2, 0).numpy().copy()
            answers.append(self.answer(person, p, regions, doubts[row], view))
        return answers

    def doubts_of(self, crops: FaceCrops) -> list[list[str]]:
        """Of each face, what is outside the limits of the comparison."""
        mask, found = torch.from_numpy(head_mask()), []
        for row, alpha in enumerate(crops.views[HEAD][:, 3].cpu()):
            quality = {
                name: abs(float(getattr(crops, name)[row]))
                for name in ("face_px", "sharpness", "yaw")
            }
            seen = float((alpha > 127)[mask].float().mean())
            found.append(self.doubts({**quality, "seen": seen}))
        return found

    def over(self, frames: Sequence[Reference]) -> Reference:
        """Of a person in a clip: means over the frames. Doubtful where most of the frames are."""
        known = [found for found in frames if not np.isnan(found.p_conflict)] or list(frames)
        probabilities = np.mean([list(found.probabilities.values()) for found in known], axis=0)
        regions = [
            Likeness(each[0].region, *np.mean([astuple(one)[1:] for one in each], axis=0).tolist())
            for each in zip(*(found.regions for found in known), strict=True)
        ]
        unsure = [found.doubts for found in frames if found.doubts and found.doubts != [BETWEEN]]
        doubts = []
        if 2 * len(unsure) > len(frames):
            doubts = [f"in {len(unsure)} of {len(frames)} frames {unsure[0][0]}"]
        worst = max(known, key=lambda found: found.p_conflict)
        return self.answer(worst.person, probabilities, regions, doubts, worst.view)

    def answer(
        self,
        person: Person,
        probabilities: np.ndarray,
        regions: list[Likeness],
        doubts: list[str],
        view: np.ndarray | None,
    ) -> Reference:
        """probabilities: (4,)."""
        fit = self.comparison.of(len(person.used))
        pattern = CANNOT_TELL if doubts else fit.pattern(probabilities)
        if pattern == CANNOT_TELL and not doubts:
            doubts = [BETWEEN]
        named = dict(zip(PATTERNS, map(float, probabilities), strict=True))
        fpr = float(self.comparison.about.get("fpr", np.nan))
        conflict = 1 - float(probabilities[0])
        return Reference(
            person, conflict, pattern, named, regions, fit.threshold, fpr, doubts, view
        )

    def doubts(self, quality: Mapping[str, float]) -> list[str]:
        found, quality = [], {**quality, "noise": quality["sharpness"]}
        for name, limit in self.comparison.limits.items():
            if beyond(quality[name], name, limit):
                found.append(DOUBTS[name].format(quality[name]))
        return found
