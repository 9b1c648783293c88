"""From raw outputs per region to a table of named consistency features.

A name is `<expert>.<output>/<measure>/<regions>`:

    lite.age/kl/full~lower                  KL(full||lower) of the age distribution; js: JSD
    lite.identity/cos/upper~lower           cosine similarity of embeddings
    lite.age_years/diff/upper~lower         absolute difference, in the output's unit
    lite.blendshapes/l1/upper~lower         mean absolute difference of a vector
    traces.altered/level/inner              the forgery logit of one region
    lite.age/expected/upper>lower           residual of `lower`, predicted from `upper`
    lite.identity/expected_cos/upper>lower  cosine of `lower` and its prediction
    pyfeat.au/AU06-AU12/full                contradiction of action units
    lite.identity/reference/inner           cosine with photographs of the person claimed

Groups for ablations follow from the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features import measures, reference
from features.action_units import BY_NAME, contradictions
from features.measures import Arrays, Outputs
from features.regions import PAIRS, REGIONS

INDEX = {region: index for index, region in enumerate(REGIONS)}
BEYOND = 65520  # the least number that float16 rounds to infinity
EXPECTED = ("expected", "expected_cos")  # the measures of features/expectations.py
# By the name of an output. `appearance`, an ImageNet embedding, replaces CLIP's in `lite`.
FAMILIES: dict[str, tuple[str, ...]] = {
    reference.MEASURE: (),  # every output, against photographs
    "attributes": ("age", "age_years", "gender", "race"),
    "identities": ("identity",),
    "vision_language": ("embedding", "appearance"),
    "expressions": ("expression", "emotion", "affect", "au", "blendshapes"),
    "traces": ("source", "altered"),
    "appearance": ("made",),  # what one region looks like by itself: no comparison
}


@dataclass
class FeatureTable:
    """Named columns. values: (N, F) float32, NaN where an output is missing."""

    names: list[str]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError(f"{len(self.names)} names for values of shape {self.values.shape}")
        if len(set(self.names)) != len(self.names):
            raise ValueError("feature names repeat")

    @classmethod
    def of(cls, columns: Arrays) -> FeatureTable:
        if not columns:
            raise ValueError(
                "none of the outputs is compared between regions; choose other experts"
            )
        return cls(list(columns), np.stack(list(columns.values()), axis=1).astype(np.float32))

    def ordered(self, names: Sequence[str]) -> FeatureTable:
        """The columns `names`, in that order. Raises: ValueError that lists missing ones."""
        place = {name: index for index, name in enumerate(self.names)}
        if missing := [name for name in names if name not in place]:
            raise ValueError(
                f"{len(missing)} of {len(names)} features are not in this table "
                f"({', '.join(missing[:3])}); it has {', '.join(self.names[:3])}, ..."
            )
        return FeatureTable(list(names), self.values[:, [place[name] for name in names]])

    def beside(self, other: FeatureTable) -> FeatureTable:
        """This table with the columns of `other`, of the same rows, to its right."""
        values = np.concatenate([self.values, other.values], axis=1)
        return FeatureTable(self.names + other.names, values)


def check_outputs(arrays: Arrays, outputs: Outputs) -> None:
    """Raises: ValueError where an output is missing, or has another shape."""
    missing = sorted(set(outputs) - set(arrays))
    if missing or not outputs:
        raise ValueError(f"outputs are missing: {', '.join(missing)}; given: {', '.join(arrays)}")
    faces = len(arrays[next(iter(outputs))])
    for name, output in outputs.items():
        wanted, shape = (faces, len(REGIONS), int(output["size"])), arrays[name].shape
        if shape != wanted:
            raise ValueError(f"{name} has shape {shape}; expected (faces, regions, size) {wanted}")


def finite(values: np.ndarray) -> np.ndarray:
    """As float32, NaN where not finite as float16: what a dump cannot hold is missing everywhere."""
    with np.errstate(over="ignore"):
        values = np.asarray(values, dtype=np.float32)
    return np.where(np.abs(values) < BEYOND, values, np.nan)


def raw_features(arrays: Arrays, outputs: Outputs) -> FeatureTable:
    """Every output compared between every pair of regions, by the measures of its kind."""
    check_outputs(arrays, outputs)
    columns: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        values, kind = finite(arrays[name]), output["kind"]
        if kind == "person":  # features/reference.py
            continue
        if kind == "forgery_logit":
            for region, place in INDEX.items():
                columns[f"{name}/level/{region}"] = values[:, place, 0]
            continue
        for first, second in PAIRS:
            a, b, pair = values[:, INDEX[first]], values[:, INDEX[second]], f"{first}~{second}"
            if kind == "distribution":
                columns[f"{name}/kl/{pair}"] = measures.kl(a, b)
                columns[f"{name}/kl/{second}~{first}"] = measures.kl(b, a)
                columns[f"{name}/js/{pair}"] = measures.js(a, b)
            elif kind == "embedding":
                columns[f"{name}/cos/{pair}"] = measures.cosine(a, b)
            elif kind in ("scalar", "vector"):
                measure = "diff" if kind == "scalar" else "l1"
                columns[f"{name}/{measure}/{pair}"] = np.abs(a - b).mean(-1)
            else:
                raise ValueError(f"{name}: unknown kind {kind!r} of output")
    return FeatureTable.of(columns | contradictions(arrays, outputs) | with_person(arrays, outputs))


def with_person(arrays: Arrays, outputs: Outputs) -> dict[str, np.ndarray]:
    """Likeness of each region to photographs of the person claimed, where arrays have these."""
    columns = {}
    for name in reference.identities(outputs):
        if (person := arrays.get(name + reference.PERSON)) is not None:
            values = reference.similarities(finite(arrays[name]), finite(person))
            columns |= {reference.column(name, x): values[:, place] for x, place in INDEX.items()}
    return columns


def groups_of(name: str) -> set[str]:
    """Every group of a column: `raw` or `expected`, its family, measure and prefixes.

    `lite.age/js/full~lower` is in raw, attributes, js, lite, lite.age, lite.age/js and itself.
    Contradictions of action units are in `contradiction`, too.
    """
    output, measure = name.split("/")[:2]
    groups = {name, measure, "expected" if measure in EXPECTED else "raw"}
    groups |= {name[: match.start()] for match in re.finditer(r"[./]", name)}
    if measure != reference.MEASURE:
        name = output.rpartition(".")[2]
        groups |= {family for family, outputs in FAMILIES.items() if name in outputs}
    return groups | {"contradiction"} if measure in BY_NAME else groups


def predictable(outputs: Outputs) -> dict[str, Mapping]:
    """Outputs predictable from another region: all but `traces`, forgery logits and `person`."""
    return {
        name: x
        for name, x in outputs.items()
        if "traces" not in groups_of(f"{name}/") and x["kind"] not in ("forgery_logit", "person")
    }


def directions(names: Sequence[str]) -> np.ndarray:
    """(F,) float64: +1 where higher means less consistent, -1 for cosines."""
    alike = {"cos", "expected_cos", reference.MEASURE}
    return np.array([-1.0 if groups_of(name) & alike else 1.0 for name in names])


def forgery_logit_columns(names: Sequence[str], outputs: Outputs) -> np.ndarray:
    """(F,) bool: the pretrained forgery logit of the whole face."""
    logits = [f"{name}/level/full" for name, x in outputs.items() if x["kind"] == "forgery_logit"]
    return np.isin(names, logits)


def select(names: Sequence[str], drop: Iterable[str] = (), only: Iterable[str] = ()) -> list[str]:
    """The names in any group of `only` (all, if empty) and in none of `drop`, in order.

    Raises: ValueError for an unknown group, or where nothing is left.
    """
    drop, only = set(drop), set(only)
    member = {name: groups_of(name) for name in names}
    known = set().union(*member.values())
    if unknown := sorted((drop | only) - known):
        short = ", ".join(sorted(group for group in known if "/" not in group))
        raise ValueError(f"no feature belongs to {', '.join(unknown)}; groups are {short}, ...")
    kept = [name for name in names if not member[name] & drop and (not only or member[name] & only)]
    if not kept:
        raise ValueError(f"no feature is left after drop={sorted(drop)}, only={sorted(only)}")
    return kept
