"""Action units that contradict each other: a mouth that smiles under eyes that do not.

Action units are facial muscles at work, numbered by FACS (Ekman, Friesen & Hager, Facial Action Coding System, 2002). Some go
together when a face means what it shows, others do not. `CONTRADICTIONS` lists pairs of groups; a column is how far the mean
activations of the two groups lie apart, so it is 0 where both are at rest or both at work, or how far both are at work.

Each is asked of the whole face; and where one group lies in the upper and the other in the lower face, also of what the
upper face alone shows of the one and the lower face alone of the other: `pyfeat.au/AU06-AU12/upper~lower`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.regions import REGIONS

FACS = "Ekman, Friesen & Hager 2002"
EMFACS = "EMFACS: Friesen & Ekman 1983; Matsumoto & Ekman, Scholarpedia 2008"
# By where FACS describes the muscles: brows and eyes, and everything below.
UPPER = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU43")
LOWER = (
    *("AU09", "AU10", "AU11", "AU12", "AU14", "AU15", "AU17"),
    *("AU20", "AU23", "AU24", "AU25", "AU26", "AU28"),
)
NAMES = {
    "AU01": "inner brows raised",
    "AU02": "outer brows raised",
    "AU04": "brows lowered",
    "AU05": "upper lids raised",
    "AU06": "cheeks raised",
    "AU07": "lids tightened",
    "AU09": "nose wrinkled",
    "AU10": "upper lip raised",
    "AU12": "lip corners pulled up",
    "AU15": "lip corners pulled down",
    "AU17": "chin raised",
    "AU20": "lips stretched",
    "AU23": "lips tightened",
    "AU24": "lips pressed",
    "AU25": "lips parted",
    "AU26": "jaw dropped",
}


@dataclass(frozen=True)
class Contradiction:
    """Two groups that agree on a face that means what it shows.

    one, other: action units, or the name of an emotion, of which the expert gives the probability. source: who says so.
    label: the column's name where listing the units would be long. apart: the contradiction is that one group works and the
    other does not (how far their means lie apart); else, that both do (the smaller of their means).
    """

    one: tuple[str, ...]
    other: tuple[str, ...]
    source: str
    label: str = ""
    apart: bool = True

    @property
    def name(self) -> str:
        return (
            self.label or f"{'+'.join(self.one)}{'-' if self.apart else '&'}{'+'.join(self.other)}"
        )

    @property
    def upper_and_lower(self) -> bool:
        """Whether the one group lies in the upper face and the other in the lower."""
        return set(self.one) <= set(UPPER) and set(self.other) <= set(LOWER)


CONTRADICTIONS = (
    Contradiction(UPPER, LOWER, FACS, "upper-lower"),
    Contradiction(
        ("AU06",),
        ("AU12",),
        "the Duchenne smile: Ekman, Davidson & Friesen, J. Pers. Soc. Psychol. 1990",
    ),
    Contradiction(("AU01", "AU04"), ("AU15",), f"sadness, {EMFACS}"),
    Contradiction(("AU01", "AU02", "AU05"), ("AU25", "AU26"), f"surprise, {EMFACS}"),
    Contradiction(
        ("AU09",), ("AU10",), "disgust: Rozin, Lowery & Ebert, J. Pers. Soc. Psychol. 1994"
    ),
    Contradiction(
        ("AU23", "AU24"),
        ("AU12",),
        "tense lips under a smile: Ekman, Friesen & O'Sullivan, J. Pers. Soc. Psychol. 1988",
        apart=False,
    ),
    # The expression that a face is said to show, against the muscles that express it.
    Contradiction(("AU06", "AU12"), ("Happy",), EMFACS),
    Contradiction(("AU01", "AU04", "AU15"), ("Sad",), EMFACS),
    Contradiction(("AU01", "AU02", "AU05", "AU26"), ("Surprise",), EMFACS),
    Contradiction(("AU01", "AU02", "AU04", "AU05", "AU07", "AU20", "AU26"), ("Fear",), EMFACS),
    Contradiction(("AU09", "AU15", "AU17"), ("Disgust",), EMFACS),
    Contradiction(("AU04", "AU05", "AU07", "AU23"), ("Anger",), EMFACS),
)
BY_NAME = {row.name: row for row in CONTRADICTIONS}


def contradictions(
    arrays: Mapping[str, np.ndarray], outputs: Mapping[str, Mapping]
) -> dict[str, np.ndarray]:
    """The columns of every output whose components are action units.

    Those of an expression need an output of the same expert that has it as a class. arrays: "expert.output" -> (N, R, D)
    activations and probabilities in [0, 1]. outputs: the table of a dump's meta.json. Returns: name -> (N,) in [0, 1], NaN
    where an answer is missing.
    """
    columns: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        if output["kind"] != "vector" or not set(output["names"]) & set(UPPER + LOWER):
            continue
        known = {
            unit: np.asarray(arrays[name][..., i], np.float32)
            for i, unit in enumerate(output["names"])
        }
        expert = name.partition(".")[0]
        for sibling, other in outputs.items():
            if other["kind"] == "distribution" and sibling.partition(".")[0] == expert:
                known |= {
                    emotion: arrays[sibling][..., i] for i, emotion in enumerate(other["names"])
                }
        full, upper, lower = (REGIONS.index(region) for region in ("full", "upper", "lower"))
        for row in CONTRADICTIONS:
            one, other = _mean(row.one, known), _mean(row.other, known)
            if one is None or other is None:
                continue
            measure = (lambda a, b: np.abs(a - b)) if row.apart else np.minimum
            columns[f"{name}/{row.name}/full"] = measure(one[:, full], other[:, full])
            if row.upper_and_lower:
                columns[f"{name}/{row.name}/upper~lower"] = measure(one[:, upper], other[:, lower])
    return columns


def _mean(wanted: tuple[str, ...], known: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Mean activation (N, R) of a group; None where the expert lacks one of it. Of a half of the face, those that it has."""
    group = [unit for unit in wanted if unit in known] if wanted in (UPPER, LOWER) else list(wanted)
    if not group or not set(group) <= set(known):
        return None
    return np.mean([np.asarray(known[unit], np.float32) for unit in group], axis=0)


def words(name: str) -> tuple[str, str]:
    """The two groups of a contradiction as a person reads them. name: of `BY_NAME`."""
    if name == "upper-lower":
        return "muscles of the upper face", "muscles of the lower face"
    groups = (BY_NAME[name].one, BY_NAME[name].other)
    return tuple(
        " and ".join(f"{NAMES[u]} ({u})" if u in NAMES else f"a {u.lower()} look" for u in g)
        for g in groups
    )
