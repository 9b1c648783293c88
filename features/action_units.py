"""Action units that contradict each other: a mouth that smiles under eyes that do not.

Action units are facial muscles, numbered by FACS (Ekman, Friesen & Hager, Facial Action Coding
System, 2002). `CONTRADICTIONS` lists pairs of groups; a column is the difference of their mean
activations, or, for groups that exclude each other, the smaller of the two means. Each is measured
on the whole face, and where one group lies in the upper and the other in the lower face, also
between these regions: `pyfeat.au/AU06-AU12/upper~lower`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.measures import Arrays, Outputs
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
    """Two groups that are consistent in a genuine expression."""

    one: tuple[str, ...]
    other: tuple[str, ...]  # or the name of an emotion, for its probability
    source: str
    label: str = ""  # the column's name, where listing the units would be long
    apart: bool = True  # inconsistent where one group works and the other does not; else, both do

    @property
    def name(self) -> str:
        sign = "-" if self.apart else "&"
        return self.label or f"{'+'.join(self.one)}{sign}{'+'.join(self.other)}"

    @property
    def upper_and_lower(self) -> bool:
        return set(self.one) <= set(UPPER) and set(self.other) <= set(LOWER)

    def measure(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.abs(one - other) if self.apart else np.minimum(one, other)


DUCHENNE = "the Duchenne smile: Ekman, Davidson & Friesen, J. Pers. Soc. Psychol. 1990"
DISGUST = "disgust: Rozin, Lowery & Ebert, J. Pers. Soc. Psychol. 1994"
TENSE = "tense lips under a smile: Ekman, Friesen & O'Sullivan, J. Pers. Soc. Psychol. 1988"
CONTRADICTIONS = (
    Contradiction(UPPER, LOWER, FACS, "upper-lower"),
    Contradiction(("AU06",), ("AU12",), DUCHENNE),
    Contradiction(("AU01", "AU04"), ("AU15",), f"sadness, {EMFACS}"),
    Contradiction(("AU01", "AU02", "AU05"), ("AU25", "AU26"), f"surprise, {EMFACS}"),
    Contradiction(("AU09",), ("AU10",), DISGUST),
    Contradiction(("AU23", "AU24"), ("AU12",), TENSE, apart=False),
    # The predicted expression, against the muscles that express it.
    Contradiction(("AU06", "AU12"), ("Happy",), EMFACS),
    Contradiction(("AU01", "AU04", "AU15"), ("Sad",), EMFACS),
    Contradiction(("AU01", "AU02", "AU05", "AU26"), ("Surprise",), EMFACS),
    Contradiction(("AU01", "AU02", "AU04", "AU05", "AU07", "AU20", "AU26"), ("Fear",), EMFACS),
    Contradiction(("AU09", "AU15", "AU17"), ("Disgust",), EMFACS),
    Contradiction(("AU04", "AU05", "AU07", "AU23"), ("Anger",), EMFACS),
)
BY_NAME = {row.name: row for row in CONTRADICTIONS}


def contradictions(arrays: Arrays, outputs: Outputs) -> dict[str, np.ndarray]:
    """The columns of every output whose components are action units: name -> (N,) in [0, 1].

    Those with an emotion need an output of the same expert that has it as a class.
    """
    full, upper, lower = (REGIONS.index(region) for region in ("full", "upper", "lower"))
    columns: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        if output["kind"] != "vector" or not set(output["names"]) & set(UPPER + LOWER):
            continue
        emotions = [
            sibling
            for sibling, other in outputs.items()
            if other["kind"] == "distribution"
            and sibling.partition(".")[0] == name.partition(".")[0]
        ]
        known = {
            component: np.asarray(arrays[source][..., i], np.float32)
            for source in (name, *emotions)
            for i, component in enumerate(outputs[source]["names"])
        }
        for row in CONTRADICTIONS:
            one, other = _mean(row.one, known), _mean(row.other, known)
            if one is None or other is None:
                continue
            columns[f"{name}/{row.name}/full"] = row.measure(one[:, full], other[:, full])
            if row.upper_and_lower:
                between = row.measure(one[:, upper], other[:, lower])
                columns[f"{name}/{row.name}/upper~lower"] = between
    return columns


def _mean(wanted: tuple[str, ...], known: Arrays) -> np.ndarray | None:
    """Mean activation (N, R) of a group; None where a unit is unknown (UPPER, LOWER: all units)."""
    group = [unit for unit in wanted if unit in known]
    if not group or (len(group) < len(wanted) and wanted not in (UPPER, LOWER)):
        return None
    return np.mean([known[unit] for unit in group], axis=0)


def words(name: str) -> tuple[str, str]:
    """The two groups of a contradiction in words."""
    if name == "upper-lower":
        return "muscles of the upper face", "muscles of the lower face"
    return tuple(
        " and ".join(f"{NAMES[u]} ({u})" if u in NAMES else f"a {u.lower()} look" for u in group)
        for group in (BY_NAME[name].one, BY_NAME[name].other)
    )
