"""From contributions to sentences: why a face looks fake, or real, in words.

A reason is what two regions of a face (or one region, given another) say of one attribute. Several columns may measure the
same thing (KL both ways, JS, the residual): they count together, and the column that stands out most speaks for them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import numpy as np

from features.action_units import BY_NAME, words
from features.columns import directions

PERCENTILES = (
    1,
    5,
    25,
    50,
    75,
    95,
    99,
)  # of each feature over real faces, the rows of a checkpoint's `reference`
LOW, MEDIAN, HIGH = PERCENTILES.index(5), PERCENTILES.index(50), PERCENTILES.index(95)

COLUMN = re.compile(
    r"(?P<output>[^/]+)/(?P<measure>[^/]+)/(?P<first>[a-z]+)(?:[~>](?P<second>[a-z]+))?"
)

# How each measure is put into words. {a} and {b} are regions, {what} the attribute.
PHRASES = {
    "level": "{what} in the {a}: {value}",
    "cos": "{a} and {b}: {what} similarity {value}",
    "js": "{a} and {b}, {what}: JS divergence {value}",
    "kl": "{a} against {b}, {what}: KL divergence {value}",
    "diff": "{a} and {b} differ in {what} by {value}",
    "l1": "{a} and {b} differ in {what} by {value} on average",
    "expected": "{what} of the {b} lies {value} times as far as usual from what the {a} lets one expect",
    "expected_cos": "{what} of the {b} and what the {a} lets one expect: similarity {value}",
}
WORDS = {
    "age_years": "apparent age (years)",
    "blendshapes": "muscle activation",
    "au": "action units",
    "affect": "valence and arousal",
    "emotion": "expression",
    "embedding": "meaning",
    "appearance": "overall appearance",
    "race": "apparent race",
    "gender": "apparent gender",
    "age": "apparent age",
    "source": "origin of the pixels,",
    "altered": "forgery logit",
}
# Where several experts may be asked the same, the sentence says which was.
EXPERT_WORDS = {
    "fairface": "FairFace",
    "arcface": "ArcFace",
    "facenet": "FaceNet",
    "clip": "CLIP",
    "pyfeat": "py-feat",
}
REGION_WORDS = {"full": "whole face", "left": "left half", "right": "right half"}


@dataclass(frozen=True)
class Reason:
    """One sentence and what stands behind it.

    feature: the column that speaks; value, and low..high: the 5th to 95th percentile on real faces; regions: the two it
    compares (one where muscles of the same region are compared); contribution: the logit that this attribute and these
    regions add towards fake (negative: towards real).
    """

    sentence: str
    feature: str
    value: float
    low: float
    high: float
    regions: tuple[str, ...]
    contribution: float

    def to_json(self) -> dict:
        return {**asdict(self), "regions": list(self.regions)}


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def sentence(column: str, value: float, low: float, high: float) -> str:
    """One column in words, with the range that nine of ten real faces keep to."""
    parts = COLUMN.fullmatch(column)
    reals = f"real faces {_number(low)} to {_number(high)}"
    if parts is not None and not low <= value <= high:
        alike = (value > high) == (directions([column])[0] < 0)
        less, more = ("weak", "strong") if parts["measure"] == "level" else ("alike", "far apart")
        reals += f"; unusually {less if alike else more}"
    if parts is not None and parts["measure"] in BY_NAME:
        one, other = words(parts["measure"])
        if parts["second"]:
            other = f"{other} in the {_region(parts['second'])}"
        if BY_NAME[parts["measure"]].apart:
            text = f"{_region(parts['first'])}, {one} against {other}: {_number(value)} apart"
        else:
            text = f"{_region(parts['first'])}, {one} together with {other}: {_number(value)}"
        return f"{text[0].upper()}{text[1:]} ({reals})"
    if parts is None or parts["measure"] not in PHRASES:
        return f"{column}: {_number(value)} ({reals})"
    expert, _, attribute = parts["output"].rpartition(".")
    asked = f" (by {EXPERT_WORDS[expert]})" if expert in EXPERT_WORDS else ""
    text = PHRASES[parts["measure"]].format(
        a=_region(parts["first"]),
        b=_region(parts["second"]),
        what=WORDS.get(attribute, attribute) + asked,
        value=_number(value),
    )
    return f"{text[0].upper()}{text[1:]} ({reals})"


def _region(name: str) -> str:
    return REGION_WORDS.get(name, f"{name} face")


def topic(column: str) -> tuple[str, ...]:
    """What a column is about: expert output and the two regions, whichever way round and however measured."""
    parts = COLUMN.fullmatch(column)
    if parts is None:
        return (column,)
    output = parts["output"].removesuffix("_years")
    muscles = [parts["measure"]] if parts["measure"] in BY_NAME else []
    return (output, *muscles, *sorted(_regions(parts)))


def _regions(parts: re.Match) -> tuple[str, ...]:
    return tuple(region for region in (parts["first"], parts["second"]) if region)


def _fits(values: np.ndarray, reference: np.ndarray, fake: bool) -> np.ndarray:
    """Which columns are far enough from (a fake) or near enough to (a real face) real faces to be a reason. (F,) bool."""
    if fake:
        return (values < reference[LOW]) | (values > reference[HIGH])
    middle = [PERCENTILES.index(percent) for percent in (25, 75)]
    return (values >= reference[middle[0]]) & (values <= reference[middle[1]])


def reasons(
    names: list[str],
    values: np.ndarray,
    contributions: np.ndarray,
    reference: np.ndarray,
    fake: bool,
    count: int = 3,
) -> list[Reason]:
    """The strongest reasons for a verdict, strongest first.

    names: F columns. values, contributions: (F,), one face. reference: (7, F) percentiles of real faces. fake: the verdict;
    reasons for `fake` push the logit up and lie outside the 5th to 95th percentile of real faces, reasons for `real` push
    it down and lie in their middle half. Where no column does both, those that push speak. NaN columns never speak.
    """
    toward = np.where(np.isnan(values), 0.0, contributions) * (1 if fake else -1)
    fitting = np.where(_fits(values, reference, fake), toward, 0.0)
    toward = fitting if (fitting > 0).any() else toward
    spread = np.maximum(reference[HIGH] - reference[LOW], 1e-9)
    unusual = np.abs(values - reference[MEDIAN]) / spread
    topics: dict[tuple[str, ...], list[int]] = {}
    for column, name in enumerate(names):
        topics.setdefault(topic(name), []).append(column)
    toward = np.maximum(toward, 0.0)
    ranked = sorted(topics.values(), key=lambda columns: -toward[columns].sum())
    found = []
    for columns in ranked[:count]:
        total = float(toward[columns].sum())
        speaking = [column for column in columns if toward[column] > 0]
        if total <= 0 or not speaking:
            break
        # For a fake the most unusual of the columns that speak for it; for a real face the one that says most.
        best = max(speaking, key=lambda column: toward[column] * (unusual[column] if fake else 1.0))
        parts = COLUMN.fullmatch(names[best])
        low, high = float(reference[LOW, best]), float(reference[HIGH, best])
        value = float(values[best])
        found.append(
            Reason(
                sentence(names[best], value, low, high),
                names[best],
                value,
                low,
                high,
                _regions(parts) if parts else (),
                total if fake else -total,
            )
        )
    return found
