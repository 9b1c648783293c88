"""From contributions to sentences: why a face looks fake, or real.

A reason is about one attribute and two regions. Columns that measure the same (KL both ways, JS,
the residual) count together. Put into words is for a fake the most unusual one, for a real face the one
that contributes most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from features.action_units import BY_NAME, words
from features.columns import directions

# Of each feature over real faces: the rows of a checkpoint's `reference`.
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
LOW, MEDIAN, HIGH = PERCENTILES.index(5), PERCENTILES.index(50), PERCENTILES.index(95)

COLUMN = re.compile(
    r"(?P<output>[^/]+)/(?P<measure>[^/]+)/(?P<first>[a-z]+)(?:[~>](?P<second>[a-z]+))?"
)

# {a} and {b} are regions, {what} the attribute; by measure, or by output where one has its own.
PHRASES = {
    "made": "how much the {a} {what}: {value}",
    "level": "{what} of the {a}: {value}",
    "reference": "{a} and photographs of the person: {what} similarity {value}",
    "cos": "{a} and {b}: {what} similarity {value}",
    "js": "{a} and {b}, {what}: JS divergence {value}",
    "kl": "{a} against {b}, {what}: KL divergence {value}",
    "diff": "{a} and {b}: {what} difference {value}",
    "l1": "{a} and {b}: mean {what} difference {value}",
    "expected": "{what} of the {b}, predicted from the {a}: prediction error {value}",
    "expected_cos": "{what} of the {b}, predicted from the {a}: similarity {value}",
}
WORDS = {
    "age_years": "apparent age (years)",
    "blendshapes": "muscle activation",
    "au": "action unit",
    "affect": "valence and arousal",
    "emotion": "expression",
    "embedding": "semantic embedding",
    "appearance": "appearance",
    "race": "apparent race",
    "gender": "apparent gender",
    "age": "apparent age",
    "source": "source",
    "altered": "forgery logit",
    "made": "looks made rather than photographed",
}
# Named where several experts have the same output.
EXPERT_WORDS = {
    "fairface": "FairFace",
    "arcface": "ArcFace",
    "facenet": "FaceNet",
    "clip": "CLIP",
    "pyfeat": "py-feat",
    "gend": "GenD",
    "gend_pe": "GenD, PE",
    "gend_dinov3": "GenD, DINOv3",
    "community_forensics": "Community Forensics",
    "community_forensics_224": "Community Forensics, 224 px",
}
REGION_WORDS = {"full": "whole face", "left": "left half", "right": "right half"}


@dataclass(frozen=True)
class Reason:
    """One column of a face, in words and numbers."""

    sentence: str
    feature: str
    value: float
    low: float  # 5th percentile of real faces
    high: float  # 95th
    regions: tuple[str, ...]
    contribution: float  # of the attribute and the regions to the logit; negative towards real


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _region(name: str) -> str:
    return REGION_WORDS.get(name, f"{name} face")


def sentence(column: str, value: float, low: float, high: float) -> str:
    """One column in words, with the range of nine in ten real faces."""
    parts, reals = COLUMN.fullmatch(column), f"real faces {_number(low)} to {_number(high)}"
    number, measure = _number(value), parts and parts["measure"]
    if measure not in PHRASES and measure not in BY_NAME:
        return f"{column}: {number} ({reals})"
    if not low <= value <= high:
        less, more = ("low", "high") if measure == "level" else ("similar", "different")
        consistent = (value > high) == (directions([column])[0] < 0)
        reals += f"; unusually {less if consistent else more}"
    first, second = _region(parts["first"]), _region(parts["second"]) if parts["second"] else ""
    if measure in BY_NAME:
        one, other = words(measure)
        other += f" in the {second}" if second else ""
        link, result = (
            ("against", "difference ") if BY_NAME[measure].apart else ("together with", "")
        )
        text = f"{first}, {one} {link} {other}: {result}{number}"
    else:
        expert, _, attribute = parts["output"].rpartition(".")
        source = f" (by {EXPERT_WORDS[expert]})" if expert in EXPERT_WORDS else ""
        what = WORDS.get(attribute, attribute) + source
        phrase = PHRASES.get(attribute, PHRASES[measure])
        text = phrase.format(a=first, b=second, what=what, value=number)
    return f"{text[0].upper()}{text[1:]} ({reals})"


def topic(column: str) -> tuple[str, ...]:
    """Expert output and regions of a column, whatever its measure and direction."""
    parts = COLUMN.fullmatch(column)
    if parts is None:
        return (column,)
    muscles = [parts["measure"]] if parts["measure"] in BY_NAME else []
    return (parts["output"].removesuffix("_years"), *muscles, *sorted(regions_in(column)))


def regions_in(column: str) -> tuple[str, ...]:
    """The regions in a column's name; none where it is no such name."""
    parts = COLUMN.fullmatch(column)
    return tuple(region for region in parts.group("first", "second") if region) if parts else ()


def reasons(
    names: list[str],
    values: np.ndarray,
    contributions: np.ndarray,
    reference: np.ndarray,
    fake: bool,
    count: int = 3,
) -> list[Reason]:
    """The strongest reasons for a verdict, strongest first.

    Reasons for `fake` increase the logit and lie outside the 5th to 95th percentile of real faces;
    reasons for `real` decrease it and lie in the middle half. Where no column does both,
    contribution alone decides. NaN is never a reason.

    values, contributions: (F,) of one face; reference: (7, F) percentiles of real faces.
    """
    sign = 1 if fake else -1
    toward = np.where(np.isnan(values), 0.0, sign * contributions)
    low, high = (LOW, HIGH) if fake else (PERCENTILES.index(25), PERCENTILES.index(75))
    inside = (values >= reference[low]) & (values <= reference[high])
    fitting = np.where(inside != fake, toward, 0.0)
    toward = np.maximum(fitting if (fitting > 0).any() else toward, 0.0)
    spread = np.maximum(reference[HIGH] - reference[LOW], 1e-9)
    unusual = np.abs(values - reference[MEDIAN]) / spread
    weight = toward * unusual if fake else toward
    topics: dict[tuple[str, ...], list[int]] = {}
    for column, name in enumerate(names):
        if toward[column] > 0:
            topics.setdefault(topic(name), []).append(column)
    found = []
    for columns in sorted(topics.values(), key=lambda columns: -toward[columns].sum())[:count]:
        best = max(columns, key=weight.__getitem__)
        numbers = [float(row[best]) for row in (values, reference[LOW], reference[HIGH])]
        name, total = names[best], sign * float(toward[columns].sum())
        found.append(Reason(sentence(name, *numbers), name, *numbers, regions_in(name), total))
    return found
