"""From raw answers per region to a table of named consistency features.

A name says what was asked, how two regions were compared, and which: `lite.age/kl/full~lower` is KL(full||lower) of the
age distribution, `lite.identity/cos/upper~lower` a cosine, `lite.age_years/diff/upper~lower` an absolute difference in the
output's own unit, `lite.blendshapes/l1/upper~lower` a mean absolute difference, `traces.altered/level/inner` what is said
of one region. The columns of features/expectations.py are named alike, with an arrow: `lite.age/expected/upper>lower`, those
of features/action_units.py say which muscles: `pyfeat.au/AU06-AU12/full`. Groups for ablations follow from the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features import measures
from features.action_units import BY_NAME, contradictions
from features.regions import PAIRS, REGIONS

INDEX = {region: index for index, region in enumerate(REGIONS)}
EXPECTED = ("expected", "expected_cos")  # the measures of features/expectations.py
# What an output is about, by its name: the four families of experts that judge what is seen, and one that judges how it
# was made. An ImageNet embedding stands in for CLIP's in `lite`.
FAMILIES: dict[str, tuple[str, ...]] = {
    "attributes": ("age", "age_years", "gender", "race"),
    "identities": ("identity",),
    "vision_language": ("embedding", "appearance"),
    "expressions": ("expression", "emotion", "affect", "au", "blendshapes"),
    "traces": ("source", "altered"),
}


@dataclass
class FeatureTable:
    """Named columns. values: (N, F) float32, NaN where an answer is missing; names: F of them, all different."""

    names: list[str]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError(f"{len(self.names)} names for values of shape {self.values.shape}")
        if len(set(self.names)) != len(self.names):
            raise ValueError("feature names repeat")

    def ordered(self, names: Sequence[str]) -> FeatureTable:
        """The columns `names`, in that order. Raises: ValueError that lists those missing."""
        place = {name: index for index, name in enumerate(self.names)}
        missing = [name for name in names if name not in place]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(names)} features are not in this table ({_some(missing)}); "
                f"it has {len(self.names)}, such as {_some(self.names)}"
            )
        return FeatureTable(list(names), self.values[:, [place[name] for name in names]])

    def beside(self, other: FeatureTable) -> FeatureTable:
        """This table with the columns of `other` (the same rows) to its right."""
        return FeatureTable(
            self.names + other.names, np.concatenate([self.values, other.values], axis=1)
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def check_outputs(arrays: Mapping[str, np.ndarray], outputs: Mapping[str, Mapping]) -> None:
    """Are `arrays` what `outputs` announces?

    arrays: "expert.output" -> (N, R, D). outputs: "expert.output" -> {"kind", "size", "names"}.
    Raises: ValueError for a missing output or a shape that does not fit.
    """
    missing = sorted(set(outputs) - set(arrays))
    if missing or not outputs:
        raise ValueError(
            f"answers are missing: {', '.join(missing) or 'all'}; given are {', '.join(arrays) or 'none'}"
        )
    faces = len(next(iter(arrays[name] for name in outputs)))
    for name, output in outputs.items():
        wanted = (faces, len(REGIONS), int(output["size"]))
        if arrays[name].shape != wanted:
            raise ValueError(
                f"{name} has shape {arrays[name].shape}; expected (faces, regions, size) = {wanted}"
            )


def _measures(
    name: str, kind: str, a: np.ndarray, b: np.ndarray, pair: tuple[str, str]
) -> dict[str, np.ndarray]:
    """The columns that compare the answers of two regions. a, b: (N, D). Returns: name -> (N,)."""
    first, second = pair
    forth, back = f"{first}~{second}", f"{second}~{first}"
    if kind == "distribution":
        return {
            f"{name}/kl/{forth}": measures.kl(a, b),
            f"{name}/kl/{back}": measures.kl(b, a),
            f"{name}/js/{forth}": measures.js(a, b),
        }
    if kind == "embedding":
        return {f"{name}/cos/{forth}": measures.cosine(a, b)}
    if kind in ("scalar", "vector"):
        return {f"{name}/{'diff' if kind == 'scalar' else 'l1'}/{forth}": np.abs(a - b).mean(-1)}
    raise ValueError(f"{name}: unknown kind {kind!r} of output; no measure is defined for it")


def raw_features(arrays: Mapping[str, np.ndarray], outputs: Mapping[str, Mapping]) -> FeatureTable:
    """Every output compared between every pair of regions, by the measures its kind asks for.

    arrays: "expert.output" -> (N, R, D), any float type, NaN for missing answers. outputs: the table of a dump's meta.json.
    Raises: ValueError, see `check_answers`.
    """
    check_outputs(arrays, outputs)
    columns: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        predictions = np.asarray(arrays[name], dtype=np.float32)
        predictions = np.where(np.isfinite(predictions), predictions, np.nan)
        if output["kind"] == "forgery_logit":
            columns |= {
                f"{name}/level/{region}": predictions[:, place, 0]
                for region, place in INDEX.items()
            }
            continue
        for first, second in PAIRS:
            a, b = predictions[:, INDEX[first]], predictions[:, INDEX[second]]
            columns |= _measures(name, output["kind"], a, b, (first, second))
    columns |= contradictions(arrays, outputs)
    return FeatureTable(list(columns), np.stack(list(columns.values()), axis=1).astype(np.float32))


def groups_of(name: str) -> set[str]:
    """Every group a column belongs to: `raw` or `expected`, its family, its measure, each prefix that ends at a dot or slash.

    `lite.age/js/full~lower` is in raw, attributes, js, lite, lite.age, lite.age/js and itself; not in lite.ag. What action
    units contradict is in `contradiction` as well.
    """
    output, measure = name.split("/")[:2]
    prefixes = {name[: match.start()] for match in re.finditer(r"[./]", name)}
    families = {
        family for family, members in FAMILIES.items() if output.rpartition(".")[2] in members
    }
    more = {"contradiction"} if measure in BY_NAME else set()
    return (
        {name, measure, "expected" if measure in EXPECTED else "raw"} | prefixes | families | more
    )


def predictable(outputs: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """Those outputs of which one region of a real face lets one expect something about another: all but `traces`."""
    return {
        name: output for name, output in outputs.items() if "traces" not in groups_of(f"{name}/")
    }


def directions(names: Sequence[str]) -> np.ndarray:
    """(F,) float64: +1 where a higher value means less agreement, -1 where it means more (cosines)."""
    return np.array([-1.0 if groups_of(name) & {"cos", "expected_cos"} else 1.0 for name in names])


def forgery_logit_columns(names: Sequence[str], outputs: Mapping[str, Mapping]) -> np.ndarray:
    """(F,) bool: what an expert says of the whole face as evidence by itself, which no dataset's fakes have taught it."""
    kinds = {name: output["kind"] for name, output in outputs.items()}
    return np.array(
        [
            name.endswith("/level/full") and kinds.get(name.partition("/")[0]) == "forgery_logit"
            for name in names
        ]
    )


def select(names: Sequence[str], drop: Iterable[str] = (), only: Iterable[str] = ()) -> list[str]:
    """The names to keep, in order: those in any group of `only` (all, if it is empty) and in none of `drop`.

    Raises: ValueError for a group that no name belongs to, or where nothing is left.
    """
    drop, only = set(drop), set(only)
    member = {name: groups_of(name) for name in names}
    known = set().union(*member.values())
    unknown = sorted((drop | only) - known)
    if unknown:
        short = sorted(group for group in known if group.count("/") == 0)
        raise ValueError(
            f"no feature belongs to {', '.join(unknown)}; groups are {', '.join(short)} and longer prefixes"
        )
    kept = [name for name in names if not member[name] & drop and (not only or member[name] & only)]
    if not kept:
        raise ValueError(
            f"no feature is left of {len(names)} after drop={sorted(drop)}, only={sorted(only)}"
        )
    return kept
