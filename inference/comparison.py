"""What the likeness of a face to genuine photographs of a person means: probabilities and a pattern.

Multinomial logistic regression on the similarities of the regions (features/reference.py), one fit for
each number of photographs. Fitted, calibrated and written by training/reference.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import softmax

from data.claims import Claims
from data.files import replacing
from features.measures import Arrays
from features.reference import CONSISTENT, PATTERNS, compared, names_of, output_of, pooled
from models.checkpoint import BUNDLED

FORMAT = 1
REFERENCE_LITE = BUNDLED.with_name("reference_lite.json")  # without CLIP
REFERENCE = BUNDLED.with_name("reference.json")
CANNOT_TELL = "cannot tell"
QUANTILES = np.linspace(0, 1, 201)  # of the similarities that are kept


@dataclass(frozen=True)
class Fit:
    """For one number of photographs. F columns, in the order of `names_of`.

    Attributes:
        centre, scale: (F,) of the similarities.
        weights: (4, F), and offsets: (4,), of the patterns.
        threshold: p_conflict from which on a pattern of conflict is named; clear_below: p_conflict below
            which the face is called consistent.
        genuine, different: (201, F) quantiles of the similarities of genuine pictures of the person, and
            of genuine pictures of somebody else.
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    threshold: float
    clear_below: float
    genuine: np.ndarray
    different: np.ndarray

    def __post_init__(self) -> None:
        columns = len(self.centre)
        shapes = {
            "scale": (columns,),
            "weights": (len(PATTERNS), columns),
            "offsets": (len(PATTERNS),),
            "genuine": (len(QUANTILES), columns),
            "different": (len(QUANTILES), columns),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name}: expected finite numbers of shape {shape}")
        if not 0 <= self.clear_below <= self.threshold <= 1:
            raise ValueError("expected 0 <= clear_below <= threshold <= 1")

    def probabilities(self, similarities: np.ndarray) -> np.ndarray:
        """(N, 4), of `PATTERNS`; NaN where a similarity is. similarities: (N, F)."""
        x = (np.asarray(similarities, float) - self.centre) / self.scale
        return softmax(x @ self.weights.T + self.offsets, axis=-1)

    def ranks(self, similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of genuine pairs that are less alike, and of different people who are. (N, F) each."""
        found = []
        for table in (self.genuine, self.different):
            columns = zip(np.moveaxis(similarities, -1, 0), table.T, strict=True)
            found.append(np.stack([np.interp(x, known, QUANTILES) for x, known in columns], -1))
        return found[0], 1 - found[1]

    def pattern(self, probabilities: np.ndarray) -> str:
        """Of one face, by its probabilities (4,)."""
        conflict = 1 - probabilities[0]
        if conflict >= self.threshold:
            return PATTERNS[1 + int(probabilities[1:].argmax())]
        return CONSISTENT if conflict < self.clear_below else CANNOT_TELL


@dataclass(frozen=True)
class Comparison:
    """columns: that count, as of `names_of`; weights: expert -> SHA-256; fits: number of photographs ->
    `Fit`.

    limits: `face_px` and `sharpness` that a face must reach, `yaw`, and `noise`, a sharpness, that it
    must not exceed, `seen`, the share of hair, ears and neck that must be in the picture; about: what it
    was fitted on, its figures.
    """

    columns: tuple[str, ...]
    weights: dict[str, str]
    fits: dict[int, Fit]
    limits: dict[str, float]
    about: dict = field(default_factory=dict)

    def of(self, photographs: int) -> Fit:
        """The fit for so many photographs: that of the largest number not above it."""
        return self.fits[max(count for count in self.fits if count <= max(photographs, 1))]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(output_of, self.columns)))

    @property
    def places(self) -> list[int]:
        """Of the columns in `compared` of the outputs."""
        every = names_of(self.outputs)
        return [every.index(name) for name in self.columns]

    def compared(self, faces: Arrays, person: Mapping[str, np.ndarray]) -> np.ndarray:
        """(..., F) similarities. faces, person: output -> (..., R, D)."""
        return compared(faces, person, self.outputs)[..., self.places]

    def column(self, region: str) -> int | None:
        """The place of the last column about a region, that of the largest network; None: none is."""
        found = [place for place, name in enumerate(self.columns) if name.endswith(f"/{region}")]
        return found[-1] if found else None

    def save(self, path: Path) -> None:
        data = {"format": FORMAT, **asdict(self)}
        data["fits"] = {
            str(count): {
                name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in fit.items()
            }
            for count, fit in data["fits"].items()
        }
        with replacing(path) as file:
            file.write(json.dumps(data, allow_nan=False).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Raises: FileNotFoundError, ValueError: damaged, or of another version."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; make it with training/reference.py")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']}, this version reads {FORMAT}")
            fits = {int(count): _fit(fit) for count, fit in data["fits"].items()}
            found = cls(
                tuple(data["columns"]), data["weights"], fits, data["limits"], data["about"]
            )
            if 1 not in fits or any(len(x.centre) != len(found.columns) for x in fits.values()):
                raise ValueError("expected a fit for 1 photograph, and numbers for every column")
            if not set(found.columns) <= set(names_of(found.outputs)):
                raise ValueError("unknown columns")
            if found.column("full") is None:
                raise ValueError("no column of the whole face")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: not written by this version, or damaged ({error})"
            ) from error
        return found


def beyond(value: np.ndarray | float, name: str, limit: float) -> np.ndarray | bool:
    """Whether a quality is outside its limit."""
    return np.abs(value) > limit if name in ("yaw", "noise") else value < limit


def similarities_of(
    claims: Claims, outputs: Sequence[str], faces: Arrays, photographs: Arrays | None = None
) -> np.ndarray:
    """(M, len(outputs) * R) similarities of the faces of claims to the photographs of the people claimed.

    faces, photographs: output -> (N, R, D), all rows of the table that the claims are about; others
    where the one or the other are degraded.
    """
    photographs = faces if photographs is None else photographs
    suspects = {name: faces[name][claims.row] for name in outputs}
    people = {
        name: np.stack([pooled(photographs[name][rows]) for rows in claims.photographs])
        for name in outputs
    }
    return compared(suspects, people, outputs)


def _fit(data: Mapping) -> Fit:
    numbers = {k: np.asarray(v, float) if isinstance(v, Sequence) else v for k, v in data.items()}
    return Fit(**numbers)
