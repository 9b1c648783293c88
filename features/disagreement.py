"""Who disagrees with whom, about what, and how unusual that is: one face's columns seen by region, by pair and by family.

Everything here is measured against real faces: the percentiles of each column over them, the rows of a checkpoint's
`reference` (features/explain.py says which).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from features.columns import FAMILIES, directions, groups_of
from features.explain import COLUMN, HIGH, LOW, MEDIAN, PERCENTILES
from features.regions import REGIONS

PARTS = REGIONS[1:]  # all but the whole face, which every part belongs to


@dataclass(frozen=True)
class Pair:
    """What one expert output says of two regions.

    agreement: its cosine, or another measure of the same two; low, high: the 5th to 95th percentile of real faces; rank:
    the share of real faces that agree less, 0 to 1.
    """

    output: str
    first: str
    second: str
    value: float
    low: float
    high: float
    rank: float

    def to_json(self) -> dict:
        return asdict(self)


def ranks(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Where values lie among real faces: shares in [.005, .995], interpolated between the percentiles that are known.

    values: (..., F). reference: (7, F). Returns: the same shape, NaN where the value is.
    """
    shares = np.array([0.5, *PERCENTILES, 99.5]) / 100
    out = np.full(values.shape, np.nan)
    for column in range(values.shape[-1]):
        value, known = values[..., column], reference[:, column]
        spread = max(float(known[-1] - known[0]), 1e-9)
        at = np.array([known[0] - 0.25 * spread, *known, known[-1] + 0.25 * spread])
        both = np.interp(value, at, shares), np.interp(-value, -at[::-1], shares[::-1])
        out[..., column] = np.where(
            np.isnan(value), np.nan, np.mean(both, axis=0)
        )  # of ties the middle
    return out


def unusual(names: Sequence[str], values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far towards disagreement each column lies among real faces: 0 most consistent, .5 usual, 1 least.

    values: (..., F). reference: (7, F). Returns: the same shape, NaN where the value is.
    """
    rank = ranks(values, reference)
    return np.where(directions(names) > 0, rank, 1 - rank)


def by_family(names: Sequence[str], contributions: np.ndarray) -> dict[str, float]:
    """What each family of experts adds to the logit; `other` holds columns of none. They sum to the sum of all."""
    sums = dict.fromkeys((*FAMILIES, "other"), 0.0)
    for name, part in zip(names, contributions, strict=True):
        family = next((family for family in FAMILIES if family in groups_of(name)), "other")
        sums[family] += float(part)
    used = {family for family in FAMILIES if any(family in groups_of(name) for name in names)}
    return {family: total for family, total in sums.items() if family in used or total}


def pairs_of(
    output: str, names: Sequence[str], values: np.ndarray, reference: np.ndarray
) -> list[Pair]:
    """Every pair of regions that one embedding is compared between, by its cosine."""
    rank, found = ranks(values, reference), []
    for column, name in enumerate(names):
        parts = COLUMN.fullmatch(name)
        if (
            parts
            and parts["output"] == output
            and parts["measure"] == "cos"
            and not np.isnan(values[column])
        ):
            numbers = (
                values[column],
                reference[LOW, column],
                reference[HIGH, column],
                rank[column],
            )
            found.append(Pair(output, parts["first"], parts["second"], *map(float, numbers)))
    return found


def regions_of(name: str) -> tuple[str, ...]:
    """The parts of the face that a column is about; the whole face is none."""
    parts = COLUMN.fullmatch(name)
    return (
        tuple(region for region in (parts["first"], parts["second"]) if region in PARTS)
        if parts
        else ()
    )


def of_regions(names: Sequence[str], values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How much each part of the face disagrees with the rest; about 0 on a usual real face, NaN where nothing is known.

    The sum of how far the evidence of alteration in it lies above the median of real faces, in spreads from their 5th to their
    95th percentile, and of how unusual its comparisons are on average, from -1 (all of them more consistent than in any real
    face) to 1. Of several such rules this one found altered parts best on validation faces: docs/explanations.md.
    values: (N, F). reference: (7, F). Returns: (N, 7), in the order of `PARTS`.
    """
    odd, known = unusual(names, values, reference), ~np.isnan(values)
    member = [regions_of(name) for name in names]
    level = {regions_of(name): column for column, name in enumerate(names) if "/level/" in name}
    found = np.full((len(values), len(PARTS)), np.nan)
    for place, part in enumerate(PARTS):
        mine = np.array([part in regions for regions in member])
        count = (known & mine).sum(1)
        there = count > 0
        found[there, place] = 2 * np.where(known & mine, odd, 0)[there].sum(1) / count[there] - 1
        column = level.get((part,))
        if column is not None:
            spread = max(float(reference[HIGH, column] - reference[LOW, column]), 1e-9)
            found[:, place] += np.nan_to_num(
                (values[:, column] - reference[MEDIAN, column]) / spread
            )
    return found
