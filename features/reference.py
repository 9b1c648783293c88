"""A face against genuine photographs of a person: how alike they are, region by region.

Every region is compared with the same region of the photographs, by the cosine of identity embeddings.
A swapped face fits the photographs of one person inside and of another outside. Columns are named
`<expert>.identity/reference/<region>`; they are NaN for a face whose person has no photographs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from features.measures import Arrays, Outputs, cosine
from features.regions import REGIONS

MEASURE = "reference"
PERSON = "@person"  # after an output's name: that of the person's photographs, for each face
# What a face and the photographs of the person whom it claims to show have to do with one another.
CONSISTENT, OTHER_FACE, OTHER_HEAD, SOMEBODY_ELSE = PATTERNS = (
    "consistent",
    "another face on this head",
    "this face on another head",
    "somebody else",
)


def identities(outputs: Outputs) -> list[str]:
    """The outputs that tell people apart."""
    return [
        name
        for name, output in outputs.items()
        if output["kind"] == "person"
        or (name.endswith(".identity") and output["kind"] == "embedding")
    ]


def units(embeddings: np.ndarray) -> np.ndarray:
    """Unit vectors over the last axis, float32; NaN where the length is 0 or unknown."""
    values = np.asarray(embeddings, np.float32)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, lengths, out=np.full_like(values, np.nan), where=lengths > 0)


def pooled(photographs: np.ndarray) -> np.ndarray:
    """The photographs of a person as one: the mean of their unit vectors, those that are known.

    photographs: (K, R, D). Returns: (R, D) float32 unit vectors. The mean was better than the most
    similar one or two (docs/reference.md).
    """
    known = units(photographs)
    count = np.isfinite(known).all(-1, keepdims=True).sum(0)
    total = np.nansum(known, axis=0)
    return units(np.where(count > 0, total, np.nan))


def similarities(faces: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Cosine of each region with the same one of a person. (..., R, D) each. Returns: (..., R)."""
    return cosine(faces, person)


def column(output: str, region: str) -> str:
    return f"{output}/{MEASURE}/{region}"


def output_of(name: str) -> str:
    """The output that a column is about."""
    return name.partition("/")[0]


def names_of(outputs: Sequence[str]) -> list[str]:
    """The columns of `compared`, in order."""
    return [column(output, region) for output in outputs for region in REGIONS]


def compared(faces: Arrays, person: Mapping[str, np.ndarray], outputs: Sequence[str]) -> np.ndarray:
    """(..., len(outputs) * R) similarities. faces, person: output -> (..., R, D)."""
    return np.concatenate([similarities(faces[name], person[name]) for name in outputs], axis=-1)
