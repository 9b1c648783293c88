"""How unusual a face is among real faces: by region, by pair and by family of experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.columns import FAMILIES, directions, groups_of
from features.explain import HIGH, LOW, MEDIAN, PERCENTILES, regions_in
from features.regions import REGIONS

PARTS = REGIONS[1:]  # all but the whole face


@dataclass(frozen=True)
class Pair:
    """The cosine of an embedding between two regions.

    low, high: 5th and 95th percentile of real faces; rank: share of them less consistent, 0 to 1.
    """

    output: str
    first: str
    second: str
    value: float
    low: float
    high: float
    rank: float


def ranks(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Ranks among real faces, in [.005, .995], interpolated between the percentiles.

    values: (..., F); reference: (7, F). Returns: (..., F), NaN where the value is.
    """
    shares = np.array([0.5, *PERCENTILES, 99.5]) / 100
    found = np.empty(values.shape)
    for column, known in enumerate(reference.T):
        value, margin = values[..., column], 0.25 * max(float(known[-1] - known[0]), 1e-9)
        at = np.array([known[0] - margin, *known, known[-1] + margin])
        both = np.interp(value, at, shares), np.interp(-value, -at[::-1], shares[::-1])
        found[..., column] = np.mean(both, axis=0)
    return np.where(np.isnan(values), np.nan, found)


def unusual(names: Sequence[str], values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`ranks` towards inconsistency: 0 most consistent, .5 usual, 1 least."""
    rank = ranks(values, reference)
    return np.where(directions(names) > 0, rank, 1 - rank)


def by_family(names: Sequence[str], contributions: np.ndarray) -> dict[str, float]:
    """The sum of the contributions of each family of experts; `other` holds columns of none."""
    sums = {}
    for name, part in zip(names, contributions, strict=True):
        family = next((family for family in FAMILIES if family in groups_of(name)), "other")
        sums[family] = sums.get(family, 0.0) + float(part)
    if not sums.get("other"):
        sums.pop("other", None)
    return {family: sums[family] for family in (*FAMILIES, "other") if family in sums}


def pairs_of(
    output: str, names: Sequence[str], values: np.ndarray, reference: np.ndarray
) -> list[Pair]:
    rank, found = ranks(values, reference), []
    for column, name in enumerate(names):
        if name.startswith(f"{output}/cos/") and not np.isnan(values[column]):
            rows = values, reference[LOW], reference[HIGH], rank
            found.append(Pair(output, *regions_in(name), *(float(row[column]) for row in rows)))
    return found


def regions_of(name: str) -> tuple[str, ...]:
    """The parts of the face that a column is about, without the whole face."""
    return tuple(region for region in regions_in(name) if region in PARTS)


def of_regions(names: Sequence[str], values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How much each part of the face disagrees with the rest; about 0 on a usual real face.

    How far its forgery logit (of several the mean) lies above the median of real faces, in units of
    their 5th to 95th percentile, plus how unusual its columns are on average, from -1 to 1. Of several
    such rules, this one found manipulated parts best on validation faces (docs/explanations.md).

    values: (N, F); reference: (7, F). Returns: (N, 7), in the order of `PARTS`.
    """
    odd, known = unusual(names, values, reference), ~np.isnan(values)
    member = [regions_of(name) for name in names]
    is_level = np.array(["/level/" in name for name in names])
    spread = np.maximum(reference[HIGH] - reference[LOW], 1e-9)
    above = np.where(known, (values - reference[MEDIAN]) / spread, 0)
    found = np.full((len(values), len(PARTS)), np.nan)
    for place, part in enumerate(PARTS):
        own = known & np.array([part in regions for regions in member])
        count = own.sum(1)
        rows = count > 0
        found[rows, place] = 2 * np.where(own, odd, 0)[rows].sum(1) / count[rows] - 1
        logits = own & is_level
        found[:, place] += np.where(logits, above, 0).sum(1) / np.maximum(logits.sum(1), 1)
    return found
